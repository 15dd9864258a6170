"""NMIs that come while one is served wait for its IRET, and end no halt (SDM 3A 6.7.1)."""

from __future__ import annotations

import pytest

from belljar.devices.lines import MsiRoute
from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

HALTED_IN_HANDLER = """
main:
    gate 2, nmi
    gate 0x40, tick
    lapic 0x300, 0x44400        # an NMI to itself
    chance
    say 'x'
    done
nmi:
    say 'n'
    {more}
    {flags}
    hlt
    say '?'
    done
tick:
    say 't'
    mov al, 0
    out 0xF4, al
"""


def test_who_halts_with_an_nmi_behind_the_one_it_serves_sleeps_for_good(chips: dict[str, object]) -> None:
    code = guest(HALTED_IN_HANDLER.format(more="lapic 0x300, 0x44400\n chance", flags="cli"))
    with Machine(code, **chips) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"n"


@pytest.mark.parametrize("engine", ["kvm", "soft"])
@pytest.mark.parametrize("flags", ["cli", "sti"])
def test_an_nmi_wakes_nobody_who_serves_one(engine: str, flags: str) -> None:
    code = guest(HALTED_IN_HANDLER.format(more="", flags=flags))
    with Machine(code, engine=engine, irqchip="user", mode="long", clock="host") as machine:
        assert machine.interrupts is not None
        machine.interrupts.set_routes([MsiRoute(40, 0xFEE0_0000, 0x400)])
        line = machine.line(40, "watchdog")
        machine.run(timeout=0.05)
        line.pulse()
        machine.run(timeout=0.05)
        assert machine.console == b"n"
        if flags == "sti":  # what is not an NMI does
            machine.interrupts.signal_msi(0xFEE0_0000, 0x40)
            assert machine.run(timeout=20).end is End.DEBUG_EXIT
            assert machine.console == b"nt"
