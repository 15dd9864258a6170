"""Whatever stands for an integer is one, as in Python itself: numpy's, above all, where compiled code takes exact ones only."""

from __future__ import annotations

import os

import pytest

from belljar.devices.lines import IoapicRoute, MsiRoute, PicRoute
from belljar.errors import ConfigurationError
from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]


class Number:
    """An integer for those who ask for one, and nothing else."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


HANDLES = """
main:
    gate 0x40, handler
    gate 0x41, handler
    redirect 5, 0x40
    redirect 6, 0x40
    sti
1:  pause
    in al, 0x80
    jmp 1b
handler:
    push rax
    say 'h'
    end_of_interrupt
    pop rax
    iretq
"""


def test_lines_routes_messages_and_eventfds(chips: dict[str, object]) -> None:
    event = os.eventfd(0)
    with Machine(guest(HANDLES), **chips) as machine:
        assert machine.interrupts is not None
        machine.interrupts.set_routes(
            [
                PicRoute(Number(5), Number(5)), IoapicRoute(Number(5), Number(5)), IoapicRoute(6, Number(6)),
                MsiRoute(Number(40), Number(0xFEE0_0000), Number(0x41)),
            ]
        )  # fmt: skip
        line, message = machine.line(Number(5), "line"), machine.line(Number(40), "message")
        machine.interrupts.expect(Number(5))
        machine.run(timeout=0.05)
        machine.interrupts.connect_eventfd(Number(event), Number(6))
        for count, raise_it in enumerate(
            [
                line.pulse,
                message.pulse,
                lambda: machine.interrupts.signal_msi(Number(0xFEE0_0000), Number(0x40)),  # type: ignore[union-attr]
                lambda: os.eventfd_write(event, 1),
            ],
            1,
        ):
            raise_it()
            for _ in range(200):  # an eventfd is listened to by another thread
                machine.run(timeout=0.01)
                if machine.console == b"h" * count:
                    break
            assert machine.console == b"h" * count
        assert {route.gsi for route in machine.interrupts.explain()} == {5, 6, 40}
    os.close(event)


def test_a_machine_and_its_vcpus(chips: dict[str, object]) -> None:
    options = {"memory": Number(16 << 20), "cpus": Number(2), "registers": {"rax": Number(4)}, "pin": [Number(0)]}
    with Machine(guest("main:\n1: nop\n jmp 1b\n"), **chips, **options) as machine:
        machine.cpu.set(rbx=Number(1 << 63), cl=Number(5))
        assert (machine.cpu["rax"], machine.cpu["rbx"], machine.cpu["cl"]) == (4, 1 << 63, 5)
        machine.add_breakpoint(Number(0x1000))
        machine.remove_breakpoint(Number(0x1000))
        machine.pin(Number(1), Number(0))
        machine.remove_cpu(Number(1))
        assert machine.cpu.translate(Number(0x1000)).gpa == 0x1000
        machine.memory.write_u32(0x3000, Number(7))
        machine.cpu.inject_machine_check(Number(1), Number(9 << 60))
        machine.cpu.inject_exception(Number(13), Number(0))
        if machine.engine.name == "soft":
            machine.add_watchpoint(Number(0x3000), Number(4))
            machine.remove_watchpoint(Number(0x3000))
        assert machine.run(timeout=0.01).end in (End.TIMEOUT, End.CRASH)


def test_a_number_of_instructions() -> None:
    with Machine(b"\xeb\xfe", engine="soft") as machine:
        for count in (10, 100_000):
            assert machine.run(instructions=Number(count)).end is End.INSTRUCTION_LIMIT


def test_what_is_no_integer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="memory is an integer"):
        Machine(b"\xf4", memory=1.5)
