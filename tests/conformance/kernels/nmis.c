/* NMIs between two CPUs that wait for each other: by loops of PAUSE, and by loops without. The command line ends with thousands. */

#include "kit.h"

static volatile int got, flushed, over;
static volatile u32 here_first, there_first, here_second, there_second;
static volatile int private_count, count, looping, shadowed;
extern char behind_sti[];

static void sti_nmi(struct frame *frame)
{
    private_count++;
    shadowed += frame->rip == (u64)behind_sti;
}

static void sti_and_touch(u64 argument)
{
    for (u64 page = 0; looping; page = (page + 1) & 0x7FFF) {
        asm volatile("sti\n.globl behind_sti\nbehind_sti: test byte ptr [%0], 0\nnop\ncli" : : "r"(page << 12) : "memory", "cc");
        count = private_count;
    }
    asm volatile("sti");
}

/* One waits without PAUSE for the NMI to have arrived at the other. */
static void spinning(int rounds)
{
    handle(2, sti_nmi);
    private_count = count = shadowed = 0;
    looping = 1;
    on_cpu_async(1, sti_and_touch, 0);
    while (count < rounds) {
        int before = count;
        send(NMI | ASSERT, 1);
        while (count == before)
            ;
    }
    looping = 0;
    check(!shadowed, "spinning");
}

static void one_more(struct frame *frame) { got++; }
static void flush(struct frame *frame) { flushed = 1; apic_write(APIC_EOI, 0); }

static void kick_first(u64 argument)
{
    while (!over) {
        there_first++;
        while (there_first != here_first && !over)
            relax();
        if (over)
            return;
        send(NMI | ASSERT, 0);
        send(ASSERT | 0x44, 0);
        there_second++;
        while (there_second != here_second && !over)
            relax();
    }
}

/* Two at once: the second waits behind the first. */
static void two(int rounds)
{
    int right = 1;
    handle(2, one_more);
    handle(0x44, flush);
    interrupts_on();
    on_cpu_async(1, kick_first, 0);
    for (int round = 0; round < rounds && right; round++) {
        flushed = got = 0;
        here_first++;
        while (there_first != here_first)
            relax();
        send(NMI | ASSERT, 0);
        while (!flushed)
            relax();
        right = got == 2;
        here_second++;
        while (there_second != here_second)
            relax();
    }
    over = 1;
    check(right, "two NMIs");
}

static void ten_more(struct frame *frame)
{
    if (++got == 1)
        for (int i = 0; i < 10; i++)
            send(NMI, 0);
}

static void to_self(int rounds)
{
    handle(2, ten_more);
    for (int round = 0; round < rounds; round++) {
        got = 0;
        send(NMI, 0);
        while (got < 2)
            relax();
        if (got != 2)
            break;
    }
    check(got == 2, "ten NMIs behind one");
}

static void timed(const char *what, void (*function)(int), int rounds)
{
    u64 before = rdtsc();
    function(rounds);
    put(what);
    put(" ");
    put_number(rdtsc() - before);
    put("\n");
}

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    char *line = (char *)(u64)information[4];
    int thousands = 0;
    char part = 0;
    set_up();
    for (; *line; part = *line++)
        if (*line >= '0' && *line <= '9')
            thousands = thousands * 10 + *line - '0';
        else if (*line == ' ')
            thousands = 0;
    if (start_others() < 2)
        return 1;
    if (part != 't' && part != 's')
        timed("spinning", spinning, thousands * 300);
    if (part != 'w' && part != 's')
        timed("two", two, thousands * 1000);
    if (part != 'w' && part != 't')
        timed("self", to_self, thousands * 1000);
    return failures;
}
