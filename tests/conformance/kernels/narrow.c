/* 32-bit code with 2-level paging: events whose delivery faults in the hypervisor, #PF by a task gate in the middle of others' delivery,
UMIP, SMAP. What 64-bit kernels try in events.c and privileges.c is here what differs: gates, stacks, INTO, task gates. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { CODE = 0x08, DATA = 0x10, ABSENT = 0x18, MAIN_TSS = 0x20, OTHER_TSS = 0x28, USER_CODE = 0x33, USER_DATA = 0x3B, CONFORMING = 0x40 };
enum { CR0_WP = 1 << 16, CR4_PSE = 1 << 4, CR4_UMIP = 1 << 11, CR4_SMAP = 1 << 21, AC = 1 << 18, IOPL = 3 << 12 };

asm(".section .multiboot, \"a\"\n.align 4\n.long 0x1BADB002, 0, -0x1BADB002\n"
    ".text\n.globl entry\nentry:\n"
    "    mov esp, offset stack + 16384\n"
    "    call main\n"
    "    push eax\n"
    "    call finish\n"
    ".align 16\nvectors:\n"
    ".set vector, 0\n"
    ".rept 64\n"
    ".align 16\n"
    ".if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17)\n"
    "    .byte 0x90, 0x90\n"
    ".else\n"
    "    push 0\n"
    ".endif\n"
    "    push vector\n"
    "    jmp common\n"
    ".set vector, vector + 1\n"
    ".endr\n"
    "common:\n"
    "    pushad\n"
    "    push ds\n"
    "    mov eax, 0x10\n"
    "    mov ds, eax\n"
    "    mov es, eax\n"
    "    lea eax, [esp + 4]\n"
    "    cld\n"
    "    push eax\n"
    "    call interrupted\n"
    "    add esp, 4\n"
    "    pop ds\n"
    "    popad\n"
    "    add esp, 8\n"
    "    iretd\n"
    /* The task of page faults: its stack holds the error code, and behind IRETD it goes on with the next one. */
    "fault_task:\n"
    "    call fault_in_task\n"
    "    add esp, 4\n"
    "    iretd\n"
    "    jmp fault_task\n"
    "other_task:\n"
    "    inc dword ptr [visits]\n"
    "    iretd\n"
    "    jmp other_task\n");

struct frame { u32 edi, esi, ebp, esp, ebx, edx, ecx, eax, vector, error, eip, cs, eflags; };
struct tss { u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt, map; };
typedef void handler(struct frame *frame);

u8 stack[16384] __attribute__((aligned(4096))), other_stack[4096] __attribute__((aligned(4096)));
u8 user_stack[4096] __attribute__((aligned(4096)));
static volatile u32 directory[1024] __attribute__((aligned(4096))), table[1024] __attribute__((aligned(4096)));
static volatile u32 page[1024] __attribute__((aligned(4096))), shadow[1024] __attribute__((aligned(4096)));
static volatile u32 idt[128] __attribute__((aligned(4096)));
static struct tss main_tss, other_tss;
static u64 gdt[9] = {0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF1B000000FFFF, 0, 0,
                     0x00CFFB000000FFFF, 0x00CFF3000000FFFF, 0x00CF9F000000FFFF};
static handler *handlers[64];
volatile u32 visits;
static u32 failures;

/* Where `table` maps pages of 4 KiB; nothing else is there. */
#define MAPPED 0x40000000u
/* The kernel's own 4 MiB again, as a user's page. */
#define ALIAS 0x50000000u
#define USERS(variable) (*(volatile u32 *)((u32)&(variable) - 0x400000 + ALIAS))

