"""Chips, lines, messages and doorbells, each seen by a guest or read back."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

import pytest

from belljar.errors import ConfigurationError, KvmCallFailed
from belljar.kvm import IrqchipRoute, Kvm, MsiRoute, Vm
from belljar.kvm.abi import caps
from belljar.kvm.abi.flags import (
    KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_X2APIC_API_USE_32BIT_IDS,
)
from belljar.kvm.abi.run import KVM_EXIT_HLT, KVM_EXIT_IO
from belljar.kvm.abi.structs import kvm_irq_routing_entry
from kvm.guest import Guest, deadline, need

APIC_MSI_GPA = 0xFEE0_0000
VECTOR = 0x30
HANDLER_GPA = 0x2000

WRITE_PORTS = b"\xb0\x41\xe6\x80\xe6\x81\xe6\xe9\xf4"  # mov al, 'A'; out 0x80, al; out 0x81, al; out 0xe9, al; hlt


@pytest.fixture
def chips(system: Kvm) -> Iterator[Guest]:
    """A guest with the kernel's interrupt chips, waiting with interrupts on; its handler writes its vector to a port."""
    with system.create_vm() as vm:
        vm.set_tss_address(0xFFFB_D000)
        vm.create_irqchip()
        with Guest(vm) as guest:
            guest.load(b"\xfb\xeb\xfe")  # sti; jmp $
            handler = b"\xb0\x30\xe6\xe9\xcf"  # mov al, 0x30; out 0xe9, al; iret
            guest.memory[HANDLER_GPA : HANDLER_GPA + len(handler)] = handler
            guest.memory[VECTOR * 4 : VECTOR * 4 + 4] = HANDLER_GPA.to_bytes(4, "little")
            enable_apic(guest)
            yield guest


