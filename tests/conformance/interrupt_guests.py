"""Guests with timers and their own IDT, and what they print."""

from __future__ import annotations

from belljar.machine import End, Machine
from conformance.assembly import guest


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

CR8_LOWERED = """
main:
    gate 0x55, handler
    mov eax, 5                  # classes up to 5 wait
    mov cr8, rax
    lapic 0x300, 0x44055
    sti
    chance
    say 'a'
    mov eax, 4
    mov cr8, rax
    chance
    say 'c'
    cli
    done
handler:
    say 'b'
    end_of_interrupt
    iretq
"""

X2APIC_AND_BACK = """
main:
    gate 0x40, handler
    mov ecx, 0x1B               # IA32_APIC_BASE
    rdmsr
    or eax, 1 << 10             # x2APIC
    wrmsr
    mov ecx, 0x808              # TPR
    rdmsr
    mov ecx, 0x1B
    rdmsr
    and eax, ~0xC00             # there is no way back but through off
    wrmsr
    or eax, 1 << 11
    wrmsr
    lapic 0xF0, 0x1FF
    lapic 0x300, 0x44040
    sti
    chance
    cli
    say 'e'
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
