"""LINT0 of the local APICs, on which a PC has the output of its 8259s: whatever the guest programs it for."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

TICKS = """
main:
    gate 2, tick
    gate 0x40, tick
    mov al, 0x11                # ICW1 to ICW4 of the first 8259
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xFE                # only IRQ 0
    out 0x21, al
    lapic 0x350, {entry}
    mov al, 0x34                # 8254: counter 0, rate generator, 3.4 ms
    out 0x43, al
    mov al, 0x00
    out 0x40, al
    mov al, 0x10
    out 0x40, al
    {flags}
1:  hlt
    cmp r15d, 3
    jb 1b
    mov al, 0
    out 0xF4, al
tick:
    push rax
    inc r15d
    say 'n'
    mov al, 0x0C                # OCW3: poll, which acknowledges, so that INT goes down
    out 0x20, al
    in al, 0x20
    mov al, 0x20                # end of interrupt
    out 0x20, al
    pop rax
    {end}
    iretq
"""


@pytest.mark.parametrize("cpus", [1, 2])
def test_ticks_through_the_8259_become_nmis(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(TICKS.format(entry="0x400", flags="cli", end="")), cpus=cpus, **chips) as machine:
        result = machine.run(timeout=20)
        assert (result.end, machine.console) == (End.DEBUG_EXIT, b"nnn"), result.message


def test_ticks_through_the_8259_become_vectors_of_the_local_apic(chips: dict[str, object]) -> None:
    if chips["irqchip"] == "kernel":
        pytest.skip("the kernel's 8254 reaches LINT0 for NMIs only (`kvm_apic_nmi_wd_deliver`, arch/x86/kvm/i8254.c)")
    text = TICKS.format(entry="0x40", flags="sti", end="end_of_interrupt")
    with Machine(guest(text), **chips) as machine:
        result = machine.run(timeout=20)
        assert (result.end, machine.console) == (End.DEBUG_EXIT, b"nnn"), result.message
