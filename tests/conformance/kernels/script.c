/* Runs a program of register accesses, windows for interrupts and code on several CPUs, and prints what each step found.
   The program lies in the file behind a mark, where a test puts it (tests/oracles/scripts.py has the same numbers). */

#include "basics.h"

enum {
    OUT, IN, STORE, LOAD, WRITE_MSR, READ_MSR, WRITE_CR8, READ_CR8, WINDOW, HALT, DELAY, FLUSH, HANDLER, CODE, START, JOIN,
    STATE, RATIO, WAIT, END, WAIT_BIT, TIMED, WHERE,
};

struct op {
    u32 kind; /* bits 0 to 15; the CPU in 16 to 23; bit 31: do not wait for it */
    u32 a;
    u64 b;
};

#define OPS 6144
#define CPUS 8
#define STACKS 32
#define LOGGED 96
#define PM_TIMER 0x608
#define ASYNC (1u << 31)
#define STORM 40

static struct {
    u64 mark[2];
    u32 cpus, count;
    struct op ops[OPS];
    u8 code[8192];
} program = {{0x6C6C656A72616C6Cu, 0x7470697263730A0Au}, 1, 0, {{0}}, {0}};

static struct cpu {
    struct op *volatile wanted;
    volatile u64 result;
    volatile u32 done, began, alive, logged;
    u64 log[LOGGED];
    u64 recover, recover_stack;
    volatile u32 fault, interrupts;
} cpus[CPUS];

static struct { u64 top; u32 cpu; } stacks_of[STACKS];
static volatile u32 stack_count;
static u16 handlers[256];
extern char idt_register[], vectors[], trampoline[], trampoline_end[];

static void put(char byte)
{
    while (!(in8(0x3FD) & 0x20))
        relax();
    out8(0x3F8, byte);
}

