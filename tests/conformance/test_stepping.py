"""Stepping a guest with interrupts: what a step is, on each engine with each kind of chips; and no trace of it in the guest."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

WAITING = """
main:
    gate 0x40, tick
    gate 2, nmi
    gate 6, undefined
    lapic 0x300, {command}      # to itself, and it waits for STI
    nop
here:
    sti
    nop
    inc r15d
    inc r15d
    ud2
    say 'e'
    mov al, 0
    out 0xF4, al
tick:
nmi:
    push rax
    say 't'
    pop rax
    end_of_interrupt
    iretq
undefined:
    push rax
    say 'u'
    pop rax
    add qword ptr [rsp], 2
    iretq
"""

TIMER = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB
    lapic 0x320, 0x40
    lapic 0x380, 20000000       # 20 ms
    nop
here:
    sti
    hlt
    inc r15d
    inc r15d
    say 'e'
    mov al, 0
    out 0xF4, al
tick:
    push rax
    say 't'
    pop rax
    end_of_interrupt
    iretq
"""

HERE = b"\x90\xfb"
"""NOP, STI."""


def at(code: bytes) -> int:
    """Where STI is."""
    return 0x1000 + code.index(HERE) + 1


def run_to(machine: Machine, gva: int) -> None:
    machine.add_breakpoint(gva)
    result = machine.run(timeout=20)
    machine.remove_breakpoint(gva)
    assert (result.end, machine.cpu.rip) == (End.DEBUG, gva), result.message


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("command", ["0x44040", "0x44400"], ids=["fixed", "nmi"])
def test_interrupts_wait_until_the_machine_runs_on(chips: dict[str, object], command: str, steps: int) -> None:
    code = guest(WAITING.format(command=command))
    with Machine(code, **chips) as machine:
        if command == "0x44040":
            run_to(machine, at(code))
        else:  # which nothing holds back
            run_to(machine, at(code) - len(b"\x90") - 10)
        for _ in range(steps):
            assert machine.step().end is End.DEBUG
        assert b"t" not in machine.console
        result = machine.run(timeout=20)
        assert result.end is End.DEBUG_EXIT, result.message
        assert sorted(machine.console) == sorted(b"tue")


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_steps_go_behind_a_halt_that_an_interrupt_could_end(chips: dict[str, object], steps: int) -> None:
    code = guest(TIMER)
    with Machine(code, **chips) as machine:
        run_to(machine, at(code))
        ends = [machine.step().end for _ in range(steps)]
        assert ends == [End.DEBUG, End.HALT, *[End.DEBUG] * (steps - 2)]
        assert (machine.cpu.rip, machine.cpu["r15"]) == (at(code) + 2 + 3 * (steps - 2), steps - 2)


def test_a_step_ends_a_halt_when_the_interrupt_comes_and_leaves_it_to_the_run(chips: dict[str, object]) -> None:
    code = guest(TIMER.replace("20000000", "0xF0000000"))
    with Machine(code, **chips, clock="host") as machine:
        run_to(machine, at(code))
        assert machine.run(timeout=0.05).end is End.TIMEOUT
        assert machine.cpu.rip == at(code) + 2
        assert machine.interrupts is not None
        machine.interrupts.signal_msi(0xFEE0_0000, 0x40)
        assert machine.step().end is End.DEBUG
        assert (machine.cpu.rip, machine.cpu["r15"], machine.console) == (at(code) + 5, 1, b"")
        assert machine.run(timeout=20).end is End.DEBUG_EXIT
        assert machine.console == b"te"


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_step_does_not_wait_for_what_may_never_come(chips: dict[str, object], cpus: int) -> None:
    code = guest(TIMER.replace("20000000", "0xF0000000"))
    with Machine(code, cpus=cpus, **chips, clock="host") as machine:
        assert machine.run(timeout=0.05).end is End.TIMEOUT
        assert machine.cpu.rip == at(code) + 2
        assert machine.step().end is End.HALT
        assert machine.step().end is End.DEBUG
        assert (machine.cpu.rip, machine.cpu["r15"]) == (at(code) + 5, 1)


def test_a_breakpoint_on_a_halt_does_not_end_the_run_that_goes_on_from_it(chips: dict[str, object]) -> None:
    code = guest(TIMER)
    with Machine(code, **chips) as machine:
        machine.add_breakpoint(at(code) + 1)
        assert machine.run(timeout=20).end is End.DEBUG
        assert machine.run(timeout=20).end is End.DEBUG_EXIT
        assert machine.console == b"te"


def test_interrupts_end_a_halt_though_the_host_has_written_a_register_since(chips: dict[str, object]) -> None:
    with Machine(guest(TIMER), **chips, clock="host") as machine:
        assert machine.run(timeout=0.005).end is End.TIMEOUT
        machine.cpu.rdx = 1
        assert machine.run(timeout=20).end is End.DEBUG_EXIT
        assert machine.console == b"te"


def test_step_of_an_undefined_instruction_leaves_no_trap_flag_on_the_stack(chips: dict[str, object]) -> None:
    code = guest(WAITING.format(command="0xC4040"))
    with Machine(code, **chips) as machine:
        run_to(machine, at(code) + 8)
        assert machine.step().end is End.DEBUG
        assert not machine.memory.read_u64(machine.cpu.rsp + 16) & 0x100
        assert machine.run(timeout=20).end is End.DEBUG_EXIT
        assert machine.console == b"ue"