static inline u8 in8(u16 port) { u8 value; asm volatile("in %0, %1" : "=a"(value) : "Nd"(port)); return value; }
static inline void out8(u16 port, u8 value) { asm volatile("out %1, %0" : : "a"(value), "Nd"(port) : "memory"); }
static inline void out32(u16 port, u32 value) { asm volatile("out %1, %0" : : "a"(value), "Nd"(port) : "memory"); }
static inline u32 cr0(void) { u32 value; asm volatile("mov %0, cr0" : "=r"(value)); return value; }
static inline u32 cr3(void) { u32 value; asm volatile("mov %0, cr3" : "=r"(value)); return value; }
static inline u32 cr4(void) { u32 value; asm volatile("mov %0, cr4" : "=r"(value)); return value; }
static inline void set_cr0(u32 value) { asm volatile("mov cr0, %0" : : "r"(value) : "memory"); }
static inline void set_cr3(u32 value) { asm volatile("mov cr3, %0" : : "r"(value) : "memory"); }
static inline void set_cr4(u32 value) { asm volatile("mov cr4, %0" : : "r"(value) : "memory"); }

static u32 cpuid7(int ecx)
{
    u32 a = 7, b, c = 0, d;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return ecx ? c : b;
}

static void put(const char *text)
{
    for (; *text; text++) {
        while (!(in8(0x3FD) & 0x20))
            ;
        out8(0x3F8, *text);
    }
}

static void check(int good, const char *what)
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

static void gate(int vector, u32 selector, u32 offset, u32 kind)
{
    idt[2 * vector] = selector << 16 | (offset & 0xFFFF);
    idt[2 * vector + 1] = (offset & 0xFFFF0000) | kind << 8;
}

static void handle(int vector, handler *handler)
{
    extern u8 vectors[];
    handlers[vector] = handler;
    gate(vector, CODE, (u32)vectors + 16 * vector, 0x8E);
}

static void task_gate(int vector) { gate(vector, OTHER_TSS, 0, 0x85); }

void interrupted(struct frame *frame)
{
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    put("BAD event\n");
    finish(0x3F);
}

static void apic(u32 offset, u32 value) { *(volatile u32 *)(0xFEE00000 + offset) = value; }
static void chance(void) { in8(0x80); in8(0x80); }
static void to_itself(u32 vector) { apic(0x300, 0x44000 | vector); }
static void nmi_to_itself(void) { apic(0x310, 0); apic(0x300, 0x4400); }
static void flush(volatile void *gva) { out32(0xE4, (u32)gva); }

static void flush_all(void)
{
    volatile int here = 0;
    flush(idt);
    flush(&here);
}

/* -- events that fault in the hypervisor --------------------------------------------------------------------------- */

volatile u32 divisor, quotient;
static volatile u32 counted, deepest, faults;
static volatile u32 fault_error;

static void count(struct frame *frame) { counted++; }
static void interrupt(struct frame *frame) { counted++; apic(0xB0, 0); }
static void divide_error(struct frame *frame) { divisor = 10; }
static void not_present(struct frame *frame) { counted++; gate(33, CODE, (idt[67] & 0xFFFF0000) | (idt[66] & 0xFFFF), 0x8E); }
static void nested_nmi(struct frame *frame) { counted++; }

static void nmi(struct frame *frame)
{
    counted++;
    handle(2, nested_nmi);
    nmi_to_itself();
    chance();
    deepest = counted;
}

static u32 divide(void)
{
    u32 result;
    asm volatile("xor edx, edx\ndiv %[divisor]" : "=a"(result) : "a"(1500), [divisor] "m"(divisor) : "edx", "cc");
    return result;
}

#define EVENT(code, number, what) counted = 0; flush_all(); asm volatile(code : : : "memory", "cc"); check(counted == (number), what)

