"""vCPUs that run in turn give their turns away: in loops of PAUSE, and by KVM's SCHED_YIELD to one that they name."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine
from conformance.assembly import guest

CLOCKS = ("instructions", "host")

TURNS = """
.set READY, 0x5000
.macro to_cpu id
    mov eax, 11                     # KVM_HC_SCHED_YIELD
    mov ebx, \\id
    vmcall
    test rax, rax
    jnz wrong
.endm
main:
    mov eax, 1
    cpuid
    shr ebx, 24                     # the initial APIC id
    mov r12d, ebx
    cmp ebx, 1
    je one
    ja two
{zero}
    done
one:
{one}
    done
two:
{two}
    done
wrong:
    say '!'
    done
"""


def ran(clock: str, cpus: int, zero: str, one: str = "", two: str = "") -> tuple[bytes, list[int]]:
    """What vCPUs print that start together, and how many instructions each executes."""
    code = guest(TURNS.format(zero=zero, one=one, two=two))
    with Machine(code, engine="soft", mode="long", cpus=cpus, clock=clock) as machine:
        result = machine.run(timeout=20)
        assert result.end is End.HALT, result.message
        return machine.console, [cpu.vcpu.instructions_retired() for cpu in machine.cpus]


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_named_cpu_runs_next_and_can_pass_the_turn_on(clock: str) -> None:
    printed, _ = ran(clock, 3, "say '0'\n to_cpu 2\n say 'a'\n", "say '1'\n", "say '2'\n to_cpu 0\n say 'b'\n")
    assert printed == b"02a1b"


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("other", [0, 77, 0xFFFF_FFFF])
def test_a_turn_is_kept_that_goes_to_oneself_or_to_nobody(clock: str, other: int) -> None:
    printed, _ = ran(clock, 3, f"say '0'\n to_cpu {other}\n say 'a'\n", "say '1'\n", "say '2'\n")
    assert printed == b"0a12"


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_turn_is_kept_that_goes_to_a_cpu_that_has_halted(clock: str) -> None:
    wait = "1: pause\n cmp byte ptr [READY], 2\n jne 1b\n"
    printed, _ = ran(
        clock, 3, f"{wait}say '0'\n to_cpu 1\n say 'a'\n", "inc byte ptr [READY]\n", "inc byte ptr [READY]\n"
    )
    assert printed == b"0a"


@pytest.mark.parametrize("clock", CLOCKS)
def test_two_that_yield_to_one_another_starve_nobody(clock: str) -> None:
    until = "1: to_cpu {}\n cmp byte ptr [READY], 0\n je 1b\n"
    printed, counts = ran(clock, 3, until.format(1), until.format(0), "mov byte ptr [READY], 1\n say '2'\n")
    assert printed == b"2"
    assert max(counts) < 1000


@pytest.mark.parametrize("pause", ["pause", ""])
@pytest.mark.parametrize("clock", CLOCKS)
def test_who_waits_in_a_loop_gives_its_turn_up(clock: str, pause: str) -> None:
    rounds = 20
    wait = (
        f"2: {pause}\n cmp byte ptr [READY], {{mine}}\n jne 2b\n mov byte ptr [READY], {{other}}\n dec r13d\n jnz 2b\n"
    )
    _, counts = ran(
        clock, 2, f"mov r13d, {rounds}\n" + wait.format(mine=0, other=1), f"mov r13d, {rounds}\n" + wait.format(mine=1, other=0)
    )  # fmt: skip
    assert max(counts) < rounds * 2000, "whole turns are 10,000 instructions"


@pytest.mark.parametrize("one", ["2: cmp byte ptr [READY], 0\n je 2b\n", "cli\n hlt\n"])
def test_where_all_wait_their_instructions_are_counted_as_fast_as_ever(one: str) -> None:
    code = guest(TURNS.format(zero="2: jmp 2b\n", one=one, two=""))
    with Machine(code, engine="soft", mode="long", cpus=2) as machine:
        assert machine.run(instructions=20_000_000, timeout=20).end is End.INSTRUCTION_LIMIT
        counts = [cpu.vcpu.exit_counts() for cpu in machine.cpus]
        assert sum(sum(exits.values()) for exits in counts) < 20_000, "a turn of 10,000 takes two exits"


def test_a_step_is_one_instruction_though_it_gives_the_turn_away() -> None:
    code = guest(TURNS.format(zero="to_cpu 1\n nop\n", one="1: jmp 1b\n", two=""))
    with Machine(code, engine="soft", mode="long", cpus=2) as machine:
        for _ in range(100):
            before = machine.cpu.rip
            instruction = machine.memory.read(before, 3)
            machine.step()
            if instruction == b"\x0f\x01\xc1":  # vmcall
                assert machine.cpu.rip == before + 3
                return
    pytest.fail("never came to the hypercall")


def test_a_step_over_a_write_to_cr8_is_one_instruction() -> None:
    code = guest("main:\n mov eax, 5\n mov cr8, rax\n inc r15d\n done\n")
    with Machine(code, engine="soft", irqchip="user", mode="long") as machine:
        for _ in range(100):
            before = machine.cpu.rip
            instruction = machine.memory.read(before, 4)
            machine.step()
            if instruction == b"\x44\x0f\x22\xc0":  # mov cr8, rax
                assert (machine.cpu.rip, machine.cpu["r15"]) == (before + 4, 0)
                return
    pytest.fail("never came to CR8")


WAITING = """
main:
    mov eax, 1
    cpuid
    shr ebx, 24
    jnz over
    rdtsc
    mov r12d, eax
again:
    pause
    rdtsc
    mov r13d, eax
    sub eax, r12d
    cmp eax, 100000
    jb again
over:
    done
"""


def waited(way: str) -> tuple[int, int]:
    """How long the guest found that it waited, and in how many instructions."""
    with Machine(guest(WAITING), engine="soft", mode="long", cpus=2, irqchip="user") as machine:
        first = machine.cpus[0]
        if way == "free":
            machine.run(timeout=20)
        elif way == "exits":
            list(machine.exits(timeout=20))
        elif way == "pieces":
            while machine.run(instructions=777, timeout=20).end is End.INSTRUCTION_LIMIT:
                pass
        else:
            while first["r13"] < first["r12"] + 100_000:
                machine.step()
        return first["r13"] - first["r12"], first.vcpu.instructions_retired()


def test_pauses_take_their_time_where_nobody_else_has_anything_to_do() -> None:
    """However the run is cut. Instructions alone would be 100,000."""
    ns, instructions = waited("free")
    assert 100_000 <= ns < 120_000
    assert 4_000 < instructions < 6_000
    assert waited("exits") == waited("pieces") == (ns, instructions)
    assert waited("steps")[0] == ns
