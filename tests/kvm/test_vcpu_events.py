"""Interrupts, exceptions, time, debugging and translation of one vCPU."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from belljar.errors import CapabilityMissing, KvmCallFailed
from belljar.kvm import Kvm
from belljar.kvm.abi import caps
from belljar.kvm.abi.flags import (
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP,
    KVM_GUESTDBG_USE_HW_BP,
    KVM_MP_STATE_HALTED,
    KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_UNINITIALIZED,
    KVM_VCPU_TSC_CTRL,
    KVM_VCPU_TSC_OFFSET,
    KVM_VCPUEVENT_VALID_SHADOW,
)
from belljar.kvm.abi.run import (
    KVM_EXIT_DEBUG,
    KVM_EXIT_HLT,
    KVM_EXIT_INTR,
    KVM_EXIT_IO,
    KVM_EXIT_IRQ_WINDOW_OPEN,
    KVM_EXIT_TPR_ACCESS,
    KVM_SYNC_X86_REGS,
    KVM_SYNC_X86_SREGS,
)
from belljar.kvm.abi.structs import kvm_x86_mce
from kvm.guest import CODE_GPA, HLT, SPIN, Guest, need

HANDLER_GPA = 0x2000
DB, UD = 1, 6


@pytest.fixture
def chips(system: Kvm) -> Iterator[Guest]:
    """A guest with the kernel's local APIC."""
    with system.create_vm() as vm:
        vm.create_irqchip()
        with Guest(vm) as guest:
            yield guest


def put_handler(guest: Guest, vector: int) -> None:
    """A real-mode handler that halts."""
    guest.memory[HANDLER_GPA : HANDLER_GPA + 1] = HLT
    guest.memory[vector * 4 : vector * 4 + 4] = HANDLER_GPA.to_bytes(4, "little")


def test_interrupt_is_delivered_once_the_window_opens(guest: Guest) -> None:
    put_handler(guest, 0x20)
    guest.load(b"\x90\xfb\xeb\xfe")  # nop; sti; jmp $
    guest.vcpu.page.request_interrupt_window = 1
    guest.run_to(KVM_EXIT_IRQ_WINDOW_OPEN)
    assert guest.vcpu.page.if_flag == 1
    guest.vcpu.page.request_interrupt_window = 0
    guest.vcpu.interrupt(0x20)
    guest.run_to(KVM_EXIT_HLT)
    assert guest.vcpu.get_regs().rip == HANDLER_GPA + 1


def test_nmi_is_delivered_with_interrupts_off(guest: Guest) -> None:
    put_handler(guest, 2)
    guest.load(b"\x90\x90\xf4")
    guest.vcpu.nmi()
    guest.run_to(KVM_EXIT_HLT)
    assert guest.vcpu.get_regs().rip == HANDLER_GPA + 1


def test_smi_is_queued_or_lacking_by_name(guest: Guest) -> None:
    if not guest.vcpu.check(caps.KVM_CAP_X86_SMM):
        with pytest.raises(CapabilityMissing, match="KVM_CAP_X86_SMM"):
            guest.vcpu.smi()
        pytest.skip("this host's KVM lacks KVM_CAP_X86_SMM")
    guest.vcpu.smi()
    assert guest.vcpu.get_events().smi.pending


def test_exception_given_as_an_event_reaches_its_handler(guest: Guest) -> None:
    put_handler(guest, UD)
    guest.load(b"\x90\xf4")
    events = guest.vcpu.get_events()
    events.exception.injected = 1
    events.exception.nr = UD
    guest.vcpu.set_events(events)
    assert guest.vcpu.get_events().exception.nr == UD
    guest.run_to(KVM_EXIT_HLT)
    assert guest.vcpu.get_regs().rip == HANDLER_GPA + 1


def test_interrupt_shadow_is_kept(guest: Guest) -> None:
    events = guest.vcpu.get_events()
    events.flags |= KVM_VCPUEVENT_VALID_SHADOW
    events.interrupt.shadow = 1
    guest.vcpu.set_events(events)
    assert guest.vcpu.get_events().interrupt.shadow & 1


def test_what_a_vcpu_waits_for_is_kept(chips: Guest) -> None:
    assert chips.vcpu.get_mp_state() == KVM_MP_STATE_RUNNABLE
    chips.vcpu.set_mp_state(KVM_MP_STATE_HALTED)
    assert chips.vcpu.get_mp_state() == KVM_MP_STATE_HALTED
    with chips.vm.create_vcpu(1) as second:
        assert second.get_mp_state() == KVM_MP_STATE_UNINITIALIZED  # waits for INIT and SIPI