static void events(void)
{
    handle(0, divide_error);
    divisor = 0;
    flush_all();
    check(divide() == 150, "an exception");
    handle(3, count);
    EVENT("int3", 1, "INT3");
    handle(4, count);
    EVENT("mov al, 127\nadd al, 127\ninto", 1, "INTO");
    EVENT("mov al, 127\nadd al, 127\n.byte 0x67\ninto", 1, "INTO of two bytes");
    handle(32, interrupt);
    handle(33, interrupt);
    counted = 0;
    flush_all();
    asm volatile("sti");
    to_itself(33);
    chance();
    asm volatile("cli");
    check(counted == 1, "an interrupt");
    handle(33, count);
    EVENT("int 33", 1, "INT n");
    counted = 0;
    flush_all();
    to_itself(32);
    asm volatile("sti\nint 33\ncli" : : : "memory");
    check(counted == 2, "INT n in the shadow of STI, an interrupt waiting");
    handle(11, not_present);
    idt[66] = (idt[66] & 0xFFFF) | ABSENT << 16;
    EVENT("int 33", 2, "a gate whose segment is not present");
    handle(2, nmi);
    counted = deepest = 0;
    flush_all();
    nmi_to_itself();
    chance();
    check(deepest == 1 && counted == 2, "an NMI in an NMI");
}

/* -- page faults by a task gate ------------------------------------------------------------------------------------ */

static volatile u32 makes_writable, grants_access;

void fault_in_task(u32 error)
{
    faults++;
    fault_error = error;
    if (makes_writable)
        table[0] |= 3;
    if (grants_access)
        main_tss.eflags |= AC;
}

static void use_fault_task(void)
{
    extern u8 fault_task[];
    other_tss.eip = (u32)fault_task;
    other_tss.esp = (u32)other_stack + 4096;
    task_gate(14);
    faults = 0;
}

/* On a stack that may only be read, which the task of page faults makes writable. */
#define ON_MAPPED_STACK(code) do { \
        makes_writable = 1; \
        table[0] = (u32)page | 1; \
        set_cr3(cr3()); \
        flush_all(); \
        flush(page); \
        asm volatile("mov edi, esp\nmov esp, %[top]\n" code "\nmov esp, edi" : : [top] "i"(MAPPED + 4095) : "eax", "edx", "edi", "memory", "cc"); \
        makes_writable = 0; \
    } while (0)

static void faults_in_delivery(void)
{
    use_fault_task();
    divisor = 0;
    ON_MAPPED_STACK("mov eax, 1500\nxor edx, edx\ndiv dword ptr [divisor]\nmov [quotient], eax");
    check(quotient == 150 && faults == 1 && fault_error == 3, "#DE on a stack that is not writable");
    use_fault_task();
    counted = 0;
    idt[66] = (idt[66] & 0xFFFF) | ABSENT << 16;
    ON_MAPPED_STACK("int 33");
    check(counted == 2 && faults == 1, "#NP on it");
    use_fault_task();
    makes_writable = 1;
    table[0] = 0;
    set_cr3(cr3());
    table[0] = (u32)page;
    *(volatile u32 *)(MAPPED + 8) = 0x1234;
    makes_writable = 0;
    check(faults == 1 && fault_error == 2 && page[2] == 0x1234, "a page that is not there");
    directory[0x3F0] = (u32)shadow | 3; /* the stack's page is a page table, too */
    shadow[0] = (u32)shadow | 3;
    set_cr3(cr3());
    *(volatile u32 *)((0x3F0u << 22) + 4) = 0;
    counted = 0;
    asm volatile("mov edi, esp\nmov esp, %0\nint 33\nmov esp, edi" : : "i"((u8 *)shadow + 4095) : "edi", "memory");
    check(counted == 1, "INT n on a page table");
}

