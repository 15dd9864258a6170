# Guests that count timer ticks, for long mode at 0x1000. Assembled with --defsym for each kind of tick:
#   TICKS     how many
#   TIMER     0 local APIC timer, 1 8254 through the IOAPIC, 2 8254 through the 8259
#   X2APIC    1: registers are MSRs (only with TIMER=0)
#   BUSY      instructions in turns of two between two looks at the count; 0: halted between ticks
#   PERIOD    of the timer, in its own counts
.intel_syntax noprefix
.code64
.set IDT, 0x6000
.set LAPIC, 0xFEE00000
.set IOAPIC, 0xFEC00000
.set VECTOR, 0x40
.set IA32_APIC_BASE, 0x1B
.set X2APIC_BASE, 0x800

.macro register number, value
.if X2APIC
    mov ecx, X2APIC_BASE + \number / 16
    mov eax, \value
    xor edx, edx
    wrmsr
.else
    mov dword ptr [rbx + \number], \value
.endif
.endm
.macro command port, value
    mov al, \value
    out \port, al
.endm

    .globl start
start:
    mov esp, 0x8000
    mov ebx, LAPIC
    mov ebp, IOAPIC
    mov r12d, TICKS
    lidt [idtr]
    mov rax, offset handler
    mov word ptr [IDT + 16 * VECTOR], ax
    mov word ptr [IDT + 16 * VECTOR + 2], cs
    mov word ptr [IDT + 16 * VECTOR + 4], 0x8E00    # present, DPL 0, 64-bit interrupt gate (SDM 3A 6.14.1)
    shr eax, 16
    mov word ptr [IDT + 16 * VECTOR + 6], ax
    mov qword ptr [IDT + 16 * VECTOR + 8], 0
.if X2APIC
    mov ecx, IA32_APIC_BASE
    rdmsr
    or eax, 0xC00
    wrmsr
.endif
    register 0xF0, 0x1FF                            # spurious vector 0xFF, APIC on
.if TIMER == 2
    command 0x20, 0x11                              # ICW1: edge, cascade, ICW4 follows
    command 0x21, VECTOR                            # ICW2
    command 0x21, 4                                 # ICW3
    command 0x21, 1                                 # ICW4: 8086
    command 0x21, 0xFE                              # OCW1: IRQ 0 only
.else
    command 0x21, 0xFF
.endif
    command 0xA1, 0xFF
.if TIMER == 1
    mov dword ptr [rbp], 0x10 + 2 * 2               # pin 2, where the 8254 is: fixed, edge, to APIC 0
    mov dword ptr [rbp + 0x10], VECTOR
.endif
.if TIMER
    command 0x43, 0x34                              # counter 0, both bytes, rate generator
    command 0x40, PERIOD & 0xFF
    command 0x40, PERIOD >> 8
.else
    register 0x3E0, 0xB                             # divide by 1
    register 0x320, 0x20000 | VECTOR                # periodic
    register 0x380, PERIOD
.endif
    sti
again:
.if BUSY
    mov ecx, BUSY
1:  dec ecx
    jnz 1b
.else
    hlt
.endif
    test r12d, r12d
    jnz again
    cli
    hlt

handler:                                            # ten instructions, end of interrupt, IRET
    push rax
    push rcx
    push rdx
    dec r12d
    mov eax, r12d
    add r13, rax
    xor edx, edx
.if TIMER == 2
    command 0x20, 0x20
.else
    register 0xB0, 0
.endif
    pop rdx
    pop rcx
    pop rax
    iretq
idtr:
    .word 0xFFF
    .quad IDT
