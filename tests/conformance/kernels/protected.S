# 32-bit code with 2-level paging, on two CPUs, as 32-bit images start them: per-CPU segments, IPIs, CMPXCHG8B, levels of paging
# that may change outside of 64-bit mode, a control register's reserved bits. Prints a letter for each part that is right.

.intel_syntax noprefix
.set CODE, 0x08
.set DATA, 0x10
.set TSS, 0x18                          # and what GS refers to, for each of two CPUs
.set PER_CPU, 0x28
.set APIC, 0xFEE00000
.set X2APIC_ICR, 0x830

.macro say char
    push eax
    mov al, \char
    call print
    pop eax
.endm

.macro wanted condition, char           # else end with status 1
    j\condition 1f
    mov eax, 1
    out 0xF4, eax
1:  say \char
.endm

.macro descriptor selector, base, limit, kind
    mov eax, offset \base
    mov word ptr [gdt + \selector], \limit
    mov [gdt + \selector + 2], ax
    shr eax, 16
    mov [gdt + \selector + 4], al
    mov byte ptr [gdt + \selector + 5], \kind
    mov byte ptr [gdt + \selector + 6], 0x40
    mov [gdt + \selector + 7], ah
.endm

.section .multiboot, "a"
.align 4
.long 0x1BADB002, 0, -0x1BADB002

.text
.code32
.globl entry
entry:
    descriptor TSS, tss, 0x67, 0x89
    descriptor TSS + 8, tss + 0x68, 0x67, 0x89
    descriptor PER_CPU, per_cpu, 7, 0x93
    descriptor PER_CPU + 8, per_cpu + 8, 7, 0x93
    lgdt [gdt_register]
    call load_segments
    mov esp, offset stacks + 4096
    lea edi, page_directory             # 4 GiB, one to one
    mov eax, 0x1E7
map:
    mov [edi], eax
    add edi, 4
    add eax, 0x400000
    jnc map
    lea edi, idt
    lea eax, unexpected
    mov ecx, 48
gates:
    call gate
    loop gates
    lea edi, idt + 8 * 13
    lea eax, protection
    call gate
    lea edi, idt + 8 * 0x20
    lea eax, call_of_another
    call gate
    call common
    say 'p'
    mov dword ptr gs:[0], 0x1234
    mov eax, [per_cpu]
    cmp eax, 0x1234
    wanted e, 'g'

    mov ecx, 0x1B                       # IA32_APIC_BASE: off, and on again in xAPIC mode
    rdmsr
    and eax, ~0xC00
    wrmsr
    or eax, 0x800
    wrmsr
    mov dword ptr [APIC + 0xF0], 0x1FF
    mov al, 0xFF
    out 0x21, al
    out 0xA1, al
    xor edi, edi                        # the trampoline, at 0, and behind it INT3
    lea esi, trampoline
    mov ecx, offset trampoline_end - trampoline
    cld
    rep movsb
    mov al, 0xCC
    mov ecx, offset 4096 - (trampoline_end - trampoline)
    rep stosb
    sgdt [trampoline_gdt - trampoline]
    mov dword ptr [APIC + 0x300], 0xC4500           # INIT to all others, then start-up at 0
    mov dword ptr [APIC + 0x300], 0xC0600
wait:
    pause
    cmp word ptr [online], 2
    jne wait
    say 'o'
    call to_x2apic
    lidt [idt_register]
    mov ecx, X2APIC_ICR                 # fixed, vector 20H, to CPU 1
    mov eax, 0x4020
    mov edx, 1
    wrmsr
answered:
    pause
    cmp dword ptr [called], 1
    jne answered
    cmp dword ptr [per_cpu + 8], 0x5678 # by GS of the other CPU
    wanted e, 'i'

    mov dword ptr [pair], 1
    mov dword ptr [pair + 4], 2
    mov eax, 1
    mov edx, 2
    mov ebx, 3
    mov ecx, 4
    lock cmpxchg8b [pair]
    wanted e, 'c'
    lock cmpxchg8b [pair]
    wanted ne, 'C'
    cmp eax, 3
    wanted e, 'l'
    cmp edx, 4
    wanted e, 'h'

    mov eax, cr4
    mov ebx, eax
    or eax, 1 << 31
    mov cr4, eax                        # a reserved bit
    cmp dword ptr [faults], 1
    wanted e, 'r'
    mov eax, 7
    xor ecx, ecx
    cpuid
    shr ecx, 16                         # LA57
    and ecx, 1
    xor ecx, 1
    mov [faults], ecx
    mov eax, cr4
    or eax, 1 << 12
    mov cr4, eax
    cmp dword ptr [faults], 0
    wanted e, 'L'
    mov al, 10
    call print
    xor eax, eax
    out 0xF4, eax
stop:
    hlt
    jmp stop

# What each CPU does: paging, its task register and GS.
common:
    mov eax, 1 << 4                     # PSE
    mov cr4, eax
    mov eax, offset page_directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    lidt [idt_register]
    mov eax, [next_cpu]
    lea ecx, [8 * eax + TSS]
    ltr cx
    lea ecx, [8 * eax + PER_CPU]
    mov gs, ecx
    inc dword ptr [next_cpu]
    ret

load_segments:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov ss, eax
    ret

to_x2apic:
    mov ecx, 0x1B
    rdmsr
    or eax, 0xC00
    wrmsr
    ret

ap32:
    call load_segments
    mov esp, offset stacks + 8192
    call common
    mov dword ptr gs:[0], 0x5678
    mov dword ptr [APIC + 0xF0], 0x1FF
    call to_x2apic
    sti
    nop
    lock inc word ptr [online]
sleep:
    hlt
    jmp sleep

call_of_another:
    push eax
    push ecx
    push edx
    inc dword ptr [called]
    mov ecx, 0x80B                      # end of interrupt
    xor eax, eax
    xor edx, edx
    wrmsr
    pop edx
    pop ecx
    pop eax
    iretd

protection:
    add dword ptr [esp + 4], 3          # over MOV to CR4
    inc dword ptr [faults]
    add esp, 4
    iretd

unexpected:
    mov eax, 0x3F
    out 0xF4, eax

gate:                                   # at EDI, to EAX
    mov [edi], ax
    mov word ptr [edi + 2], CODE
    mov word ptr [edi + 4], 0x8E00
    push eax
    shr eax, 16
    mov [edi + 6], ax
    pop eax
    add edi, 8
    ret

print:
    push edx
    mov edx, 0x3F8
    out dx, al
    pop edx
    ret

.code16
trampoline:
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    lgdt [ds:trampoline_gdt - trampoline]
    .byte 0x66, 0xEA
    .long ap32
    .word CODE
trampoline_gdt:
    .word 0
    .long 0
trampoline_end:

.data
.align 4096
page_directory:
.skip 4096
gdt:
.quad 0
.quad 0x00CF9B000000FFFF
.quad 0x00CF93000000FFFF
.skip 8 * 4                             # filled in by `entry`
gdt_end:
tss:
.skip 0x68 * 2
per_cpu:
.skip 16
gdt_register:
.word gdt_end - gdt - 1
.long gdt
idt_register:
.word 48 * 8 - 1
.long idt
idt:
.skip 48 * 8
.align 8
pair: .quad 0
next_cpu: .long 0
called: .long 0
faults: .long 0
online: .word 1
.align 16
stacks:
.skip 8192
