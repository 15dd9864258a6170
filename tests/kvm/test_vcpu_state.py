"""Every part of a vCPU's state, set and read back."""

from __future__ import annotations

from errno import EINVAL

import pytest

from belljar.errors import CapabilityMissing, KvmCallFailed
from belljar.kvm import Kvm
from belljar.kvm.abi import caps
from belljar.kvm.abi.run import KVM_EXIT_HLT
from belljar.kvm.abi.structs import kvm_regs
from belljar.kvm.vcpu_state import msr_register_id
from kvm.guest import Guest, need

IA32_TSC, IA32_EFER, IA32_STAR, IA32_KERNEL_GS_BASE = 0x10, 0xC000_0080, 0xC000_0081, 0xC000_0102
NO_SUCH_MSR = 0x1234_5678


def test_general_registers_are_kept(guest: Guest) -> None:
    wanted = kvm_regs(**{name: number + 1 << 32 for number, name in enumerate(kvm_regs.fields)} | {"rflags": 0x202})
    guest.vcpu.set_regs(wanted)
    assert guest.vcpu.get_regs() == wanted


def test_vcpu_begins_as_after_reset(guest: Guest) -> None:
    """SDM 3A 9.1.4, table 9-1."""
    sregs = guest.vcpu.get_sregs()
    assert (sregs.cs.selector, sregs.cs.base, guest.vcpu.get_regs().rip) == (0xF000, 0xFFFF_0000, 0xFFF0)
    assert sregs.cr0 == 0x6000_0010


def test_special_registers_are_kept(guest: Guest) -> None:
    sregs = guest.vcpu.get_sregs()
    sregs.gdt.base, sregs.gdt.limit = 0x2000, 0x37
    sregs.ds.selector, sregs.ds.base = 0x123, 0x1230
    sregs.cr2 = 0xDEAD_B000
    guest.vcpu.set_sregs(sregs)
    assert guest.vcpu.get_sregs() == sregs


def test_special_registers_with_page_directory_pointers(guest: Guest) -> None:
    need(guest.vcpu, caps.KVM_CAP_SREGS2)
    sregs = guest.vcpu.get_sregs2()
    sregs.cr2 = 0x1234
    guest.vcpu.set_sregs2(sregs)
    assert guest.vcpu.get_sregs2().cr2 == 0x1234
    assert guest.vcpu.get_sregs().cr2 == 0x1234


def test_impossible_special_registers_are_refused(guest: Guest) -> None:
    sregs = guest.vcpu.get_sregs()
    sregs.efer, sregs.cr0 = 0x500, sregs.cr0 | 1 << 31 | 1  # long mode active and paging, without PAE
    with pytest.raises(KvmCallFailed, match="KVM_SET_SREGS"):
        guest.vcpu.set_sregs(sregs)


def test_x87_and_sse_registers_are_kept(guest: Guest) -> None:
    fpu = guest.vcpu.get_fpu()
    fpu.fcw = 0x27F
    fpu.xmm = bytes(range(256))
    guest.vcpu.set_fpu(fpu)
    back = guest.vcpu.get_fpu()
    assert (back.fcw, back.xmm) == (0x27F, bytes(range(256)))


def test_xsave_area_holds_the_fpu(guest: Guest) -> None:
    need(guest.vcpu, caps.KVM_CAP_XSAVE)
    area = guest.vcpu.get_xsave()
    assert len(area.buffer) >= 4096
    area.buffer[160:176] = b"belljar's xmm 0!"  # XMM0 in the legacy region (SDM 1 13.4.1)
    area.buffer[512] |= 2  # XSTATE_BV: SSE state is there
    guest.vcpu.set_xsave(area)
    assert guest.vcpu.get_fpu().xmm[:16] == b"belljar's xmm 0!"
    assert bytes(guest.vcpu.get_xsave().buffer[160:176]) == b"belljar's xmm 0!"


def test_extended_control_registers(guest: Guest) -> None:
    need(guest.vcpu, caps.KVM_CAP_XCRS)
    assert guest.vcpu.get_xcrs()[0] == 1  # x87 only, after reset
    guest.vcpu.set_xcrs({0: 3})
    assert guest.vcpu.get_xcrs()[0] == 3
    with pytest.raises(KvmCallFailed):
        guest.vcpu.set_xcrs({0: 2})  # SSE without x87


def test_debug_registers_are_kept(guest: Guest) -> None:
    need(guest.vcpu, caps.KVM_CAP_DEBUGREGS)
    regs = guest.vcpu.get_debugregs()
    regs.db = (0x1000, 0x2000, 0x3000, 0x4000)
    guest.vcpu.set_debugregs(regs)
    assert guest.vcpu.get_debugregs().db == (0x1000, 0x2000, 0x3000, 0x4000)


def test_msrs_are_kept(guest: Guest) -> None:
    assert guest.vcpu.set_msrs({IA32_STAR: 0x23_0008_0000_0000, IA32_KERNEL_GS_BASE: 5}) is None
    assert guest.vcpu.get_msrs([IA32_STAR, IA32_KERNEL_GS_BASE]) == {
        IA32_STAR: 0x23_0008_0000_0000,
        IA32_KERNEL_GS_BASE: 5,
    }


def test_refused_msrs_are_left_out_or_named(guest: Guest) -> None:
    assert guest.vcpu.get_msrs([NO_SUCH_MSR, IA32_STAR, NO_SUCH_MSR, IA32_TSC]).keys() == {IA32_STAR, IA32_TSC}
    assert guest.vcpu.get_msrs([]) == {}
    assert guest.vcpu.set_msrs({IA32_STAR: 0, NO_SUCH_MSR: 1, IA32_KERNEL_GS_BASE: 7}) == NO_SUCH_MSR
    assert guest.vcpu.set_msrs({}) is None


