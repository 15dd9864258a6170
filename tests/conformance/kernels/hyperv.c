/* Hyper-V's interface as kernels use it: reference counter and its page, interrupt sources, timers, messages and events, on all
CPUs at once. Sources and connections are made by the test device's port. */

#include "kit.h"

enum {
    GUEST_OS_ID = 0x40000000, HYPERCALL = 0x40000001, TIME_REF_COUNT = 0x40000020, REFERENCE_TSC = 0x40000021,
    SCONTROL = 0x40000080, SVERSION = 0x40000081, SIEFP = 0x40000082, SIMP = 0x40000083, EOM = 0x40000084, SINT0 = 0x40000090,
    STIMER0_CONFIG = 0x400000B0, STIMER0_COUNT = 0x400000B1,
};
enum { MASKED = 1 << 16, AUTO_EOI = 1 << 17, SOURCES = 16, MAX_CPUS = 4 };
enum { ON = 1, PERIODIC = 2, AUTO_ENABLE = 8, MILLISECOND = 10000, TIMER_EXPIRED = 0x80000010 };
enum { MAKE_ROUTE = 1, DROP_ROUTE, RAISE, MAKE_MESSAGES, DROP_MESSAGES, MAKE_EVENTS, DROP_EVENTS };
enum { POST_MESSAGE = 0x5C, SIGNAL_EVENT = 0x5D, FAST = 1 << 16 };
enum { TIMER_SOURCE = 2, AUTO_TIMER_SOURCE = 3, MESSAGE_SOURCE = 8, EVENT_SOURCE = 9, KIND = 0x12345678 };

struct message { volatile u32 kind; volatile u8 size, pending, reserved[2]; volatile u64 sender, payload[30]; };
struct post { u32 connection, reserved, kind, size; u64 payload[30]; };

static struct message messages[MAX_CPUS][SOURCES] __attribute__((aligned(4096)));
static volatile u64 events[MAX_CPUS][SOURCES][32] __attribute__((aligned(4096)));
static struct post posts[MAX_CPUS] __attribute__((aligned(4096)));
static u8 code[4096] __attribute__((aligned(4096)));
static volatile struct { u32 sequence, reserved; u64 scale; long offset; } reference __attribute__((aligned(4096)));
static volatile int interrupts[MAX_CPUS], fired[MAX_CPUS][4], finished, wrong[MAX_CPUS];
static volatile u64 status[MAX_CPUS];
static int cpus;

static void control(u32 command, u32 cpu, u32 source, u32 connection)
{
    out32(0x3000, connection << 24 | command << 16 | cpu << 8 | source);
}

static void everywhere(void (*function)(u64))
{
    finished = 0;
    for (int cpu = cpus - 1; cpu > 0; cpu--)
        on_cpu_async(cpu, function, cpu);
    function(0);
    while (finished != cpus)
        relax();
}

/* -- time ---------------------------------------------------------------------------------------------------------- */

static u64 by_page(void)
{
    u64 low, high = rdtsc();
    asm("mul %3" : "=d"(high), "=a"(low) : "1"(high), "r"(reference.scale));
    return high + reference.offset;
}

static void compare(u64 cpu)
{
    u64 last = 0, end = rdmsr(TIME_REF_COUNT) + MILLISECOND;
    int most = 0;
    do {
        u64 now = by_page();
        int apart = rdmsr(TIME_REF_COUNT) - now;
        wrong[cpu] |= now < last || apart < 0;
        most = apart > most ? apart : most;
        last = now;
    } while (last < end);
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
}

static void times(void)
{
    int bad = 0;
    wrmsr(REFERENCE_TSC, (u64)&reference | ON);
    check(rdmsr(REFERENCE_TSC) == ((u64)&reference | ON), "the reference page");
    check(reference.sequence && reference.sequence != 0xFFFFFFFF, "is in use");
    everywhere(compare);
    for (int cpu = 0; cpu < cpus; cpu++)
        bad |= wrong[cpu];
    check(!bad, "it and the reference counter agree, on all CPUs");
    wrmsr(REFERENCE_TSC, 0);
}

/* -- interrupt sources --------------------------------------------------------------------------------------------- */

static void count(struct frame *frame)
{
    interrupts[apic_id()]++;
    if (frame->vector != 0xB3 && frame->vector != 0xBA)
        apic_write(APIC_EOI, 0);
}

static void make_sources(u64 cpu)
{
    interrupts_on();
    wrong[cpu] = rdmsr(EOM) != 0 || rdmsr(SVERSION) != 1;
    for (int source = 0; source < SOURCES; source++)
        rdmsr(SINT0 + source);
    wrmsr(SIMP, (u64)messages[cpu] | ON);
    wrmsr(SIEFP, (u64)events[cpu] | ON);
    wrmsr(SCONTROL, ON);
    for (int source = 0; source < SOURCES; source++) {
        wrmsr(SINT0 + source, (0xB0 + source) | (source == 3 || source == 10 ? AUTO_EOI : 0));
        control(MAKE_ROUTE, cpu, source, 0);
    }
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
}

