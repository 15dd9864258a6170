"""Lines that lead to NMIs: who has halted with interrupts off is not asleep for good while one may come."""

from __future__ import annotations

import os
import threading

import pytest

from belljar.devices.lines import IoapicRoute, MsiRoute, Route
from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

WATCHED = """
main:
    gate 2, nmi
    {pin}
    cli
    say '?'
    hlt
    say 'e'
    mov al, 0
    out 0xF4, al
nmi:
    say 'n'
    iretq
"""

WAYS: dict[str, tuple[str, int, list[Route]]] = {
    "pin": ("redirect 11, 0x0400", 11, [IoapicRoute(11, 11)]),
    "message": ("", 40, [MsiRoute(40, 0xFEE0_0000, 0x0400)]),
}
"""What the guest programs, the line, and where it leads."""


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_line_wakes_who_has_halted_with_interrupts_off(chips: dict[str, object], way: str, cpus: int) -> None:
    program, gsi, routes = WAYS[way]
    with Machine(guest(WATCHED.format(pin=program)), cpus=cpus, **chips) as machine:
        assert machine.interrupts is not None
        machine.interrupts.set_routes(routes)
        line = machine.line(gsi, "watchdog")
        assert machine.run(timeout=0.2).end is End.TIMEOUT, "it may still come"
        timer = threading.Timer(0.05, line.pulse)
        timer.start()
        result = machine.run(timeout=20)
        timer.join()
        assert (result.end, machine.console) == (End.DEBUG_EXIT, b"?ne"), result.message


@pytest.mark.parametrize("way", WAYS)
def test_an_eventfd_wakes_who_has_halted_with_interrupts_off(chips: dict[str, object], way: str) -> None:
    program, gsi, routes = WAYS[way]
    event = os.eventfd(0)
    with Machine(guest(WATCHED.format(pin=program)), **chips) as machine:
        assert machine.interrupts is not None
        machine.interrupts.set_routes(routes)
        machine.interrupts.connect_eventfd(event, gsi)
        timer = threading.Timer(0.1, os.eventfd_write, (event, 1))
        timer.start()
        result = machine.run(timeout=20)
        timer.join()
        assert (result.end, machine.console) == (End.DEBUG_EXIT, b"?ne"), result.message
    os.close(event)


def test_without_such_a_line_it_sleeps_for_good(chips: dict[str, object]) -> None:
    with Machine(guest(WATCHED.format(pin="redirect 11, 0x10400")), **chips) as machine:
        machine.line(11, "watchdog")
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"?"
