/* The header and first instructions of the test kernels: MULTIBOOT is 1 or 2, FLAT adds load addresses. */

#define MAGIC1 0x1BADB002
#ifdef FLAT
#define FLAGS1 0x10003
#else
#define FLAGS1 0x3
#endif
#define MAGIC2 0xE85250D6

.section .header, "a"
.balign 8
header:
#if MULTIBOOT == 1
    .long MAGIC1, FLAGS1, -(MAGIC1 + FLAGS1)
#ifdef FLAT
    .long header, header, image_data_end, image_end, _start
#endif
#else
    .long MAGIC2, 0, header_end - header, -(MAGIC2 + (header_end - header))
    .word 1, 0          /* information, required: all that matters, and what only other machines have */
    .long 8 + 5 * 4
    .long 1, 4, 6, 8, 14
    .balign 8
#ifdef FLAT
    .word 2, 0
    .long 24, header, header, image_data_end, image_end
    .word 3, 0
    .long 12, _start
    .balign 8
#endif
    .word 4, 0          /* console flags: there may be EGA text, none is required */
    .long 12, 2
    .balign 8
    .word 5, 1          /* a framebuffer, optional */
    .long 20, 1024, 768, 32
    .balign 8
    .word 6, 0          /* modules on page boundaries */
    .long 8
    .word 7, 0          /* EFI: may start with boot services */
    .long 8
    .word 9, 0          /* EFI amd64 entry: not for this machine */
    .long 12, 0x12345678
    .balign 8
#ifdef RELOCATABLE
    .word 10, 0
    .long 24, 0x400000, 0x800000, 0x10000, RELOCATABLE
#endif
    .word 0xBEEF, 1     /* unknown, optional */
    .long 8
    .word 0, 0
    .long 8
header_end:
#endif

.text
.globl _start
_start:
#ifdef RELOCATABLE      /* says where it is, and nothing else: the rest is linked to fixed addresses */
    call 1f
1:  pop %ecx
    sub $1b - 0x100000, %ecx
    mov $4, %edx
2:  rol $8, %ecx
    mov %cl, %al
    out %al, $0xE9
    dec %edx
    jnz 2b
    mov %ebx, %esi
    add $8, %esi        /* the tags, up to that of type 21 */
3:  cmpl $21, (%esi)
    je 4f
    mov 4(%esi), %ecx
    add $7, %ecx
    and $-8, %ecx
    add %ecx, %esi
    jmp 3b
4:  mov 8(%esi), %ecx
    mov $4, %edx
5:  rol $8, %ecx
    mov %cl, %al
    out %al, $0xE9
    dec %edx
    jnz 5b
    hlt
#endif
    mov $stack_top, %esp
    pushf
    push %ebx
    push %eax
    call kernel_main
    hlt

.bss
.balign 16
    .skip 4096
stack_top:
