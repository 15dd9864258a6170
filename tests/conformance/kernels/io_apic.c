/* The IOAPIC by way of the test device's lines: registers, edges, levels, masks, TMR, destinations. */

#include "kit.h"

#define IOAPIC ((volatile u32 *)0xFEC00000)
#define LINE 14

enum { EDGE = 0, LEVEL = 1 << 15, LOGICAL = 1 << 11, REMOTE_IRR = 1 << 14, MASKED = 1 << 16 };

static u32 read(u32 index) { IOAPIC[0] = index; return IOAPIC[4]; }
static void write(u32 index, u32 value) { IOAPIC[0] = index; IOAPIC[4] = value; }

static void redirect(int pin, u32 low, u32 destination)
{
    write(0x10 + 2 * pin, low);
    write(0x11 + 2 * pin, destination << 24);
}

static void drive(int line, int level)
{
    out8(0x2000 + line, level);
    chance();
}

static void toggle(int line) { drive(line, 1); drive(line, 0); }

static volatile int counted, on[16], order[4], orders, tmr, rounds;

static void edge(struct frame *frame) { counted++; apic_write(APIC_EOI, 0); }
static void level(struct frame *frame) { counted++; drive(LINE, 0); apic_write(APIC_EOI, 0); }
static void note(struct frame *frame) { order[orders++ & 3] = frame->vector; apic_write(APIC_EOI, 0); }

static void coalesce(struct frame *frame)
{
    if (++counted == 1)
        toggle(LINE), drive(LINE, 1);
    drive(LINE, 0);
    apic_write(APIC_EOI, 0);
}

static void twice(struct frame *frame)
{
    if (++counted == 2)
        drive(LINE, 0);
    apic_write(APIC_EOI, 0);
}

static void mask_it(struct frame *frame)
{
    counted++;
    write(0x10 + 2 * LINE, read(0x10 + 2 * LINE) | MASKED);
    apic_write(APIC_EOI, 0);
}

static void note_tmr(struct frame *frame)
{
    tmr = apic_read(APIC_TMR + 0x10 * (frame->vector >> 5)) >> (frame->vector & 31) & 1;
    drive(LINE, 0);
    apic_write(APIC_EOI, 0);
}

static void elsewhere(struct frame *frame)
{
    counted++;
    drive(LINE, 0);
    write(0x11 + 2 * LINE, 1 << 24);
    apic_write(APIC_EOI, 0);
}

static void where(struct frame *frame)
{
    drive(LINE, 0);
    apic_write(APIC_EOI, 0);
    // Only now: whoever waits for the count drives the line again.
    asm volatile("lock inc dword ptr [%0]" : : "r"(&on[apic_id()]) : "memory");
    asm volatile("lock inc %0" : "+m"(counted) : : "memory");
}

static void toggle_from_here(u64 argument) { toggle(argument); }

static void registers(void)
{
    u32 version = read(1), id = read(0);
    write(1, ~version);
    check(read(1) == version && (version & 0xFF) >= 0x11 && version >> 16 == 23, "version, which cannot be written");
    write(0, ~id);
    check((read(0) ^ id) == 0x0F000000, "four bits of ID");
    write(0, 0x0F000000);
    check(read(2) == 0x0F000000, "arbitration ID follows");
    write(2, 0);
    check(read(2) == 0x0F000000, "and cannot be written");
    write(0, id);
}

