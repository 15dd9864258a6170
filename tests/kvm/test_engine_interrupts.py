"""Interrupts from chips that are not the kernel's: each is delivered once, by KVM_INTERRUPT or with the next KVM_RUN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from belljar.errors import ClosedError
from belljar.exits import ExitReason
from belljar.kvm.abi.run import KVM_SYNC_X86_EVENTS
from belljar.kvm.engine import KvmEngine
from belljar.kvm.engine_vcpu import KvmVcpu
from kvm.machines import Small

VECTOR, NMI_VECTOR = 0x40, 2
HANDLER_GPA, NMI_HANDLER_GPA = 0x3000, 0x3100
SLEEP = b"\xfb\xf4\xeb\xfd"  # sti; again: hlt; jmp again
COUNT = b"\x43\xcf"  # inc bx; iret
COUNT_NMI = b"\x41\xcf"  # inc cx; iret


@pytest.fixture
def vcpu(kvm: KvmEngine) -> Iterator[KvmVcpu]:
    """One that sleeps, and counts interrupts in BX, NMIs in CX; events go with KVM_RUN from the second interrupt on."""
    with Small(kvm, SLEEP) as small:
        for vector, gpa, code in ((VECTOR, HANDLER_GPA, COUNT), (NMI_VECTOR, NMI_HANDLER_GPA, COUNT_NMI)):
            small.memory.write(4 * vector, gpa.to_bytes(4, "little"))
            small.memory.write(gpa, code)
        assert small.vcpu.run(small.bus) is ExitReason.HLT
        deliver(small.vcpu, small)
        yield small.vcpu


def deliver(vcpu: KvmVcpu, small: Small | None = None) -> None:
    """One interrupt, served to its end."""
    assert vcpu.ready_for_interrupt()
    assert vcpu.inject_interrupt(VECTOR)
    assert not vcpu.ready_for_interrupt()
    go(vcpu, small)


def go(vcpu: KvmVcpu, small: Small | None = None) -> None:
    """Until it sleeps."""
    bus = vcpu._bus if small is None else small.bus
    assert bus is not None
    assert vcpu.run(bus) is ExitReason.HLT


def counts(vcpu: KvmVcpu) -> tuple[int, int]:
    """Interrupts and NMIs that were served."""
    registers = vcpu.get_registers()
    return registers.rbx, registers.rcx


def goes_with_kvm_run(vcpu: KvmVcpu) -> bool:
    """Whether an interrupt is in the run page, for the next KVM_RUN to take."""
    return bool(vcpu.raw.page.kvm_dirty_regs & KVM_SYNC_X86_EVENTS)


def test_each_interrupt_is_delivered_once(vcpu: KvmVcpu) -> None:
    for _ in range(5):
        deliver(vcpu)
    assert counts(vcpu) == (6, 0)


def test_each_interrupt_is_delivered_once_to_a_guest_that_is_looked_at_between(vcpu: KvmVcpu) -> None:
    for number in range(2, 5):
        deliver(vcpu)
        assert counts(vcpu) == (number, 0)


def test_interrupt_costs_no_system_call_of_its_own_where_kvm_takes_events_with_kvm_run(vcpu: KvmVcpu) -> None:
    if not vcpu._loop.syncs_events:
        pytest.skip("this host's KVM takes no events with KVM_RUN")
    assert vcpu.inject_interrupt(VECTOR)
    assert goes_with_kvm_run(vcpu)
    go(vcpu)
    assert not goes_with_kvm_run(vcpu)
    assert counts(vcpu) == (2, 0)


def test_who_looks_at_a_vcpus_state_finds_the_interrupt_that_waits_for_entry(vcpu: KvmVcpu) -> None:
    assert vcpu.inject_interrupt(VECTOR)
    assert counts(vcpu) == (1, 0)
    assert not goes_with_kvm_run(vcpu)
    waiting = vcpu.raw.get_events().interrupt
    assert (waiting.injected, waiting.nr) == (1, VECTOR)
    go(vcpu)
    assert counts(vcpu) == (2, 0)


def test_interrupt_survives_a_kick_before_entry(vcpu: KvmVcpu) -> None:
    assert vcpu.inject_interrupt(VECTOR)
    vcpu.kick()
    assert vcpu._bus is not None
    assert vcpu.run(vcpu._bus) is ExitReason.INTERRUPTED
    assert not vcpu.ready_for_interrupt()
    go(vcpu)
    assert counts(vcpu) == (2, 0)


def test_interrupt_and_nmi_that_wait_together_are_both_delivered(vcpu: KvmVcpu) -> None:
    assert vcpu.inject_interrupt(VECTOR)
    vcpu.inject_nmi()
    go(vcpu)
    while counts(vcpu) != (2, 1):  # KVM may take the second at an entry of its own
        go(vcpu)


def test_closed_vcpu_takes_no_interrupt(kvm: KvmEngine) -> None:
    small = Small(kvm, SLEEP)
    with small:
        pass
    for ask in (
        small.vcpu.ready_for_interrupt,
        lambda: small.vcpu.inject_interrupt(VECTOR),
        lambda: small.vcpu.apic_base,
    ):
        with pytest.raises(ClosedError):
            ask()
