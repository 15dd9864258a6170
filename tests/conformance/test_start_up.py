"""Several vCPUs: who starts, who starts the others, and who may still wake whom."""

from __future__ import annotations

from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips
from conformance.interrupt_guests import console

__all__ = ["chips"]

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


def test_exits_of_several_cpus_are_iterated_to_the_end(chips: dict[str, object]) -> None:
    with Machine(guest(START_OTHERS), cpus=4, **chips) as machine:
        for _ in machine.exits(timeout=30):
            pass
        assert machine.result is not None
        assert machine.result.end is End.HALT
        assert machine.console == b"aaab"