static void put_number(u64 value)
{
    int shift = 60;
    while (shift && !(value >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
}

/* Whose stack this is: APIC ids may be anything. */
static u32 self(void)
{
    u64 here, best = ~0ul;
    u32 cpu = 0;
    asm volatile("mov %0, rsp" : "=r"(here));
    for (u32 i = 0; i < stack_count; i++)
        if (stacks_of[i].top >= here && stacks_of[i].top - here < best) {
            best = stacks_of[i].top - here;
            cpu = stacks_of[i].cpu;
        }
    return cpu;
}

static void note(struct cpu *cpu, u64 what)
{
    if (cpu->logged < LOGGED)
        cpu->log[cpu->logged++] = what;
}

static void delay(u32 ticks)
{
    u32 start = in32(PM_TIMER);
    while (((in32(PM_TIMER) - start) & 0xFFFFFF) < ticks)
        relax();
}

/* -- what may fault: the vector instead of a value ------------------------------------------------------------------- */

#define GUARDED(cpu, text, ...)                                                                                        \
    asm volatile("mov %[stack], rsp\n lea r8, [rip + 1f]\n mov %[at], r8\n" text "\n1:\n"                              \
                 : [stack] "=m"((cpu)->recover_stack), [at] "=m"((cpu)->recover), __VA_ARGS__)

static u64 access_msr(struct cpu *cpu, int write, u32 msr, u64 value)
{
    u32 low = value, high = value >> 32;
    cpu->fault = 0;
    if (write)
        GUARDED(cpu, "wrmsr", "+a"(low), "+d"(high) : "c"(msr) : "r8", "memory");
    else
        GUARDED(cpu, "rdmsr", "+a"(low), "+d"(high) : "c"(msr) : "r8", "memory");
    cpu->recover = 0;
    return cpu->fault ? 0xFA00 + cpu->fault : write ? 0 : low | (u64)high << 32;
}

/* -- clocks ------------------------------------------------------------------------------------------------------- */

static u64 clock_now(u32 which)
{
    u32 low;
    switch (which) {
    case 0: return in32(PM_TIMER) & 0xFFFFFF;
    case 1: return rdtsc();
    case 2: return -*(volatile u32 *)0xFEE00390 & 0xFFFFFFFF;
    case 3: return *(volatile u32 *)0xFED000F0;
    default:
        out8(0x43, which == 4 ? 0 : 0x80);
        low = in8(which == 4 ? 0x40 : 0x42);
        return -(low | in8(which == 4 ? 0x40 : 0x42) << 8) & 0xFFFF;
    }
}

static const u64 clock_masks[] = {0xFFFFFF, ~0ul, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFF, 0xFFFF};

/* Whether one clock goes so many thousandths of what another does, within 2%; one of five tries, for hosts that are busy. */
static u64 ratio(u32 one, u32 other, u32 ticks, u32 wanted)
{
    for (int i = 0; i < 5; i++) {
        u64 a = clock_now(one), b = clock_now(other);
        delay(ticks);
        u64 c = clock_now(one), d = clock_now(other);
        u64 x = (c - a) & clock_masks[one], y = (d - b) & clock_masks[other];
        u64 now = y ? x * 1000 / y : 0, off = now > wanted ? now - wanted : wanted - now;
        if (off * 50 <= wanted)
            return 1;
    }
    return 0;
}

/* -- the program --------------------------------------------------------------------------------------------------- */

static void put_state(volatile u32 *apic)
{
    put('p');
    put_number(apic[0xA0 / 4]);
    put('t');
    put_number(apic[0x80 / 4]);
    for (u32 which = 0; which < 3; which++)
        for (u32 word = 0; word < 8; word++) {
            u32 bits = apic[(0x100 + 0x80 * which + 0x10 * word) / 4];
            if (bits) {
                put(' ');
                put("smr"[which]); /* in service, trigger mode, requests */
                put_number(word * 32);
                put('=');
                put_number(bits);
            }
        }
}

static u64 execute(struct op *op, struct cpu *cpu)
{
    u64 value;
    switch (op->kind & 0xFFFF) {
    case OUT:
        op->a >> 16 == 1 ? out8(op->a, op->b) : op->a >> 16 == 2 ? out16(op->a, op->b) : out32(op->a, op->b);
        return 0;
    case IN:
        value = op->a >> 16 == 1 ? in8(op->a) : op->a >> 16 == 2 ? in16(op->a) : in32(op->a);
        return value & op->b;
    case STORE:
        *(volatile u32 *)(u64)op->a = op->b;
        return 0;
    case LOAD: return *(volatile u32 *)(u64)op->a & op->b;
    case WRITE_MSR: return access_msr(cpu, 1, op->a, op->b);
    case READ_MSR:
        value = access_msr(cpu, 0, op->a, 0);
        return value >> 8 == 0xFA ? value : value & op->b;
    case WRITE_CR8: asm volatile("mov cr8, %0" : : "r"(op->b) : "memory"); return 0;
    case READ_CR8: asm volatile("mov %0, cr8" : "=r"(value)); return value;
    case WINDOW:
        asm volatile("sti; nop" : : : "memory");
        for (u32 i = 0; i < op->a; i++)
            chance();
        asm volatile("cli" : : : "memory");
        return 0;
    case HALT:
        do { /* until so many interrupts have come, or once */
            if (op->a)
                asm volatile("sti; hlt; cli" : : : "memory");
            else if (!op->b || cpu->interrupts < op->b)
                asm volatile("cli; hlt" : : : "memory");
        } while (cpu->interrupts < op->b);
        return 0;
    case TIMED:
        asm volatile("sti; nop" : : : "memory");
        delay(op->a);
        asm volatile("cli" : : : "memory");
        return 0;
    case DELAY: delay(op->a); return 0;
    case CODE: return ((u64 (*)(u64))(program.code + op->a))(op->b);
    case RATIO: return ratio(op->a & 0xFF, op->a >> 8 & 0xFF, op->b >> 32, op->b);
    case WAIT_BIT: /* of a byte at a port: until it is as wanted */
        for (u32 i = 0; i < 200000; i++)
            if (((in8(op->a) & op->b & 0xFF) != 0) == (op->b >> 8 & 1))
                return 1;
        return 0;
    }
    return 0xBAD;
}

static int silent(struct op *op)
{
    u32 kind = op->kind & 0xFFFF;
    return kind == OUT || kind == STORE || kind == WRITE_CR8 || kind == WINDOW || kind == HALT || kind == DELAY || kind == TIMED ||
           ((kind == IN || kind == LOAD) && !op->b);
}

void interrupted(struct frame *frame)
{
    struct cpu *cpu = &cpus[self()];
    u32 vector = frame->vector;
    if (vector < 32 && vector != 2 && cpu->recover) {
        cpu->fault = vector;
        frame->rip = cpu->recover;
        frame->rsp = cpu->recover_stack;
        return;
    }
    note(cpu, vector);
    if (vector < 32 && vector != 2 && !handlers[vector]) {
        note(cpu, 0x30000 | (frame->error & 0xFFFF));
        frame->rflags &= ~0x200ul;
    }
    if (++cpu->interrupts > STORM) {
        note(cpu, 0x40000);
        frame->rflags &= ~0x200ul; /* the window is over */
        return;
    }
    for (u32 at = handlers[vector]; at && (program.ops[at].kind & 0xFFFF) != END; at++) {
        u64 value = (program.ops[at].kind & 0xFFFF) == WHERE ? frame->rip - (u64)program.code - program.ops[at].a
                                                             : execute(&program.ops[at], cpu);
        if (!silent(&program.ops[at]))
            note(cpu, 0x1000000 | value);
    }
    if (handlers[vector] && cpu->logged < LOGGED && cpu->log[cpu->logged - 1] != vector)
        note(cpu, 0x20000 | vector); /* something came in between: the end shows the nesting */
}

void ap_main(void)
{
    u32 mine;
    u64 here;
    u32 me = cpuid(1, 0).b >> 24;
    struct cpu *cpu = &cpus[me];
    mine = __atomic_fetch_add(&stack_count, 1, __ATOMIC_SEQ_CST);
    stacks_of[mine].cpu = me;
    asm volatile("mov %0, rsp" : "=r"(here));
    stacks_of[mine].top = here + 256;
    cpu->wanted = 0;
    __atomic_fetch_add(&cpu->alive, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        while (!cpu->wanted)
            relax();
        cpu->interrupts = 0;
        cpu->began = 1;
        cpu->result = execute(cpu->wanted, cpu);
        cpu->wanted = 0;
        cpu->done = 1;
    }
}

static void set_gates(void)
{
    volatile struct gate *idt = IDT;
    asm volatile("" : "+r"(idt));
    for (int vector = 0; vector < 256; vector++) {
        u64 address = (u64)vectors + 16 * vector;
        idt[vector].low = address;
        idt[vector].selector = 8;
        idt[vector].kind = 0x8E00; /* present, interrupt gate (SDM 3A 6.14.1) */
        idt[vector].middle = address >> 16;
        idt[vector].high = address >> 32;
        idt[vector].reserved = 0;
    }
    asm volatile("lidt [%0]" : : "r"(idt_register));
}

/* The trampoline of boot.S expects to lie where its segments begin. */
static void place_trampoline(void)
{
    static const u8 before[] = {0xB8, 0x01, 0x08, 0x8E, 0xD8, 0xEA, 0x00, 0x00, 0x01, 0x08}; /* ds = cs = 0x801 */
    volatile u8 *to = (volatile u8 *)0x8000;
    for (u32 i = 0; i < sizeof before; i++)
        to[i] = before[i];
    for (char *from = trampoline; from < trampoline_end; from++)
        to[0x10 + (from - trampoline)] = *from;
}

static void flush(u32 index)
{
    for (u32 i = 0; i < program.cpus; i++) {
        struct cpu *cpu = &cpus[i];
        if (!cpu->logged)
            continue;
        put_number(index);
        put('!');
        put_number(i);
        for (u32 entry = 0; entry < cpu->logged; entry++) {
            u64 what = cpu->log[entry];
            put(what >> 24 ? ':' : what >> 16 == 2 ? '/' : what >> 16 == 3 ? '#' : what >> 16 == 4 ? '*' : ' ');
            put_number(what >> 24 ? what & 0xFFFFFF : what & 0xFFFF);
        }
        put('\n');
        cpu->logged = 0;
    }
}

/* Until a number is reached, two seconds at most. */
static int wait_for(volatile u32 *what, u32 wanted)
{
    u32 start = in32(PM_TIMER), passed = 0, now;
    while (*what < wanted) {
        relax();
        now = in32(PM_TIMER);
        passed += (now - start) & 0xFFFFFF;
        start = now;
        if (passed > 7000000)
            return 0;
    }
    return 1;
}

static void step(u32 index, struct op *op)
{
    struct cpu *cpu = &cpus[op->kind >> 16 & 7];
    u64 value;
    switch (op->kind & 0xFFFF) {
    case FLUSH: flush(index); return;
    case HANDLER: handlers[op->a & 0xFF] = op->b; return;
    case STATE:
        put_number(index);
        put('=');
        put_state((volatile u32 *)0xFEE00000);
        put('\n');
        return;
    case START: /* how often a CPU has come to life */
        value = cpu->alive;
        break;
    case JOIN:
        value = wait_for(&cpu->done, 1);
        break;
    case WAIT:
        wait_for(&cpu->alive, op->b);
        value = cpu->alive;
        break;
    default:
        cpus->interrupts = 0;
        if (cpu == cpus)
            value = execute(op, cpu);
        else {
            cpu->done = cpu->began = 0;
            cpu->wanted = op;
            if (op->kind & ASYNC) {
                wait_for(&cpu->began, 1);
                return;
            }
            if (!wait_for(&cpu->done, 1)) {
                cpu->wanted = 0;
                value = 0xDEAD;
                break;
            }
            value = cpu->result;
        }
        if (silent(op))
            return;
    }
    put_number(index);
    put('=');
    put_number(value);
    put('\n');
}

int main(void)
{
    asm volatile("" : : "r"(&program) : "memory");
    stacks_of[0].cpu = 0;
    asm volatile("mov %0, rsp" : "=r"(stacks_of[0].top));
    stacks_of[0].top += 256;
    stack_count = 1;
    set_gates();
    place_trampoline();
    for (u32 i = 0; i < program.count; i++) {
        if ((program.ops[i].kind & 0xFFFF) == END)
            break;
        step(i, &program.ops[i]);
    }
    flush(program.count);
    return 0;
}

void finish(int status)
{
    put('.');
    put('\n');
    out32(0xF4, status);
    for (;;)
        asm volatile("cli; hlt");
}
