/* KVM's clock on all CPUs: it never goes back, neither on one nor from one to another, and tells the time of day. Asynchronous page
faults are switched on, too: whoever has all memory at hand must stand it. The command line ends with the number of rounds. */

#include "kit.h"

enum { WALL_CLOCK = 0x4B564D00, SYSTEM_TIME = 0x4B564D01, ASYNC_PF = 0x4B564D02, ASYNC_PF_INT = 0x4B564D06, STABLE = 1 };

struct time_info { u32 version, pad; u64 tsc, nanoseconds; u32 multiplier; signed char shift; u8 flags, pad2[2]; };
struct wall { u32 version, seconds, nanoseconds; };

static volatile struct time_info infos[16] __attribute__((aligned(64)));
static volatile struct wall wall;
static volatile u64 last, warps, worst, stalls, rounds;
static volatile int lock, finished;
static u64 reason[8] __attribute__((aligned(64)));

static u64 now(u64 cpu)
{
    volatile struct time_info *info = &infos[cpu];
    u64 value, delta, high;
    u32 version;
    do {
        version = info->version & ~1u;
        asm volatile("lfence" : : : "memory");
        delta = rdtsc() - info->tsc;
        delta = info->shift < 0 ? delta >> -info->shift : delta << info->shift;
        asm("mul %3" : "=a"(delta), "=d"(high) : "0"(delta), "r"((u64)info->multiplier));
        value = info->nanoseconds + (delta >> 32 | high << 32);
        asm volatile("lfence" : : : "memory");
    } while (info->version != version);
    return value;
}

static void switch_on(u64 cpu) { wrmsr(SYSTEM_TIME, (u64)&infos[cpu] | 1); }
static void switch_off(u64 cpu) { wrmsr(SYSTEM_TIME, 0); }

static void race(u64 cpu)
{
    for (u64 round = 0; round < rounds; round++) {
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
            ;
        u64 first = now(cpu), before = last;
        last = now(cpu);
        __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
        warps += first < before;
        if (first < before && before - first > worst)
            worst = before - first;
        stalls += first == before;
        if (!(round & 31))
            relax();
    }
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
}

static u32 decimal(u8 index)
{
    out8(0x70, index);
    u8 value = in8(0x71);
    return (value >> 4) * 10 + (value & 15);
}

/* Seconds since the day began, by the clock and by the RTC, next to each other. */
static void time_of_day(void)
{
    wrmsr(WALL_CLOCK, (u64)&wall);
    u64 seconds = wall.seconds + (wall.nanoseconds + now(0)) / 1000000000;
    u32 rtc = decimal(4) * 3600 + decimal(2) * 60 + decimal(0);
    u32 apart = (seconds % 86400 + 86400 - rtc) % 86400;
    check(!(wall.version & 1) && (apart < 3 || apart > 86400 - 3), "the time of day");
    put("seconds ");
    put_number(seconds);
    put("\n");
}

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    char *line = (char *)(u64)information[4];
    set_up();
    for (; *line; line++)
        rounds = *line >= '0' && *line <= '9' ? rounds * 10 + *line - '0' : 0;
    int cpus = start_others();
    if (cpuid(0x40000000, 0).b != 0x4B4D564B) {
        put("no KVM\n");
        return failures;
    }
    check(cpuid(0x40000001, 0).a >> 3 & 1, "KVM's clock is announced");
    for (int cpu = 1; cpu < cpus; cpu++)
        on_cpu(cpu, switch_on, cpu);
    switch_on(0);
    put(infos[0].flags & STABLE ? "stable\n" : "not stable\n");
    time_of_day();
    for (int cpu = cpus - 1; cpu > 0; cpu--)
        on_cpu_async(cpu, race, cpu);
    race(0);
    while (finished != cpus)
        relax();
    check(!warps, "never back");
    for (int cpu = 1; cpu < cpus; cpu++)
        on_cpu(cpu, switch_off, cpu);
    switch_off(0);
    if (cpuid(0x40000001, 0).a >> 4 & 1) {
        wrmsr(ASYNC_PF, (u64)reason | 3);
        check(rdmsr(ASYNC_PF) == ((u64)reason | 3), "asynchronous page faults");
        if (cpuid(0x40000001, 0).a >> 14 & 1) {
            wrmsr(ASYNC_PF_INT, 0xF3);
            wrmsr(ASYNC_PF, (u64)reason | 0xB);
            check(rdmsr(ASYNC_PF) == ((u64)reason | 0xB) && rdmsr(ASYNC_PF_INT) == 0xF3, "with interrupts when pages are there");
        }
        wrmsr(ASYNC_PF, 0);
    }
    put("warps ");
    put_number(warps);
    put(" worst ");
    put_number(worst);
    put("\nstalls ");
    put_number(stalls);
    put("\n");
    return failures;
}
