"""A vCPU's architectural state as plain data, to and from the VMCS and the processor."""

from __future__ import annotations

from belljar.errors import ConfigurationError, EngineError
from belljar.soft.hypervisor.controls import CR4_VMXE, ENTRY_CONTROLS, EntryControl
from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field
from belljar.x86.control import Cr0, Cr4, Efer
from belljar.x86.state import GENERAL_REGISTERS, DescriptorTable, Registers, Segment, SpecialRegisters

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
"""In the order of the VMCS's fields, which is the encoding's."""

LDT = 6

RIGHTS_UNUSABLE = 1 << 16
"""Access rights (SDM 3C table 25-2)."""

RSP = 4
RFLAGS_FIXED = 2
WORD = 1 << 64


def get_registers(processor: Processor) -> Registers:
    """The general registers, RIP and RFLAGS."""
    values = list(processor.get_registers())
    values[RSP] = processor.vmread(Field.GUEST_RSP)
    values += (processor.vmread(Field.GUEST_RIP), processor.vmread(Field.GUEST_RFLAGS))
    return Registers(*values)


def set_registers(processor: Processor, registers: Registers) -> None:
    """Set all of them. Raises ConfigurationError if a value does not fit 64 bits."""
    for name in (*GENERAL_REGISTERS, "rip", "rflags"):
        if not 0 <= getattr(registers, name) < WORD:
            raise ConfigurationError(f"{name.upper()} cannot hold {getattr(registers, name):#x}: it has 64 bits")
    for number, name in enumerate(GENERAL_REGISTERS):
        processor.set_gpr(number, getattr(registers, name))
    processor.vmwrite(Field.GUEST_RSP, registers.rsp)
    processor.vmwrite(Field.GUEST_RIP, registers.rip)
    flags = registers.rflags | RFLAGS_FIXED
    if flags != processor.vmread(Field.GUEST_RFLAGS):
        processor.vmwrite(Field.GUEST_RFLAGS, flags)


def unpack_rights(rights: int) -> dict[str, int]:
    """The attributes of a segment from VMCS access rights (SDM 3C table 25-2)."""
    return {
        "type": rights & 15,
        "s": rights >> 4 & 1,
        "dpl": rights >> 5 & 3,
        "present": rights >> 7 & 1,
        "avl": rights >> 12 & 1,
        "l": rights >> 13 & 1,
        "db": rights >> 14 & 1,
        "g": rights >> 15 & 1,
        "unusable": rights >> 16 & 1,
    }


def pack_rights(segment: Segment, number: int) -> int:
    """VMCS access rights. The accessed bit is set, as KVM does for an unrestricted guest: state made by hand forgets it."""
    if segment.unusable or not segment.present:
        return RIGHTS_UNUSABLE
    kind = segment.type if number == LDT else segment.type | 1
    return (
        kind
        | segment.s << 4
        | segment.dpl << 5
        | segment.present << 7
        | segment.avl << 12
        | segment.l << 13
        | segment.db << 14
        | segment.g << 15
    )


def get_special(processor: Processor) -> SpecialRegisters:
    """Segments, tables, control registers, EFER, as the guest would see them."""
    read = processor.vmread
    segments = {}
    for number, name in enumerate(SEGMENTS):
        step = 2 * number
        rights = read(Field.GUEST_ES_RIGHTS + step)
        segments[name] = Segment(
            selector=read(Field.GUEST_ES_SELECTOR + step),
            base=read(Field.GUEST_ES_BASE + step),
            limit=read(Field.GUEST_ES_LIMIT + step),
            **unpack_rights(rights),
        )
    return SpecialRegisters(
        **segments,
        gdt=DescriptorTable(read(Field.GUEST_GDTR_BASE), read(Field.GUEST_GDTR_LIMIT)),
        idt=DescriptorTable(read(Field.GUEST_IDTR_BASE), read(Field.GUEST_IDTR_LIMIT)),
        cr0=read(Field.GUEST_CR0),
        cr2=processor.cr2,
        cr3=read(Field.GUEST_CR3),
        cr4=read(Field.GUEST_CR4) & ~CR4_VMXE,
        cr8=processor.cr8,
        efer=read(Field.GUEST_EFER),
        apic_base=processor.apic_base,
    )


def check_special(processor: Processor, special: SpecialRegisters) -> None:
    """Refuse what cannot be a processor's state, as KVM_SET_SREGS does. Raises EngineError."""
    if special.cr4 & CR4_VMXE:
        raise EngineError("CR4.VMXE cannot be set: guests have no VMX", hint="leave bit 13 of CR4 clear")
    cr4, efer = processor.allowed_controls
    for name, value, allowed in (("CR4", special.cr4, cr4), ("EFER", special.efer, efer)):
        if value & ~allowed:
            raise EngineError(
                f"{name} cannot be {value:#x}: this processor has no feature for the bits {value & ~allowed:#x}",
                hint="CPUID tells which features there are",
            )
    if special.efer & Efer.LME and special.cr0 & Cr0.PG:
        if not special.cr4 & Cr4.PAE or not special.efer & Efer.LMA:
            raise EngineError("EFER.LME with paging needs CR4.PAE and EFER.LMA (SDM 3A 10.8.5)")
    elif special.efer & Efer.LMA or (special.cs.l and special.efer & Efer.LME):
        raise EngineError("EFER.LMA needs EFER.LME and CR0.PG (SDM 3A 10.8.5)")


def set_special(processor: Processor, special: SpecialRegisters) -> None:
    """Set all of them. What the processor finds wrong shows at VM entry (FAIL_ENTRY)."""
    check_special(processor, special)
    write = processor.vmwrite
    for number, name in enumerate(SEGMENTS):
        segment: Segment = getattr(special, name)
        step = 2 * number
        write(Field.GUEST_ES_SELECTOR + step, segment.selector)
        write(Field.GUEST_ES_BASE + step, segment.base)
        write(Field.GUEST_ES_LIMIT + step, segment.limit)
        write(Field.GUEST_ES_RIGHTS + step, pack_rights(segment, number))
    write(Field.GUEST_GDTR_BASE, special.gdt.base_gva)
    write(Field.GUEST_GDTR_LIMIT, special.gdt.limit)
    write(Field.GUEST_IDTR_BASE, special.idt.base_gva)
    write(Field.GUEST_IDTR_LIMIT, special.idt.limit)
    write(Field.GUEST_CR0, special.cr0)
    write(Field.GUEST_CR3, special.cr3)
    write(Field.GUEST_CR4, special.cr4 | CR4_VMXE)
    write(Field.GUEST_EFER, special.efer)
    write(Field.ENTRY_CONTROLS, ENTRY_CONTROLS | (EntryControl.GUEST_64 if special.efer & Efer.LMA else 0))
    processor.cr2 = special.cr2
    processor.cr8 = special.cr8
    processor.apic_base = special.apic_base


def uses_pdptes(special: SpecialRegisters) -> bool:
    """Whether paging is PAE paging, whose four PDPTEs are registers (SDM 3A 4.4.1)."""
    return bool(special.cr0 & Cr0.PG and special.cr4 & Cr4.PAE and not special.efer & Efer.LMA)


def set_pdptes(processor: Processor, table: bytes) -> None:
    """Load the PDPTE registers from the 32 bytes that CR3 points to; missing bytes count as zeros."""
    table = table.ljust(32, b"\0")
    for i in range(4):
        processor.vmwrite(Field.GUEST_PDPTE0 + 2 * i, int.from_bytes(table[8 * i : 8 * i + 8], "little"))
