"""When a machine in instruction time has halted for good, and when something may still wake it."""

from __future__ import annotations

import threading

import pytest

from belljar.devices.console import BytesInput
from belljar.exits import Exit, PortIo
from belljar.machine import End, Machine
from conformance.assembly import guest

PIT = """
    mov al, 0x34                # 8254: counter 0, rate generator, 3.4 ms
    out 0x43, al
    mov al, 0x00
    out 0x40, al
    mov al, 0x10
    out 0x40, al
"""

OPEN_PIC = """
    mov al, 0x11                # ICW1: edge, cascade, ICW4 follows
    out 0x20, al
    mov al, 0x20                # ICW2
    out 0x21, al
    mov al, 4                   # ICW3
    out 0x21, al
    mov al, 1                   # ICW4: 8086
    out 0x21, al
    mov al, 0xFE                # OCW1: IRQ 0 only
    out 0x21, al
"""

APIC_TIMER = """
    lapic 0x3E0, 0xB
    lapic 0x320, 0x20040        # periodic
    lapic 0x380, 100000
"""

ENDLESS = "1: hlt\n jmp 1b\n"

FOR_GOOD = {
    "nothing armed": "sti\n" + ENDLESS,
    "periodic timer, IF=0": APIC_TIMER + "cli\n hlt\n",
    "periodic timer, task priority too high": APIC_TIMER + "lapic 0x80, 0x40\n sti\n" + ENDLESS,
    "periodic timer, local APIC switched off": APIC_TIMER + "lapic 0xF0, 0xFF\n sti\n" + ENDLESS,
    "periodic timer, vector illegal": APIC_TIMER.replace("0x20040", "0x20008") + "sti\n" + ENDLESS,
    "masked 8254": PIT + "sti\n" + ENDLESS,
    "8254, LINT0 masked": OPEN_PIC + PIT + "lapic 0x350, 0x10700\n sti\n" + ENDLESS,
    "8254, LINT0 open, IF=0": OPEN_PIC + PIT + "lapic 0x350, 0x700\n cli\n hlt\n",
    "8254, IOAPIC pin masked": PIT + "redirect 2, 0x10040\n sti\n" + ENDLESS,
    "8254, message for another APIC": PIT + "redirect 2, 0x40, 0x5000000\n sti\n" + ENDLESS,
    "serial port asks for input, there is none": "redirect 4, 0x40\n mov dx, 0x3F9\n mov al, 1\n out dx, al\n sti\n"
    + ENDLESS,
}


@pytest.mark.parametrize("text", FOR_GOOD.values(), ids=FOR_GOOD.keys())
@pytest.mark.parametrize("cpus", [1, 2])
def test_machine_that_nothing_can_wake_ends(text: str, cpus: int) -> None:
    with Machine(guest("main:\n" + text), engine="soft", irqchip="user", mode="long", cpus=cpus) as machine:
        result = machine.run(timeout=20)
        assert (result.end, result.status) == (End.HALT, 0), result.message


TIMER_NOBODY_ENDS = (
    """
main:
    gate 0x40, handler
"""
    + APIC_TIMER
    + """
    sti
1:  hlt
    say 'r'
    jmp 1b
handler:
    say 'h'
    iretq                       # without an end of interrupt: no other of this class comes
"""
)


def test_timer_whose_interrupt_is_never_ended_wakes_once() -> None:
    with Machine(guest(TIMER_NOBODY_ENDS), engine="soft", irqchip="user", mode="long") as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"hr"


NMI_BY_LINT0 = (
    """
main:
    gate 2, nmi
"""
    + OPEN_PIC
    + """
    lapic 0x350, 0x400          # LINT0: NMI
"""
    + PIT
    + """
    cli
    hlt
    say 'w'
    hlt                         # INT stays up, for nobody acknowledges it: no more edges
nmi:
    say 'n'
    iretq
"""
)

NMI_BY_IOAPIC = (
    """
main:
    gate 2, nmi
    redirect 2, 0x400
    mov ecx, 3
"""
    + PIT
    + """
    cli
1:  hlt
    dec ecx
    jnz 1b
    redirect 2, 0x10400
    hlt
nmi:
    say 'n'
    iretq
"""
)


@pytest.mark.parametrize(("text", "expected"), [(NMI_BY_LINT0, b"nw"), (NMI_BY_IOAPIC, b"nnn")])
def test_nmi_of_a_chip_wakes_who_halted_with_interrupts_off(text: str, expected: bytes) -> None:
    with Machine(guest(text), engine="soft", irqchip="user", mode="long") as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == expected


LINE_9 = """
main:
    gate 0x44, handler
    redirect 9, 0x44
    say '?'
    sti
    hlt
    cli
    say 'e'
    hlt
handler:
    say 'l'
    end_of_interrupt
    iretq
"""


def test_line_that_somebody_outside_has_is_waited_for_only_where_it_leads_to_a_vcpu() -> None:
    with Machine(guest(LINE_9), engine="soft", irqchip="user", mode="long") as machine:
        line = machine.line(9, "somebody outside")
        threads: list[threading.Thread] = []

        def call(exit: Exit) -> None:
            if isinstance(exit, PortIo) and exit.data == b"?":
                threads.append(threading.Thread(target=line.pulse))
                threads[0].start()

        assert machine.run(timeout=20, observer=call).end is End.HALT
        threads[0].join()
        assert machine.console == b"?le"
    with Machine(
        guest(LINE_9.replace("0x44\n    say", "0x10044\n    say")), engine="soft", irqchip="user", mode="long"
    ) as machine:
        machine.line(9, "somebody outside")
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"?"


def test_guest_that_knows_nothing_of_chips_ends_when_it_halts() -> None:
    for code in (b"\xf4", b"\xfb\xf4\xeb\xfd"):
        with Machine(code, engine="soft", input=BytesInput(b"unread")) as machine:
            assert machine.run(timeout=20).end is End.HALT
