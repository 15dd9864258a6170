"""Guests with their own IDT: what reaches a handler, when, and in which order, whoever's the interrupt chips are."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from belljar.errors import FeatureUnsupported
from belljar.exits import Exit
from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips
from conftest import open_or_skip

__all__ = ["chips"]


IN_SERVICE = """
main:
    gate 0x40, handler
    lapic 0x300, 0x44040
    sti
    chance
    cli
    done
handler:
    mov r8d, [rbx + 0x120]      # in-service bits 64 to 95
    end_of_interrupt
    iretq
"""


@pytest.fixture
def in_service(chips: dict[str, object]) -> None:
    """Skip where the chips do not keep an interrupt in service until its end, as some paravirtual KVMs do not."""
    with Machine(guest(IN_SERVICE), **chips) as machine:
        assert machine.run(timeout=20).end is End.HALT
        if machine.cpu.r8 != 1:
            pytest.skip("this host's KVM keeps no interrupt in service until its end")


def console(text: str, options: dict[str, object], **more: object) -> bytes:
    """What a guest prints before all its vCPUs sleep for good."""
    with Machine(guest(text), **{**options, **more}) as machine:
        result = machine.run(timeout=20)
        assert (result.end, result.status) == (End.HALT, 0), (result.message, machine.console)
        return machine.console


PIT_THROUGH_PIC = """
main:
    gate 0x20, tick
    mov al, 0x11                # ICW1: edge, cascade, ICW4 follows
    out 0x20, al
    mov al, 0x20                # ICW2: vectors from 0x20
    out 0x21, al
    mov al, 4                   # ICW3: the second 8259 is on pin 2
    out 0x21, al
    mov al, 1                   # ICW4: 8086
    out 0x21, al
    mov al, 0xFE                # OCW1: only IRQ 0
    out 0x21, al
    lapic 0x350, 0x700          # LINT0: ExtINT
    mov al, 0x34                # 8254: counter 0, rate generator
    out 0x43, al
    mov al, 0x00
    out 0x40, al
    mov al, 0x10                # 4096 / 1.193 MHz: 3.4 ms
    out 0x40, al
    mov ecx, 3
wait:
    sti
    hlt
    cli
    test ecx, ecx
    jnz wait
    say 'e'
    mov al, 0xFF                # nothing may wake us any more
    out 0x21, al
    done
tick:
    say 't'
    dec ecx
    mov al, 0x20                # end of interrupt
    out 0x20, al
    iretq
"""

PIT_THROUGH_IOAPIC = """
main:
    gate 0x30, tick
    redirect 2, 0x30            # GSI 0 is on pin 2: fixed, edge
    mov al, 0x30                # counter 0, interrupt on terminal count
    out 0x43, al
    mov al, 0x00
    out 0x40, al
    mov al, 0x08
    out 0x40, al
    sti
    hlt
    say 'e'
    done
tick:
    say 't'
    end_of_interrupt
    iretq
"""

LAPIC_TIMER_ONE_SHOT = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB            # divide by 1
    lapic 0x320, 0x40           # one-shot
    lapic 0x380, 1000000
    sti
    hlt
    say 'e'
    done
tick:
    say 't'
    end_of_interrupt
    iretq
"""

LAPIC_TIMER_PERIODIC = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB
    lapic 0x320, 0x20040        # periodic
    mov ecx, 4
    lapic 0x380, 1000000
again:
    sti
    hlt
    cli
    test ecx, ecx
    jnz again
    lapic 0x380, 0
    say 'e'
    done
tick:
    say 't'
    dec ecx
    end_of_interrupt
    iretq
"""

TSC_DEADLINE = """
main:
    mov eax, 1
    push rbx
    cpuid
    pop rbx
    bt ecx, 24
    jnc none
    gate 0x40, tick
    lapic 0x320, 0x40040        # TSC deadline
    rdtsc
    add eax, 3000000
    adc edx, 0
    mov ecx, 0x6E0              # IA32_TSC_DEADLINE
    wrmsr
    sti
    hlt
    say 'e'
    done
none:
    say '-'
    done
tick:
    say 't'
    end_of_interrupt
    iretq
"""

PRIORITIES = """
main:
    gate 0x40, low
    gate 0x55, middle
    gate 0x81, high
    lapic 0x300, 0x44040        # IPIs to itself, lowest first, while IF is 0
    lapic 0x300, 0x44055
    lapic 0x300, 0x44081
    say '.'
    sti
    chance
    chance
    cli
    done
low:
    say '1'
    end_of_interrupt
    iretq
