#include "kit.h"

#define SERIAL 0x3F8
#define XAPIC ((volatile u32 *)0xFEE00000)
#define X2APIC 0x800
#define IPI 0x20

volatile int failures, online = 1;
static handler *handlers[256];
static int x2apic;
static volatile int lines;

/* -- console ------------------------------------------------------------------------------------------------------- */

static void put_byte(char byte)
{
    while (!(in8(SERIAL + 5) & 0x20))
        ;
    out8(SERIAL, byte);
}

void put(const char *text)
{
    while (*text)
        put_byte(*text++);
}

void put_number(u64 value)
{
    char digits[17];
    int at = 16;
    digits[16] = 0;
    do {
        digits[--at] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value);
    put(digits + at);
}

void check(int good, const char *what)
{
    failures += !good;
    put(good ? "ok " : "BAD ");
    put(what);
    put("\n");
}

void finish(int status)
{
    out32(0xF4, status);
    for (;;)
        asm volatile("cli; hlt");
}

u64 firmware(u16 item, int bytes)
{
    u64 value = 0;
    out16(0x510, item);
    for (int i = 0; i < bytes; i++)
        value |= (u64)in8(0x511) << 8 * i;
    return value;
}

/* -- interrupts ---------------------------------------------------------------------------------------------------- */

void handle_directly(int vector, char *entry, int dpl)
{
    u64 address = (u64)entry;
    IDT[vector].low = address;
    IDT[vector].selector = 8;
    IDT[vector].kind = 0x8E00 | dpl << 13; /* present, interrupt gate (SDM 3A 6.14.1) */
    IDT[vector].middle = address >> 16;
    IDT[vector].high = address >> 32;
    IDT[vector].reserved = 0;
}

void handle(int vector, handler *handler)
{
    handlers[vector] = handler;
    handle_directly(vector, vectors + 16 * vector, 0);
}

void interrupted(struct frame *frame)
{
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    put("BAD vector ");
    put_number(frame->vector);
    put(" error ");
    put_number(frame->error);
    put(" at ");
    put_number(frame->rip);
    put("\n");
    finish(0x3F);
}

static volatile int faulted;
static u64 after_fault, stack_at_fault;

static void note_fault(struct frame *frame)
{
    faulted = frame->vector;
    frame->rip = after_fault;
    frame->rsp = stack_at_fault;
}

/* The vector of the exception that a function ends with, 0 if it returns. */
int faults(void (*function)(u64), u64 argument)
{
    static const int vectors_of_faults[] = {6, 13, 14};
    faulted = 0;
    for (int i = 0; i < 3; i++)
        handle(vectors_of_faults[i], note_fault);
    asm volatile("push rbp\n"
                 "mov %[stack], rsp\n"
                 "lea rax, [rip + 1f]\n"
                 "mov %[after], rax\n"
                 "call %[function]\n"
                 "1: pop rbp\n"
                 : [stack] "=m"(stack_at_fault), [after] "=m"(after_fault), "+D"(argument)
                 : [function] "b"(function)
                 : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    for (int i = 0; i < 3; i++)
        handlers[vectors_of_faults[i]] = 0;
    return faulted;
}

/* -- user mode ----------------------------------------------------------------------------------------------------- */

#define RETURN 0x21

u32 task_state[26]; /* 64-bit TSS (SDM 3A figure 7-11) */
u8 user_stack[8192] __attribute__((aligned(16)));
u64 stack_to_return_to, user_flags = 2;

/* call_at(edi: CPL, rsi: function, rdx: argument). What goes to `way_back` goes back to the caller, from any CPL. */
asm(".globl call_at, way_back\n"
    "call_at:\n"
    "    push rbx\npush rbp\npush r12\npush r13\npush r14\npush r15\n"
    "    mov [stack_to_return_to], rsp\n"
    "    mov [task_state + 4], rsp\n"
    "    mov eax, edi\n"
    "    mov rbx, rsi\n"
    "    mov rdi, rdx\n"
    "    test eax, eax\n"
    "    jz 1f\n"
    "    push 0x23\n"
    "    push offset user_stack + 8192\n"
    "    push [user_flags]\n"
    "    push 0x2B\n"
    "    push offset 1f\n"
    "    iretq\n"
    "1:  call rbx\n"
    "way_back:\n"
    "    int 0x21\n"
    "returned:\n"
    "    mov rsp, [stack_to_return_to]\n"
    "    mov ecx, 0x10\n"
    "    mov ss, ecx\n"
    "    pop r15\npop r14\npop r13\npop r12\npop rbp\npop rbx\n"
    "    ret\n");
extern char returned[];

void set_up_user(void)
{
    extern u64 tss_descriptor[2];
    u64 base = (u64)task_state;
    tss_descriptor[0] = (sizeof task_state - 1) | (base & 0xFFFFFF) << 16 | 0x89ul << 40 | (base >> 24 & 0xFF) << 56;
    tss_descriptor[1] = base >> 32;
    asm volatile("ltr %w0" : : "r"(0x30));
    handle_directly(RETURN, returned, 3);
}

/* -- local APICs --------------------------------------------------------------------------------------------------- */

void use_x2apic(void)
{
    if (cpuid(1, 0).c >> 21 & 1) {
        wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | 1 << 10);
        x2apic = 1;
    }
}

