/* What asks little of a machine, but much of it: memory, one page under thousands of addresses, writes to a port that nobody has,
deadlines of the time-stamp counter one after the other. */

#include "kit.h"

#define CHAIN 0xFFFFFA000ul
#define TABLES 0x800000ul
#define SIEVE ((volatile char *)0x600000)

static u64 next_table = TABLES;

/* Map a page where there may be no tables yet. */
static void map(u64 gva, u64 entry)
{
    volatile u64 *table = page_root;
    for (int shift = 39; shift > 12; shift -= 9) {
        volatile u64 *slot = &table[gva >> shift & 511];
        if (!(*slot & 1)) {
            *slot = next_table | 7;
            for (int i = 0; i < 512; i++)
                ((volatile u64 *)next_table)[i] = 0;
            next_table += 4096;
        }
        table = (u64 *)(*slot & ~0xFFFul);
    }
    table[gva >> 12 & 511] = entry;
}

static void one_page_everywhere(void)
{
    static volatile u64 page[512] __attribute__((aligned(4096)));
    u64 count = firmware(3, 8) / 4096 - 1000, wrong = 0;
    for (u64 i = 0; i < count; i++)
        map(CHAIN + (i << 12), (u64)page | 7);
    for (u64 i = 0; i < count; i++) {
        volatile u64 *here = (u64 *)(CHAIN + (i << 12));
        *here = i;
        wrong += page[0] != i;
    }
    u64 behind = CHAIN + ((count + 1) << 12);
    map(behind, 3);
    *(volatile u64 *)(behind + 0x800) = 0x1234;
    check(!wrong && *(volatile u64 *)0x800 == 0x1234, "one page under many addresses");
}

static void sieve(void)
{
    u32 size = 100000, primes = 0;
    for (u32 i = 2; i < size; i++)
        SIEVE[i] = 1;
    for (u32 i = 2; i < size; i++)
        if (SIEVE[i]) {
            primes++;
            for (u32 j = 2 * i; j < size; j += i)
                SIEVE[j] = 0;
        }
    check(primes == 9592, "primes");
}

static void port(void)
{
    for (int i = 0; i < 1000; i++)
        out8(0x80, i);
    check(1, "port 80H");
}

static volatile u32 ticks, early;
static volatile u64 deadline;

static void tick(struct frame *frame)
{
    u64 now = rdtsc();
    early += now < deadline;
    ticks++;
    deadline = now + 200000;
    wrmsr(IA32_TSC_DEADLINE, deadline);
    apic_write(APIC_EOI, 0);
}

static void deadlines(void)
{
    if (!(cpuid(1, 0).c >> 24 & 1)) {
        put("no TSC deadlines\n");
        return;
    }
    handle(0xEF, tick);
    apic_write(APIC_LVT_TIMER, 2 << 17 | 0xEF);
    interrupts_on();
    deadline = rdtsc() + 200000;
    wrmsr(IA32_TSC_DEADLINE, deadline);
    while (ticks < 200)
        asm volatile("hlt");
    interrupts_off();
    wrmsr(IA32_TSC_DEADLINE, 0);
    check(!early, "deadlines");
}

int main(void)
{
    set_up();
    sieve();
    port();
    deadlines();
    one_page_everywhere();
    return failures;
}