middle:
    say '2'
    end_of_interrupt
    iretq
high:
    say '3'
    end_of_interrupt
    iretq
"""

TASK_PRIORITY = """
main:
    gate 0x55, handler
    lapic 0x80, 0x50            # TPR: classes up to 5 wait
    lapic 0x300, 0x44055
    sti
    chance
    say 'a'
    lapic 0x80, 0x40
    chance
    say 'c'
    cli
    done
handler:
    say 'b'
    end_of_interrupt
    iretq
"""

NESTED = """
main:
    gate 0x40, low
    gate 0x90, high
    lapic 0x300, 0x44040
    sti
    chance
    cli
    done
low:
    say '('
    sti
    lapic 0x300, 0x44041        # same class: waits, and nobody ever takes it
    lapic 0x300, 0x44090        # higher class: at once
    chance
    say ')'
    cli
    end_of_interrupt
    lapic 0x80, 0xF0            # TPR: nothing more
    iretq
high:
    say '*'
    end_of_interrupt
    iretq
"""

NMI_WITH_INTERRUPTS_OFF = """
main:
    gate 2, nmi
    cli
    say 'a'
    lapic 0x310, 0              # to APIC 0
    lapic 0x300, 0x4400         # NMI
    chance
    say 'c'
    done
nmi:
    say 'n'
    iretq
"""

INTERRUPT_SHADOW = """
main:
    gate 0x40, handler
    lapic 0x300, 0x44040
    sti
    cli                         # comes before any interrupt, and then there is none
    chance
    say 'a'
    sti
    chance
    cli
    say 'c'
    done
handler:
    say 'h'
    end_of_interrupt
    iretq
"""

SERIAL_INTERRUPT = """
main:
    gate 0x44, serial
    redirect 4, 0x44
    mov dx, 0x3F9
    mov al, 2                   # IER: transmitter empty
    sti
    out dx, al
    chance
    cli
    say 'e'
    done
serial:
    say 's'
    mov dx, 0x3FA               # IIR: reading acknowledges
    in al, dx
    end_of_interrupt
    iretq
"""

START_OTHERS = """
.set AP, 0x2000
.set COUNT, 0x5000
main:
    mov rsi, offset trampoline
    mov rdi, AP
    mov ecx, trampoline_end - trampoline
    rep movsb
    lapic 0x300, 0xC4500        # INIT to all others
    lapic 0x300, 0xC4602        # start-up, at 0x2000
    lapic 0x300, 0xC4602        # once more: not heard
wait:
    pause
    mov al, [COUNT]
    cmp al, 3
    jne wait
    say 'b'
    done
.code16
trampoline:
    mov al, 'a'
    out 0xE9, al
    xor ax, ax
    mov ds, ax
    lock inc byte ptr [COUNT]
    cli
1:  hlt                         # KVM lets a late start-up IPI, which it does not hear, end a halt
    jmp 1b
trampoline_end:
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PIT_THROUGH_PIC, b"ttte"),
        (PIT_THROUGH_IOAPIC, b"te"),
        (LAPIC_TIMER_ONE_SHOT, b"te"),
        (LAPIC_TIMER_PERIODIC, b"tttte"),
        (PRIORITIES, b".321"),
        (TASK_PRIORITY, b"abc"),
        (NMI_WITH_INTERRUPTS_OFF, b"anc"),
        (INTERRUPT_SHADOW, b"ahc"),
        (SERIAL_INTERRUPT, b"se"),
    ],
    ids=[
        "pit-pic",
        "pit-ioapic",
        "one-shot",
        "periodic",
        "priorities",
        "tpr",
        "nmi",
        "shadow",
        "serial",
    ],
)
def test_guest_handler_runs_when_it_should(chips: dict[str, object], text: str, expected: bytes) -> None:
    assert console(text, chips) == expected


@pytest.mark.usefixtures("in_service")
def test_only_a_higher_class_interrupts_a_handler(chips: dict[str, object]) -> None:
    assert console(NESTED, chips) == b"(*)"


def test_tsc_deadline_timer_where_cpuid_has_it(chips: dict[str, object]) -> None:
    printed = console(TSC_DEADLINE, chips)
    if printed == b"-":
        pytest.skip("these chips have no TSC deadline timer, and say so")
    assert printed == b"te"


