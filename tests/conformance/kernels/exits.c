/* What exits cost by the time-stamp counter: each thing is done again and again, twice as often each time, until a round takes long
enough. The command line ends with the number of ticks that this is, as a power of two. */

#include "kit.h"

enum { TEST_DEVICE_MEMORY = 0xFF000000, PM_TIMER = 0x608, ELCR = 0x4D0, NOBODY = 0x1234, VECTOR = 0x40, TSC_ADJUST = 0x3B };

static volatile u64 answered;

static void answer(struct frame *frame)
{
    answered++;
    apic_write(APIC_EOI, 0);
}

static void wait_for(u64 before)
{
    interrupts_on();
    while (answered == before)
        relax();
    interrupts_off();
}

static void nothing(void) { asm volatile("nop"); }
static void ask_cpuid(void) { cpuid(1, 0); }
static void call(void) { u64 value = -1; asm volatile("vmcall" : "+a"(value) : "b"(0) : "memory"); }
static void read_cr8(void) { cr8(); }
static void write_cr8(void) { set_cr8(0); }
static void pm_timer(void) { in32(PM_TIMER); }
static void nobodys_port(void) { in32(NOBODY); }
static void level_register(void) { in8(ELCR); }
static void write_port(void) { out8(0x80, 0); }
static void device_memory(void) { *(volatile u32 *)TEST_DEVICE_MEMORY; }
static void write_device_memory(void) { *(volatile u32 *)TEST_DEVICE_MEMORY = 0; }
static void read_adjust(void) { rdmsr(TSC_ADJUST); }
static void write_adjust(void) { wrmsr(TSC_ADJUST, 0); }
static void end_of_interrupt(void) { apic_write(APIC_EOI, 0); }

static void to_itself(void)
{
    u64 before = answered;
    send(FIXED | ASSERT | VECTOR, 0);
    wait_for(before);
}

static void to_another(void)
{
    u64 before = answered;
    send(FIXED | ASSERT | VECTOR, 1);
    while (answered == before)
        relax();
}

static void deadline(void)
{
    u64 before = answered;
    wrmsr(IA32_TSC_DEADLINE, rdtsc() + 1000);
    wait_for(before);
}

static struct { const char *name; void (*function)(void); int cpus; } things[] = {
    { "nothing", nothing, 1 },
    { "cpuid", ask_cpuid, 1 },
    { "vmcall", call, 1 },
    { "mov from cr8", read_cr8, 1 },
    { "mov to cr8", write_cr8, 1 },
    { "the pm timer", pm_timer, 1 },
    { "a port that nobody has", nobodys_port, 1 },
    { "a port of the chips'", level_register, 1 },
    { "a port that is written", write_port, 1 },
    { "memory of a device", device_memory, 1 },
    { "it is written", write_device_memory, 1 },
    { "ia32_tsc_adjust", read_adjust, 1 },
    { "written", write_adjust, 1 },
    { "end of interrupt", end_of_interrupt, 1 },
    { "an ipi to itself", to_itself, 1 },
    { "a tsc deadline", deadline, 1 },
    { "an ipi to another", to_another, 2 },
};

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    char *line = (char *)(u64)information[4];
    u64 power = 0;
    for (; *line; line++)
        power = *line >= '0' && *line <= '9' ? power * 10 + *line - '0' : 0;
    set_up();
    int cpus = start_others();
    handle(VECTOR, answer);
    use_x2apic();
    apic_write(APIC_LVT_TIMER, VECTOR | 2 << 17);
    for (unsigned i = 0; i < sizeof things / sizeof *things; i++) {
        u64 rounds = 1, took;
        if (things[i].cpus > cpus)
            continue;
        do {
            rounds *= 2;
            u64 began = rdtsc();
            for (u64 round = 0; round < rounds; round++)
                things[i].function();
            took = rdtsc() - began;
        } while (took < 1ul << power);
        put(things[i].name);
        put(" ");
        put_number(took / rounds);
        put("\n");
    }
    return failures;
}
