"""Guests with their own IDT: what reaches a handler, when, and in which order, whoever's the interrupt chips are."""

from __future__ import annotations

import os
import threading

import pytest

from belljar.exits import Exit
from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips
from conformance.interrupt_guests import (
    CR8_LOWERED,
    LAPIC_TIMER_PERIODIC,
    PIT_THROUGH_IOAPIC,
    PIT_THROUGH_PIC,
    PRIORITIES,
    SERIAL_INTERRUPT,
    X2APIC_AND_BACK,
    console,
)

__all__ = ["chips"]

IN_SERVICE = """
main:
    gate 0x40, handler
    lapic 0x300, 0x44040
    sti
    chance
    cli
    done
handler:
    mov r8d, [rbx + 0x120]      # in-service bits 64 to 95
    end_of_interrupt
    iretq
"""


@pytest.fixture
def in_service(chips: dict[str, object]) -> None:
    """Skip where the chips do not keep an interrupt in service until its end, as some paravirtual KVMs do not."""
    with Machine(guest(IN_SERVICE), **chips) as machine:
        assert machine.run(timeout=20).end is End.HALT
        if machine.cpu.r8 != 1:
            pytest.skip("this host's KVM keeps no interrupt in service until its end")


LAPIC_TIMER_ONE_SHOT = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB            # divide by 1
    lapic 0x320, 0x40           # one-shot
    lapic 0x380, 1000000
    sti
    hlt
    say 'e'
    done
tick:
    say 't'
    end_of_interrupt
    iretq
"""

TASK_PRIORITY = """
main:
    gate 0x55, handler
    lapic 0x80, 0x50            # TPR: classes up to 5 wait
    lapic 0x300, 0x44055
    sti
    chance
    say 'a'
    lapic 0x80, 0x40
    chance
    say 'c'
    cli
    done
handler:
    say 'b'
    end_of_interrupt
    iretq
"""

NESTED = """
main:
    gate 0x40, low
    gate 0x90, high
    lapic 0x300, 0x44040
    sti
    chance
    cli
    done
low:
    say '('
    sti
    lapic 0x300, 0x44041        # same class: waits, and nobody ever takes it
    lapic 0x300, 0x44090        # higher class: at once
    chance
    say ')'
    cli
    end_of_interrupt
    lapic 0x80, 0xF0            # TPR: nothing more
    iretq
high:
    say '*'
    end_of_interrupt
    iretq
"""

NMI_WITH_INTERRUPTS_OFF = """
main:
    gate 2, nmi
    cli
    say 'a'
    lapic 0x310, 0              # to APIC 0
    lapic 0x300, 0x4400         # NMI
    chance
    say 'c'
    done
nmi:
    say 'n'
    iretq
"""

INTERRUPT_SHADOW = """
main:
    gate 0x40, handler
    lapic 0x300, 0x44040
    sti
    cli                         # comes before any interrupt, and then there is none
    chance
    say 'a'
    sti
    chance
    cli
    say 'c'
    done
handler:
    say 'h'
    end_of_interrupt
    iretq
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PIT_THROUGH_PIC, b"ttte"),
        (PIT_THROUGH_IOAPIC, b"te"),
        (LAPIC_TIMER_ONE_SHOT, b"te"),
        (LAPIC_TIMER_PERIODIC, b"tttte"),
        (PRIORITIES, b".321"),
        (TASK_PRIORITY, b"abc"),
        (NMI_WITH_INTERRUPTS_OFF, b"anc"),
        (INTERRUPT_SHADOW, b"ahc"),
        (X2APIC_AND_BACK, b"he"),
        (CR8_LOWERED, b"abc"),
        (SERIAL_INTERRUPT, b"se"),
    ],
    ids=[
        "pit-pic",
        "pit-ioapic",
        "one-shot",
        "periodic",
        "priorities",
        "tpr",
        "nmi",
        "shadow",
        "x2apic-and-back",
        "cr8-lowered",
        "serial",
    ],
)
def test_guest_handler_runs_when_it_should(chips: dict[str, object], text: str, expected: bytes) -> None:
    assert console(text, chips) == expected


@pytest.mark.usefixtures("in_service")
def test_only_a_higher_class_interrupts_a_handler(chips: dict[str, object]) -> None:
    assert console(NESTED, chips) == b"(*)"


