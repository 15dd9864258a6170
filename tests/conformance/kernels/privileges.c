/* What the supervisor keeps from users and from itself: UMIP, SMAP, SYSCALL and SYSRET with the trap flag, null segments. */

#include "kit.h"

enum { CR4_UMIP = 1 << 11, CR4_LA57 = 1 << 12, CR4_SMAP = 1 << 21, AC = 1 << 18, CR0_WP = 1 << 16 };
#define ALIAS 0xFFFF900000000000ul

static u64 control0(void) { u64 value; asm volatile("mov %0, cr0" : "=r"(value)); return value; }
static u64 control4(void) { u64 value; asm volatile("mov %0, cr4" : "=r"(value)); return value; }
static void set_control0(u64 value) { asm volatile("mov cr0, %0" : : "r"(value) : "memory"); }
static void set_control4(u64 value) { asm volatile("mov cr4, %0" : : "r"(value) : "memory"); }

/* -- UMIP ---------------------------------------------------------------------------------------------------------- */

static volatile int refused;
static u64 back;
static void skip(struct frame *frame) { refused++; frame->rip = back; }

#define TRY(code) asm volatile("lea rax, [rip + 1f]\nmov %0, rax\n" code "\n1:" : "=m"(back) : "r"(table) : "rax", "memory")

static u64 stores(u64 unused)
{
    static u8 room[16];
    u8 *table = room;
    int faults = 0;
#define COUNT(code) refused = 0; TRY(code); faults = faults << 1 | refused
    COUNT("smsw ax");
    COUNT("sgdt [%1]");
    COUNT("sidt [%1]");
    COUNT("sldt ax");
    COUNT("str ax");
    COUNT("mov rax, cr0");
    return faults;
}

static void instructions_of_users(void)
{
    handle(13, skip);
    user_flags = 0x3002;
    check(call_at(0, stores, 0) == 0 && call_at(3, stores, 0) == 1, "without UMIP users may store tables' registers, and not read CR0");
    if (!(cpuid(7, 0).c >> 2 & 1)) {
        put("no UMIP\n");
        return;
    }
    set_control4(control4() | CR4_UMIP);
    check(call_at(0, stores, 0) == 0, "UMIP is not for the supervisor");
    check(call_at(3, stores, 0) == 0x3F, "with it users may not");
    set_control4(control4() & ~(u64)CR4_UMIP);
}

/* -- SMAP ---------------------------------------------------------------------------------------------------------- */

static volatile u64 tables[3][512] __attribute__((aligned(4096))), page[512] __attribute__((aligned(4096)));
static volatile u64 faulted, fault_error;

/* As if the access had been meant: again with EFLAGS.AC. */
static void allow(struct frame *frame)
{
    faulted++;
    fault_error = frame->error;
    frame->rflags |= AC;
}

static int faults_of(int allowed, u64 stack)
{
    faulted = 0;
    if (allowed)
        asm volatile(".byte 0x0F, 0x01, 0xCB" : : : "memory");
    else
        asm volatile(".byte 0x0F, 0x01, 0xCA" : : : "memory");
    if (stack)
        asm volatile("mov rax, rsp\nmov rsp, %0\npush 44\nmov rsp, rax" : : "r"(stack) : "rax", "memory");
    else
        *(volatile u64 *)ALIAS;
    return faulted;
}

