/* What a local APIC owes a kernel: identities, modes and their order, the page that moves, TPR, IPIs, NMIs, the timer. */

#include "kit.h"

#define MOVED 0xFED40000ul
#define REGISTER(base, offset) (*(volatile u32 *)((base) + (offset)))

static void write_base(u64 value) { wrmsr(IA32_APIC_BASE, value); }
static void write_id(u64 value) { apic_write(APIC_ID, value); }

static volatile int counted;
static void count(struct frame *frame) { __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST); apic_write(APIC_EOI, 0); }

static void modes(void)
{
    u64 base = rdmsr(IA32_APIC_BASE), none = base & ~0xC00ul;
    int x2apic = cpuid(1, 0).c >> 21 & 1;
    check(base & 0x100, "the first CPU knows that it is");
    check((u8)apic_read(APIC_VERSION) >= 0x10 && (u8)apic_read(APIC_VERSION) <= 0x15, "an integrated APIC's version");
    if (!x2apic) {
        check(faults(write_base, none | 0xC00) == 13, "no x2APIC mode without x2APIC");
        return;
    }
    use_x2apic();
    check(faults(write_base, none | 0x400) == 13, "x2APIC to invalid");
    check(faults(write_base, none | 0x800) == 13, "x2APIC to xAPIC");
    check(faults(write_id, 5) == 13, "x2APIC ID read-only");
    check(apic_id() == cpuid(0xB, 0).d, "x2APIC ID as in CPUID");
    check(!faults(write_base, none), "x2APIC to off");
    check(faults(write_base, none | 0x400) == 13, "off to invalid");
    check(faults(write_base, none | 0xC00) == 13, "off to x2APIC");
    check(!(cpuid(1, 0).d >> 9 & 1), "no APIC in CPUID while it is off");
    check(REGISTER(0xFEE00000, APIC_VERSION) == 0xFFFFFFFF, "no page while it is off");
    set_cr8(9);
    check(cr8() == 9 && REGISTER(0xFEE00000, APIC_TPR) == 0xFFFFFFFF, "CR8 without it");
    set_cr8(0);
    check(!faults(write_base, none | 0x800), "off to xAPIC");
    check(cpuid(1, 0).d >> 9 & 1, "APIC in CPUID again");
    set_up();
    check(apic_id() == cpuid(1, 0).b >> 24, "xAPIC ID as in CPUID");
    set_cr8(6);
    check(apic_read(APIC_TPR) == 0x60, "TPR follows CR8");
    apic_write(APIC_TPR, 0x30);
    check(cr8() == 3, "CR8 follows TPR");
    set_cr8(0);
    check(faults(write_base, base | 1ul << (cpuid(0x80000008, 0).a & 0xFF)) == 13, "reserved address bits");
    check(faults(write_base, base | 1) == 13, "reserved low bits");
}

static void moving(void)
{
    u64 base = rdmsr(IA32_APIC_BASE);
    u32 version = apic_read(APIC_VERSION);
    wrmsr(IA32_APIC_BASE, MOVED | 0x900);
    check(REGISTER(MOVED, APIC_VERSION) == version, "its page where the base says");
    wrmsr(IA32_APIC_BASE, base);
    apic_write(APIC_SPURIOUS, 0x1FF);
}

static void ipis(int cpus)
{
    counted = 0;
    interrupts_on();
    send(SELF | 0xF1, 0);
    chance();
    check(counted == 1, "self IPI");
    counted = 0;
    send(ASSERT | 0xF1, cpuid(1, 0).c >> 21 & 1 ? 0xFFFFFFFF : 0xFF);
    for (u64 until = rdtsc() + 1000000000; counted < cpus && rdtsc() < until;)
        chance();
    check(counted == cpus, "physical broadcast");
    counted = 0;
    send(ASSERT | ALL | 0xF1, 0);
    for (u64 until = rdtsc() + 1000000000; counted < cpus && rdtsc() < until;)
        chance();
    check(counted == cpus, "broadcast by shorthand");
}

/* -- registers as MSRs ----------------------------------------------------------------------------------------------- */

static u32 chosen;
static void write_chosen(u64 value) { wrmsr(chosen, value); }
static void read_chosen(u64 unused) { rdmsr(chosen); }

enum { READ = 1, WRITE = 2 };

/* SDM 3A table 11-6: what x2APIC mode has of an offset. */
static int semantics(u32 offset)
{
    switch (offset) {
    case 0x20: case 0x30: case 0xA0: case 0xD0: case 0x100 ... 0x270: case 0x390:
        return READ;
    case 0x80: case 0xF0: case 0x280: case 0x300: case 0x320 ... 0x380: case 0x3E0:
        return READ | WRITE;
    case 0xB0: case 0x3F0:
        return WRITE;
    case 0x2F0:
        return (apic_read(APIC_VERSION) >> 16 & 0xFF) >= 6 ? READ | WRITE : 0;
    }
    return 0;
}