static void raise_all(u64 cpu)
{
    u32 other = cpus - 1 - cpu;
    interrupts_on();
    interrupts[other] = 0;
    for (int source = 0; source < SOURCES; source++)
        control(RAISE, other, source, 0);
    while (interrupts[other] != SOURCES)
        relax();
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
}

static void drop_sources(u64 cpu)
{
    for (int source = 0; source < SOURCES; source++) {
        wrmsr(SINT0 + source, 0xFF | MASKED);
        control(DROP_ROUTE, cpu, source, 0);
    }
    wrmsr(SCONTROL, 0);
    wrmsr(SIMP, 0);
    wrmsr(SIEFP, 0);
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
}

static void sources(void)
{
    int bad = 0;
    for (int source = 0; source < SOURCES; source++)
        handle(0xB0 + source, count);
    everywhere(make_sources);
    everywhere(raise_all);
    everywhere(drop_sources);
    for (int cpu = 0; cpu < cpus; cpu++)
        bad |= interrupts[cpu] != SOURCES || wrong[cpu];
    check(!bad, "every source of every CPU");
}

/* -- timers -------------------------------------------------------------------------------------------------------- */

static void expired(struct frame *frame)
{
    u32 cpu = apic_id();
    for (int source = 0; source < SOURCES; source++) {
        struct message *message = &messages[cpu][source];
        if (!message->kind)
            continue;
        wrong[cpu] |= message->kind != TIMER_EXPIRED || message->size < 24 || (u32)message->payload[0] > 3;
        fired[cpu][message->payload[0] & 3]++;
        message->kind = 0;
        asm volatile("mfence" : : : "memory");
        if (message->pending & 1)
            wrmsr(EOM, 0);
    }
    if (frame->vector == 0xF1)
        apic_write(APIC_EOI, 0);
}

static void start(u32 cpu, u32 timer, u64 flags, u64 source)
{
    u64 config = flags | ON | source << 16, count = MILLISECOND;
    fired[cpu][timer] = 0;
    if (!(flags & PERIODIC))
        count += rdmsr(TIME_REF_COUNT);
    if (flags & AUTO_ENABLE)
        wrmsr(STIMER0_CONFIG + 2 * timer, config);
    wrmsr(STIMER0_COUNT + 2 * timer, count);
    if (!(flags & AUTO_ENABLE))
        wrmsr(STIMER0_CONFIG + 2 * timer, config);
}

static void await(volatile int *counter, int many)
{
    while (*counter < many)
        relax();
}

static void stop(u32 timer) { wrmsr(STIMER0_CONFIG + 2 * timer, 0); }

static void run_timers(u64 cpu)
{
    struct message *slot = &messages[cpu][TIMER_SOURCE];
    interrupts_on();
    wrong[cpu] = 0;
    wrmsr(SIMP, (u64)messages[cpu] | ON);
    wrmsr(SCONTROL, ON);
    wrmsr(SINT0 + TIMER_SOURCE, 0xF1);
    wrmsr(SINT0 + AUTO_TIMER_SOURCE, 0xF2 | AUTO_EOI);
    start(cpu, 0, PERIODIC, TIMER_SOURCE);
    start(cpu, 1, PERIODIC, AUTO_TIMER_SOURCE);
    await(&fired[cpu][0], 20);
    await(&fired[cpu][1], 20);
    stop(0);
    stop(1);
    start(cpu, 0, 0, TIMER_SOURCE);
    await(&fired[cpu][0], 1);
    stop(0);
    start(cpu, 1, AUTO_ENABLE, TIMER_SOURCE);
    await(&fired[cpu][1], 1);
    stop(1);
    start(cpu, 0, PERIODIC | AUTO_ENABLE, TIMER_SOURCE);
    await(&fired[cpu][0], 20);
    stop(0);
    slot->kind = TIMER_EXPIRED; /* the place is taken */
    start(cpu, 0, 0, TIMER_SOURCE);
    while (!(slot->pending & 1))
        asm volatile("lfence" : : : "memory");
    wrong[cpu] |= fired[cpu][0] != 0;
    slot->kind = 0;
    asm volatile("sfence" : : : "memory");
    wrmsr(EOM, 0);
    await(&fired[cpu][0], 1);
    stop(0);
    interrupts_off();
    wrmsr(SINT0 + TIMER_SOURCE, 0xFF | MASKED);
    wrmsr(SINT0 + AUTO_TIMER_SOURCE, 0xFF | MASKED);
    wrmsr(SCONTROL, 0);
    wrmsr(SIMP, 0);
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
}

static void timers(void)
{
    int bad = 0;
    handle(0xF1, expired);
    handle(0xF2, expired);
    everywhere(run_timers);
    for (int cpu = 0; cpu < cpus; cpu++)
        bad |= wrong[cpu];
    check(!bad, "timers of every kind, on all CPUs");
}

/* -- messages and events --------------------------------------------------------------------------------------------- */