static void user_pages(void)
{
    if (!(cpuid(7, 0).b >> 20 & 1)) {
        put("no SMAP\n");
        return;
    }
    page_root[ALIAS >> 39 & 511] = (u64)tables[0] | 7;
    tables[0][0] = (u64)tables[1] | 7;
    tables[1][0] = (u64)tables[2] | 7;
    tables[2][0] = (u64)page | 7;
    volatile u64 *large = (u64 *)(*(u64 *)(page_root[0] & ~0xFFFul) & ~0xFFFul);
    for (int i = 0; i < 512; i++)
        large[i] &= ~4ul;
    task_state[9] = (u64)(user_stack + 8192); /* IST1: the stack may be a user's */
    handle(14, allow);
    IDT[14].kind |= 1;
    set_control4(control4() | CR4_SMAP);
    set_cr3(cr3());
    check(!faults_of(1, 0), "SMAP: with EFLAGS.AC the supervisor reads users' pages");
    check(faults_of(0, 0) == 1 && fault_error == 1, "without it does not");
    check(!faults_of(1, ALIAS + 4096), "a stack there with it");
    check(faults_of(0, ALIAS + 2048) == 1 && fault_error == 3 && page[255] == 44, "and without");
    page[0] = 0xC3;
    asm volatile("clac" : : : "memory");
    faulted = 0;
    asm volatile("call %0" : : "r"(ALIAS) : "memory");
    check(!faulted, "code there is SMEP's matter");
    tables[2][0] &= ~2ul;
    set_control4(control4() & ~(u64)CR4_SMAP);
    set_control0(control0() & ~(u64)CR0_WP);
    set_cr3(cr3());
    *(volatile u64 *)ALIAS = 0x99;
    check(!faulted && page[0] == 0x99, "without SMAP and CR0.WP it may write everything");
    set_control4(control4() | CR4_SMAP);
    check(faults_of(0, 0) == 1, "with SMAP, without CR0.WP not even read");
    set_control4(control4() & ~(u64)CR4_SMAP);
    set_control0(control0() | CR0_WP);
    for (int i = 0; i < 512; i++)
        large[i] |= 4;
    set_cr3(cr3());
    handle(14, 0);
}

/* -- SYSCALL ------------------------------------------------------------------------------------------------------- */

static volatile u64 stepped_at;
static volatile u32 stepped_selector, steps;
static void step(struct frame *frame)
{
    steps++;
    stepped_at = frame->rip;
    stepped_selector = frame->cs;
    frame->rflags &= ~0x100ul;
}

/* A user sets TF and makes a system call, which masks it; SYSRET sets it again, and traps behind itself. */
asm("system_call:\n"
    "    cmp dword ptr [steps], 0\n"
    "    jne way_back\n"
    "    mov r11, 0x102\n"
    "    sysretq\n"
    "to_user:\n"
    "    mov rcx, offset in_user\n"
    "    mov r11, 2\n"
    "    sysretq\n"
    "in_user:\n"
    "    pushfq\n"
    "    or qword ptr [rsp], 0x100\n"
    "    popfq\n"
    "    syscall\n"
    "behind_call: syscall\n"
    "    ud2\n");
u64 to_user(u64);
extern char system_call[], behind_call[];

static void system_calls(void)
{
    wrmsr(0xC0000080, rdmsr(0xC0000080) | 1);
    wrmsr(0xC0000082, (u64)system_call);
    wrmsr(0xC0000081, 0x1Bul << 48 | 8ul << 32); /* users': 64-bit code 0x2B, stack 0x23 */
    wrmsr(0xC0000084, 0x4700);
    handle(1, step);
    steps = 0;
    call_at(0, to_user, 0);
    check(steps == 1 && stepped_at == (u64)behind_call && stepped_selector == 0x2B, "SYSCALL masks TF, SYSRET traps behind itself");
    handle(1, 0);
}

/* -- segments ------------------------------------------------------------------------------------------------------ */

static u64 through_gs(u64 offset)
{
    u64 value;
    asm volatile("mov %0, gs:[%1]" : "=r"(value) : "r"(offset));
    return value;
}

static void load_ss(u64 selector) { asm volatile("mov ss, %w0" : : "r"(selector)); }

static void change_levels(u64 value) { set_control4(value); }

static void segments(void)
{
    static u64 there = 0x1122334455667788;
    u16 stack;
    asm volatile("mov gs, %w0" : : "r"(0x10));
    wrmsr(0xC0000101, 0x400000);
    check(call_at(3, through_gs, (u64)&there - 0x400000) == there, "a segment that IRET makes null keeps its base");
    asm volatile("mov ss, %w0\nmov %w0, ss" : "=r"(stack) : "0"(0));
    check(!stack, "a null stack segment");
    check(faults(load_ss, 3) == 13, "but not of another RPL");
    asm volatile("mov ss, %w0" : : "r"(0x10));
    check(faults(change_levels, control4() ^ CR4_LA57) == 13, "the levels of paging do not change in 64-bit mode");
}

/* -- tagged addresses ---------------------------------------------------------------------------------------------- */

#define TAG (1ul << 60)
static u64 descriptor[2];
static void load(u64 gva) { *(volatile u64 *)gva; }
static void invalidate(u64 gva) { asm volatile(".byte 0x66, 0x0F, 0x38, 0x82, 0x18" : : "a"(gva), "b"(0ul) : "memory"); }

