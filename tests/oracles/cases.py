"""What is asked of an oracle, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile

from belljar.x86.state import GENERAL_REGISTERS

PAGE = 4096


class Stop(Enum):
    """How a case ended."""

    HALT = "halt"
    """HLT at CPL 0: the filler behind the code, or the handler of no exception."""
    FAULT = "fault"
    """An exception was delivered to the guest's own handler."""
    SHUTDOWN = "shutdown"
    """A triple fault."""


class Unsupported(Exception):
    """This oracle cannot answer this case, and says why; a test counts it as skipped, never as passed."""


class Stuck(Exception):
    """The case did not come to an end within its budget."""


@dataclass(frozen=True)
class Case:
    """Code bytes at the world's code offset, the registers to enter it with, and memory that differs from the background.

    `memory` maps linear addresses to bytes. `note` says where the case came from.
    """

    code: bytes
    registers: Mapping[str, int]
    rflags: int = 2
    memory: Mapping[int, bytes] = field(default_factory=dict)
    mnemonic: str = ""
    note: str = ""
    offset: int | None = None
    """The offset in the code segment to put the code at and start from; None: the world's own."""
    undefined_flags: int = 0
    """Flags whose value after the case the manual leaves open; a comparison ignores them."""
    undefined_register: str = ""
    """A register whose value after the case the manual leaves open, wholly or in `undefined_bits`."""
    undefined_bits: int = (1 << 64) - 1

    def __repr__(self) -> str:
        registers = ", ".join(f"{name!r}: {value:#x}" for name, value in self.registers.items())
        memory = ", ".join(f"{address:#x}: bytes.fromhex({data.hex()!r})" for address, data in self.memory.items())
        return (
            f"Case(bytes.fromhex({self.code.hex()!r}), {{{registers}}}, rflags={self.rflags:#x}, "
            f"memory={{{memory}}}, mnemonic={self.mnemonic!r}, note={self.note!r}, offset={self.offset})"
        )


@dataclass(frozen=True)
class Outcome:
    """Where and how a case ended. `memory` holds the changed bytes by linear page address."""

    stop: Stop
    registers: tuple[int, ...]
    rip: int
    rflags: int
    vector: int | None = None
    error: int | None = None
    cr2: int | None = None
    selectors: tuple[int, ...] = ()
    bases: tuple[int, ...] = ()
    memory: Mapping[int, bytes] = field(default_factory=dict)
    io: tuple[tuple[object, ...], ...] = ()


STATUS = 0x8D5
"""CF, PF, AF, ZF, SF, OF (SDM 1 3.4.3.1)."""
RF = 1 << 16
"""Resume flag: the saved image has it set for faults (SDM 3B 18.3.1.1); paravirtual hosts differ."""


PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
"""Legacy prefixes (SDM 2A 2.1.1)."""


def prefixes(code: bytes) -> set[int]:
    """The legacy prefixes that an instruction begins with."""
    return set(takewhile(PREFIXES.__contains__, code))


def differences(
    case: Case, expected: Outcome, got: Outcome, *, ignore_flags: int = RF, ignore_cr2: bool = False
) -> list[str]:
    """What two oracles disagree on, one sentence each; empty when they agree. Undefined results of the case are ignored."""
    found = []
    for what in ("stop", "vector", "error", "rip", "selectors", "bases", "io"):
        want, have = getattr(expected, what), getattr(got, what)
        if want != have and want is not None and want != ():
            found.append(f"{what}: expected {_show(want)}, got {_show(have)}")
    if not ignore_cr2 and expected.cr2 is not None and expected.cr2 != got.cr2:
        found.append(f"cr2: expected {_show(expected.cr2)}, got {_show(got.cr2)}")
    mask = ~(case.undefined_flags | ignore_flags)
    if (expected.rflags ^ got.rflags) & mask:
        wrong = (expected.rflags ^ got.rflags) & mask
        found.append(f"rflags: expected {expected.rflags:#x}, got {got.rflags:#x} (bits {wrong:#x})")
    for name, want, have in zip(GENERAL_REGISTERS, expected.registers, got.registers, strict=True):
        open_bits = case.undefined_bits if name == case.undefined_register else 0
        if (want ^ have) & ~open_bits:
            found.append(f"{name}: expected {want:#x}, got {have:#x}")
    if expected.memory != got.memory:
        found.append(f"memory: {_memory_difference(expected.memory, got.memory)}")
    return found


def _show(value: object) -> str:
    return hex(value) if isinstance(value, int) else repr(value)


def _memory_difference(expected: Mapping[int, bytes], got: Mapping[int, bytes]) -> str:
    """The first byte of each page that differs; a page that one side left alone is named so."""
    found = []
    for page in sorted(expected.keys() | got.keys()):
        want, have = expected.get(page), got.get(page)
        if want == have:
            continue
        if want is None or have is None:
            found.append(f"page {page:#x} changed only {'in the answer' if want is None else 'in the expectation'}")
            continue
        at = next(i for i in range(PAGE) if want[i] != have[i])
        found.append(f"{page + at:#x}: expected {want[at : at + 16].hex()}, got {have[at : at + 16].hex()}")
    return "; ".join(found)