LEVEL_TRIGGERED = """
main:
    gate 0x51, handler
    redirect 9, 0x8051          # fixed, level
    mov ecx, 3
    sti
    out 0x99, al                # the host raises line 9
    chance
    chance
    cli
    say 'e'
    done
handler:
    say 'l'
    dec ecx
    jnz 1f
    out 0x98, al                # the host lets go
1:  end_of_interrupt
    iretq
"""


class LinePort:
    """Ports by which a guest drives a line: 0x98 lowers it, 0x99 raises it."""

    ports = range(0x98, 0x9A)
    port_width = 1

    def __init__(self, machine: Machine) -> None:
        self.line = machine.line(9, "test")

    def port_read(self, port: int, size: int) -> int:
        return 0xFF

    def port_write(self, port: int, size: int, value: int) -> None:
        self.line(port == 0x99)


@pytest.mark.usefixtures("in_service")
def test_level_triggered_interrupt_comes_again_until_the_line_is_down(chips: dict[str, object]) -> None:
    with Machine(guest(LEVEL_TRIGGERED), **chips) as machine:
        machine.bus.attach(LinePort(machine))
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"llle"


MESSAGE = """
main:
    gate 0x61, handler
    sti
    say '?'                     # the host sends a message when it sees this
    hlt
    cli
    say 'e'
    done
handler:
    say 'm'
    end_of_interrupt
    iretq
"""


def test_host_sends_a_message_to_a_sleeping_guest(chips: dict[str, object]) -> None:
    with Machine(guest(MESSAGE), **chips) as machine:
        assert machine.interrupts is not None
        interrupts = machine.interrupts
        interrupts.expect_messages()
        threads = []

        def send(exit: Exit) -> None:
            if not threads:
                threads.append(threading.Timer(0.05, interrupts.signal_msi, (0xFEE0_0000, 0x61)))
                threads[0].start()

        result = machine.run(timeout=20, observer=send)
        threads[0].join()
        assert result.end is End.HALT
        assert machine.console == b"?me"


EVENT = MESSAGE.replace("main:", "main:\n    redirect 11, 0x61\n")


def test_host_eventfd_interrupts_a_sleeping_guest(chips: dict[str, object]) -> None:
    event = os.eventfd(0)
    try:
        with Machine(guest(EVENT), **chips) as machine:
            assert machine.interrupts is not None
            machine.interrupts.connect_eventfd(event, 11)
            timers: list[threading.Timer] = []

            def send(exit: Exit) -> None:
                if not timers:
                    timers.append(threading.Timer(0.05, os.eventfd_write, (event, 1)))
                    timers[0].start()

            result = machine.run(timeout=20, observer=send)
            timers[0].join()
            assert result.end is End.HALT
            assert machine.console == b"?me"
    finally:
        os.close(event)


def test_explanation_says_which_line_reaches_which_vector(chips: dict[str, object]) -> None:
    with Machine(guest(SERIAL_INTERRUPT), cpus=2, **chips) as machine:
        machine.run(timeout=20)
        assert machine.interrupts is not None
        rows = [row for row in machine.interrupts.explain() if row.gsi == 4 and row.chip == "ioapic"]
        assert [(row.sources, row.pin) for row in rows] == [(("serial",), 4)]
        state = rows[0].state
        assert (state.vector, state.delivery, state.masked, state.cpus) == (0x44, "fixed", False, (0,))


CR8_HOLDS_BACK = """
main:
    gate 0x55, handler
    mov eax, 5
    mov cr8, rax
    lapic 0x300, 0x44055
    sti
    nop
    say 'a'
    mov eax, 4
    mov cr8, rax
    nop
    say 'c'
    done
handler:
    say 'b'
    end_of_interrupt
    iretq
"""


def test_cr8_holds_interrupts_back() -> None:
    assert console(CR8_HOLDS_BACK, {"engine": "soft", "irqchip": "user", "mode": "long"}) == b"abc"


@pytest.mark.parametrize("irqchip", ["kernel", "split"])
def test_soft_engine_has_no_kernel_whose_chips_it_could_use_and_says_so(irqchip: str) -> None:
    with Machine(guest(PIT_THROUGH_PIC), engine="soft", irqchip=irqchip, mode="long") as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"ttte"
        assert machine.chips.which == "user"
        assert f"belljar's own serve --irqchip {irqchip}" in machine.chips.reason
