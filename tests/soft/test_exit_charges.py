"""What exits cost in instruction time: always the same, for everybody, however the run is cut into pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.devices.bus import Bus
from belljar.exits import ExitReason
from belljar.machine import End, Machine
from belljar.observe.instruction_trace import write_instructions
from belljar.observe.trace_kinds import KINDS, KindTrace
from belljar.soft.hypervisor.charges import EXIT_NS
from belljar.x86.mp_state import MpState
from conformance.assembly import guest

OPTIONS = {"engine": "soft", "mode": "long"}
CHIPS = {**OPTIONS, "irqchip": "user"}

NOW = """
.macro now register
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov \\register, rax
.endm
"""

TIMED = (
    NOW
    + """
main:
    gate 6, behind
    gate 13, behind
    mov esi, 0x9000
    mov edi, 0xA000
    mov qword ptr [rsi], 0
    mov qword ptr [rdi], 0
    mov r14d, LAPIC + 0x30
    {before}
    now r12
    {what}
    now r13
    done
behind:
    now r13
    done
"""
)

EXITS: dict[str, tuple[str, int]] = {
    "in al, 0x80": ("", 1),
    "out 0xE9, al": ("", 1),
    "cpuid": ("", 1),
    "rdmsr": ("mov ecx, 0x4B564D01", 1),
    "xor eax, eax\nxor edx, edx\nwrmsr": ("mov ecx, 0x3B", 1),
    "rdmsr # of the local APIC": ("mov ecx, 0x1B\nrdmsr\nor eax, 0xC00\nwrmsr\nmov ecx, 0x802", 1),
    "rdmsr # that nobody has": ("mov ecx, 0x12345", 1),
    "vmcall": ("mov eax, 1000", 1),
    "mov eax, [r14]": ("", 1),
    "mov [r14], eax": ("", 1),
    "or dword ptr [r14], 0": ("", 2),
    "invd": ("", 1),
    "vmxoff": ("", 1),
    "mov cr8, rax": ("", 1),
    "mov eax, [r14]\ncpuid\nin al, 0x80": ("", 3),
    "rep outsb": ("mov ecx, 7\nmov dx, 0x80", 7),
    "rep insb": ("mov ecx, 7\nmov dx, 0x80", 1),
    "insb": ("mov dx, 0x80", 1),
    "rep movsd # to a device": ("mov ecx, 3\nmov rdi, r14", 3),
    "movsd # from a device to it": ("mov rsi, r14\nmov rdi, r14", 2),
    "nop": ("", 0),
    "rdmsr # of the processor": ("mov ecx, 0x174", 0),
    "mov rax, cr3\nmov cr3, rax\ninvlpg [rsi]\nwbinvd": ("", 0),
    "mov [0x300000], eax # for the first time": ("", 0),
    "pause": ("", 0),
}


@pytest.mark.parametrize("what", EXITS)
@pytest.mark.parametrize("way", ["free", "stepped"])
def test_an_exit_costs_the_same_whatever_serves_it(what: str, way: str) -> None:
    before, exits = EXITS[what]
    text = TIMED.format(before=before.replace("\n", "\n    "), what=what.replace("\n", "\n    "))
    with Machine(guest(text), **CHIPS) as machine:
        if way == "free":
            assert machine.run(timeout=20).end is End.HALT
        else:
            while machine.run(instructions=1, timeout=20).end is not End.HALT:
                pass
        passed_ns = machine.cpu["r13"] - machine.cpu["r12"]
        assert exits * EXIT_NS < passed_ns < exits * EXIT_NS + 12
        assert machine.cpu.vcpu.clock_ns == machine.cpu.vcpu.instructions_retired() + machine.cpu.vcpu.exits_ns()


UNTIL_2_30 = (
    NOW
    + """
main:
1:  {what}
    now rcx
    cmp rcx, 0x40000000
    jb 1b
    done
"""
)


@pytest.mark.parametrize("what", ["cpuid", "in al, 0x40", "mov eax, [rbx + 0x30]"])
def test_a_guest_that_makes_exits_until_a_second_is_over_comes_to_its_end(what: str) -> None:
    with Machine(guest(UNTIL_2_30.format(what=what)), **CHIPS) as machine:
        assert machine.run(timeout=60).end is End.HALT
        assert machine.cpu.vcpu.instructions_retired() < (1 << 30) // EXIT_NS * 8


ALARM = (
    NOW
    + """
main:
    gate 0x40, alarm
    lapic 0x3E0, 0xB            # divide by 1
    lapic 0x320, 0x40
    sti
    now r12
    lapic 0x380, {delay_ns}
1:  {poll}
    jmp 1b
alarm:
    now r13
    done
