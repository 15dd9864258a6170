"""A start state for a vCPU, and whether the kernel took it as it was given: what was refused, in words.

KVM_SET_SREGS may succeed and still not do all that it was asked for; what counts is what KVM_GET_SREGS says afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import TYPE_CHECKING, NoReturn

from belljar.errors import EngineError, KvmCallFailed, ModeUnsupported
from belljar.kvm.abi import ioctls
from belljar.kvm.state_codec import SREGS_SIZE, pack_registers, pack_special, unpack_special
from belljar.x86.state import CpuState, Segment, SpecialRegisters

if TYPE_CHECKING:
    from belljar.kvm.cpu_model import CpuModel
    from belljar.kvm.vcpu import Vcpu

APIC_BASE_BSP = 1 << 8
"""IA32_APIC_BASE: this is the bootstrap processor (SDM 3A 11.4.4)."""

CR0_PE, CR0_WP, CR0_AM, CR0_PG = 1 << 0, 1 << 16, 1 << 18, 1 << 31
CR0_CHECKED = CR0_PE | CR0_WP | CR0_AM | CR0_PG
"""The bits of CR0 that a guest's mode stands on (SDM 3A 2.5); the others a processor may force."""

EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = 1 << 0, 1 << 8, 1 << 10, 1 << 11
EFER_CHECKED = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE

CR4_BITS = {5: "PAE", 4: "PSE", 7: "PGE", 12: "LA57", 17: "PCIDE", 20: "SMEP", 21: "SMAP", 22: "PKE"}
CR0_BITS = {0: "PE", 16: "WP", 18: "AM", 31: "PG"}
EFER_BITS = {0: "SCE", 8: "LME", 10: "LMA", 11: "NXE"}


def _names(bits: int, names: dict[int, str]) -> str:
    return ", ".join(names.get(bit, f"bit {bit}") for bit in range(64) if bits >> bit & 1)


def _bits(register: str, wanted: int, got: int, checked: int, names: dict[int, str]) -> str:
    lost, extra = wanted & ~got & checked, got & ~wanted & checked
    if lost:
        return f"{register} reads back {got:#x}, without {_names(lost, names)}"
    if extra:
        return f"{register} reads back {got:#x}, with {_names(extra, names)} on"
    return ""


def _segment(name: str, wanted: Segment, got: Segment) -> str:
    if wanted.unusable and got.unusable:
        return ""
    fields = ["selector", "base", "unusable"]
    if name == "cs":
        fields += ["l", "db", "dpl"]
    if name == "ss":
        fields += ["dpl"]
    for field in fields:
        if getattr(wanted, field) != getattr(got, field):
            return f"{name}.{field} was set to {getattr(wanted, field):#x} and reads back {getattr(got, field):#x}"
    return ""


def difference(wanted: SpecialRegisters, got: SpecialRegisters) -> str:
    """What of the wanted state the kernel dropped or changed, in words; empty if nothing that matters."""
    found = (
        _bits("CR0", wanted.cr0, got.cr0, CR0_CHECKED, CR0_BITS)
        or _bits("EFER", wanted.efer, got.efer, EFER_CHECKED, EFER_BITS)
        or _bits("CR4", wanted.cr4, got.cr4, ~0 & (1 << 64) - 1, CR4_BITS)
    )
    if not found and wanted.cr3 != got.cr3:
        found = f"CR3 was set to {wanted.cr3:#x} and reads back {got.cr3:#x}"
    for name in ("cs", "ss", "ds", "es", "fs", "gs", "tr"):
        found = found or _segment(name, getattr(wanted, name), getattr(got, name))
    return found


def refused_bits(special: SpecialRegisters) -> str:
    """Which unusual features a refused state asked for: a guess at what the kernel would not have."""
    asked = [CR4_BITS[bit] for bit in (12, 17, 22) if special.cr4 >> bit & 1]
    return f" (it asks for CR4.{', CR4.'.join(asked)})" if asked else ""


