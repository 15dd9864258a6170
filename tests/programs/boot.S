/* A boot sector that finds its own way: real mode, A20, protected mode, PAE and long mode, with no help from the host.
   It prints each mode's name on port 0xE9 and leaves 42 in RAX. Loaded and entered at 0x7C00 with CS base 0. */
        .code16
        .section .start, "ax"
        .globl _start
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        ljmp    $0, $1f                 /* make CS:IP canonical */
1:      movw    $real_text, %si
        call    print16
        inb     $0x92, %al              /* fast A20 gate, system control port A */
        orb     $2, %al
        andb    $0xfe, %al
        outb    %al, $0x92
        movw    $0x500, %di             /* the wrap test: with A20 off 0x100500 is 0x500 */
        movw    $0xffff, %ax
        movw    %ax, %fs
        movw    $0x1234, (%di)
        movw    $0x4321, %fs:0x510
        cmpw    $0x1234, (%di)
        jne     stop
        lgdtl   gdt_pointer
        movl    %cr0, %eax
        orl     $1, %eax                /* PE */
        movl    %eax, %cr0
        ljmpl   $0x08, $protected

print16:
        lodsb
        testb   %al, %al
        jz      1f
        outb    %al, $0xe9
        jmp     print16
1:      ret

        .code32
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x7c00, %esp
        movl    $protected_text, %esi
        call    print32
        movl    $0x10000, %edi          /* page map level 4, directory pointers, directory of 2 MiB pages */
        movl    %edi, %cr3
        xorl    %eax, %eax
        movl    $0xc00, %ecx
        cld
        rep stosl
        movl    $0x11003, 0x10000
        movl    $0x12003, 0x11000
        movl    $0x83, 0x12000
        movl    %cr4, %eax
        orl     $0x20, %eax             /* PAE */
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx       /* EFER */
        rdmsr
        orl     $0x100, %eax            /* LME */
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax       /* PG */
        movl    %eax, %cr0
        ljmpl   $0x18, $long_mode

print32:
        lodsb
        testb   %al, %al
        jz      1f
        outb    %al, $0xe9
        jmp     print32
1:      ret

        .code64
long_mode:
        movl    $0x7c00, %esp
        movabsq $0x123456789abcdef0, %rbx
        leaq    long_text(%rip), %rsi
1:      lodsb
        testb   %al, %al
        jz      2f
        outb    %al, $0xe9
        jmp     1b
2:      xorl    %eax, %eax
        cpuid                           /* kept honest: EAX must be a number of leaves */
        testl   %eax, %eax
        jz      stop
        movabsq $0x123456789abcdef0, %rdx
        movl    $42, %eax
        pushq   %rdx
        popq    %r15
        cmpq    %rdx, %r15
        je      stop
        xorl    %eax, %eax
stop:   hlt
        jmp     stop

real_text:      .asciz "real "
protected_text: .asciz "protected "
long_text:      .asciz "long\n"
        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      /* 0x08: 32-bit code */
        .quad   0x00cf93000000ffff      /* 0x10: data */
        .quad   0x00af9b000000ffff      /* 0x18: 64-bit code */
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
        .org    510
        .word   0xaa55
