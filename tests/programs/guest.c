/* The guest's side of runtime.h. */
#include "runtime.h"

void put_byte(u8 byte)
{
    __asm__ volatile("outb %0, $0xe9" : : "a"(byte));
}

void *memcpy(void *to, const void *from, __SIZE_TYPE__ size)
{
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return result;
}

void *memset(void *to, int value, __SIZE_TYPE__ size)
{
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return result;
}

__asm__(".section .start, \"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        "    call program\n"
        "    xorl %eax, %eax\n" /* the debug exit: works at CPL 3 too */
        "    outb %al, $0xf4\n"
        "1:  hlt\n"
        "    jmp 1b\n"
        ".text\n");