ENTRY_PRESENT, ENTRY_PAGE_SIZE = 1 << 0, 1 << 7
ENTRY_ADDRESS = 0x000F_FFFF_FFFF_F000
"""Bits 51:12 of CR3 and of a page-table entry (SDM 3A 4.5.4)."""

CR4_LA57 = 1 << 12


def maps_with_1g_page(read: Callable[[int, int], bytes], special: SpecialRegisters, gva: int) -> bool:
    """Whether long mode's page tables map `gva` by a page of 1 GiB: PS set in a page-directory-pointer entry."""
    if not special.efer & EFER_LMA:
        return False
    table_gpa = special.cr3 & ENTRY_ADDRESS
    shifts = (48, 39, 30) if special.cr4 & CR4_LA57 else (39, 30)
    entry = 0
    for shift in shifts:
        data = read(table_gpa + (gva >> shift & 511) * 8, 8)
        entry = int.from_bytes(data, "little")
        if len(data) < 8 or not entry & ENTRY_PRESENT:
            return False
        table_gpa = entry & ENTRY_ADDRESS
    return bool(entry & ENTRY_PAGE_SIZE)


def read_special(vcpu: Vcpu) -> bytearray:
    """`struct kvm_sregs` as the kernel has it."""
    data = bytearray(SREGS_SIZE)
    vcpu.call(ioctls.KVM_GET_SREGS, data)
    return data


def write_special(vcpu: Vcpu, special: SpecialRegisters) -> bytearray:
    """Give the kernel special registers, CR8 included; the `struct kvm_sregs` that it was given. Raises KvmCallFailed."""
    data = pack_special(special)
    vcpu.call(ioctls.KVM_SET_SREGS, data)
    vcpu.loop.task_priority = special.cr8
    return data


def set_start_state(vcpu: Vcpu, state: CpuState, mode: str, model: CpuModel, read: Callable[[int, int], bytes]) -> None:
    """Start state for `mode`: set, read back, and raise ModeUnsupported if the kernel refuses or forgets a part of it.

    `read` takes a guest-physical address and a size. The bootstrap flag of the APIC base is the vCPU's own, whatever the
    state says. EFER.NXE is left out where guests have no such bit: a comfort that a start state can do without.
    """
    special = state.special
    bootstrap = APIC_BASE_BSP if vcpu.index == 0 else 0
    if special.apic_base & APIC_BASE_BSP != bootstrap:
        special.apic_base ^= APIC_BASE_BSP
    if special.efer & EFER_NXE and not model.has_no_execute:
        special.efer &= ~EFER_NXE
    try:
        written = write_special(vcpu, special)
    except KvmCallFailed as error:
        if error.errno != EINVAL:
            raise EngineError(f"KVM does not take the start state of mode {mode}: {error}") from None
        _refuse(mode, f"KVM refuses its special registers{refused_bits(special)}")
    vcpu.call(ioctls.KVM_SET_REGS, pack_registers(state.registers))
    got = read_special(vcpu)
    if got != written and (lost := difference(special, unpack_special(got))):
        _refuse(mode, lost)
    if special.cr0 & CR0_PG and not model.has_1g_pages:
        _check_paging(vcpu, state, mode, read)


def _check_paging(vcpu: Vcpu, state: CpuState, mode: str, read: Callable[[int, int], bytes]) -> None:
    """Pages of 1 GiB where the guest's CPUID has none: a walk finds a reserved bit, and so does the processor."""
    special = state.special
    for what, gva in (
        ("the first instruction", special.cs.base + state.registers.rip),
        ("the GDT", special.gdt.base_gva),
        ("the IDT", special.idt.base_gva),
    ):
        if maps_with_1g_page(read, special, gva) and not vcpu.translate(gva).valid:
            _refuse(mode, f"{what} at {gva:#x} lies in a page of 1 GiB, and KVM has no such pages here")


def _refuse(mode: str, reason: str) -> NoReturn:
    raise ModeUnsupported(mode, reason, hint="`belljar doctor` lists the modes that run; `--engine soft` has them all")