static void task_gates(void)
{
    extern u8 other_task[];
    static const u8 numbers[] = {0, 3, 4};
    for (int i = 0; i < 3; i++)
        task_gate(numbers[i]);
    other_tss.eip = (u32)other_task;
    visits = 0;
    asm volatile("int 0");
    asm volatile("int3");
    asm volatile("mov al, 127\nadd al, 127\ninto" : : : "eax", "cc");
    check(visits == 3, "INT 0, INT3 and INTO by task gates");
    other_tss.eip = (u32)other_task;
    other_tss.cs = CONFORMING | 3;
    other_tss.ss = other_tss.ds = other_tss.es = other_tss.fs = other_tss.gs = USER_DATA;
    other_tss.eflags |= IOPL;
    visits = 0;
    for (int i = 0; i < 1024; i++)
        directory[i] |= 4;
    set_cr3(cr3());
    asm volatile(".byte 0x9A\n.long 0xF4F4F4F4\n.word 0x28");
    for (int i = 0; i < 1024; i++)
        directory[i] &= ~4u;
    set_cr3(cr3());
    check(visits == 1, "a user's task in a conforming segment");
    other_tss.cs = CODE;
    other_tss.ss = other_tss.ds = other_tss.es = other_tss.fs = other_tss.gs = DATA;
    other_tss.eflags = 2;
}

/* -- UMIP ---------------------------------------------------------------------------------------------------------- */

volatile u32 refused, length;
static void skip(struct frame *frame) { refused++; frame->eip += length; }

static volatile u32 found;
u8 room[8];
#define TRY(code) asm volatile("mov eax, offset 2f\nsub eax, offset 1f\nmov [length], eax\nmov dword ptr [refused], 0\n1: " code "\n2:" \
                               : : : "eax", "memory", "cc"); \
                  found = found << 1 | refused

void stores(void)
{
    found = 0;
    TRY("smsw ax");
    TRY("sgdt [room]");
    TRY("sidt [room]");
    TRY("sldt ax");
    TRY("str ax");
    TRY("mov eax, cr0");
}

void at_cpl3(void);
asm("at_cpl3:\n"
    "    pushad\n"
    "    mov [main_esp0], esp\n"
    "    mov ecx, esp\n"
    "    mov eax, 0x3B\n"
    "    mov ds, eax\nmov es, eax\nmov fs, eax\nmov gs, eax\n"
    "    push 0x3B\n"
    "    push offset users_stack_top\n"
    "    pushfd\n"
    "    or dword ptr [esp], 0x3000\n"
    "    push 0x33\n"
    "    push offset 1f\n"
    "    iretd\n"
    "1:  call stores\n"
    "    int 0x30\n"
    "back_from_user:\n"
    "    mov eax, 0x10\n"
    "    mov ds, eax\nmov es, eax\nmov fs, eax\nmov gs, eax\n"
    "    mov esp, [main_esp0]\n"
    "    popad\n"
    "    ret\n");
extern u8 back_from_user[];

static void instructions_of_users(void)
{
    handle(13, skip);
    gate(0x30, CODE, (u32)back_from_user, 0xEE);
    for (int i = 0; i < 1024; i++)
        directory[i] |= 4;
    set_cr3(cr3());
    stores();
    u32 supervisors = found;
    at_cpl3();
    check(!supervisors && found == 1, "without UMIP users may store tables' registers, and not read CR0");
    if (cpuid7(1) >> 2 & 1) {
        set_cr4(cr4() | CR4_UMIP);
        stores();
        supervisors = found;
        at_cpl3();
        check(!supervisors && found == 0x3F, "with it they may not");
        set_cr4(cr4() & ~CR4_UMIP);
    }
    for (int i = 0; i < 1024; i++)
        directory[i] &= ~4u;
    set_cr3(cr3());
}

/* -- SMAP ---------------------------------------------------------------------------------------------------------- */

static volatile u32 watched, seen;

static void access(int allowed, int write, u32 value)
{
    faults = 0;
    if (allowed)
        asm volatile("stac" : : : "memory");
    else
        asm volatile("clac" : : : "memory");
    if (write)
        USERS(watched) = value;
    else
        seen = USERS(watched);
}

