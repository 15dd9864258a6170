"""Segment descriptors: code, data and system segments, 8 bytes each, 16 for system segments in long mode (SDM 3A 3.4.5, 3.5)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from belljar.errors import ConfigurationError
from belljar.x86.state import Segment

DESCRIPTOR_SIZE = 8
"""A descriptor's size in bytes (SDM 3A figure 3-8)."""

SYSTEM_DESCRIPTOR_SIZE_LONG = 16
"""The size of an LDT, TSS or call-gate descriptor in IA-32e mode (SDM 3A figure 7-4)."""

SELECTOR_RPL_MASK = 3
"""The requested privilege level in a selector (SDM 3A 3.4.2)."""

SELECTOR_TI = 4
"""Set: the selector refers to the LDT."""

_MAX_UNSCALED_LIMIT = 0xFFFFF
_SYSTEM_TYPES_WIDE = frozenset({2, 9, 11, 12})


class DataType(IntFlag):
    """The type bits of a data segment (SDM 3A table 3-1). Without CODE."""

    ACCESSED = 1
    WRITABLE = 2
    EXPAND_DOWN = 4


class CodeType(IntFlag):
    """The type bits of a code segment (SDM 3A table 3-1)."""

    ACCESSED = 1
    READABLE = 2
    CONFORMING = 4
    CODE = 8


class SystemType(IntEnum):
    """The types of system segments and gates (SDM 3A table 3-2).

    In IA-32e mode 9 and 11 are 64-bit TSSs, and 12, 14 and 15 are 64-bit gates.
    """

    TSS16_AVAILABLE = 1
    LDT = 2
    TSS16_BUSY = 3
    CALL_GATE16 = 4
    TASK_GATE = 5
    INTERRUPT_GATE16 = 6
    TRAP_GATE16 = 7
    TSS_AVAILABLE = 9
    TSS_BUSY = 11
    CALL_GATE = 12
    INTERRUPT_GATE = 14
    TRAP_GATE = 15


def code_segment(bits: int, *, dpl: int = 0, base: int = 0, limit: int = 0xFFFFFFFF, selector: int = 0) -> Segment:
    """A present, accessed, readable code segment for 16, 32 or 64-bit code; `limit` in bytes, above 1 MiB in 4-KiB steps."""
    g = int(limit > _MAX_UNSCALED_LIMIT)
    return Segment(selector, base, limit, 11, 1, dpl, 1, 0, int(bits == 64), int(bits == 32), g)


def data_segment(bits: int, *, dpl: int = 0, base: int = 0, limit: int = 0xFFFFFFFF, selector: int = 0) -> Segment:
    """A present, accessed, writable, expand-up data segment; 16 bits make a stack in it use SP, 32 (or 64) ESP."""
    g = int(limit > _MAX_UNSCALED_LIMIT)
    return Segment(selector, base, limit, 3, 1, dpl, 1, 0, 0, int(bits > 16), g)


def unusable_segment() -> Segment:
    """What a segment register holds after a null selector: not to be used (SDM 3C 25.4.1)."""
    return Segment(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)


def encode_segment(segment: Segment, *, long_mode: bool = False) -> bytes:
    """The descriptor that would load this segment: 8 bytes, or 16 for an LDT or TSS with `long_mode`.

    An unusable segment gives a null descriptor. Raises ConfigurationError where no descriptor can say this: a byte limit
    above 1 MiB without G or not ending a 4-KiB page with it, a base beyond 32 bits (64 in a wide descriptor).
    """
    wide = long_mode and not segment.s
    if segment.unusable:
        return bytes(SYSTEM_DESCRIPTOR_SIZE_LONG if wide else DESCRIPTOR_SIZE)
    limit = segment.limit
    if segment.g:
        if limit & 0xFFF != 0xFFF:
            raise ConfigurationError(f"limit {limit:#x} with G set must end a 4 KiB page")
        limit >>= 12
    if not 0 <= limit <= _MAX_UNSCALED_LIMIT:
        raise ConfigurationError(f"limit {segment.limit:#x} does not fit a descriptor with G={segment.g}")
    base = segment.base
    if not 0 <= base < 1 << (64 if wide else 32):
        raise ConfigurationError(f"base {base:#x} does not fit a {'16' if wide else '8'}-byte descriptor")
    access = segment.type | segment.s << 4 | segment.dpl << 5 | segment.present << 7
    flags = segment.avl | segment.l << 1 | segment.db << 2 | segment.g << 3
    raw = limit & 0xFFFF | (base & 0xFFFFFF) << 16 | access << 40
    raw |= (limit >> 16) << 48 | flags << 52 | (base >> 24 & 0xFF) << 56
    return (raw | base >> 32 << 64).to_bytes(16, "little") if wide else raw.to_bytes(8, "little")