def test_local_apic_registers_are_kept(chips: Guest) -> None:
    state = chips.vcpu.get_lapic()
    regs = bytearray(state.regs)
    assert regs[0x30] == 0x14  # the version register (SDM 3A 11.4.8)
    regs[0x80] = 0x20  # the task priority
    state.regs = bytes(regs)
    chips.vcpu.set_lapic(state)
    assert chips.vcpu.get_lapic().regs[0x80] == 0x20


def test_without_a_kernel_apic_there_is_none_to_read(guest: Guest) -> None:
    with pytest.raises(KvmCallFailed, match="KVM_GET_LAPIC"):
        guest.vcpu.get_lapic()


def test_boot_cpu_can_be_chosen(system: Kvm) -> None:
    with system.create_vm() as vm:
        need(vm, caps.KVM_CAP_SET_BOOT_CPU_ID)
        vm.set_boot_cpu(1)
        vm.create_irqchip()
        with vm.create_vcpu(0) as first, vm.create_vcpu(1) as second:
            assert first.get_mp_state() == KVM_MP_STATE_UNINITIALIZED
            assert second.get_mp_state() == KVM_MP_STATE_RUNNABLE


def test_accesses_to_the_task_priority_are_reported_while_asked_for(chips: Guest) -> None:
    need(chips.vcpu, caps.KVM_CAP_VAPIC)
    store = b"\x64\x66\x89\x05"  # mov fs:[di], eax
    chips.load(store + b"\xe6\x80" + store + b"\xe6\x81", rdi=0x80, rax=0x20)  # ...; out 0x80, al; ...; out 0x81, al
    sregs = chips.vcpu.get_sregs()
    sregs.fs.base = 0xFEE0_0000
    chips.vcpu.set_sregs(sregs)
    chips.vcpu.report_tpr_accesses(True)
    # Told with the next entry, which an emulator makes only after some more instructions.
    assert {chips.vcpu.run(), chips.vcpu.run()} == {KVM_EXIT_TPR_ACCESS, KVM_EXIT_IO}
    chips.vcpu.report_tpr_accesses(False)
    chips.run_to(KVM_EXIT_IO)
    assert chips.vcpu.page.exit.io.port == 0x81
    chips.vcpu.set_vapic_address(0x3000)


def test_machine_check_lands_in_its_bank(system: Kvm, guest: Guest) -> None:
    banks = need(guest.vcpu, caps.KVM_CAP_MCE)
    assert banks >= 4
    guest.vcpu.set_up_machine_checks(system.mce_capabilities() & ~0xFF | 4)
    corrected = 1 << 63 | 1 << 60 | 0x42  # valid, enabled, not uncorrected (SDM 3B 16.3.2.2)
    guest.vcpu.inject_machine_check(kvm_x86_mce(status=corrected, addr=0x5000, bank=2))
    assert guest.vcpu.get_msrs([0x400 + 4 * 2 + 1]) == {0x409: corrected}  # IA32_MC2_STATUS


def test_frequency_of_the_time_stamp_counter_is_told(guest: Guest) -> None:
    assert guest.vcpu.get_tsc_khz() > 100_000


def test_time_stamp_counter_offset(guest: Guest) -> None:
    if not guest.vcpu.has_attribute(KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET):
        pytest.skip("this host's KVM lacks KVM_VCPU_TSC_OFFSET")
    guest.vcpu.set_tsc_offset(-5)
    offset = guest.vcpu.get_tsc_offset()
    if offset == 0:
        pytest.skip("this host's KVM takes a TSC offset and does not keep it")
    assert offset == 2**64 - 5


def test_time_stamp_counter_frequency(guest: Guest) -> None:
    khz = guest.vcpu.get_tsc_khz()
    try:
        guest.vcpu.set_tsc_khz(khz)
    except CapabilityMissing as error:
        pytest.skip(error.message)
    assert guest.vcpu.get_tsc_khz() == khz


def test_time_stamp_counter_frequency_of_the_vm(guest: Guest) -> None:
    if not guest.vm.check(caps.KVM_CAP_VM_TSC_CONTROL):
        with pytest.raises((CapabilityMissing, KvmCallFailed)):
            guest.vm.set_tsc_khz(1)
        pytest.skip("this host's KVM lacks KVM_CAP_VM_TSC_CONTROL")
    guest.vm.set_tsc_khz(guest.vm.get_tsc_khz())


def test_paravirtual_clock_goes_on_from_where_it_is_set(guest: Guest) -> None:
    clock = guest.vm.get_clock()
    clock.clock = 10**15
    clock.flags = 0
    guest.vm.set_clock(clock)
    assert guest.vm.get_clock().clock >= 10**15


def test_pausing_a_clock_that_the_guest_does_not_use(guest: Guest) -> None:
    with pytest.raises(KvmCallFailed) as caught:
        guest.vcpu.pause_clock()
    assert caught.value.errno == 22


