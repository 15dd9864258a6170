"""Host eventfds that raise interrupt lines, whosever the chips are."""

from __future__ import annotations

import os

import pytest

from belljar.errors import ConfigurationError
from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

TWO_EVENTS = """
main:
    redirect 11, 0x61
    redirect 12, 0x62
    gate 0x61, one
    gate 0x62, two
    out 0x80, al
1:  sti
    hlt
    cli
    cmp r15d, 4
    jb 1b
    say 'e'
    done
one:
    say '1'
    jmp both
two:
    say '2'
both:
    inc r15d
    end_of_interrupt
    out 0x80, al                # may the next one come
    iretq
"""


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("flags", [0, os.EFD_NONBLOCK], ids=["blocking", "not blocking"])
def test_host_eventfds_come_one_by_one_and_outlive_the_hosts_descriptors(chips: dict[str, object], flags: int) -> None:
    events = [os.eventfd(0, flags), os.eventfd(0, flags)]
    others = [os.dup(event) for event in events]
    acts = [lambda: os.eventfd_write(others[0], 5), lambda: os.eventfd_write(others[1], 1)] * 2

    class Acts:
        ports, port_width = range(0x80, 0x81), 1

        def port_read(self, port: int, size: int) -> int:
            return 0

        def port_write(self, port: int, size: int, value: int) -> None:
            if acts:
                acts.pop(0)()

    try:
        with Machine(guest(TWO_EVENTS), **chips) as machine:
            machine.bus.attach(Acts())
            assert machine.interrupts is not None
            for gsi, event in zip((11, 12), events, strict=True):
                machine.interrupts.connect_eventfd(event, gsi)
                os.close(event)
            result = machine.run(timeout=20)
            assert (result.end, machine.console) == (End.HALT, b"1212e"), result.message
    finally:
        for other in others:
            os.close(other)


def test_what_is_no_eventfd_is_refused(chips: dict[str, object]) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with Machine(b"\xf4", **{**chips, "mode": "real"}) as machine:
        assert machine.interrupts is not None
        before = len(machine.interrupts.lines)
        for wrong in (reader, writer, -1):
            with pytest.raises(ConfigurationError, match="eventfd"):
                machine.interrupts.connect_eventfd(wrong, 11)
        event = os.eventfd(0)
        with pytest.raises(ConfigurationError, match="line"):
            machine.interrupts.connect_eventfd(event, 1 << 20)
        os.close(event)
        assert len(machine.interrupts.lines) == before
    os.close(reader)