def decode_segment(raw: bytes, selector: int = 0) -> Segment:
    """What loading this descriptor puts into a segment register, hidden part included: from 8 bytes, or 16 of a wide one.

    A type that is no segment (a gate) decodes as its fields lie; ask `is_gate` first. Raises ConfigurationError for
    another length.
    """
    if len(raw) not in (DESCRIPTOR_SIZE, SYSTEM_DESCRIPTOR_SIZE_LONG):
        raise ConfigurationError(f"a descriptor has 8 or 16 bytes, not {len(raw)}")
    value = int.from_bytes(raw[:8], "little")
    base = value >> 16 & 0xFFFFFF | (value >> 56 & 0xFF) << 24
    if len(raw) == SYSTEM_DESCRIPTOR_SIZE_LONG:
        base |= int.from_bytes(raw[8:12], "little") << 32
    limit = value & 0xFFFF | (value >> 48 & 0xF) << 16
    g = value >> 55 & 1
    return Segment(
        selector=selector,
        base=base,
        limit=limit << 12 | 0xFFF if g else limit,
        type=value >> 40 & 0xF,
        s=value >> 44 & 1,
        dpl=value >> 45 & 3,
        present=value >> 47 & 1,
        avl=value >> 52 & 1,
        l=value >> 53 & 1,
        db=value >> 54 & 1,
        g=g,
    )


def is_system(raw: bytes) -> bool:
    """Whether the descriptor's S bit is clear: a system segment or a gate."""
    return not raw[5] & 0x10


def is_gate(raw: bytes) -> bool:
    """Whether the descriptor is a call, task, interrupt or trap gate."""
    return is_system(raw) and raw[5] & 0xF in (4, 5, 6, 7, 12, 14, 15)


def is_wide(raw: bytes) -> bool:
    """Whether this descriptor takes 16 bytes in IA-32e mode: an LDT, a TSS or a call gate (SDM 3A 3.5)."""
    return is_system(raw) and raw[5] & 0xF in _SYSTEM_TYPES_WIDE


_SYSTEM_NAMES = {1: "TSS16", 2: "LDT", 3: "TSS16 busy", 9: "TSS", 11: "TSS busy"}


def describe_segment(segment: Segment) -> str:
    """A segment in one line for people: `code64 dpl 0 base 0x0 limit 0xffffffff read accessed`."""
    if segment.unusable:
        return "unusable"
    if segment.s:
        kind, attributes = _code_or_data(segment)
    else:
        kind, attributes = _SYSTEM_NAMES.get(segment.type, f"system type {segment.type}"), []
    if not segment.present:
        attributes.append("not-present")
    words = [kind, f"dpl {segment.dpl}", f"base {segment.base:#x}", f"limit {segment.limit:#x}", *attributes]
    return " ".join(words)


def _code_or_data(segment: Segment) -> tuple[str, list[str]]:
    attributes = []
    if segment.type & CodeType.CODE:
        bits = 64 if segment.l else 32 if segment.db else 16
        kind = f"code{bits}"
        if segment.type & CodeType.READABLE:
            attributes.append("read")
        if segment.type & CodeType.CONFORMING:
            attributes.append("conforming")
    else:
        kind = f"data{32 if segment.db else 16}"
        if segment.type & DataType.WRITABLE:
            attributes.append("write")
        if segment.type & DataType.EXPAND_DOWN:
            attributes.append("expand-down")
    if segment.type & CodeType.ACCESSED:
        attributes.append("accessed")
    return kind, attributes
