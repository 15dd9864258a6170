"""Interrupts on the soft engine's clock, which counts instructions: the same each time, and idle time is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.interrupt_guests import LAPIC_TIMER_PERIODIC, PIT_THROUGH_IOAPIC
from conformance.kernels import kernel

TIMED = LAPIC_TIMER_PERIODIC.replace("say 't'", "rdtsc\n    out 0xE9, al\n    mov eax, [rbx + 0x390]\n    out 0xE9, al")


@pytest.mark.parametrize("cpus", [1, 3])
def test_two_runs_in_instruction_time_are_the_same(cpus: int) -> None:
    def once() -> tuple[bytes, list[object]]:
        with Machine(guest(TIMED), engine="soft", irqchip="user", mode="long", cpus=cpus) as machine:
            assert machine.run(timeout=20).end is End.HALT
            return machine.console, [(cpu.vcpu.instructions_retired(), cpu.vcpu.exit_counts()) for cpu in machine.cpus]

    assert once() == once()
    assert len(once()[0]) == 9


def test_two_runs_of_cpus_that_wait_for_each_other_are_the_same(tmp_path: Path) -> None:
    def once() -> tuple[bytes, list[object]]:
        with Machine(file, engine="soft", cpus=2, test_device=True, command_line="1") as machine:
            assert machine.run(timeout=20).status == 1
            return machine.console, [(cpu.vcpu.instructions_retired(), cpu.vcpu.exit_counts()) for cpu in machine.cpus]

    file = kernel("nmis", tmp_path)
    assert once() == once()
    assert b"BAD" not in once()[0]


def test_time_stamp_counter_goes_on_while_idle_time_is_skipped() -> None:
    text = PIT_THROUGH_IOAPIC.replace("sti\n", "rdtsc\n    mov r12d, eax\n    sti\n").replace(
        "say 'e'", "rdtsc\n    sub eax, r12d"
    )
    with Machine(guest(text), engine="soft", irqchip="user", mode="long") as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert 1_710_000 < machine.cpu.rax < 1_720_000  # 2048 / 1.193182 MHz


def test_exact_number_of_instructions_with_chips() -> None:
    with Machine(guest(LAPIC_TIMER_PERIODIC), engine="soft", irqchip="user", mode="long") as machine:
        assert machine.run(instructions=60).end is End.INSTRUCTION_LIMIT
        assert machine.cpu.vcpu.instructions_retired() == 60


PENDING_AT_HLT = """
main:
    gate 0x55, handler
    gate 0x56, handler
    lapic 0x3E0, 0xB            # divide by 1
    lapic 0x320, 0x56
    lapic 0x380, 100000000      # once, in 0.1 s
    lapic 0x300, 0x44055        # to itself, while RFLAGS.IF=0
    sti
    hlt
    cli
    mov r8d, [rbx + 0x390]      # what is left of the 0.1 s
    done
handler:
    end_of_interrupt
    iretq
"""


@pytest.mark.parametrize("clock", ["instructions", "host"])
def test_interrupt_that_is_pending_at_sti_hlt_does_not_wait_for_the_next_timer(clock: str) -> None:
    with Machine(guest(PENDING_AT_HLT), engine="soft", irqchip="user", mode="long", clock=clock) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.cpu.r8 > 0