TSC_DEADLINES = """
.macro deadline                 # EDX:EAX
    mov ecx, 0x6E0
    wrmsr
.endm
.macro in_future cycles
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov r8, \\cycles
    add r8, rax
    mov rax, r8
    mov rdx, rax
    shr rdx, 32
    deadline
.endm
main:
    mov eax, 1
    push rbx
    cpuid
    pop rbx
    bt ecx, 24
    jnc none
    gate 0x40, tick
    in_future 1000000           # ignored: one-shot mode
    lapic 0x320, 0x40040        # TSC deadline
    mov ecx, 0x6E0
    rdmsr
    or eax, edx
    jnz wrong
    in_future 0x10000000000     # far away
    mov ecx, 0x6E0
    rdmsr
    shl rdx, 32
    or rax, rdx
    cmp rax, r8
    jne wrong
    say 'r'
    xor eax, eax                # disarmed
    xor edx, edx
    deadline
    mov r9d, 3
again:
    in_future 2000000
    sti
    hlt
    cli
    mov ecx, 0x6E0              # it has disarmed itself
    rdmsr
    or eax, edx
    jnz wrong
    dec r9d
    jnz again
    rdtsc                       # in the past: at once
    mov r8, 0
    mov eax, 1
    xor edx, edx
    deadline
    sti
    chance
    cli
    mov dword ptr [rbx + 0x380], 1000   # the initial count does nothing in this mode
    say 'e'
    done
wrong:
    say '!'
    done
none:
    say '-'
    done
tick:
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, r8
    jb early
    say 't'
    end_of_interrupt
    iretq
early:
    say '<'
    done
"""


DEADLINE_OF_ANOTHER = """
.set AP, 0x2000
.set COUNT, 0x5000
main:
    mov eax, 1
    push rbx
    cpuid
    pop rbx
    bt ecx, 24
    jnc none
    mov rsi, offset trampoline
    mov rdi, AP
    mov ecx, trampoline_end - trampoline
    rep movsb
    mov dword ptr [4 * 0x40], AP + tick - trampoline    # real mode's vector
    lapic 0x300, 0xC4500
    lapic 0x300, 0xC4602
wait:
    pause
    mov al, [COUNT]
    test al, al
    jz wait
    say 'e'
    done
none:
    say '-'
    done
.code16
.macro register msr, value
    mov ecx, \\msr
    mov eax, \\value
    wrmsr
.endm
trampoline:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x3000
    mov ecx, 0x1B               # IA32_APIC_BASE: x2APIC mode
    rdmsr
    or ax, 0xC00
    wrmsr
    xor edx, edx
    register 0x80F, 0x1FF
    register 0x832, 0x40040     # TSC deadline
    rdtsc
    add eax, 3000000
    adc edx, 0
    mov ecx, 0x6E0
    wrmsr
    sti
    hlt
    cli
1:  hlt
    jmp 1b
tick:
    mov al, 't'
    out 0xE9, al
    mov byte ptr [COUNT], 1
    xor edx, edx
    register 0x80B, 0
    iret
trampoline_end:
"""


def test_tsc_deadlines_are_never_early_and_disarm_themselves(chips: dict[str, object]) -> None:
    printed = console(TSC_DEADLINES, chips)
    if printed == b"-":
        pytest.skip("these chips have no TSC deadline timer, and say so")
    assert printed == b"rtttte"


def test_tsc_deadline_of_another_cpu_runs_out(chips: dict[str, object]) -> None:
    printed = console(DEADLINE_OF_ANOTHER, chips, cpus=2)
    if printed == b"-":
        pytest.skip("these chips have no TSC deadline timer, and say so")
    assert printed == b"te"


def test_other_cpus_start_in_real_mode_where_the_start_up_ipi_says(chips: dict[str, object]) -> None:
    assert console(START_OTHERS, chips, cpus=4) == b"aaab"


def test_only_the_first_cpu_starts(chips: dict[str, object]) -> None:
    assert console("main:\n say 'x'\n done\n", chips, cpus=3) == b"x"


WAKE_BY_NMI = """
.set AP, 0x2000
main:
    gate 2, nmi
    mov rsi, offset trampoline
    mov rdi, AP
    mov ecx, trampoline_end - trampoline
    rep movsb
    lapic 0x300, 0xC4500
    lapic 0x300, 0xC4602
    cli
    hlt                         # looks asleep for good
    say 'w'
    done
nmi:
    say 'n'
    iretq
.code16
trampoline:
    mov ecx, 100000             # CPL0 may be emulated, 0.6 us an instruction: long enough to be taken for asleep
1:  dec ecx
    jnz 1b
    mov ecx, 0x1B               # to x2APIC mode, whose registers real mode can reach
    rdmsr
    or ah, 0xC
    wrmsr
    mov ecx, 0x830              # ICR
    mov eax, 0x4400             # NMI to APIC 0
    xor edx, edx
    wrmsr
    cli
    hlt
trampoline_end:
"""