static void registers(int on, const char *what)
{
    int right = 1;
    for (u32 offset = 0; offset < 0x1000; offset += 0x10) {
        int may = on ? semantics(offset) : 0;
        chosen = 0x800 + offset / 16;
        right &= may & WRITE || faults(write_chosen, 0) == 13;
        right &= may & READ || faults(read_chosen, 0) == 13;
        right &= (on && offset == APIC_ICR) || faults(write_chosen, -1ul) == 13; /* 64 bits of which only ICR has */
        if (may == (READ | WRITE)) {
            u64 value = rdmsr(chosen);
            right &= !faults(write_chosen, value) && rdmsr(chosen) == value;
        } else if (may == WRITE) {
            right &= !faults(write_chosen, 0);
        } else if (may == READ) {
            right &= !(rdmsr(chosen) >> 32);
        }
    }
    chosen = 0x83F;
    right &= faults(write_chosen, 0x100) == 13 && faults(write_chosen, 0xFF000000) == 13;
    check(right, what);
}

static void registers_as_msrs(void)
{
    set_up();
    registers(0, "no MSRs in xAPIC mode");
    if (!(cpuid(1, 0).c >> 21 & 1))
        return;
    use_x2apic();
    registers(1, "MSRs in x2APIC mode");
    for (u32 offset = 0; offset < 0x1000; offset++)
        *(volatile u8 *)(0xFEE00000ul + offset) = 0xFF;
    set_cr8(15);
    check(REGISTER(0xFEE00000, APIC_VERSION) == 0xFFFFFFFF && REGISTER(0xFEE00000, APIC_TPR) == 0xFFFFFFFF && cr8() == 15,
          "and no page");
    set_cr8(0);
    set_up();
}

/* -- destinations of xAPICs ----------------------------------------------------------------------------------------- */

#define CLUSTERS (1ul << 32)
static void be_named(u64 name)
{
    apic_write(0xE0, name & CLUSTERS ? 0x0FFFFFFF : 0xFFFFFFFF); /* DFR */
    apic_write(0xD0, name << 24);
}

static int reached(u32 command, u32 destination, int expected)
{
    counted = 0;
    send(command | ASSERT | 0xF1, destination);
    for (u64 until = rdtsc() + 1000000000; counted < expected && rdtsc() < until;)
        chance();
    return counted == expected;
}

/* By logical names, whatever others the destination names too. */
static int by_name(u64 model, u32 first, u32 second, u32 others)
{
    int right = 1;
    be_named(model | first);
    on_cpu(1, be_named, model | second);
    right &= reached(1 << 11, first | second | others, 2);
    right &= reached(1 << 11, second | others, 1);
    be_named(0);
    return right & reached(1 << 11, second | others, 1);
}

static void next_id(struct frame *frame)
{
    u32 id = apic_read(APIC_ID) >> 24;
    apic_write(APIC_ID, id < 0xFE ? (id + 1) << 24 : cpuid(1, 0).b & 0xFF000000); /* 0xFF would be all of them */
    __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    apic_write(APIC_EOI, 0);
}

static void destinations(void)
{
    int right = 1;
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++)
            if (i != j)
                right &= by_name(0, 1 << i, 1 << j, ~(1 << i | 1 << j) & 0x55);
    check(right, "flat logical destinations");
    right = 1;
    for (u32 cluster = 0; cluster < 0xF0; cluster += 0x10)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++)
                if (i != j)
                    right &= by_name(CLUSTERS, cluster | 1 << i, cluster | 1 << j, ~(1 << i | 1 << j) & 5);
    check(right, "clusters of them");
    right = 1;
    handle(0xF1, next_id);
    on_cpu(1, write_id, 0);
    write_id(0);
    for (u32 id = 0; id < 0xFF; id++)
        right &= reached(0, id, 2);
    check(right && apic_id() == 0, "CPUs with the same id");
    handle(0xF1, count);
}

static volatile int nmis, nested;

static void nmi(struct frame *frame)
{
    if (++nmis == 1)
        for (int i = 0; i < 10; i++)
            send(NMI | ASSERT, 0);
}

static void one_more_nmi(struct frame *frame) { nmis++; }

static volatile int answered, settled;
static void answer(struct frame *frame) { answered++; apic_write(APIC_EOI, 0); }

static void nmi_and_interrupt(u64 rounds)
{
    for (int round = 1; round <= (int)rounds; round++) {
        send(NMI | ASSERT, 0);
        send(ASSERT | 0x44, 0);
        while (settled != round)
            relax();
    }
}

static void non_maskable(int cpus)
{
    int right = 1;
    handle(2, nmi);
    for (int round = 0; round < 100 && right; round++) {
        nmis = 0;
        send(NMI | ASSERT, 0);
        for (int i = 0; nmis < 2 && i < 1000; i++)
            chance();
        right = nmis == 2;
    }
    check(right, "one NMI waits behind the one in service, more are lost");
    if (cpus < 2)
        return;
    handle(2, one_more_nmi);
    handle(0x44, answer);
    int once = 0, rounds = 100;
    answered = settled = nmis = 0;
    on_cpu_async(1, nmi_and_interrupt, rounds);
    for (int round = 1; round <= rounds; round++) {
        while (answered != round)
            chance();
        once += nmis == 1;
        nmis = 0;
        settled = round;
    }
    check(once == rounds, "an NMI from another CPU comes before the interrupt sent after it");
}

