# A kernel that leaves protected mode at once: big real mode, the interrupt vectors at 0, ports of every size, a byte to debug exit.
# Prints a letter for each part that is right, in its order.

.intel_syntax noprefix
.set DATA, 0x10
.set LATCH, 0xE0

.macro say char
    mov dx, 0x3FD
0:  in al, dx
    test al, 0x20                       # transmitter holding register empty
    jz 0b
    mov dx, 0x3F8
    mov al, \char
    out dx, al
.endm

.macro expect char, condition           # say it, or end with status 1
    j\condition 1f
    mov al, 1
    out 0xF4, al
1:  say \char
.endm

.section .multiboot, "a"
.align 4
.long 0x1BADB002, 0, -0x1BADB002

.text
.code32
.globl entry
entry:
    lgdt [gdt_register]
    .byte 0xEA                          # jmp 0x08:code16
    .long code16
    .word 8

.code16
code16:
    mov eax, DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and eax, ~1
    mov cr0, eax
    .byte 0xEA                          # jmp 0:real
    .word real, 0
real:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x7000

    mov eax, 0x12345678                 # ports
    out LATCH, eax
    in al, LATCH + 1
    cmp al, 0x56
    expect 'p', e
    in ax, LATCH + 2
    cmp ax, 0x1234
    expect 'o', e

    mov word ptr ds:[4 * 0x21], offset handler   # interrupt vectors
    mov word ptr ds:[4 * 0x21 + 2], 0
    xor bx, bx
    int 0x21
    cmp bx, 7
    expect 'i', e
    mov word ptr ds:[4 * 6], offset undefined
    mov word ptr ds:[4 * 6 + 2], 0
    xor bx, bx
    ud2
    cmp bx, 9
    expect 'u', e

    lgdt [gdt_register]                 # big real mode
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    mov cx, DATA
    mov gs, cx
    and eax, ~1
    mov cr0, eax
    xor cx, cx
    mov gs, cx
    mov esi, 0x200000
    mov dword ptr gs:[esi], 0xCAFE
    cmp dword ptr gs:[esi], 0xCAFE
    expect 'b', e

    mov ebx, 0xACED                     # MOV to and from debug registers ignores the mod field (SDM 2B MOV)
    mov dr0, ebx
    .byte 0x0F, 0x21, 0x00
    cmp eax, 0xACED
    expect 'd', e
    stc
    .byte 0xD6                          # SALC
    cmp al, 0xFF
    expect 's', e
    push cs
    push offset back
    retf
back:
    say 'r'
    mov cx, 1000
    rdtsc
    mov ebx, eax
again:
    .byte 0x67
    loop again
    rdtsc
    cmp eax, ebx
    expect 't', a
    say 10
    mov al, 0
    out 0xF4, al
    hlt

handler:
    mov bx, 7
    iret

undefined:
    mov bx, 9
    push bp
    mov bp, sp
    add word ptr [bp + 2], 2            # behind UD2
    pop bp
    iret

.align 8
gdt:
.quad 0
.quad 0x00009B000000FFFF                # 16-bit code
.quad 0x00CF93000000FFFF                # data, 4 GiB
gdt_register:
    .word 0x17
    .long gdt
