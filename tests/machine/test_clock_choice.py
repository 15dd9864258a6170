"""`clock`: time in the guest follows the host's, or the instructions executed."""

from __future__ import annotations

import threading

import pytest

from belljar.errors import ConfigurationError, FeatureUnsupported
from belljar.exits import Exit, PortIo
from belljar.machine import End, Machine
from belljar.soft.hypervisor.charges import EXIT_NS
from common import open_or_skip
from conformance.assembly import guest

TICKS = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB
    lapic 0x320, 0x20040        # periodic, 5 ms
    mov ecx, 10
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov r12, rax
    lapic 0x380, 5000000
    sti
again:
    {idle}
    test ecx, ecx
    jnz again
    cli
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r12
    mov r12, rax
    done
tick:
    dec ecx
    end_of_interrupt
    iretq
"""

IDLE, BUSY = TICKS.format(idle="hlt"), TICKS.format(idle="nop")


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("text", [IDLE, BUSY], ids=["idle", "busy"])
def test_host_clock_makes_a_tick_take_its_time(text: str, cpus: int) -> None:
    options = {"engine": "soft", "irqchip": "user", "mode": "long", "cpus": cpus}
    with Machine(guest(text), clock="host", **options) as machine:
        result = machine.run(timeout=20)
        assert result.end is End.HALT
        assert 50_000_000 <= machine.cpu.r12 <= result.duration_ns
    with Machine(guest(text), **options) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert 50_000_000 <= machine.cpu.r12 < 50_000_000 + 3 * EXIT_NS


TWO_LOOKS = """
main:
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov r12, rax
    cli
    hlt
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r12
    hlt
"""


def test_guests_time_stands_still_between_runs() -> None:
    code = guest(TWO_LOOKS)
    with Machine(code, engine="soft", irqchip="user", mode="long", clock="host") as machine:
        first = machine.run(timeout=20)
        threading.Event().wait(0.3)
        second = machine.run(timeout=20)
        assert machine.cpu.rax <= first.duration_ns + second.duration_ns


LINE_5 = """
main:
    gate 0x55, come
    redirect 5, 0x55
    say '?'
    sti
    hlt
    cli
    say 'e'
    hlt
come:
    say 'l'
    end_of_interrupt
    iretq
"""


def test_line_from_another_thread_reaches_a_guest_that_waits_in_the_hosts_time() -> None:
    with Machine(guest(LINE_5), engine="soft", irqchip="user", mode="long", clock="host") as machine:
        line = machine.line(5, "somebody outside")
        threads: list[threading.Thread] = []

        def call(exit: Exit) -> None:
            if isinstance(exit, PortIo) and exit.data == b"?":
                threads.append(threading.Timer(0.05, line.pulse))
                threads[0].start()

        assert machine.run(timeout=20, observer=call).end is End.HALT
        threads[0].join()
        assert machine.console == b"?le"


def test_stop_ends_a_machine_that_waits_in_the_hosts_time() -> None:
    text = "main:\n redirect 5, 0x55\n sti\n1: hlt\n jmp 1b\n"
    with Machine(guest(text), engine="soft", irqchip="user", mode="long", clock="host") as machine:
        machine.line(5, "somebody outside")
        timer = threading.Timer(0.05, machine.stop)
        timer.start()
        assert machine.run(timeout=30).end is End.STOPPED
        timer.join()


def test_kvm_counts_no_instructions() -> None:
    open_or_skip("kvm").close()
    with pytest.raises(FeatureUnsupported, match="cannot count instructions"):
        Machine("hello-long", engine="kvm", clock="instructions")
    with Machine("hello-long", clock="instructions") as machine:
        assert machine.engine.name == "soft"
    with Machine("hello-long", engine="kvm", clock="host") as machine:
        assert machine.run(timeout=20).end is End.HALT


def test_unknown_clock_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no clock called"):
        Machine("hello-long", clock="sundial")