static volatile int sti_running, sti_nmis, shadowed;
static void sti_nmi(struct frame *frame)
{
    extern char after_sti[];
    sti_nmis++;
    shadowed += frame->rip == (u64)after_sti;
}

static void sti_and_touch(u64 argument)
{
    for (u64 page = 0; sti_running; page = (page + 1) & 0x7FFF)
        asm volatile("sti\n.globl after_sti\nafter_sti: test byte ptr [%0], 0\nnop\ncli" : : "r"(page << 12) : "memory", "cc");
    asm volatile("sti");
}

static void nmi_behind_sti(void)
{
    handle(2, sti_nmi);
    sti_nmis = shadowed = 0;
    sti_running = 1;
    on_cpu_async(1, sti_and_touch, 0);
    for (int i = 0; i < 300; i++) {
        int before = sti_nmis;
        send(NMI | ASSERT, 1);
        while (sti_nmis == before)
            ;
    }
    sti_running = 0;
    check(sti_nmis == 300, "every NMI arrived");
    check(!shadowed, "none between STI and the instruction behind it");
}

static void wait_below(u32 limit)
{
    while (apic_read(APIC_CURRENT) > limit)
        ;
}

/* So many ticks that the counter can be read some thousand times meanwhile, however long that takes. */
static u32 long_enough(void)
{
    const int reads = 100;
    apic_write(APIC_LVT_TIMER, 0x10000);
    apic_write(APIC_DIVIDE, 0xB);
    apic_write(APIC_INITIAL, 0xFFFFFFFF);
    for (int i = 0; i < reads; i++)
        apic_read(APIC_CURRENT);
    u32 ticks = 0xFFFFFFFF - apic_read(APIC_CURRENT);
    apic_write(APIC_INITIAL, 0);
    return ticks * 20 | 1;
}

static void timer(void)
{
    u32 initial = long_enough();
    counted = 0;
    handle(0xEE, count);
    apic_write(APIC_LVT_TIMER, 0xEE);
    apic_write(APIC_DIVIDE, 0xB);
    u64 before = rdtsc();
    apic_write(APIC_INITIAL, 0x10000);
    while (!counted)
        chance();
    check(counted == 1 && rdtsc() - before >= 0x10000, "one-shot timer");
    apic_write(APIC_LVT_TIMER, 0x10000 | 0xEE);
    apic_write(APIC_INITIAL, initial);
    apic_write(APIC_LVT_TIMER, 0x30000 | 0xEE);
    check(apic_read(APIC_INITIAL) == initial, "the initial count outlives a change of mode");
    apic_write(APIC_LVT_TIMER, 0x10000 | 0xEE);
    apic_write(APIC_INITIAL, initial);
    check(apic_read(APIC_CURRENT), "it counts");
    wait_below(0);
    check(!apic_read(APIC_CURRENT), "down to 0");
    apic_write(APIC_INITIAL, initial);
    wait_below(initial / 2);
    apic_write(APIC_LVT_TIMER, 0x30000 | 0xEE);
    check(apic_read(APIC_CURRENT) && apic_read(APIC_CURRENT) < initial / 2, "and on from where it was when it becomes periodic");
    while (apic_read(APIC_CURRENT) <= initial / 2)
        ;
    check(1, "over and over");
    wait_below(initial / 2);
    apic_write(APIC_LVT_TIMER, 0x10000 | 0xEE);
    check(apic_read(APIC_CURRENT) < initial / 2, "and on again when it becomes one-shot");
    wait_below(0);
    apic_write(APIC_LVT_TIMER, 0x30000 | 0xEE);
    check(!apic_read(APIC_CURRENT), "what has run down stays down");
    apic_write(APIC_INITIAL, 0);
    if (!(cpuid(1, 0).c >> 24 & 1)) {
        put("no deadline timer\n");
        return;
    }
    counted = 0;
    apic_write(APIC_LVT_TIMER, 0x40000 | 0xEE);
    wrmsr(IA32_TSC_DEADLINE, rdtsc());
    chance();
    check(counted == 1, "a deadline that is past");
    check(!rdmsr(IA32_TSC_DEADLINE), "clears itself");
}

int main(void)
{
    set_up();
    modes();
    moving();
    registers_as_msrs();
    int cpus = start_others();
    handle(0xF1, count);
    ipis(cpus);
    if (cpus == 2 && !(cpuid(1, 0).c >> 21 & 1))
        destinations();
    non_maskable(cpus);
    if (cpus > 1)
        nmi_behind_sti();
    timer();
    return failures;
}
