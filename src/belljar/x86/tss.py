"""Task-state segments: layouts as data, and the bytes of a fresh one with an I/O permission bitmap (SDM 3A 7.2, 7.6, 7.7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from belljar.errors import ConfigurationError
from belljar.records import dataclass


@dataclass(frozen=True, slots=True)
class TssField:
    """A field of a TSS: its manual name, byte offset and size in bytes."""

    name: str
    offset: int
    size: int


def _fields(start: int, step: int, size: int, names: str) -> tuple[TssField, ...]:
    return tuple(TssField(name, start + step * index, size) for index, name in enumerate(names.split()))


TSS16 = _fields(
    0, 2, 2, "link sp0 ss0 sp1 ss1 sp2 ss2 ip flags ax cx dx bx sp bp si di es cs ss ds ldt"
)  # fmt: skip
"""The 16-bit TSS, 44 bytes (SDM 3A figure 7-10)."""

TSS32 = (
    *_fields(0, 0, 2, "link"),
    *(
        item
        for ring in range(3)
        for item in (TssField(f"esp{ring}", 4 + 8 * ring, 4), TssField(f"ss{ring}", 8 + 8 * ring, 2))
    ),
    *_fields(28, 4, 4, "cr3 eip eflags eax ecx edx ebx esp ebp esi edi"),
    *_fields(72, 4, 2, "es cs ss ds fs gs ldt"),
    *_fields(100, 2, 2, "trap io_map"),
)
"""The 32-bit TSS, 104 bytes (SDM 3A figure 7-2)."""

TSS64 = (
    *_fields(4, 8, 8, "rsp0 rsp1 rsp2"),
    *_fields(36, 8, 8, "ist1 ist2 ist3 ist4 ist5 ist6 ist7"),
    *_fields(102, 2, 2, "io_map"),
)
"""The 64-bit TSS, 104 bytes (SDM 3A figure 7-11)."""

TSS16_SIZE = 44
TSS_SIZE = 104
"""The size of a 32-bit or 64-bit TSS without its I/O permission bitmap."""

CONSOLE_PORTS = (range(0xE9, 0xEA), range(0xF4, 0xF5), range(0x3F8, 0x400))
"""The ports that a guest at CPL3 may use by default: debug console, debug exit, the first serial port."""


def io_bitmap(ports: Iterable[range]) -> bytes:
    """An I/O permission bitmap that allows exactly `ports` (0 to 0xFFFF), with its closing byte of ones (SDM 1 19.5.2).

    It ends at the highest allowed port's byte; ports beyond the TSS's limit are refused by the processor. Raises
    ConfigurationError for ports that do not exist.
    """
    allowed = 0
    for ports_range in ports:
        if not ports_range:
            continue
        if ports_range.step != 1 or ports_range.start < 0 or ports_range.stop > 1 << 16:
            raise ConfigurationError(f"there are no such ports: {ports_range}")
        allowed |= (1 << ports_range.stop) - (1 << ports_range.start)
    size = (allowed.bit_length() + 7) // 8
    return (allowed ^ (1 << 8 * size) - 1).to_bytes(size, "little") + b"\xff"


def tss64(*, rsp0: int, bitmap: bytes = b"") -> bytes:
    """A 64-bit TSS whose CPL0 stack pointer is `rsp0`, followed by an I/O permission bitmap; no bitmap allows no port."""
    return struct.pack("<IQ90xH", 0, rsp0, TSS_SIZE) + bitmap


def tss32(*, esp0: int, ss0: int, bitmap: bytes = b"") -> bytes:
    """A 32-bit TSS whose CPL0 stack is `ss0:esp0`, followed by an I/O permission bitmap; no bitmap allows no port."""
    return struct.pack("<III90xH", 0, esp0, ss0, TSS_SIZE) + bitmap


def decode_tss(raw: bytes, layout: tuple[TssField, ...]) -> dict[str, int]:
    """The fields of a TSS by name; those beyond the end of `raw` are left out."""
    return {
        item.name: int.from_bytes(raw[item.offset : item.offset + item.size], "little")
        for item in layout
        if item.offset + item.size <= len(raw)
    }


def allowed_ports(raw: bytes) -> tuple[range, ...]:
    """The ports that a 32 or 64-bit TSS with its bitmap allows at CPL > IOPL, byte accesses, as ranges."""
    if len(raw) < TSS_SIZE:
        return ()
    start = int.from_bytes(raw[102:104], "little")
    ports = []
    first = None
    # The processor reads two bytes at a time, so the last byte inside the limit never decides alone (SDM 1 19.5.2).
    end = min(max(len(raw) - start - 1, 0) * 8, 1 << 16)
    for port in range(end):
        allowed = not raw[start + port // 8] >> port % 8 & 1
        if allowed and first is None:
            first = port
        elif not allowed and first is not None:
            ports.append(range(first, port))
            first = None
    if first is not None:
        ports.append(range(first, end))
    return tuple(ports)