static void reset_apic(void)
{
    u64 base = rdmsr(IA32_APIC_BASE);
    x2apic = 0;
    wrmsr(IA32_APIC_BASE, base & ~0xC00ul);
    wrmsr(IA32_APIC_BASE, (base & ~0xC00ul) | 0x800);
    XAPIC[APIC_SPURIOUS / 4] = 0x1FF;
}

u32 apic_read(u32 offset) { return x2apic ? rdmsr(X2APIC + offset / 16) : XAPIC[offset / 4]; }

void apic_write(u32 offset, u32 value)
{
    if (x2apic)
        wrmsr(X2APIC + offset / 16, value);
    else
        XAPIC[offset / 4] = value;
}

u32 apic_id(void) { return x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24; }

void send(u32 command, u32 destination)
{
    if (x2apic) {
        wrmsr(X2APIC + APIC_ICR / 16, command | (u64)destination << 32);
        return;
    }
    while (XAPIC[APIC_ICR / 4] & 1 << 12)
        ;
    XAPIC[APIC_ICR_HIGH / 4] = destination << 24;
    XAPIC[APIC_ICR / 4] = command;
}

/* -- other CPUs ---------------------------------------------------------------------------------------------------- */

static void (*volatile wanted)(u64);
static volatile u64 wanted_argument;
static volatile int taken, done;

static void do_wanted(struct frame *frame)
{
    void (*function)(u64) = wanted;
    u64 argument = wanted_argument;
    taken = 1;
    apic_write(APIC_EOI, 0);
    function(argument);
    done = 1;
}

void on_cpu_async(int cpu, void (*function)(u64), u64 argument)
{
    wanted = function;
    wanted_argument = argument;
    taken = done = 0;
    send(FIXED | ASSERT | IPI, cpu);
    while (!taken)
        chance();
}

void on_cpu(int cpu, void (*function)(u64), u64 argument)
{
    on_cpu_async(cpu, function, argument);
    while (!done)
        chance();
}

void ap_main(void)
{
    XAPIC[APIC_SPURIOUS / 4] = 0x1FF;
    if (cpuid(1, 0).c >> 21 & 1)
        wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | 1 << 10);
    asm volatile("sti; nop");
    asm volatile("lock inc %0" : "+m"(online));
}

/* Everything that one CPU needs: 8259s masked, local APIC on, IDT at 0. */
void set_up(void)
{
    extern char idt_register[];
    asm volatile("lidt [%0]" : : "r"(idt_register));
    for (int vector = 0; vector < 256; vector++)
        handle(vector, 0);
    out8(0x21, 0xFF);
    out8(0xA1, 0xFF);
    reset_apic();
}

/* Start all others: how many CPUs there are. The trampoline lies where the IDT will be. */
int start_others(void)
{
    int cpus = firmware(5, 2);
    volatile char *to = 0;
    asm volatile("" : "+r"(to));
    for (char *from = trampoline; from < trampoline_end; from++)
        *to++ = *from;
    reset_apic();
    XAPIC[APIC_ICR / 4] = OTHERS | INIT | ASSERT;
    XAPIC[APIC_ICR / 4] = OTHERS | START_UP;
    while (online != cpus)
        relax();
    set_up();
    handle(IPI, do_wanted);
    use_x2apic();
    return cpus;
}
