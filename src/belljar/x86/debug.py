"""The debug registers DR6 and DR7 (SDM 3B 18.2)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, IntFlag

from belljar.errors import ConfigurationError
from belljar.records import dataclass

BREAKPOINTS = 4
"""DR0 to DR3 hold an address each."""

DR6_RESET = 0xFFFF0FF0
"""DR6 after reset (SDM 3A table 9-1)."""

DR7_RESET = 0x400
"""DR7 after reset; bit 10 is always one."""


class Dr6(IntFlag):
    """DR6, the debug status (SDM 3B 18.2.3)."""

    B0 = 1 << 0
    B1 = 1 << 1
    B2 = 1 << 2
    B3 = 1 << 3
    BLD = 1 << 11
    """Clear after a bus-lock trap."""
    BD = 1 << 13
    BS = 1 << 14
    BT = 1 << 15
    RTM = 1 << 16
    """Clear after an exception inside a transaction."""


class Dr7(IntFlag):
    """DR7, the debug control (SDM 3B 18.2.4), beside the R/W and LEN fields."""

    L0 = 1 << 0
    G0 = 1 << 1
    L1 = 1 << 2
    G1 = 1 << 3
    L2 = 1 << 4
    G2 = 1 << 5
    L3 = 1 << 6
    G3 = 1 << 7
    LE = 1 << 8
    GE = 1 << 9
    FIXED = 1 << 10
    """Always one."""
    RTM = 1 << 11
    GD = 1 << 13


class Watch(IntEnum):
    """The R/W field: what an address breaks on. IO needs CR4.DE."""

    EXECUTE = 0
    WRITE = 1
    IO = 2
    READ_WRITE = 3


_RW_SHIFT = 16
_LENGTH_CODES = {1: 0, 2: 1, 8: 2, 4: 3}
_LENGTHS = {code: size for size, code in _LENGTH_CODES.items()}


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """One hardware breakpoint: `size` (1, 2, 4, 8) bytes at linear `gva` (a port for IO); 1 for EXECUTE."""

    gva: int
    watch: Watch = Watch.EXECUTE
    size: int = 1


def encode_dr7(breakpoints: Iterable[Breakpoint]) -> int:
    """DR7 that enables (globally) breakpoint i of the sequence in DRi.

    Raises ConfigurationError for more than four, for a size that does not exist, for an execution breakpoint that is not 1
    byte, and for an address that is not a multiple of its size.
    """
    value = DR7_RESET
    for index, item in enumerate(breakpoints):
        if index >= BREAKPOINTS:
            raise ConfigurationError("the processor has four hardware breakpoints, not more")
        if item.size not in _LENGTH_CODES:
            raise ConfigurationError(f"a breakpoint spans 1, 2, 4 or 8 bytes, not {item.size}")
        if item.watch is Watch.EXECUTE and item.size != 1:
            raise ConfigurationError("an execution breakpoint is on the first byte of an instruction: size 1")
        if item.gva % item.size:
            raise ConfigurationError(f"a breakpoint of {item.size} bytes at {item.gva:#x} is not aligned")
        value |= int(Dr7.G0) << 2 * index
        value |= (item.watch | _LENGTH_CODES[item.size] << 2) << _RW_SHIFT + 4 * index
    return value


def decode_dr7(value: int, breakpoints_gva: tuple[int, int, int, int]) -> dict[int, Breakpoint]:
    """The enabled breakpoints by number; `breakpoints_gva` are DR0 to DR3."""
    enabled = {}
    for index, gva in enumerate(breakpoints_gva):
        if value >> 2 * index & 3:
            bits = value >> _RW_SHIFT + 4 * index & 0xF
            enabled[index] = Breakpoint(gva, Watch(bits & 3), _LENGTHS[bits >> 2])
    return enabled


def describe_dr6(value: int) -> str:
    """What stopped the processor, in words: `breakpoint 0, single step`."""
    words = [f"breakpoint {index}" for index in range(BREAKPOINTS) if value & 1 << index]
    words += [
        text
        for bit, text in ((Dr6.BD, "debug-register access"), (Dr6.BS, "single step"), (Dr6.BT, "task switch"))
        if value & bit
    ]
    return ", ".join(words)
