"""Reading whole descriptor tables: GDT, LDT, IDT, real-mode vector table, entry by entry in words (SDM 3A 3.5.1, 6.10)."""

from __future__ import annotations

from belljar.errors import ConfigurationError
from belljar.records import dataclass
from belljar.x86.descriptors import (
    DESCRIPTOR_SIZE,
    SYSTEM_DESCRIPTOR_SIZE_LONG,
    decode_segment,
    describe_segment,
    is_gate,
    is_wide,
)
from belljar.x86.gates import GATE_SIZE, GATE_SIZE_LONG, IVT_ENTRY_SIZE, VECTORS, decode_gate, describe_gate


@dataclass(frozen=True, slots=True)
class GdtEntry:
    """One entry of a GDT or LDT: its selector (RPL 0), its bytes, and what it says in words."""

    selector: int
    raw: bytes
    text: str


@dataclass(frozen=True, slots=True)
class IdtEntry:
    """One vector of an IDT or of the real-mode vector table: its bytes and what they say in words."""

    vector: int
    raw: bytes
    text: str


def decode_gdt(raw: bytes, *, long_mode: bool) -> tuple[GdtEntry, ...]:
    """Every entry of a GDT or LDT with its meaning; a rest that is shorter than an entry is left out.

    In `long_mode` LDTs, TSSs and call gates take two slots. Never raises, whatever the bytes are.
    """
    entries = []
    offset = 0
    while offset + DESCRIPTOR_SIZE <= len(raw):
        size = DESCRIPTOR_SIZE
        item = raw[offset : offset + DESCRIPTOR_SIZE]
        if long_mode and is_wide(item) and offset + SYSTEM_DESCRIPTOR_SIZE_LONG <= len(raw):
            size = SYSTEM_DESCRIPTOR_SIZE_LONG
            item = raw[offset : offset + size]
        entries.append(GdtEntry(offset, item, _describe(item, offset)))
        offset += size
    return tuple(entries)


def _describe(item: bytes, selector: int) -> str:
    if not any(item):
        return "null"
    if is_gate(item):
        return describe_gate(decode_gate(item))
    return describe_segment(decode_segment(item, selector))


def decode_idt(raw: bytes, *, mode: str) -> tuple[IdtEntry, ...]:
    """Every whole entry of an IDT, at most 256. `mode` is `real` (IP:CS pairs), `protected` or `long`.

    Whatever the bytes are, only an unknown `mode` raises (ConfigurationError).
    """
    sizes = {"real": IVT_ENTRY_SIZE, "protected": GATE_SIZE, "long": GATE_SIZE_LONG}
    if mode not in sizes:
        raise ConfigurationError(f"there is no IDT format {mode!r}", hint="real, protected, long")
    size = sizes[mode]
    entries = []
    for vector in range(min(len(raw) // size, VECTORS)):
        item = raw[vector * size : vector * size + size]
        if mode == "real":
            text = f"{int.from_bytes(item[2:], 'little'):#06x}:{int.from_bytes(item[:2], 'little'):#06x}"
        elif not item[5] & 0x80:
            text = "not-present"
        else:
            text = describe_gate(decode_gate(item))
        entries.append(IdtEntry(vector, item, text))
    return tuple(entries)
