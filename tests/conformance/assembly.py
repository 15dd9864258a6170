"""Guests written as GNU assembler text, Intel syntax, for long mode at 0x1000.

Not protected mode: KVM's emulator, where a host runs CPL0 by it, has no IRET there.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

ORIGIN = 0x1000

COMMON = """
.intel_syntax noprefix
.code64
.set IDT, 0x6000
.set LAPIC, 0xFEE00000
.set IOAPIC, 0xFEC00000

.macro say char            # on the debug console
    mov al, \\char
    out 0xE9, al
.endm
.macro gate vector, handler
    mov rax, offset \\handler
    mov word ptr [IDT + 16 * \\vector], ax
    mov word ptr [IDT + 16 * \\vector + 2], cs
    mov word ptr [IDT + 16 * \\vector + 4], 0x8E00   # present, DPL 0, 64-bit interrupt gate (SDM 3A 6.14.1)
    shr eax, 16
    mov word ptr [IDT + 16 * \\vector + 6], ax
    mov qword ptr [IDT + 16 * \\vector + 8], 0
.endm
.macro lapic register, value
    mov dword ptr [rbx + \\register], \\value
.endm
.macro redirect pin, low, high=0                     # an entry of the IOAPIC's table
    mov dword ptr [rbp], 0x11 + 2 * \\pin
    mov dword ptr [rbp + 0x10], \\high
    mov dword ptr [rbp], 0x10 + 2 * \\pin
    mov dword ptr [rbp + 0x10], \\low
.endm
.macro end_of_interrupt
    mov dword ptr [rbx + 0xB0], 0
.endm
.macro chance               # to deliver what waits: a host that emulates CPL0 looks only at exits
    in al, 0x80
    in al, 0x80
.endm
.macro done                                          # asleep for good
    cli
    hlt
.endm
start:
    mov esp, 0x8000
    mov ebx, LAPIC
    mov ebp, IOAPIC
    lidt [idtr]
    lapic 0xF0, 0x1FF                                # spurious vector 0xFF, APIC on
    mov al, 0xFF                                     # both 8259s masked
    out 0x21, al
    out 0xA1, al
    jmp main
idtr:
    .word 0xFFF
    .quad IDT
"""


@cache
def guest(text: str) -> bytes:
    """The guest's bytes; `text` begins with the label `main`."""
    with TemporaryDirectory() as where:
        source, linked, flat = (str(Path(where) / name) for name in ("guest.s", "guest.elf", "guest.bin"))
        Path(source).write_text(COMMON + text)
        run("as", "--64", "-o", source + ".o", source)
        run("ld", "-m", "elf_x86_64", f"-Ttext={ORIGIN:#x}", "-e", "start", "-o", linked, source + ".o")
        run("objcopy", "-O", "binary", "-j", ".text", linked, flat)
        return Path(flat).read_bytes()


def run(*command: str) -> None:
    """A tool, or an error with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