static void edges_and_levels(void)
{
    counted = 0;
    handle(0x76, edge);
    redirect(LINE, 0x76, 0);
    toggle(LINE);
    check(counted == 1, "an edge");
    counted = 0;
    handle(0x77, level);
    redirect(LINE, 0x77 | LEVEL, 0);
    drive(LINE, 1);
    check(counted == 1, "a level");
    handle(0x78, note);
    handle(0x66, note);
    redirect(LINE, 0x78, 0);
    redirect(LINE + 1, 0x66, 0);
    interrupts_off();
    toggle(LINE + 1);
    toggle(LINE);
    interrupts_on();
    chance();
    check(orders == 2 && order[0] == 0x78 && order[1] == 0x66, "two edges at once, the higher vector first");
    counted = 0;
    handle(0x98, coalesce);
    redirect(LINE, 0x98 | LEVEL, 0);
    drive(LINE, 1);
    check(counted == 1, "a level that came back while in service, and went");
    counted = 0;
    handle(0x99, level);
    redirect(LINE, 0x99 | LEVEL, 0);
    drive(LINE, 1);
    drive(LINE, 1);
    check(counted == 2, "two levels one after the other");
    counted = 0;
    handle(0x9A, twice);
    redirect(LINE, 0x9A | LEVEL, 0);
    interrupts_off();
    drive(LINE, 1);
    for (int i = 0; i < 10 && counted < 2; i++)
        asm volatile("sti; hlt; cli");
    interrupts_on();
    check(counted == 2, "a level that stays up comes again");
}

static void masks(void)
{
    counted = 0;
    handle(0x81, level);
    redirect(LINE, 0x81 | MASKED, 0);
    toggle(LINE);
    check(!counted, "a masked edge is lost");
    redirect(LINE, 0x81, 0);
    drive(LINE, 1);
    check(counted == 1, "the next is not");
    counted = 0;
    redirect(LINE, 0x81 | LEVEL | MASKED, 0);
    drive(LINE, 1);
    check(!counted, "a masked level waits");
    redirect(LINE, 0x81 | LEVEL, 0);
    chance();
    check(counted == 1, "until it is let through");
    counted = 0;
    handle(0x83, mask_it);
    redirect(LINE, 0x83 | LEVEL, 0);
    drive(LINE, 1);
    chance();
    redirect(LINE, 0x83 | LEVEL, 0);
    chance();
    check(counted == 2, "masked by its own handler, and let through again");
    drive(LINE, 0);
    redirect(LINE, MASKED, 0);
}

static int tmr_before(void) { return apic_read(APIC_TMR + 0x30) >> 0x19 & 1; }

static void trigger_mode(u32 trigger, int before, const char *what)
{
    tmr = -1;
    handle(0x79, note_tmr);
    redirect(LINE, 0x79 | trigger, 0);
    int right = tmr_before() == before;
    trigger ? drive(LINE, 1) : toggle(LINE);
    chance();
    check(right && tmr == (trigger != 0), what);
}

static void destinations(int cpus)
{
    counted = on[1] = 0;
    handle(0x85, where);
    redirect(LINE, 0x85 | LEVEL | MASKED, 1);
    write(0x10 + 2 * LINE, 0x85 | LEVEL);
    drive(LINE, 1);
    while (!counted)
        chance();
    check(on[1] == 1, "physical destination");
    if (cpus > 3) {
        counted = on[0] = on[1] = on[2] = on[3] = 0;
        handle(0x86, where);
        redirect(LINE, 0x86 | LEVEL | LOGICAL | MASKED, 13);
        write(0x10 + 2 * LINE, 0x86 | LEVEL | LOGICAL);
        drive(LINE, 1);
        while (counted < 3)
            chance();
        check(on[0] == 1 && !on[1] && on[2] == 1 && on[3] == 1, "logical destination");
    }
    tmr = -1;
    handle(0x79, note_tmr);
    redirect(LINE, 0x79 | EDGE, 0);
    on_cpu_async(1, toggle_from_here, LINE);
    while (tmr == -1)
        chance();
    check(!tmr, "an edge that another CPU made");
    counted = 0;
    handle(0x84, elsewhere);
    redirect(LINE, 0x84 | LEVEL, 0);
    drive(LINE, 1);
    chance();
    check(counted == 1 && !(read(0x10 + 2 * LINE) & REMOTE_IRR), "ended by the one who had it, redirected meanwhile");
}

int main(void)
{
    set_up();
    int cpus = start_others();
    interrupts_on();
    registers();
    edges_and_levels();
    masks();
    trigger_mode(EDGE, 0, "TMR of an edge");
    trigger_mode(LEVEL, 0, "TMR of a level");
    trigger_mode(LEVEL, 1, "TMR of a level after a level");
    trigger_mode(EDGE, 1, "TMR of an edge after a level");
    if (cpus > 1)
        destinations(cpus);
    return failures;
}
