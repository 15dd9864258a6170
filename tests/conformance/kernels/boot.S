# From the multiboot entry to 64-bit code, on the first CPU and on those that it starts by a broadcast of INIT and start-up IPI.
# The IDT is at physical address 0, where the trampoline of the other CPUs lies before.

.intel_syntax noprefix

.set CODE64, 0x08
.set DATA, 0x10
.set CODE32, 0x18
.set STACK_SIZE, 0x4000
.set CPUS, 16

.section .multiboot, "a"
.align 4
.long 0x1BADB002, 0, -0x1BADB002

.data
.align 4096
page_directories:                       # 4 GiB, one to one, in pages of 2 MiB
.set gpa, 0
.rept 2048
.quad gpa + 0x87                        # present, writable, user, large (SDM 3A table 4-18)
.set gpa, gpa + 0x200000
.endr
page_pointers:
.set number, 0
.rept 4
.quad page_directories + 4096 * number + 7
.set number, number + 1
.endr
.align 4096
.globl page_root
page_root:
.quad page_pointers + 7
.align 4096
.globl gdt
gdt:
.quad 0
.quad 0x00AF9B000000FFFF                # 64-bit code
.quad 0x00CF93000000FFFF                # data
.quad 0x00CF9B000000FFFF                # 32-bit code
.quad 0x00CFF3000000FFFF                # data, DPL 3
.quad 0x00AFFB000000FFFF                # 64-bit code, DPL 3
.globl tss_descriptor
tss_descriptor:
.quad 0, 0
gdt_register:
.word . - gdt - 1
.quad gdt
.globl idt_register
idt_register:
.word 0xFFF
.quad 0
.globl boot_information
boot_information:
.long 0, 0
next_stack:
.long stacks + STACK_SIZE
.align 16
stacks:
.skip STACK_SIZE * CPUS

.text
.code32
.globl entry
entry:
    mov [boot_information], ebx
    mov [boot_information + 4], eax
    mov esp, offset stacks + STACK_SIZE
    call to_long_mode
    jmp CODE64:start64

to_long_mode:
    lgdt [gdt_register]
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr4
    or eax, 1 << 5                      # PAE
    mov cr4, eax
    mov eax, offset page_root
    mov cr3, eax
    mov ecx, 0xC0000080                 # IA32_EFER
    rdmsr
    or eax, 1 << 8                      # LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
    ret

ap32:
    mov eax, DATA
    mov ds, eax
    mov ss, eax
    mov esp, STACK_SIZE
    lock xadd [next_stack], esp
    add esp, STACK_SIZE
    call to_long_mode
    jmp CODE64:ap64

.code16
.globl trampoline, trampoline_end
trampoline:                             # at 0:0
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    lgdt [ds:gdt_register32 - trampoline]
    .byte 0x66, 0xEA                    # jmp CODE32:ap32
    .long ap32
    .word CODE32
gdt_register32:
    .word 0x1F
    .long gdt
trampoline_end:

.code64
start64:
    xor ebp, ebp
    call main
    mov edi, eax
    call finish

ap64:
    lidt [idt_register]
    call ap_main
sleep:
    hlt
    jmp sleep

# Every vector has an entry of 16 bytes, which leads to `interrupted(frame)`.
.align 16
.globl vectors
vectors:
.set vector, 0
.rept 256
.align 16
.if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)
    .byte 0x90, 0x90                    # the processor has pushed an error code (SDM 3A table 6-1)
.else
    push 0
.endif
    push vector
    jmp common
.set vector, vector + 1
.endr
common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    cld
    call interrupted
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
