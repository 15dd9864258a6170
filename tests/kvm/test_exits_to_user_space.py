"""What a VM can be told to leave for, and what it leaves with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from belljar.errors import CapabilityMissing, ConfigurationError, KvmCallFailed
from belljar.kvm import MsrFilter, MsrRange, Vm
from belljar.kvm.abi import caps
from belljar.kvm.abi.flags import (
    KVM_BUS_LOCK_DETECTION_EXIT,
    KVM_HC_MAP_GPA_RANGE,
    KVM_X86_DISABLE_EXITS_PAUSE,
    KVM_X86_NOTIFY_VMEXIT_ENABLED,
    KVM_X86_QUIRK_CD_NW_CLEARED,
)
from belljar.kvm.abi.run import (
    KVM_EXIT_HLT,
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_SHUTDOWN,
    KVM_EXIT_X86_RDMSR,
    KVM_EXIT_X86_WRMSR,
    KVM_INTERNAL_ERROR_EMULATION,
    KVM_MSR_EXIT_REASON_FILTER,
    KVM_MSR_EXIT_REASON_UNKNOWN,
)
from kvm.guest import Guest, need

IA32_STAR = 0xC000_0081
NO_SUCH_MSR = 0x1234_5678


def rdmsr(index: int) -> bytes:
    """mov ecx, index; rdmsr; hlt"""
    return b"\x66\xb9" + index.to_bytes(4, "little") + b"\x0f\x32\xf4"


def wrmsr(index: int) -> bytes:
    """mov ecx, index; wrmsr; hlt"""
    return b"\x66\xb9" + index.to_bytes(4, "little") + b"\x0f\x30\xf4"


def test_unknown_msr_leaves_and_gets_its_answer(guest: Guest) -> None:
    need(guest.vm, caps.KVM_CAP_X86_USER_SPACE_MSR)
    guest.vm.exit_on_msr(KVM_MSR_EXIT_REASON_UNKNOWN)
    guest.load(rdmsr(NO_SUCH_MSR))
    guest.run_to(KVM_EXIT_X86_RDMSR)
    msr = guest.vcpu.page.exit.msr
    assert (msr.index, msr.reason) == (NO_SUCH_MSR, KVM_MSR_EXIT_REASON_UNKNOWN)
    msr.data = 0x1_0000_0042
    guest.run_to(KVM_EXIT_HLT)
    regs = guest.vcpu.get_regs()
    assert (regs.rax & 0xFFFF_FFFF, regs.rdx & 0xFFFF_FFFF) == (0x42, 1)


def test_refusing_an_msr_faults_in_the_guest(guest: Guest) -> None:
    need(guest.vm, caps.KVM_CAP_X86_USER_SPACE_MSR)
    guest.vm.exit_on_msr(KVM_MSR_EXIT_REASON_UNKNOWN)
    guest.memory[13 * 4 : 13 * 4 + 4] = (0x2000).to_bytes(4, "little")  # #GP
    guest.memory[0x2000] = 0xF4
    guest.load(wrmsr(NO_SUCH_MSR), rax=5)
    guest.run_to(KVM_EXIT_X86_WRMSR)
    assert guest.vcpu.page.exit.msr.data & 0xFFFF_FFFF == 5
    guest.vcpu.page.exit.msr.error = 1
    guest.run_to(KVM_EXIT_HLT)
    assert guest.vcpu.get_regs().rip == 0x2001


@pytest.mark.parametrize("default_deny", [False, True])
def test_filter_denies_what_it_does_not_allow(guest: Guest, default_deny: bool) -> None:
    need(guest.vm, caps.KVM_CAP_X86_MSR_FILTER)
    guest.vm.exit_on_msr(KVM_MSR_EXIT_REASON_FILTER)
    allowed = [IA32_STAR + 1]
    guest.vm.set_msr_filter(MsrFilter([MsrRange(0xC000_0080, 64, allowed)], default_deny=default_deny))
    guest.load(rdmsr(IA32_STAR))
    guest.run_to(KVM_EXIT_X86_RDMSR)
    assert guest.vcpu.page.exit.msr.reason == KVM_MSR_EXIT_REASON_FILTER
    guest.run_to(KVM_EXIT_HLT)
    guest.load(rdmsr(IA32_STAR + 1))
    guest.run_to(KVM_EXIT_HLT)


def test_filter_of_writes_leaves_reads_alone(guest: Guest) -> None:
    need(guest.vm, caps.KVM_CAP_X86_MSR_FILTER)
    guest.vm.exit_on_msr(KVM_MSR_EXIT_REASON_FILTER)
    guest.vm.set_msr_filter(MsrFilter([MsrRange(IA32_STAR, 1, reads=False)]))
    guest.load(rdmsr(IA32_STAR))
    guest.run_to(KVM_EXIT_HLT)
    guest.load(wrmsr(IA32_STAR))
    guest.run_to(KVM_EXIT_X86_WRMSR)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MsrFilter([MsrRange(0, 1)] * 17),
        lambda: MsrFilter([MsrRange(0, 0)]),
        lambda: MsrFilter([MsrRange(0, 0x600 * 8 + 1)]),
        lambda: MsrFilter([MsrRange(0, 8, allowed=[8])]),
        lambda: MsrFilter([MsrRange(0, 8, reads=False, writes=False)]),
    ],
)
def test_impossible_filter_is_refused(make: Callable[[], MsrFilter]) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_failed_emulation_gives_the_instructions_bytes(guest: Guest) -> None:
    need(guest.vm, caps.KVM_CAP_EXIT_ON_EMULATION_FAILURE)
    guest.vm.exit_on_emulation_failure()
    guest.load(b"\x0f\x01\xd0\xf4")  # xgetbv; hlt: KVM's emulator lacks it, a processor in real mode raises #UD
    reason = guest.vcpu.run()
    if reason in (KVM_EXIT_SHUTDOWN, KVM_EXIT_HLT):
        pytest.skip("CPL0 runs natively here: nothing is emulated that could fail")
    assert reason == KVM_EXIT_INTERNAL_ERROR
    failure = guest.vcpu.page.exit.emulation_failure
    assert failure.suberror == KVM_INTERNAL_ERROR_EMULATION
    assert failure.insn_bytes.startswith(b"\x0f\x01\xd0")


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        (caps.KVM_CAP_EXIT_HYPERCALL, lambda vm: vm.exit_on_hypercalls([KVM_HC_MAP_GPA_RANGE])),
        (caps.KVM_CAP_X86_BUS_LOCK_EXIT, lambda vm: vm.exit_on_bus_locks(KVM_BUS_LOCK_DETECTION_EXIT)),
        (caps.KVM_CAP_X86_NOTIFY_VMEXIT, lambda vm: vm.notify_window(1 << 20, KVM_X86_NOTIFY_VMEXIT_ENABLED)),
        (caps.KVM_CAP_X86_DISABLE_EXITS, lambda vm: vm.disable_exits(KVM_X86_DISABLE_EXITS_PAUSE)),
        (caps.KVM_CAP_DISABLE_QUIRKS2, lambda vm: vm.disable_quirks(KVM_X86_QUIRK_CD_NW_CLEARED)),
        (caps.KVM_CAP_PMU_CAPABILITY, lambda vm: vm.disable_pmu()),
        (caps.KVM_CAP_PMU_EVENT_FILTER, lambda vm: vm.set_pmu_event_filter([0x3C])),
        (caps.KVM_CAP_SET_TSS_ADDR, lambda vm: vm.set_tss_address(0xFFFB_D000)),
        (caps.KVM_CAP_SET_IDENTITY_MAP_ADDR, lambda vm: vm.set_identity_map_address(0xFFFB_C000)),
    ],
    ids=lambda value: caps.name_of(value) if isinstance(value, int) else "",
)
def test_capability_is_turned_on_or_lacking_by_name(vm: Vm, capability: int, call: Callable[[Vm], None]) -> None:
    if vm.check(capability):
        call(vm)
        return
    with pytest.raises(CapabilityMissing, match=caps.name_of(capability)):
        call(vm)


def test_hypercall_that_cannot_leave_is_refused(vm: Vm) -> None:
    need(vm, caps.KVM_CAP_EXIT_HYPERCALL)
    with pytest.raises(KvmCallFailed):
        vm.exit_on_hypercalls([1])


def test_device_kinds_can_be_asked_for(vm: Vm) -> None:
    need(vm, caps.KVM_CAP_DEVICE_CTRL)
    with pytest.raises(KvmCallFailed, match="KVM_CREATE_DEVICE"):
        vm.create_device(99, test=True)


def test_in_kernel_device_has_attributes_and_refuses_bad_values(vm: Vm) -> None:
    try:
        assert vm.create_device(4, test=True) is None  # KVM_DEV_TYPE_VFIO
    except KvmCallFailed:
        pytest.skip("this kernel has no VFIO device of KVM's")
    device = vm.create_device(4)
    assert device is not None
    with device:
        assert device.has_attribute(1, 1)  # KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD
        with pytest.raises(KvmCallFailed):
            device.set_attribute(1, 1, (1 << 20).to_bytes(4, "little"))  # no such file
        with pytest.raises(KvmCallFailed):
            device.get_attribute(77, 1)
