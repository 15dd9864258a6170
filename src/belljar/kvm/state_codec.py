"""Between `belljar.x86.state` and the bytes of `struct kvm_regs` and `struct kvm_sregs`."""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from belljar.errors import ConfigurationError
from belljar.x86.state import DescriptorTable, Registers, Segment, SpecialRegisters

REGS = Struct("<18Q")
SEGMENT = Struct("<QIH9Bx")
TABLE = Struct("<QH6x")
CONTROL = Struct("<7Q")

SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
"""The segment registers in the order of `struct kvm_sregs`."""

CR8_MOST = 15
"""The task priority has four bits (SDM 3A 2.5). KVM_SET_SREGS takes more, and then KVM_RUN fails."""

TABLES_OFFSET = SEGMENT.size * len(SEGMENTS)
CONTROL_OFFSET = TABLES_OFFSET + 2 * TABLE.size
SREGS_SIZE = CONTROL_OFFSET + CONTROL.size + 32
APIC_BASE_OFFSET = CONTROL_OFFSET + 6 * 8


def pack_registers(r: Registers) -> bytearray:
    """`struct kvm_regs`. Raises ConfigurationError if a value does not fit."""
    data = bytearray(REGS.size)
    try:
        REGS.pack_into(
            data, 0, r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp,
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rip, r.rflags,
        )  # fmt: skip
    except StructError:
        for name in r.__dataclass_fields__:
            value = getattr(r, name)
            if not isinstance(value, int) or not 0 <= value < 1 << 64:
                raise ConfigurationError(f"register {name} cannot hold {value!r}: it has 64 bits") from None
        raise
    return data


def unpack_registers(data: bytes | bytearray) -> Registers:
    """From `struct kvm_regs`."""
    r = REGS.unpack(data)
    return Registers(r[0], r[2], r[3], r[1], r[6], r[7], r[4], r[5], *r[8:])


def pack_special(special: SpecialRegisters) -> bytearray:
    """`struct kvm_sregs`, its interrupt bitmap empty. Raises ConfigurationError if a value does not fit."""
    if not 0 <= special.cr8 <= CR8_MOST:
        raise ConfigurationError(f"CR8 cannot hold {special.cr8:#x}: it has 4 bits")
    data = bytearray(SREGS_SIZE)
    try:
        for number, name in enumerate(SEGMENTS):
            s: Segment = getattr(special, name)
            SEGMENT.pack_into(
                data, number * SEGMENT.size, s.base, s.limit, s.selector, s.type, s.present, s.dpl, s.db, s.s, s.l,
                s.g, s.avl, s.unusable,
            )  # fmt: skip
        TABLE.pack_into(data, TABLES_OFFSET, special.gdt.base_gva, special.gdt.limit)
        TABLE.pack_into(data, TABLES_OFFSET + TABLE.size, special.idt.base_gva, special.idt.limit)
        CONTROL.pack_into(
            data, CONTROL_OFFSET, special.cr0, special.cr2, special.cr3, special.cr4, special.cr8, special.efer,
            special.apic_base,
        )  # fmt: skip
    except StructError as error:
        raise ConfigurationError(f"the special registers hold a value that does not fit: {error}") from None
    return data


def unpack_special(data: bytes | bytearray) -> SpecialRegisters:
    """From `struct kvm_sregs`."""
    segments = {}
    for number, name in enumerate(SEGMENTS):
        base, limit, selector, kind, present, dpl, db, s, l, g, avl, unusable = SEGMENT.unpack_from(  # noqa: E741
            data, number * SEGMENT.size
        )
        segments[name] = Segment(selector, base, limit, kind, s, dpl, present, avl, l, db, g, unusable)
    gdt = DescriptorTable(*TABLE.unpack_from(data, TABLES_OFFSET))
    idt = DescriptorTable(*TABLE.unpack_from(data, TABLES_OFFSET + TABLE.size))
    cr0, cr2, cr3, cr4, cr8, efer, apic_base = CONTROL.unpack_from(data, CONTROL_OFFSET)
    return SpecialRegisters(
        **segments, gdt=gdt, idt=idt, cr0=cr0, cr2=cr2, cr3=cr3, cr4=cr4, cr8=cr8, efer=efer, apic_base=apic_base
    )