def test_cpu_that_looks_asleep_is_waited_for_while_another_may_wake_it(chips: dict[str, object]) -> None:
    for _ in range(3):
        assert console(WAKE_BY_NMI, chips, cpus=2) == b"nw"


LEVEL_TRIGGERED = """
main:
    gate 0x51, handler
    redirect 9, 0x8051          # fixed, level
    mov ecx, 3
    sti
    out 0x99, al                # the host raises line 9
    chance
    chance
    cli
    say 'e'
    done
handler:
    say 'l'
    dec ecx
    jnz 1f
    out 0x98, al                # the host lets go
1:  end_of_interrupt
    iretq
"""


class LinePort:
    """Ports by which a guest drives a line: 0x98 lowers it, 0x99 raises it."""

    ports = range(0x98, 0x9A)
    port_width = 1

    def __init__(self, machine: Machine) -> None:
        self.line = machine.line(9, "test")

    def port_read(self, port: int, size: int) -> int:
        return 0xFF

    def port_write(self, port: int, size: int, value: int) -> None:
        self.line(port == 0x99)


@pytest.mark.usefixtures("in_service")
def test_level_triggered_interrupt_comes_again_until_the_line_is_down(chips: dict[str, object]) -> None:
    with Machine(guest(LEVEL_TRIGGERED), **chips) as machine:
        machine.bus.attach(LinePort(machine))
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"llle"


MESSAGE = """
main:
    gate 0x61, handler
    sti
    say '?'                     # the host sends a message when it sees this
    hlt
    cli
    say 'e'
    done
handler:
    say 'm'
    end_of_interrupt
    iretq
"""


def test_host_sends_a_message_to_a_sleeping_guest(chips: dict[str, object]) -> None:
    with Machine(guest(MESSAGE), **chips) as machine:
        assert machine.interrupts is not None
        interrupts = machine.interrupts
        interrupts.expect_messages()
        threads = []

        def send(exit: Exit) -> None:
            if not threads:
                threads.append(threading.Timer(0.05, interrupts.signal_msi, (0xFEE0_0000, 0x61)))
                threads[0].start()

        result = machine.run(timeout=20, observer=send)
        threads[0].join()
        assert result.end is End.HALT
        assert machine.console == b"?me"


EVENT = MESSAGE.replace("main:", "main:\n    redirect 11, 0x61\n")


def test_host_eventfd_interrupts_a_sleeping_guest(chips: dict[str, object]) -> None:
    event = os.eventfd(0)
    try:
        with Machine(guest(EVENT), **chips) as machine:
            assert machine.interrupts is not None
            try:
                machine.interrupts.connect_eventfd(event, 11)
            except FeatureUnsupported as error:
                pytest.skip(error.message)
            timers: list[threading.Timer] = []

            def send(exit: Exit) -> None:
                if not timers:
                    timers.append(threading.Timer(0.05, os.eventfd_write, (event, 1)))
                    timers[0].start()

            result = machine.run(timeout=20, observer=send)
            timers[0].join()
            assert result.end is End.HALT
            assert machine.console == b"?me"
    finally:
        os.close(event)


IDLE = "main:\n redirect 5, 0x55\n sti\n1: hlt\n jmp 1b\n"
"""Nothing is armed: only somebody outside can end this, who has line 5."""


@pytest.mark.parametrize("cpus", [1, 3])
def test_time_limit_ends_a_machine_that_sleeps_and_costs_no_time(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(IDLE), cpus=cpus, **chips) as machine:
        machine.line(5, "somebody outside")
        before = time.process_time()
        result = machine.run(timeout=0.5)
        spent = time.process_time() - before
    assert (result.end, result.status) == (End.TIMEOUT, 124)
    assert spent < 0.1


@pytest.mark.parametrize("cpus", [1, 3])
def test_stop_ends_a_machine_that_sleeps(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(IDLE), cpus=cpus, **chips) as machine:
        machine.line(5, "somebody outside")
        timer = threading.Timer(0.05, machine.stop)
        timer.start()
        assert machine.run(timeout=30).end is End.STOPPED
        timer.join()
        assert machine.run(timeout=0.05).end is End.TIMEOUT


@pytest.mark.parametrize("cpus", [1, 3])
def test_keyboard_interrupt_ends_a_machine_that_sleeps(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(IDLE), cpus=cpus, **chips) as machine:
        machine.line(5, "somebody outside")
        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                machine.run(timeout=30)
        finally:
            signal.signal(signal.SIGALRM, previous)