"""
)


@pytest.mark.parametrize("poll", ["in al, 0x80", "cpuid", "mov eax, [rbx + 0x390]", "outsb", "nop"])
@pytest.mark.parametrize("delay_ns", [30, 999, 1000, 1001, 50_500, 1_000_000])
def test_a_timer_comes_at_the_first_boundary_behind_its_time(poll: str, delay_ns: int) -> None:
    with Machine(guest(ALARM.format(poll=poll, delay_ns=delay_ns)), **CHIPS) as machine:
        assert machine.run(timeout=20).end is End.HALT
        late_ns = machine.cpu["r13"] - machine.cpu["r12"] - delay_ns - EXIT_NS  # of the write that set it
        assert 0 <= late_ns < (40 if poll == "nop" else EXIT_NS + 40)


class Stopwatch:
    """Answers with the machine's time, and keeps it."""

    ports = range(0x80, 0x84)
    port_width = 4
    mmio = range(0xD000_0000, 0xD000_1000)

    def __init__(self, machine: Machine) -> None:
        chips = machine.own_interrupts
        assert chips is not None
        self.now_ns = chips.clock.now_ns
        self.read: list[int] = []

    def _look(self) -> int:
        self.read.append(self.now_ns())
        return self.read[-1]

    def port_read(self, port: int, size: int) -> int:
        return self._look()

    def port_write(self, port: int, size: int, value: int) -> None:
        self._look()

    def mmio_read(self, gpa: int, size: int) -> int:
        return self._look()

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        self._look()


AGREE = (
    NOW
    + """
main:
    now r8
    in eax, 0x80
    now r9
    mov eax, [0xD0000000]
    now r10
    movsd
    now r11
    done
"""
)


def test_devices_in_the_middle_of_an_exit_read_the_time_that_the_guest_reads_behind_it() -> None:
    with Machine(guest(AGREE), registers={"rsi": 0xD000_0000, "rdi": 0xD000_0000}, **CHIPS) as machine:
        watch = Stopwatch(machine)
        machine.bus.attach(watch)
        assert machine.run(timeout=20).end is End.HALT
        r8, r9, r10, r11 = (machine.cpu[name] for name in ("r8", "r9", "r10", "r11"))
        read_port, read_memory, moved_from, moved_to = watch.read
        assert r8 < read_port == r9 < read_memory == r10 - 1
        assert r10 < moved_from == moved_to - EXIT_NS == r11 - 1 - EXIT_NS


def start_all(machine: Machine) -> None:
    """Everybody begins as the first CPU does; nobody waits for INIT."""
    first = machine.cpu.vcpu
    for cpu in machine.cpus[1:]:
        cpu.vcpu.set_special(first.get_special())
        cpu.vcpu.set_registers(first.get_registers())
        cpu.mp_state = MpState.RUNNABLE


SHARED_CLOCK = (
    NOW
    + """
main:
    mov r15d, 300
1:  {exit}
2:  mov eax, 1
    xchg eax, [0x9000]          # a lock
    test eax, eax
    jnz 2b
    now r12
    cmp r12, [0x9008]
    jb back
    mov [0x9008], r12
    mov dword ptr [0x9000], 0
    dec r15d
    jnz 1b
    say '.'
    done
back:
    say '!'
    done
"""
)


@pytest.mark.parametrize("what", ["in al, 0x80", "cpuid", "mov eax, [rbx + 0x30]", "nop"])
def test_no_cpus_clock_goes_back_before_anothers(what: str) -> None:
    with Machine(guest(SHARED_CLOCK.format(exit=what)), cpus=3, **CHIPS) as machine:
        start_all(machine)
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"..."


BESIDE = (
    NOW
    + """
main:
    gate 0x40, alarm
    mov eax, [rbx + 0x20]
    test eax, eax
    jz 1f
    lapic 0x3E0, 0xB
    lapic 0x320, 0x40
    now r12
    lapic 0x380, 500000
    sti
2:  hlt
    jmp 2b
1:  in al, 0x80
    cmp byte ptr [0x9000], 0
    je 1b
    done
alarm:
    now r13
    mov byte ptr [0x9000], 1
    done
"""
)


def test_who_makes_exits_does_not_keep_others_timers_waiting_for_a_whole_turn_of_them() -> None:
    with Machine(guest(BESIDE), cpus=2, **CHIPS) as machine:
        start_all(machine)
        assert machine.run(timeout=20).end is End.HALT
        other = machine.cpus[1]
        assert other["r13"] - other["r12"] < 500_000 + 200_000


TOO_OFTEN = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB
    lapic 0x320, 0x20040        # periodic
    lapic 0x380, 100
    mov ecx, 20000
    sti
1:  loop 1b
    done
tick:
    inc r15d
    end_of_interrupt
    iretq
