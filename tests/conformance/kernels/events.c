/* Events whose delivery faults in the hypervisor: the pages of IDT and stack are flushed first. Then the rest of the test device. */

#include "kit.h"

static void flush(volatile void *gva) { out32(0xE4, (u64)gva); }
static void flush_idt(void) { flush(0); }

static void flush_stack(void)
{
    volatile int here = 0;
    flush(&here);
}

static volatile int counted, divisor, order[4], orders;

static void divide_error(struct frame *frame) { divisor = 10; }
static void count(struct frame *frame) { counted++; }
static void interrupt(struct frame *frame) { counted++; order[orders++ & 3] = frame->vector; apic_write(APIC_EOI, 0); }
static void breakpoint(struct frame *frame) { counted++; }

static volatile int deepest;

static void nested_nmi(struct frame *frame) { counted++; }

static void nmi(struct frame *frame)
{
    counted++;
    handle(2, nested_nmi);
    send(NMI | ASSERT, 0);
    chance();
    deepest = counted; /* still 1: the second waits for IRET */
}

static void not_present(struct frame *frame)
{
    counted++;
    IDT[33].selector = 8;
}

static void hardware(void)
{
    u32 result;
    handle(0, divide_error);
    divisor = 0;
    flush_idt();
    flush_stack();
    asm volatile("xor edx, edx\ndiv %[divisor]" : "=a"(result) : "a"(1500), [divisor] "m"(divisor) : "edx", "cc");
    check(result == 150, "an exception");
    handle(32, interrupt);
    handle(33, interrupt);
    handle(62, interrupt);
    counted = 0;
    interrupts_on();
    flush_idt();
    send(SELF | 33, 0);
    chance();
    interrupts_off();
    check(counted == 1, "an interrupt");
    counted = orders = 0;
    flush_idt();
    send(SELF | 32, 0);
    send(SELF | 33, 0);
    chance();
    interrupts_on();
    chance();
    interrupts_off();
    check(counted == 2 && order[0] == 33 - (order[0] == 32), "two interrupts");
    counted = 0;
    apic_write(APIC_TPR, 0xF0);
    interrupts_on();
    send(SELF | 32, 0);
    send(SELF | 62, 0);
    chance();
    int none = counted;
    apic_write(APIC_TPR, 0x20);
    chance();
    int higher = counted;
    apic_write(APIC_TPR, 0);
    chance();
    interrupts_off();
    check(!none && higher == 1 && counted == 2, "what TPR holds back");
    handle(2, nmi);
    counted = deepest = 0;
    flush_idt();
    flush_stack();
    send(NMI | ASSERT, 0);
    chance();
    check(deepest == 1 && counted == 2, "an NMI in an NMI");
}

static void software(void)
{
    handle(3, breakpoint);
    counted = 0;
    flush_idt();
    flush_stack();
    asm volatile("int3");
    check(counted == 1, "INT3");
    handle(33, count);
    counted = 0;
    flush_idt();
    flush_stack();
    asm volatile("int 33");
    check(counted == 1, "INT n");
    handle(32, interrupt);
    counted = 0;
    flush_idt();
    send(SELF | 32, 0);
    flush_stack();
    asm volatile("sti\nint 33\ncli" : : : "memory");
    check(counted == 2, "INT n in the shadow of STI, an interrupt waiting");
    handle(11, not_present);
    extern u64 gdt[];
    u64 kept = gdt[3];
    gdt[3] = gdt[1] & ~(1ul << 47); /* 64-bit code that is not present */
    IDT[33].selector = 0x18;
    counted = 0;
    flush_idt();
    flush_stack();
    asm volatile("int 33");
    gdt[3] = kept;
    check(counted == 2, "a gate whose segment is not present");
}

static char bytes[] = "abcdefghijklmnop";

static void device(void)
{
    u64 at = (u64)bytes, n = sizeof bytes - 1;
    asm volatile("cld\nrep outsb" : "+S"(at), "+c"(n) : "d"(0xE0) : "memory");
    check(in8(0xE0) == 'p' && !n, "REP OUTS to the latch");
    at = (u64)bytes + sizeof bytes - 2, n = sizeof bytes - 1;
    asm volatile("std\nrep outsb\ncld" : "+S"(at), "+c"(n) : "d"(0xE0) : "memory");
    check(in8(0xE0) == 'a', "downwards");
    out32(0xE0, 0x12345678);
    check(in8(0xE8) == 0x78 && in8(0xE9) == 0x56 && in16(0xEA) == 0x1234 && in32(0xE0) == 0x12345678, "its alias");
    volatile u8 *ram = (volatile u8 *)0xFF000000;
    for (int i = 0; i < 64; i++)
        ram[i] = i;
    check(*(volatile u64 *)(ram + 3) == 0x0A09080706050403 && *(volatile u16 *)(ram + 62) == 0x3F3E, "I/O memory");
    *(volatile u64 *)(ram + 0xFFF8) = 0x1122334455667788;
    check(*(volatile u32 *)(ram + 0xFFFC) == 0x11223344, "to its end");
    u64 from = 0xFF000000, to = 0xFF000100, count = 64;
    asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
    check(ram[0x100] == 0 && ram[0x13F] == 63, "REP MOVS within it");
    out32(0x2000, 0);
    check(1, "lines by four");
}

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    char *line = (char *)(u64)information[4];
    set_up();
    use_x2apic();
    hardware();
    device();
    while (*line)
        line++;
    if (line[-1] == '+')
        software();
    return failures;
}