def test_all_state_msrs_can_be_read_and_written_back(system: Kvm, guest: Guest) -> None:
    values = guest.vcpu.get_msrs(system.msr_indices())
    assert len(values) > 10
    assert guest.vcpu.set_msrs({index: values[index] for index in (IA32_EFER, IA32_STAR) if index in values}) is None


def test_cpuid_is_what_was_set(system: Kvm, guest: Guest) -> None:
    entries = system.supported_cpuid()
    vcpu = guest.vm.create_vcpu(1)
    for entry in entries:
        if entry.function == 0x40000000:
            entry.ebx, entry.ecx, entry.edx = 0x6C6C_6542, 0x2072_616A, 0x2020_2020  # "Belljar     "
    with vcpu:
        vcpu.set_cpuid(entries)
        back = {(entry.function, entry.index): entry for entry in vcpu.get_cpuid()}
        assert back[0x40000000, 0].ebx == 0x6C6C_6542
        assert len(back) == len(entries)


def test_guest_sees_its_cpuid(guest: Guest) -> None:
    vendor = next(entry for entry in guest.vcpu.get_cpuid() if entry.function == 0)
    guest.load(b"\x66\x31\xc0\x0f\xa2\xf4")  # xor eax, eax; cpuid; hlt
    guest.run_to(KVM_EXIT_HLT)
    assert guest.vcpu.get_regs().rbx & 0xFFFF_FFFF == vendor.ebx


def test_cpuid_of_a_vcpu_that_has_run_is_final(guest: Guest) -> None:
    guest.load(b"\xf4")
    guest.run_to(KVM_EXIT_HLT)
    entries = guest.vcpu.get_cpuid()
    guest.vcpu.set_cpuid(entries)  # what it has already
    next(entry for entry in entries if entry.function == 1).eax ^= 1
    with pytest.raises(KvmCallFailed, match="has run keeps its CPUID") as caught:
        guest.vcpu.set_cpuid(entries)
    assert caught.value.errno == EINVAL


def test_paravirtual_cpuid_can_be_enforced(system: Kvm, guest: Guest) -> None:
    need(guest.vcpu, caps.KVM_CAP_ENFORCE_PV_FEATURE_CPUID)
    entries = system.supported_cpuid()
    next(entry for entry in entries if entry.function == 0x4000_0001).eax = 0
    guest.vcpu.set_cpuid(entries)
    guest.vcpu.enforce_paravirtual_cpuid()
    guest.memory[4 * 13 : 4 * 13 + 4] = b"\x00\x20\x00\x00"
    guest.memory[0x2000] = 0xF4  # hlt: the handler of #GP
    # mov ecx, MSR_KVM_SYSTEM_TIME_NEW; xor eax, eax; xor edx, edx; wrmsr; out 0x80, al
    guest.load(b"\x66\xb9\x01\x4d\x56\x4b\x66\x31\xc0\x66\x31\xd2\x0f\x30\xe6\x80")
    guest.run_to(KVM_EXIT_HLT)


def test_register_set_by_id_is_the_same_as_the_msr(guest: Guest) -> None:
    need(guest.vcpu, caps.KVM_CAP_ONE_REG)
    guest.vcpu.set_one_reg(msr_register_id(IA32_STAR), 77)
    assert guest.vcpu.get_one_reg(msr_register_id(IA32_STAR)) == 77
    assert guest.vcpu.get_msrs([IA32_STAR]) == {IA32_STAR: 77}
    assert isinstance(guest.vcpu.register_ids(), list)


def test_nested_state_where_the_host_nests(guest: Guest) -> None:
    if not guest.vcpu.check(caps.KVM_CAP_NESTED_STATE):
        with pytest.raises(CapabilityMissing, match="KVM_CAP_NESTED_STATE"):
            guest.vcpu.get_nested_state()
        pytest.skip("this host's KVM lacks KVM_CAP_NESTED_STATE")
    state = guest.vcpu.get_nested_state()
    guest.vcpu.set_nested_state(state)
    assert guest.vcpu.get_nested_state() == state


def test_hyperv_cpuid_of_a_vcpu(guest: Guest) -> None:
    if not guest.vcpu.check(caps.KVM_CAP_HYPERV_CPUID):
        with pytest.raises(CapabilityMissing, match="KVM_CAP_HYPERV_CPUID"):
            guest.vcpu.supported_hyperv_cpuid()
        pytest.skip("this host's KVM lacks KVM_CAP_HYPERV_CPUID")
    assert guest.vcpu.supported_hyperv_cpuid()[0].function == 0x40000000


def test_state_moves_to_another_vm(system: Kvm, guest: Guest) -> None:
    """What is taken out of one vCPU and put into another is the same machine."""
    guest.load(b"\x40\x40\xf4\x40\xf4")  # inc ax; inc ax; hlt; inc ax; hlt
    guest.run_to(KVM_EXIT_HLT)
    with system.create_vm() as vm, Guest(vm) as other:
        other.memory[:] = guest.memory[:]
        other.vcpu.set_sregs(guest.vcpu.get_sregs())
        other.vcpu.set_regs(guest.vcpu.get_regs())
        other.vcpu.set_xsave(guest.vcpu.get_xsave())
        other.run_to(KVM_EXIT_HLT)
        assert other.vcpu.get_regs().rax == 3
    assert guest.vcpu.get_regs().rax == 2