"""


def test_a_timer_that_ticks_more_often_than_its_handler_can_leaves_time_for_the_rest() -> None:
    with Machine(guest(TOO_OFTEN), **CHIPS) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert 0 < machine.cpu["r15"] < 10, "one a loop would be 20,000"


def test_a_run_until_a_time_ends_there_or_behind_the_exit_that_takes_it_there() -> None:
    text = "main:\n1: nop\n in al, 0x80\n jmp 1b\n"
    with Machine(guest(text), **OPTIONS) as machine:
        vcpu, bus = machine.cpu.vcpu, Bus()
        assert vcpu.run(bus, instructions=30) is ExitReason.INSTRUCTION_LIMIT
        for distance in (0, 1, 2, 500, 1000, 10_000, 1_000_000):
            until_ns = vcpu.clock_ns + distance
            assert vcpu.run(bus, until_ns=until_ns) is ExitReason.INSTRUCTION_LIMIT
            assert until_ns <= vcpu.clock_ns <= until_ns + EXIT_NS
        before = vcpu.instructions_retired()
        assert vcpu.run(bus, until_ns=vcpu.clock_ns + 10**9, instructions=50) is ExitReason.INSTRUCTION_LIMIT
        assert vcpu.instructions_retired() == before + 50


ACTS = (
    "in al, 0x80",
    "in al, 0x40",
    "mov eax, [rbx + 0x390]",
    "mov eax, [rbx + 0x20]",
    "cpuid",
    "mov ecx, 0x1B\n    rdmsr",
    "mov ecx, 0x4B564D01\n    rdmsr",
    "mov eax, 1000\n    vmcall",
    "mov rcx, 3\n    mov esi, 0x9000\n    mov dx, 0x80\n    rep outsb",
    "mov rcx, 5\n    mov edi, 0x9000\n    mov dx, 0x80\n    rep insb",
    "mov ecx, 200\n9:  loop 9b",
    "mov ecx, 9\n9:  pause\n    loop 9b",
    "sti\n    hlt",
    "lapic 0x380, 700",
    "lapic 0x380, 25000",
    "rdtsc\n    out 0xE9, al",
    "mov rcx, 6\n    mov esi, 0x9000\n    mov rdi, 0xFEE00080\n    rep movsd",
)

RANDOM = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB
    lapic 0x320, {mode:#x}
    lapic 0x380, {period}
    mov r15d, 4
    sti
again:
    {acts}
    dec r15d
    jnz again
    done
tick:
    push rax
    push rdx
    rdtsc
    out 0xE9, al
    end_of_interrupt
    pop rdx
    pop rax
    iretq
"""


def left_by(
    code: bytes,
    chunks: Iterable[int] | None = None,
    *,
    look: Callable[[Machine], object] | None = None,
    stop: bool = False,
) -> tuple[object, ...]:
    """What a run leaves: in pieces of so many instructions each, with somebody who looks on, or with a stop at each exit."""
    with Machine(code, **CHIPS) as machine:
        if look is not None:
            look(machine)
        if stop:
            assert list(machine.exits(timeout=60))
        elif chunks is None:
            assert machine.run(timeout=60).end is End.HALT
        else:
            for chunk in chunks:
                if machine.run(instructions=chunk, timeout=60).end is End.HALT:
                    break
        cpu, chips = machine.cpu, machine.own_interrupts
        assert chips is not None
        counts = cpu.vcpu.exit_counts()
        for kind in (ExitReason.INSTRUCTION_LIMIT, ExitReason.INTERRUPTED, ExitReason.IRQ_WINDOW_OPEN):
            counts.pop(kind, None)
        return cpu.as_dict(), chips.clock.now_ns(), cpu.vcpu.instructions_retired(), counts, machine.console


def forever(chunk: int) -> Iterable[int]:
    while True:
        yield chunk


@settings(max_examples=25, deadline=None)
@given(
    acts=st.lists(st.sampled_from(ACTS), min_size=1, max_size=8),
    period=st.sampled_from([300, 12_345, 40_000]),
    periodic=st.booleans(),
    chunk=st.integers(2, 300),
)
def test_times_do_not_depend_on_how_a_run_is_cut(acts: list[str], period: int, periodic: bool, chunk: int) -> None:
    if not periodic:
        acts = [act for act in acts if not act.endswith("hlt")]
    mode = 0x40 | (0x20000 if periodic else 0)
    code = guest(RANDOM.format(mode=mode, period=period, acts="\n    ".join(acts)))
    free = left_by(code)
    assert left_by(code) == free
    assert left_by(code, forever(chunk)) == free
    assert left_by(code, forever(1)) == free
    assert left_by(code, look=lambda machine: write_instructions(machine, lambda line: None)) == free
    assert left_by(code, look=lambda machine: KindTrace(machine, frozenset(KINDS), lambda line: None)) == free
    assert left_by(code, stop=True) == free