TICKING = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB                # divide by 1
    lapic 0x320, 0x20040            # periodic
    lapic 0x380, 1000
    sti
1:  hlt
    jmp 1b
tick:
    end_of_interrupt
    iretq
"""
"""Never more than a few instructions between two ticks: an engine that compiles its run loop must come up for air."""


@pytest.mark.parametrize("cpus", [1, 3])
def test_stop_ends_a_machine_that_ticks_all_the_time(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(TICKING), cpus=cpus, **chips) as machine:
        timer = threading.Timer(0.05, machine.stop)
        timer.start()
        assert machine.run(timeout=30).end is End.STOPPED
        timer.join()
        assert machine.run(timeout=0.05).end is End.TIMEOUT


@pytest.mark.parametrize("cpus", [1, 3])
def test_keyboard_interrupt_ends_a_machine_that_ticks_all_the_time(chips: dict[str, object], cpus: int) -> None:
    with Machine(guest(TICKING), cpus=cpus, **chips) as machine:
        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        began = time.monotonic()
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                machine.run(timeout=30)
        finally:
            signal.signal(signal.SIGALRM, previous)
        assert time.monotonic() < began + 20  # and not at its time limit


def test_run_after_the_end_goes_on_behind_the_halt(chips: dict[str, object]) -> None:
    with Machine(guest("main:\n say '1'\n cli\n hlt\n say '2'\n hlt\n"), **chips) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"1"
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"12"


def test_exits_of_several_cpus_are_iterated_to_the_end(chips: dict[str, object]) -> None:
    with Machine(guest(START_OTHERS), cpus=4, **chips) as machine:
        for _ in machine.exits(timeout=30):
            pass
        assert machine.result is not None
        assert machine.result.end is End.HALT
        assert machine.console == b"aaab"


def test_explanation_says_which_line_reaches_which_vector(chips: dict[str, object]) -> None:
    with Machine(guest(SERIAL_INTERRUPT), cpus=2, **chips) as machine:
        machine.run(timeout=20)
        assert machine.interrupts is not None
        rows = [row for row in machine.interrupts.explain() if row.gsi == 4 and row.chip == "ioapic"]
        assert [(row.sources, row.pin) for row in rows] == [(("serial",), 4)]
        state = rows[0].state
        assert (state.vector, state.delivery, state.masked, state.cpus) == (0x44, "fixed", False, (0,))


TIMED = LAPIC_TIMER_PERIODIC.replace("say 't'", "rdtsc\n    out 0xE9, al\n    mov eax, [rbx + 0x390]\n    out 0xE9, al")


@pytest.mark.parametrize("cpus", [1, 3])
def test_two_runs_in_instruction_time_are_the_same(cpus: int) -> None:
    def once() -> tuple[bytes, list[object]]:
        with Machine(guest(TIMED), engine="soft", irqchip="user", mode="long", cpus=cpus) as machine:
            assert machine.run(timeout=20).end is End.HALT
            return machine.console, [(cpu.vcpu.instructions_retired(), cpu.vcpu.exit_counts()) for cpu in machine.cpus]

    assert once() == once()
    assert len(once()[0]) == 9


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


CR8_HOLDS_BACK = """
main:
    gate 0x55, handler
    mov eax, 5
    mov cr8, rax
    lapic 0x300, 0x44055
    sti
    nop
    say 'a'
    mov eax, 4
    mov cr8, rax
    nop
    say 'c'
    done
handler:
    say 'b'
    end_of_interrupt
    iretq
"""


def test_cr8_holds_interrupts_back() -> None:
    assert console(CR8_HOLDS_BACK, {"engine": "soft", "irqchip": "user", "mode": "long"}) == b"abc"


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


@pytest.mark.parametrize("irqchip", ["kernel", "split"])
def test_soft_engine_has_no_kernel_whose_chips_it_could_use_and_says_so(irqchip: str) -> None:
    with Machine(guest(PIT_THROUGH_PIC), engine="soft", irqchip=irqchip, mode="long") as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"ttte"
        assert machine.chips.which == "user"
        assert f"belljar's own serve --irqchip {irqchip}" in machine.chips.reason


@pytest.mark.usefixtures("leaves_nothing")
def test_machine_with_chips_leaves_nothing_behind() -> None:
    for _ in range(3):
        with open_or_skip("kvm") as engine, Machine("hello-long", engine=engine, irqchip="kernel") as machine:  # type: ignore[attr-defined]
            assert machine.run(timeout=20).end is End.HALT
