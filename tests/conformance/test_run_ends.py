"""Machines that sleep or tick for ever end all the same, and go on afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from belljar.machine import End, Machine
from common import ctrl_c, open_or_skip
from conformance.assembly import guest
from conformance.chips import chips, options_for

__all__ = ["chips"]

IDLE = "main:\n redirect 5, 0x55\n sti\n1: hlt\n jmp 1b\n"
"""Nothing is armed: only somebody outside can end this, who has line 5."""


@pytest.mark.parametrize("cpus", [1, 3])
def test_time_limit_ends_a_machine_that_sleeps_and_costs_no_time(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(IDLE), cpus=cpus, **chips) as machine:
        machine.line(5, "somebody outside")
        before = time.process_time()
        result = machine.run(timeout=0.5)
        spent = time.process_time() - before
    assert (result.end, result.status) == (End.TIMEOUT, 124)
    assert spent < 0.1


@pytest.mark.parametrize("cpus", [1, 3])
def test_stop_ends_a_machine_that_sleeps(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(IDLE), cpus=cpus, **chips) as machine:
        machine.line(5, "somebody outside")
        timer = threading.Timer(0.05, machine.stop)
        timer.start()
        assert machine.run(timeout=30).end is End.STOPPED
        timer.join()
        assert machine.run(timeout=0.05).end is End.TIMEOUT


@pytest.mark.parametrize("cpus", [1, 3])
def test_keyboard_interrupt_ends_a_machine_that_sleeps(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(IDLE), cpus=cpus, **chips) as machine:
        machine.line(5, "somebody outside")
        with ctrl_c():
            machine.run(timeout=30)


TICKING = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB                # divide by 1
    lapic 0x320, 0x20040            # periodic
    lapic 0x380, 1000
    sti
1:  hlt
    jmp 1b
tick:
    end_of_interrupt
    iretq
"""
"""Never more than a few instructions between two ticks: an engine that compiles its run loop must come up for air."""


@pytest.mark.parametrize("cpus", [1, 3])
def test_stop_ends_a_machine_that_ticks_all_the_time(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(TICKING), cpus=cpus, **chips) as machine:
        timer = threading.Timer(0.05, machine.stop)
        timer.start()
        assert machine.run(timeout=30).end is End.STOPPED
        timer.join()
        assert machine.run(timeout=0.05).end is End.TIMEOUT


@pytest.mark.parametrize("cpus", [1, 3])
def test_keyboard_interrupt_ends_a_machine_that_ticks_all_the_time(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(TICKING), cpus=cpus, **chips) as machine:
        began = time.monotonic()
        with ctrl_c():
            machine.run(timeout=30)
        assert time.monotonic() < began + 20  # and not at its time limit


WRITING = b"\xe6\x80\xeb\xfc"  # again: out 0x80, al; jmp again


class Failing:
    """A device with a mistake."""

    ports, port_width = range(0x80, 0x81), 1

    def port_read(self, port: int, size: int) -> int:
        return 0

    def port_write(self, port: int, size: int, value: int) -> None:
        raise ValueError("a mistake")


def leave(machine: Machine) -> None:
    """Look at one exit, and at no more."""
    for _ in machine.exits(timeout=20):
        break


def fail(machine: Machine) -> None:
    """Have a device raise something."""
    machine.bus.attach(Failing())
    with pytest.raises(ValueError, match="a mistake"):
        machine.run(timeout=20)


@pytest.mark.parametrize("end", [leave, fail])
@pytest.mark.parametrize(("name", "irqchip"), [("kvm", "user"), ("kvm", "split"), ("soft", "user")])
def test_time_stands_still_after_a_run_however_it_ended(
    name: str, irqchip: str, end: Callable[[Machine], None]
) -> None:
    with options_for(name, irqchip) as options, Machine(WRITING, clock="host", **options) as machine:
        end(machine)
        assert machine.own_interrupts is not None
        now_ns = machine.own_interrupts.clock.now_ns
        assert now_ns() == now_ns()


def test_run_after_the_end_goes_on_behind_the_halt(chips: dict[str, object]) -> None:
    with Machine(guest("main:\n say '1'\n cli\n hlt\n say '2'\n hlt\n"), **chips) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"1"
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"12"


@pytest.mark.usefixtures("leaves_nothing")
def test_machine_with_chips_leaves_nothing_behind() -> None:
    for _ in range(3):
        with open_or_skip("kvm") as engine, Machine("hello-long", engine=engine, irqchip="kernel") as machine:  # type: ignore[attr-defined]
            assert machine.run(timeout=20).end is End.HALT
