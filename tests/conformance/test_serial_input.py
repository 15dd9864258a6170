"""Input wakes a guest that sleeps: the serial port's interrupt, whoever's the chips are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from belljar.devices.console import BytesInput, FileInput
from belljar.errors import FeatureUnsupported
from belljar.exits import Exit, PortIo
from belljar.machine import End, Machine
from common import open_or_skip
from conformance.assembly import guest

KINDS = [
    ("kvm", "kernel", None), ("kvm", "split", None), ("kvm", "user", None), ("soft", "user", None), ("soft", "user", "host"),
]  # fmt: skip

ECHO = """
main:
    gate 0x44, serial
    redirect 4, 0x44
    xor ecx, ecx
    mov dx, 0x3F9
    mov al, 1                   # IER: data available
    out dx, al
    say '>'
wait:
    sti
    hlt
    cli
    cmp cl, '.'
    jne wait
    done
serial:
    mov dx, 0x3FD               # LSR: as long as there is data
    in al, dx
    test al, 1
    jz 1f
    mov dx, 0x3F8
    in al, dx
    mov cl, al
    out 0xE9, al
    jmp serial
1:  end_of_interrupt
    iretq
"""


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(filter(None, kind)))
def chips(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    name, irqchip, clock = request.param
    with open_or_skip(name) as engine:  # type: ignore[attr-defined]
        try:
            Machine(b"\xf4", engine=engine, irqchip=irqchip).close()
        except FeatureUnsupported as error:
            pytest.skip(error.message)
        yield {"engine": engine, "irqchip": irqchip, "mode": "long", "clock": clock}


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_input_that_comes_later_wakes_the_guest(chips: dict[str, object], pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with Machine(guest(ECHO), input=FileInput(reader), **chips) as machine:

        def type_on(exit: Exit) -> None:
            if isinstance(exit, PortIo) and exit.port == 0xE9 and exit.write:
                following = {b">": b"a", b"a": b"b", b"b": b"cd."}.get(bytes(exit.data))
                if following:
                    threading.Timer(0.02, os.write, (writer, following)).start()

        result = machine.run(timeout=20, observer=type_on)
        assert (result.end, machine.console) == (End.HALT, b">abcd.")


def test_input_that_is_there_already_is_taken(chips: dict[str, object]) -> None:
    with Machine(guest(ECHO), input=BytesInput(b"xyz."), **chips) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b">xyz."


def test_waiting_for_input_costs_no_time(chips: dict[str, object], pipe: tuple[int, int]) -> None:
    with Machine(guest(ECHO), input=FileInput(pipe[0]), **chips) as machine:
        before = time.process_time()
        assert machine.run(timeout=0.5).end is End.TIMEOUT
        assert time.process_time() - before < 0.1
        assert machine.input_thread is not None
    assert threading.active_count() == 1


def test_guest_that_waits_for_input_that_has_ended_is_halted_for_good() -> None:
    reader, writer = os.pipe()
    try:
        with Machine(guest(ECHO), engine="soft", irqchip="user", mode="long", input=FileInput(reader)) as machine:
            closing = threading.Timer(0.05, os.close, (writer,))
            closing.start()
            assert machine.run(timeout=20).end is End.HALT
            assert machine.console == b">"
            closing.join()
    finally:
        os.close(reader)