def test_single_step_stops_after_each_instruction(guest: Guest) -> None:
    guest.load(b"\x90\x40\xf4")
    guest.vcpu.set_guest_debug(KVM_GUESTDBG_SINGLESTEP)
    for after in (1, 2):
        guest.run_to(KVM_EXIT_DEBUG)
        debug = guest.vcpu.page.exit.debug
        assert (debug.exception, debug.pc) == (DB, CODE_GPA + after)
        assert debug.dr6 & 1 << 14  # BS
    guest.vcpu.set_guest_debug(0)
    guest.run_to(KVM_EXIT_HLT)


def test_hardware_breakpoint_stops_before_the_instruction(guest: Guest) -> None:
    guest.load(b"\x90\x90\x40\xf4")
    guest.vcpu.set_guest_debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, (CODE_GPA + 2, 0, 0, 0, 0, 0, 0, 0x402))
    guest.run_to(KVM_EXIT_DEBUG)
    assert guest.vcpu.page.exit.debug.pc == CODE_GPA + 2
    assert guest.vcpu.get_regs().rax & 1 == 0


def test_translation_of_real_mode_addresses(guest: Guest) -> None:
    guest.load(HLT)
    found = guest.vcpu.translate(0x4321)
    assert (found.valid, found.physical_address) == (1, 0x4321)


def test_immediate_exit_comes_back_at_once(guest: Guest) -> None:
    guest.load(SPIN)
    guest.vcpu.page.immediate_exit = 1
    guest.run_to(KVM_EXIT_INTR)
    assert guest.vcpu.get_regs().rip == CODE_GPA


def test_immediate_exit_finishes_the_instruction(guest: Guest) -> None:
    guest.load(b"\xe4\x80\xf4")  # in al, 0x80; hlt
    guest.run_to(KVM_EXIT_IO)
    guest.vcpu.mapping[guest.vcpu.page.exit.io.data_offset] = 0x5A
    guest.vcpu.page.immediate_exit = 1
    guest.run_to(KVM_EXIT_INTR)
    regs = guest.vcpu.get_regs()
    assert (regs.rax & 0xFF, regs.rip) == (0x5A, CODE_GPA + 2)


def test_signal_mask_decides_what_ends_a_run(guest: Guest) -> None:
    """A signal that the thread blocks ends KVM_RUN all the same if the vCPU's mask lets it through."""
    guest.load(SPIN)
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        guest.vcpu.set_signal_mask(set())
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # pending, and blocked until KVM_RUN
        handler = signal.signal(signal.SIGUSR1, lambda number, frame: None)
        guest.run_to(KVM_EXIT_INTR)
        signal.signal(signal.SIGUSR1, handler)
        assert signal.sigpending() == {signal.SIGUSR1}  # KVM_RUN did not take it
        guest.vcpu.set_signal_mask({signal.SIGUSR1})
        guest.load(HLT)
        guest.run_to(KVM_EXIT_HLT)
        guest.vcpu.set_signal_mask(None)
        guest.load(HLT)
        guest.run_to(KVM_EXIT_HLT)
    finally:
        if signal.SIGUSR1 in signal.sigpending():
            signal.sigwait({signal.SIGUSR1})
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def test_registers_in_the_run_page(guest: Guest) -> None:
    known = need(guest.vm, caps.KVM_CAP_SYNC_REGS)
    assert known & KVM_SYNC_X86_REGS
    guest.load(b"\x40\xf4\x40\xf4", rax=6)  # inc ax; hlt; inc ax; hlt
    page = guest.vcpu.page
    page.kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS
    guest.run_to(KVM_EXIT_HLT)
    assert page.s.regs.regs.rax == 7
    assert page.s.regs.sregs.cs.base == 0
    page.s.regs.regs.rax = 40
    page.kvm_dirty_regs = KVM_SYNC_X86_REGS
    guest.run_to(KVM_EXIT_HLT)
    assert page.s.regs.regs.rax == 41


def test_statistics_of_vm_and_vcpu(guest: Guest) -> None:
    need(guest.vm, caps.KVM_CAP_BINARY_STATS_FD)
    guest.load(b"\xe6\x80\xf4")
    with guest.vcpu.statistics() as statistics, guest.vm.statistics() as of_vm:
        before = statistics.read()
        guest.run_to(KVM_EXIT_IO)
        guest.run_to(KVM_EXIT_HLT)
        after = statistics.read()
        assert after["exits"][0] > before["exits"][0]
        assert len(after) == len(statistics.statistics) > 10
        assert str(os.getpid()) in of_vm.id
        kinds = {each.kind for each in statistics.statistics}
        assert {"cumulative", "logarithmic histogram"} <= kinds
        histogram = next(each for each in statistics.statistics if each.kind == "logarithmic histogram")
        assert len(after[histogram.name]) == histogram.buckets > 1
        assert (histogram.unit, histogram.scale) == ("seconds", 1e-9)
