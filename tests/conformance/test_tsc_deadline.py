"""The local APIC's TSC-deadline timer, where CPUID has it."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine
from belljar.x86.msr import Msr
from conformance.assembly import guest
from conformance.chips import chips
from conformance.interrupt_guests import console

__all__ = ["chips"]

NEED = """
.macro need_deadlines           # says '-' where CPUID has none
    mov eax, 1
    push rbx
    cpuid
    pop rbx
    bt ecx, 24
    jc 1f
    say '-'
    done
1:
.endm
"""


def said(text: str, chips: dict[str, object], **more: object) -> bytes:
    """What a guest prints; a skip where there are no TSC deadlines."""
    printed = console(NEED + text, chips, **more)
    if printed == b"-":
        pytest.skip("these chips have no TSC deadline timer, and say so")
    return printed


TSC_DEADLINE = """
main:
    need_deadlines
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
tick:
    say 't'
    end_of_interrupt
    iretq
"""


def test_tsc_deadline_timer_where_cpuid_has_it(chips: dict[str, object]) -> None:
    assert said(TSC_DEADLINE, chips) == b"te"


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
    need_deadlines
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
    need_deadlines
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
    assert said(TSC_DEADLINES, chips) == b"rtttte"


def test_tsc_deadline_of_another_cpu_runs_out(chips: dict[str, object]) -> None:
    assert said(DEADLINE_OF_ANOTHER, chips, cpus=2) == b"te"


FAR_DEADLINE = """
main:
    need_deadlines
    gate 0x40, tick
    lapic 0x320, 0x40040        # TSC deadline
    rdtsc
    add edx, 0x1000
    mov ecx, 0x6E0              # IA32_TSC_DEADLINE
    wrmsr
    sti
    hlt
    say 'e'
    done
tick:
    say 't'
    end_of_interrupt
    iretq
"""


def test_runs_go_on_with_a_tsc_deadline_that_is_far_away(chips: dict[str, object]) -> None:
    with Machine(guest(NEED + FAR_DEADLINE), **chips, clock="host") as machine:
        machine.run(timeout=0.05)
        if machine.console == b"-":
            pytest.skip("these chips have no TSC deadline timer, and say so")
        for _ in range(3):
            assert machine.run(timeout=0.02).end is End.TIMEOUT
        assert machine.console == b""


def test_tsc_deadline_is_on_the_counter_that_the_host_has_set(chips: dict[str, object]) -> None:
    if chips["irqchip"] != "user":
        pytest.skip("the kernel's local APICs look again when the guest writes the deadline again")
    with Machine(guest(NEED + FAR_DEADLINE), **chips, clock="host") as machine:
        result = machine.run(timeout=0.05)
        if machine.console == b"-":
            pytest.skip("these chips have no TSC deadline timer, and say so")
        assert (result.end, machine.console) == (End.TIMEOUT, b"")
        tsc = machine.cpu.vcpu.get_msrs([Msr.IA32_TIME_STAMP_COUNTER])[Msr.IA32_TIME_STAMP_COUNTER]
        machine.cpu.vcpu.set_msrs({Msr.IA32_TIME_STAMP_COUNTER: tsc + (0x1001 << 32)})
        if machine.cpu.vcpu.get_msrs([Msr.IA32_TIME_STAMP_COUNTER])[Msr.IA32_TIME_STAMP_COUNTER] < tsc + (0x1000 << 32):
            pytest.skip("this host's KVM does not keep what a time-stamp counter is set to")
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"te"
