/* Suspend to RAM by ACPI: the real-time clock's alarm wakes the machine, the first processor goes on in real mode at the waking
vector, the others have lost what they did, and memory has kept all. The waking code ends with what lies at 0x7000. */

#include "kit.h"

asm(".globl waking, waking_end\n"
    ".code16\n"
    "waking:\n"
    "    mov dx, 0x3F8\n"
    "    mov al, 'w'\n"
    "    out dx, al\n"
    "    mov ax, cs\n"
    "    cmp ax, 0x112\n"                   /* 0x1128 is 0112:0008 */
    "    jne 1f\n"
    "    mov eax, cr0\n"
    "    test al, 1\n"
    "    jnz 1f\n"
    "    mov dx, 0x600\n"
    "    in ax, dx\n"
    "    and ax, 0x8400\n"                  /* awake, by the clock */
    "    cmp ax, 0x8400\n"
    "    jne 1f\n"
    "    mov eax, [0x7004]\n"              /* the other CPU would go on counting there */
    "    mov ecx, 0xFFFF\n"
    "2:  loop 2b\n"
    "    cmp eax, [0x7004]\n"
    "    jne 1f\n"
    "    mov al, '!'\n"
    "    mov dx, 0x3F8\n"
    "    out dx, al\n"
    "1:  mov eax, [0x7000]\n"
    "    mov dx, 0xF4\n"
    "    out dx, eax\n"
    "    hlt\n"
    "waking_end:\n"
    ".code64\n");
extern char waking[], waking_end[];

#define COUNTER (*(volatile u32 *)0x7004)

static u32 word_at(u64 gpa) { return *(volatile u32 *)gpa; }
static u8 clock(u8 index) { out8(0x70, index); return in8(0x71); }
static void set_clock(u8 index, u8 value) { out8(0x70, index); out8(0x71, value); }

static void count(u64 unused)
{
    for (;;)
        COUNTER++;
}

int main(void)
{
    set_up();
    int cpus = start_others();
    u64 root = word_at(0xE0010), fadt = 0;
    for (u64 at = root + 36; at < root + word_at(root + 4); at += 4)
        if (word_at(word_at(at)) == 0x50434146)
            fadt = word_at(at);
    u64 facs = word_at(fadt + 36);
    u16 events = word_at(fadt + 56), control = word_at(fadt + 64);
    check(word_at(facs) == 0x53434146, "FACS");
    volatile char *to = (char *)0x1128;
    asm volatile("" : "+r"(to));
    for (char *from = waking; from < waking_end; from++)
        *to++ = *from;
    *(volatile u32 *)(facs + 12) = 0x1128;
    out16(events + 2, 1 << 10);
    clock(12);
    set_clock(1, 0xC0);
    set_clock(3, 0xC0);
    set_clock(5, 0xC0);
    set_clock(11, clock(11) | 0x20);
    if (cpus > 1) {
        COUNTER = 0;
        on_cpu_async(1, count, 0);
        while (!COUNTER)
            relax();
    }
    put("sleep\n");
    asm volatile("mov dword ptr [0x7000], 0\nout dx, ax\n1: mov dword ptr [0x7000], 1\njmp 1b" : : "a"(0x2400), "d"(control) : "memory");
    return 1;
}