static u64 call(u64 control, u64 input)
{
    u64 answer;
    asm volatile("xor r8d, r8d\ncall %1" : "=a"(answer) : "r"(code), "c"(control), "d"(input) : "r8", "memory");
    return answer;
}

static void come(struct frame *frame) { interrupts[apic_id()]++; }

static void connect(u64 cpu)
{
    interrupts_on();
    wrmsr(SIMP, (u64)messages[cpu] | ON);
    wrmsr(SIEFP, (u64)events[cpu] | ON);
    wrmsr(SCONTROL, ON);
    wrmsr(SINT0 + MESSAGE_SOURCE, 0xE0 | AUTO_EOI);
    wrmsr(SINT0 + EVENT_SOURCE, 0xE1 | AUTO_EOI);
    control(MAKE_ROUTE, cpu, MESSAGE_SOURCE, 0);
    control(MAKE_ROUTE, cpu, EVENT_SOURCE, 0);
    control(MAKE_MESSAGES, cpu, MESSAGE_SOURCE, 0x10 + cpu);
    control(MAKE_EVENTS, cpu, EVENT_SOURCE, 0x20 + cpu);
    posts[cpu] = (struct post){0x10 + cpu, 0, KIND, 8, {cpu << 16}};
}

static void post(u64 to) { posts[to].payload[0]++; interrupts[to] = 0; status[to] = call(POST_MESSAGE, (u64)&posts[to]); }
static void signal(u64 to) { interrupts[to] = 0; status[to] = call(SIGNAL_EVENT | FAST, 0x20 + to); }
static void clear_message(u64 cpu) { interrupts[cpu] = 0; messages[cpu][MESSAGE_SOURCE].kind = 0; wrmsr(EOM, 0); }
static void clear_event(u64 cpu) { interrupts[cpu] = 0; events[cpu][EVENT_SOURCE][0] = 0; }

static int got(int cpu, int pending, u64 payload, int interrupted)
{
    struct message *message = &messages[cpu][MESSAGE_SOURCE];
    for (int wait = 0; wait < 200 && interrupts[cpu] < interrupted; wait++)
        chance();
    return message->kind == KIND && message->size == 8 && (message->pending & 1) == pending && message->payload[0] == payload &&
        !status[cpu] && interrupts[cpu] == interrupted;
}

static int signalled(int cpu, int interrupted)
{
    for (int wait = 0; wait < 200 && interrupts[cpu] < interrupted; wait++)
        chance();
    return events[cpu][EVENT_SOURCE][0] == 1ul << (0x20 + cpu) && !status[cpu] && interrupts[cpu] == interrupted;
}

static void each(void (*function)(u64), int shift)
{
    for (int cpu = 0; cpu < cpus; cpu++)
        if (cpu)
            on_cpu(cpu, function, (cpu + shift) % cpus);
        else
            function(shift % cpus);
}

static void connections(void)
{
    int first = 1, second = 1, third = 1, fourth = 1, fifth = 1, sixth = 1;
    handle(0xE0, come);
    handle(0xE1, come);
    wrmsr(GUEST_OS_ID, 0x8F00ul << 48);
    wrmsr(HYPERCALL, (u64)code | ON);
    if ((call(SIGNAL_EVENT | FAST, 0x1234) & 0xFFFF) == 2) {
        put("no connections\n");
        return;
    }
    each(connect, 0);
    each(post, 0);
    for (int cpu = 0; cpu < cpus; cpu++)
        first &= got(cpu, 0, posts[cpu].payload[0], 1);
    check(first, "messages to itself");
    each(clear_message, 0);
    each(post, 1);
    for (int cpu = 0; cpu < cpus; cpu++)
        second &= got(cpu, 0, posts[cpu].payload[0], 1);
    check(second, "to another");
    each(post, 1);
    for (int cpu = 0; cpu < cpus; cpu++)
        third &= got(cpu, 1, posts[cpu].payload[0] - 1, 0);
    check(third, "to a place that is taken");
    each(clear_message, 0);
    for (int cpu = 0; cpu < cpus; cpu++)
        fourth &= got(cpu, 0, posts[cpu].payload[0], 1);
    check(fourth, "which comes when it is free");
    each(signal, 0);
    for (int cpu = 0; cpu < cpus; cpu++)
        fifth &= signalled(cpu, 1);
    each(clear_event, 0);
    each(signal, 1);
    for (int cpu = 0; cpu < cpus; cpu++)
        fifth &= signalled(cpu, 1);
    check(fifth, "events");
    each(signal, 1);
    for (int cpu = 0; cpu < cpus; cpu++)
        sixth &= signalled(cpu, 0);
    check(sixth, "one that is there already");
    wrmsr(HYPERCALL, 0);
    wrmsr(GUEST_OS_ID, 0);
}

int main(void)
{
    set_up();
    cpus = start_others();
    interrupts_on();
    u32 features = cpuid(0x40000003, 0).a;
    if (cpuid(0x40000000, 0).b != 0x7263694D || (features & 0xE) != 0xE) {
        put("no Hyper-V\n");
        return failures;
    }
    times();
    sources();
    timers();
    connections();
    return failures;
}