static void user_pages(void)
{
    if (!(cpuid7(0) >> 20 & 1)) {
        put("no SMAP\n");
        return;
    }
    directory[ALIAS >> 22] = 0x400000 | 0x87;
    set_cr4(cr4() | CR4_SMAP);
    set_cr3(cr3());
    use_fault_task();
    grants_access = 1;
    for (int invalidate = 0; invalidate < 2; invalidate++) {
        if (invalidate)
            asm volatile("invlpg [%0]" : : "r"(&USERS(watched)) : "memory");
        watched = 42;
        access(1, 0, 0);
        check(!faults && seen == 42, "SMAP: with EFLAGS.AC the supervisor reads users' pages");
        access(0, 0, 0);
        check(faults == 1 && fault_error == 1 && seen == 42, "without it does not");
        access(1, 1, 43);
        check(!faults && watched == 43, "writes with it");
        access(0, 1, 44);
        check(faults == 1 && fault_error == 3 && watched == 44, "and not without");
        faults = 0;
        asm volatile("clac\nadd esp, %0\npush 45\nadd esp, 4\nsub esp, %0" : : "i"(ALIAS - 0x400000) : "memory", "cc");
        check(faults == 1, "a stack there");
        faults = 0;
        asm volatile("clac\nmov eax, offset 1f + %0\njmp eax\n1: jmp 2f\n2: mov eax, offset 3f\njmp eax\n3:" : : "i"(ALIAS - 0x400000) : "eax", "memory", "cc");
        check(!faults, "code there is SMEP's matter");
    }
    directory[ALIAS >> 22] = 0x400000 | 0x85;
    set_cr4(cr4() & ~CR4_SMAP);
    set_cr0(cr0() & ~CR0_WP);
    set_cr3(cr3());
    access(0, 1, 0x99);
    check(!faults && watched == 0x99, "without SMAP and CR0.WP it may write everything");
    set_cr4(cr4() | CR4_SMAP);
    set_cr3(cr3());
    access(0, 0, 0);
    check(faults == 1, "with SMAP, without CR0.WP not even read");
    grants_access = 0;
    set_cr4(cr4() & ~CR4_SMAP);
}

static void describe(int selector, struct tss *tss)
{
    u32 base = (u32)tss;
    gdt[selector / 8] = (sizeof *tss - 1) | (u64)(base & 0xFFFFFF) << 16 | 0x89ull << 40 | (u64)(base >> 24) << 56;
    tss->cr3 = (u32)directory;
    tss->ss0 = DATA;
    tss->esp0 = (u32)stack + 8192;
    tss->eflags = 2;
    tss->cs = CODE;
    tss->ss = tss->ds = tss->es = tss->fs = tss->gs = DATA;
    tss->map = sizeof *tss << 16;
}

asm(".globl main_esp0\n.data\nmain_esp0: .long 0\n.text\n.set users_stack_top, user_stack + 4096\n");

int main(void)
{
    struct { u16 limit; u32 base; } __attribute__((packed)) to_gdt = {sizeof gdt - 1, (u32)gdt}, to_idt = {sizeof idt - 1, (u32)idt};
    describe(MAIN_TSS, &main_tss);
    describe(OTHER_TSS, &other_tss);
    asm volatile("lgdt %0\nlidt %1\n.byte 0xEA\n.long 1f\n.word 8\n1:" : : "m"(to_gdt), "m"(to_idt) : "memory");
    asm volatile("mov ds, %0\nmov es, %0\nmov fs, %0\nmov gs, %0\nmov ss, %0\nltr %w1" : : "r"(DATA), "r"(MAIN_TSS));
    for (u32 i = 0; i < 1024; i++)
        directory[i] = i << 22 | 0x83;
    directory[MAPPED >> 22] = (u32)table | 3;
    set_cr4(cr4() | CR4_PSE);
    set_cr3((u32)directory);
    set_cr0(cr0() | 0x80000000 | CR0_WP);
    for (int vector = 0; vector < 64; vector++)
        handle(vector, 0);
    out8(0x21, 0xFF);
    out8(0xA1, 0xFF);
    apic(0xF0, 0x1FF);
    put("paging\n");
    events();
    faults_in_delivery();
    task_gates();
    instructions_of_users();
    user_pages();
    return failures;
}