static void tags(void)
{
    if (cpuid(7, 1).a >> 26 & 1) {
        put("linear-address masking\n");
        return;
    }
    check(faults(change_levels, control4() | 1 << 28) == 13, "no linear-address masking");
    check(faults(load, (u64)descriptor ^ TAG) == 13, "a tagged address");
    check(faults(load, 0xFF000000ul ^ TAG) == 13, "of I/O memory");
    asm volatile("invlpg [%0]" : : "r"((u64)descriptor ^ TAG) : "memory");
    if (!(cpuid(7, 0).b >> 10 & 1))
        return;
    descriptor[1] = (u64)descriptor;
    check(!faults(invalidate, (u64)descriptor), "INVPCID of an address");
    check(faults(invalidate, (u64)descriptor ^ TAG) == 13, "at a tagged one");
    descriptor[1] ^= TAG;
    check(faults(invalidate, (u64)descriptor) == 13, "of a tagged one");
    descriptor[1] = 0xFFAAAAAAAAAAAAAA;
    check(faults(invalidate, (u64)descriptor) == (cpuid(7, 0).c >> 16 & 1 ? 0 : 13), "of one of 57 bits");
}

/* -- canonical addresses ------------------------------------------------------------------------------------------- */

struct table_register { u16 limit; u64 base; } __attribute__((packed));
static u32 msr;
static void write_msr(u64 value) { wrmsr(msr, value); }

/* Loaded, and the old ones back before anything needs them. The ports are for exits in between. */
#define TABLE(name) \
    static u64 name##_seen; \
    static void load_##name(u64 base) \
    { \
        struct table_register before, table; \
        asm volatile("s" #name " %0" : "=m"(before)); \
        table = before; \
        table.base = base; \
        asm volatile("l" #name " %0\nout 0x80, al\ns" #name " %0\nout 0x80, al\nl" #name " %1" : "+m"(table) : "m"(before)); \
        name##_seen = table.base; \
    }
TABLE(gdt)
TABLE(idt)

static void describe(u64 base, u64 kind)
{
    extern u64 tss_descriptor[2];
    tss_descriptor[0] = 0xFFFF | (base & 0xFFFFFF) << 16 | kind << 40 | (base >> 24 & 0xFF) << 56;
    tss_descriptor[1] = base >> 32;
}

static void load_task(u64 base) { describe(base, 0x89); asm volatile("ltr %w0\nout 0x80, al" : : "r"(0x30)); }
static void load_ldt(u64 base) { describe(base, 0x82); asm volatile("lldt %w0\nout 0x80, al" : : "r"(0x30)); }

static int takes(u64 value, int expected)
{
    static const u32 msrs[] = {0xC0000100, 0xC0000101, 0xC0000102, 0xC0000082, 0xC0000083};
    int right = 1;
    for (int i = 0; i < 5; i++) {
        msr = msrs[i];
        u64 before = rdmsr(msr);
        right &= !faults(write_msr, value) == expected && rdmsr(msr) == (expected ? value : before);
        wrmsr(msr, before);
    }
    right &= !faults(load_gdt, value) == expected && (!expected || gdt_seen == value);
    right &= !faults(load_idt, value) == expected && (!expected || idt_seen == value);
    return right & (!faults(load_ldt, value) == expected) & (!faults(load_task, value) == expected);
}

/* Bits that are the sign's count as far as the processor could have levels of paging, not as far as it has (SDM 1 3.3.7.1). */
static void canonical_addresses(void)
{
    check(takes(0xFFFFAAAAAAAAAAAA, 1), "a canonical address of 48 bits");
    check(takes(0xFFAAAAAAAAAAAAAA, cpuid(7, 0).c >> 16 & 1), "of 57 bits where there could be five levels");
    check(takes(0xAAAAAAAAAAAAAAAA, 0), "and none");
    set_up_user();
}

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    char *line = (char *)(u64)information[4];
    set_up();
    tags();
    while (*line)
        line++;
    if (line[-1] == '-') /* nothing that needs INT n */
        return failures;
    set_up_user();
    instructions_of_users();
    user_pages();
    system_calls();
    segments();
    canonical_addresses();
    return failures;
}