def enable_apic(guest: Guest) -> None:
    """Switch the local APIC on by its spurious-interrupt register (SDM 3A 11.9)."""
    state = guest.vcpu.get_lapic()
    regs = bytearray(state.regs)
    regs[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")
    state.regs = bytes(regs)
    guest.vcpu.set_lapic(state)


def expect_vector(guest: Guest) -> None:
    guest.run_to(KVM_EXIT_IO)
    io = guest.vcpu.page.exit.io
    assert (io.port, guest.vcpu.mapping[io.data_offset]) == (0xE9, VECTOR)


@pytest.mark.parametrize("chip", [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE])
def test_state_of_an_8259_is_kept(chips: Guest, chip: int) -> None:
    state = chips.vm.get_irqchip(chip)
    assert state.chip_id == chip
    state.chip.pic.imr = 0xA5
    state.chip.pic.irq_base = 0x20
    chips.vm.set_irqchip(state)
    back = chips.vm.get_irqchip(chip).chip.pic
    assert (back.imr, back.irq_base) == (0xA5, 0x20)


def test_state_of_the_ioapic_is_kept(chips: Guest) -> None:
    state = chips.vm.get_irqchip(KVM_IRQCHIP_IOAPIC)
    assert state.chip.ioapic.base_address == 0xFEC0_0000
    entries = list(state.chip.ioapic.redirtbl)
    entries[5] = 1 << 16 | 0x55  # masked, vector 0x55
    state.chip.ioapic.redirtbl = tuple(entries)
    chips.vm.set_irqchip(state)
    assert chips.vm.get_irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic.redirtbl[5] == 1 << 16 | 0x55


def test_unknown_chip_is_refused(chips: Guest) -> None:
    with pytest.raises(KvmCallFailed):
        chips.vm.get_irqchip(9)


def test_msi_reaches_the_guest(chips: Guest) -> None:
    assert chips.vm.signal_msi(APIC_MSI_GPA, VECTOR) > 0
    expect_vector(chips)


def test_line_of_the_ioapic_reaches_the_guest(chips: Guest) -> None:
    state = chips.vm.get_irqchip(KVM_IRQCHIP_IOAPIC)
    entries = list(state.chip.ioapic.redirtbl)
    entries[10] = VECTOR
    state.chip.ioapic.redirtbl = tuple(entries)
    chips.vm.set_irqchip(state)
    chips.vm.set_irq_line(10, True)
    chips.vm.set_irq_line(10, False)
    expect_vector(chips)


def test_line_status_says_what_became_of_it(chips: Guest) -> None:
    need(chips.vm, caps.KVM_CAP_IRQ_INJECT_STATUS)
    state = chips.vm.get_irqchip(KVM_IRQCHIP_IOAPIC)
    entries = list(state.chip.ioapic.redirtbl)
    entries[11] = VECTOR
    state.chip.ioapic.redirtbl = tuple(entries)
    chips.vm.set_irqchip(state)
    assert chips.vm.set_irq_line_status(11, True) > 0
    chips.vm.set_irq_line_status(11, False)
    expect_vector(chips)


def test_irqfd_through_a_route_reaches_the_guest(chips: Guest) -> None:
    chips.vm.set_gsi_routing([MsiRoute(24, APIC_MSI_GPA, VECTOR), IrqchipRoute(0, KVM_IRQCHIP_PIC_MASTER, 0)])
    eventfd = os.eventfd(0)
    try:
        chips.vm.add_irqfd(eventfd, 24)
        with pytest.raises(KvmCallFailed):
            chips.vm.add_irqfd(eventfd, 24)
        os.eventfd_write(eventfd, 1)
        expect_vector(chips)
        chips.vm.remove_irqfd(eventfd, 24)
    finally:
        os.close(eventfd)


def line_is_up(chips: Guest, pin: int) -> bool:
    """Whether the IOAPIC sees a level at a pin."""
    return bool(chips.vm.get_irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr >> pin & 1)


def test_resampling_irqfd_holds_its_line_up(chips: Guest) -> None:
    need(chips.vm, caps.KVM_CAP_IRQFD_RESAMPLE)
    trigger, resample = os.eventfd(0), os.eventfd(0)
    try:
        chips.vm.add_irqfd(trigger, 12, resample=resample)
        assert not line_is_up(chips, 12)
        os.eventfd_write(trigger, 1)
        until = deadline()
        while not line_is_up(chips, 12):  # the kernel raises it by a thread of its own
            assert time.monotonic_ns() < until
        chips.vm.remove_irqfd(trigger, 12)
    finally:
        os.close(trigger)
        os.close(resample)


def test_routes_may_be_given_as_the_kernels_own(chips: Guest) -> None:
    entry = kvm_irq_routing_entry(gsi=30, type=2)
    entry.u.msi.address_lo, entry.u.msi.data = APIC_MSI_GPA, VECTOR
    chips.vm.set_gsi_routing([entry])
    chips.vm.set_irq_line(30, True)
    expect_vector(chips)


def test_impossible_route_is_refused(chips: Guest) -> None:
    with pytest.raises(KvmCallFailed, match="KVM_SET_GSI_ROUTING"):
        chips.vm.set_gsi_routing([IrqchipRoute(0, 77, 0)])


def test_state_of_the_8254_is_kept(chips: Guest) -> None:
    chips.vm.create_pit()
    state = chips.vm.get_pit()
    state.channels[2].count = 0x1234
    state.channels[2].mode = 3
    chips.vm.set_pit(state)
    back = chips.vm.get_pit().channels[2]
    assert (back.count, back.mode) == (0x1234, 3)
    chips.vm.reinject_pit(False)


def test_8254_needs_the_other_chips(vm: Vm) -> None:
    with pytest.raises(KvmCallFailed, match="KVM_CREATE_PIT2"):
        vm.create_pit()


def test_split_irqchip_has_only_local_apics(system: Kvm) -> None:
    need(system, caps.KVM_CAP_SPLIT_IRQCHIP)
    with system.create_vm() as vm:
        vm.split_irqchip(24)
        with Guest(vm) as guest:
            assert len(guest.vcpu.get_lapic().regs) == 1024
            with pytest.raises(KvmCallFailed):
                vm.get_irqchip(KVM_IRQCHIP_PIC_MASTER)


@pytest.mark.parametrize("wide", [False, True])
def test_x2apic_id_has_32_bits_where_asked_for(vm: Vm, wide: bool) -> None:
    if not need(vm, caps.KVM_CAP_X2APIC_API) & KVM_X2APIC_API_USE_32BIT_IDS:
        pytest.skip("this host's KVM lacks KVM_X2APIC_API_USE_32BIT_IDS")
    if wide:
        vm.use_x2apic_ids(KVM_X2APIC_API_USE_32BIT_IDS)
    vm.create_irqchip()
    with vm.create_vcpu(5) as vcpu:
        vcpu.set_cpuid(vm.kvm.supported_cpuid())
        sregs = vcpu.get_sregs()
        sregs.apic_base |= 1 << 10  # x2APIC mode
        vcpu.set_sregs(sregs)
        number = int.from_bytes(vcpu.get_lapic().regs[0x20:0x24], "little")
    assert number == (5 if wide else 5 << 24)


def test_ioeventfd_takes_a_port_write_without_an_exit(guest: Guest) -> None:
    eventfd = os.eventfd(0)
    try:
        guest.vm.add_ioeventfd(eventfd, port=0x80, size=1)
        guest.vm.add_ioeventfd(eventfd, port=0x81, size=1, value=0x42)  # another value: an exit
        guest.load(WRITE_PORTS)
        guest.run_to(KVM_EXIT_IO)
        assert guest.vcpu.page.exit.io.port == 0x81
        assert os.eventfd_read(eventfd) == 1
        guest.vm.remove_ioeventfd(eventfd, port=0x80, size=1)
        guest.vcpu.page.immediate_exit = 1
        guest.vcpu.run()  # finishes the write to 0x81
        guest.vcpu.page.immediate_exit = 0
        guest.load(WRITE_PORTS)
        guest.run_to(KVM_EXIT_IO)
        assert guest.vcpu.page.exit.io.port == 0x80
    finally:
        os.close(eventfd)


def test_ioeventfd_takes_a_memory_write_of_any_size(guest: Guest) -> None:
    need(guest.vm, caps.KVM_CAP_IOEVENTFD_ANY_LENGTH)
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        guest.vm.add_ioeventfd(eventfd, gpa=0xB8000)
        guest.load(b"\xb8\x00\xb8\x8e\xd8\xa3\x00\x00\xf4")  # mov ax, 0xb800; mov ds, ax; mov [0], ax; hlt
        guest.run_to(KVM_EXIT_HLT)
        assert select.select([eventfd], [], [], 0)[0]
    finally:
        os.close(eventfd)


def test_ioeventfd_of_a_strange_size_is_refused(vm: Vm) -> None:
    with pytest.raises(ConfigurationError, match="3"):
        vm.add_ioeventfd(0, port=0x80, size=3)


def test_writes_are_told_by_an_address_or_by_a_port(vm: Vm) -> None:
    with pytest.raises(ConfigurationError, match="one of the two"):
        vm.add_ioeventfd(0)
    with pytest.raises(ConfigurationError, match="one of the two"):
        vm.add_coalesced_zone(gpa=0xB8000, port=0x80, size=1)


def test_writes_to_a_zone_are_collected_in_order(guest: Guest) -> None:
    need(guest.vm, caps.KVM_CAP_COALESCED_PIO)
    guest.vm.add_coalesced_zone(port=0x80, size=1)
    guest.vm.add_coalesced_zone(gpa=0xB8000, size=4096)
    # mov ax, 0xb800; mov ds, ax; mov al, 'A'; out 0x80, al; mov [4], al; inc ax; out 0x80, al; hlt
    guest.load(b"\xb8\x00\xb8\x8e\xd8\xb0\x41\xe6\x80\xa2\x04\x00\x40\xe6\x80\xf4")
    guest.run_to(KVM_EXIT_HLT)
    writes = guest.vcpu.coalesced_writes()
    assert [(write.phys_addr, write.pio, write.len, write.data[0]) for write in writes] == [
        (0x80, 1, 1, 0x41),
        (0xB8004, 0, 1, 0x41),
        (0x80, 1, 1, 0x42),
    ]
    assert guest.vcpu.coalesced_writes() == []
    guest.vm.remove_coalesced_zone(port=0x80, size=1)
    guest.vm.remove_coalesced_zone(gpa=0xB8000, size=4096)
    guest.load(b"\xe6\x80\xf4")
    guest.run_to(KVM_EXIT_IO)
    assert guest.vcpu.page.exit.io.port == 0x80
