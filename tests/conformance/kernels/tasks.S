# A kernel of 32-bit code with 2-level paging in pages of 4 MiB: task switches by an external interrupt, an NMI, an exception, CALL and JMP,
# and a task in virtual-8086 mode. Prints a letter for each part that is right.

.intel_syntax noprefix
.set CODE, 0x08
.set DATA, 0x10
.set MAIN_TSS, 0x18
.set OTHER_TSS, 0x20
.set V86_TSS, 0x28
.set V86_CODE, 0x42000

.macro say char
    mov al, \char
    call print
.endm

.macro expect char, count               # so many visits to the other task; else end with status 1
    cmp dword ptr [visits], \count
    je 1f
    mov eax, 1
    out 0xF4, eax
1:  mov dword ptr [visits], 0
    say \char
.endm

.macro descriptor selector, base, limit, kind
    mov eax, offset \base
    mov word ptr [gdt + \selector], \limit
    mov [gdt + \selector + 2], ax
    shr eax, 16
    mov [gdt + \selector + 4], al
    mov byte ptr [gdt + \selector + 5], \kind
    mov [gdt + \selector + 7], ah
.endm

.macro task_gate vector, selector
    mov dword ptr [idt + 8 * \vector], \selector << 16
    mov dword ptr [idt + 8 * \vector + 4], 0x8500        # present, task gate (SDM 3A 6.14.1)
.endm

.section .multiboot, "a"
.align 4
.long 0x1BADB002, 0, -0x1BADB002

.text
.code32
.globl entry
entry:
    mov esp, offset main_stack
    lgdt [gdt_register]
    lidt [idt_register]
    .byte 0xEA
    .long with_gdt
    .word CODE
with_gdt:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax

    mov edi, offset page_directory      # 4 GiB, one to one
    mov eax, 0x87                       # present, writable, user, large
map:
    mov [edi], eax
    add edi, 4
    add eax, 0x400000
    jnc map
    mov eax, cr4
    or eax, 1 << 4                      # PSE
    mov cr4, eax
    mov eax, offset page_directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000                  # PG, WP
    mov cr0, eax
    say 'p'

    descriptor MAIN_TSS, main_tss, 0x67, 0x89
    descriptor OTHER_TSS, other_tss, 0x67, 0x89
    descriptor V86_TSS, v86_tss, 0x67, 0x8B
    mov eax, offset page_directory
    mov [main_tss + 0x1C], eax          # CR3 (SDM 3A figure 7-2)
    mov [other_tss + 0x1C], eax
    mov [v86_tss + 0x1C], eax
    mov eax, MAIN_TSS
    ltr ax
    mov ebx, 0xFEE00000
    mov dword ptr [ebx + 0xF0], 0x1FF   # local APIC on
    mov al, 0xFF
    out 0x21, al
    out 0xA1, al

    .byte 0x9A                          # call OTHER_TSS; the offset means nothing
    .long 0xF4F4F4F4
    .word OTHER_TSS
    expect 'c', 1
    .byte 0x9A                          # it goes on behind its IRET
    .long 0xF4F4F4F4
    .word OTHER_TSS
    expect 'C', 1
    task_gate 0xF0, OTHER_TSS
    sti
    mov dword ptr [ebx + 0x300], 0x440F0
    in al, 0x80
    in al, 0x80
    cli
    expect 'i', 1
    task_gate 2, OTHER_TSS
    mov dword ptr [ebx + 0x310], 0
    mov dword ptr [ebx + 0x300], 0x4400 # NMI to itself
    in al, 0x80
    in al, 0x80
    expect 'n', 1
    int 2
    expect 's', 1
    task_gate 0, OTHER_TSS
    xor edx, edx
    mov eax, 1500
    mov dword ptr [divisor], 0
    div dword ptr [divisor]             # the other task makes it 10
    cmp eax, 150
    je divided
    mov eax, 1
    out 0xF4, eax
divided:
    expect 'd', 1
    mov dword ptr [other_tss + 0x20], offset jumped
    .byte 0xEA
    .long 0xF4F4F4F4
    .word OTHER_TSS
    expect 'j', 1

    mov word ptr [V86_CODE], 0x0B0F     # UD2, which leads back
    task_gate 6, MAIN_TSS
    mov word ptr [main_tss], V86_TSS
    pushfd
    or dword ptr [esp], 0x4000          # NT
    popfd
    iretd                               # to the task in virtual-8086 mode
    say 'v'
    say 10
    xor eax, eax
    out 0xF4, eax
    hlt

other:
    inc dword ptr [visits]
    mov dword ptr [divisor], 10
    iretd
    jmp other

jumped:
    inc dword ptr [visits]
    .byte 0xEA
    .long 0
    .word MAIN_TSS
    jmp jumped

print:
    push edx
    push eax
    mov dx, 0x3FD
0:  in al, dx
    test al, 0x20
    jz 0b
    mov dx, 0x3F8
    pop eax
    out dx, al
    pop edx
    ret

.data
.align 8
gdt:
.quad 0
.quad 0x00CF9B000000FFFF
.quad 0x00CF93000000FFFF
.quad 0, 0, 0
gdt_register:
    .word . - gdt - 1
    .long gdt
idt_register:
    .word 0x7FF
    .long idt
divisor: .long 0
visits: .long 0
.align 128
main_tss:
    .fill 0x68, 1, 0
.align 128
other_tss:                              # SDM 3A figure 7-2
    .long 0, other_stack, DATA, 0, 0, 0, 0, 0
    .long other, 2, 0, 0, 0, 0, other_stack, 0, 0, 0
    .long DATA, CODE, DATA, DATA, 0, 0, 0, 0x680000
.align 128
v86_tss:
    .long 0, 0, 0, 0, 0, 0, 0, 0
    .long 0, 0x20002, 0, 0, 0, 0, 0, 0, 0, 0
    .long 0x2345, V86_CODE >> 4, 0, 0x1234, 0, 0, 0, 0x680000
.align 4096
idt: .fill 4096, 1, 0
page_directory: .fill 4096, 1, 0
    .fill 4096, 1, 0
    .fill 4096, 1, 0
main_stack:
    .fill 4096, 1, 0
other_stack:
