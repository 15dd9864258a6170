/* Every way to reach a page, or not to: entries of two levels with each of their bits, controls, and who asks for what. What must
come of it is worked out by the rules of SDM 3A 4.6 and 4.7. With `+` at the end of the command line all of them are tried, with
`-` every 97th. */

#include "kit.h"

enum {
    PTE_WRITE, PTE_USER, PTE_ACCESSED, PTE_DIRTY, PTE_NO_EXECUTE, PTE_PRESENT, PTE_RESERVED,
    PDE_WRITE, PDE_USER, PDE_ACCESSED, PDE_DIRTY, PDE_LARGE, PDE_NO_EXECUTE, PDE_PRESENT, PDE_RESERVED, PDE_BIT13,
    READ_ONLY_ABOVE, PKRU_NO_ACCESS, PKRU_NO_WRITE, KEY, BY_USER, TO_WRITE, TO_FETCH, READ_BEFORE,
    NXE, WRITE_PROTECT, PROTECTION_KEYS, CHOICES,
};

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, LARGE = 0x80, KEY_SHIFT = 59, CR4_SMEP = 1 << 20, CR4_PKE = 1 << 22 };
#define NX (1ul << 63)
#define RESERVED (1ul << 51)
#define PLACE 0xFFFF900000000000ul
#define PAGE_AT 0x2000000ul

enum { E_PRESENT = 1, E_WRITE = 2, E_USER = 4, E_RESERVED = 8, E_FETCH = 16, E_KEY = 32 };

static volatile u64 pointers[512] __attribute__((aligned(4096))), directory[512] __attribute__((aligned(4096))),
    entries[512] __attribute__((aligned(4096)));
volatile u64 fault_error;
volatile u32 faulted;
static u64 choice;
static int keys_there;

#define CHOSEN(bit) (choice >> (bit) & 1)
#define IF(bit, value) (CHOSEN(bit) ? (value) : 0)

asm("page_fault:\n"
    "    pop [fault_error]\n"
    "    inc dword ptr [faulted]\n"
    "    mov qword ptr [rsp], offset way_back\n"
    "    iretq\n");
extern char page_fault[];

static u64 control0(void) { u64 value; asm volatile("mov %0, cr0" : "=r"(value)); return value; }
static u64 control4(void) { u64 value; asm volatile("mov %0, cr4" : "=r"(value)); return value; }
static void set_control0(u64 value) { asm volatile("mov cr0, %0" : : "r"(value) : "memory"); }
static void set_control4(u64 value) { asm volatile("mov cr4, %0" : : "r"(value) : "memory"); }
static void set_keys(u32 value) { asm volatile(".byte 0x0F, 0x01, 0xEF" : : "a"(value), "c"(0), "d"(0)); }

static void set_controls(void)
{
    static int nxe = -1, protect = -1, keys = -1;
    if (CHOSEN(NXE) != nxe) {
        nxe = CHOSEN(NXE);
        wrmsr(0xC0000080, (rdmsr(0xC0000080) & ~0x800ul) | nxe << 11);
    }
    if (CHOSEN(WRITE_PROTECT) != protect) {
        protect = CHOSEN(WRITE_PROTECT);
        set_control0((control0() & ~0x10000ul) | protect << 16);
    }
    if (CHOSEN(PROTECTION_KEYS) != keys) {
        keys = CHOSEN(PROTECTION_KEYS);
        if (!keys && control4() & CR4_PKE)
            set_keys(0xFFFFFFFC); /* of no account without CR4.PKE */
        set_control4((control4() & ~(u64)CR4_PKE) | IF(PROTECTION_KEYS, CR4_PKE));
    }
    if (keys)
        set_keys(0x30 | IF(PKRU_NO_WRITE, 8) | IF(PKRU_NO_ACCESS, 4));
}

static int sensible(void)
{
    int reserved = CHOSEN(PTE_RESERVED) + CHOSEN(PDE_RESERVED) + CHOSEN(PDE_BIT13);
    if (!CHOSEN(NXE))
        reserved += CHOSEN(PTE_NO_EXECUTE) + CHOSEN(PDE_NO_EXECUTE);
    if (reserved > 1 || (CHOSEN(TO_WRITE) && CHOSEN(TO_FETCH)) || (CHOSEN(PDE_BIT13) && !CHOSEN(PDE_LARGE)))
        return 0;
    if (!keys_there && (CHOSEN(PROTECTION_KEYS) || CHOSEN(KEY)))
        return 0;
    return CHOSEN(PROTECTION_KEYS) || !(CHOSEN(PKRU_NO_ACCESS) || CHOSEN(PKRU_NO_WRITE));
}

static void build(void)
{
    u64 leaf = IF(KEY, 1ul << KEY_SHIFT);
    pointers[0] = (u64)directory | P | U | (CHOSEN(READ_ONLY_ABOVE) ? 0 : W);
    directory[0] = (CHOSEN(PDE_LARGE) ? PAGE_AT | LARGE | leaf : (u64)entries | IF(KEY, 2ul << KEY_SHIFT)) | IF(PDE_PRESENT, P) |
        IF(PDE_WRITE, W) | IF(PDE_USER, U) | IF(PDE_ACCESSED, A) | IF(PDE_DIRTY, D) | IF(PDE_NO_EXECUTE, NX) |
        IF(PDE_RESERVED, RESERVED) | IF(PDE_BIT13, 1 << 13);
    entries[0] = PAGE_AT | leaf | IF(PTE_PRESENT, P) | IF(PTE_WRITE, W) | IF(PTE_USER, U) | IF(PTE_ACCESSED, A) |
        IF(PTE_DIRTY, D) | IF(PTE_NO_EXECUTE, NX) | IF(PTE_RESERVED, RESERVED);
    asm volatile("invlpg [%0]" : : "r"(PLACE) : "memory");
}

struct outcome { u64 pde, pte; int fault; u32 error; };

/* Work out one access: what it makes of the entries, and its fault. */
static void work_out(struct outcome *outcome, int user, int write, int fetch)
{
    u32 error = (user ? E_USER : 0) | (write ? E_WRITE : 0) | (fetch && CHOSEN(NXE) ? E_FETCH : 0);
    int large = CHOSEN(PDE_LARGE), pde_bad = CHOSEN(PDE_RESERVED) | CHOSEN(PDE_BIT13) | (CHOSEN(PDE_NO_EXECUTE) & !CHOSEN(NXE));
    int pte_bad = !large & (CHOSEN(PTE_RESERVED) | (CHOSEN(PTE_NO_EXECUTE) & !CHOSEN(NXE)));
    outcome->fault = 1;
    outcome->error = error;
    if (!CHOSEN(PDE_PRESENT) || (!pde_bad && !large && !CHOSEN(PTE_PRESENT)))
        return;
    outcome->error = error | E_PRESENT;
    if (pde_bad | pte_bad) {
        outcome->error |= E_RESERVED;
        return;
    }
    int for_user = CHOSEN(PDE_USER) & (large | CHOSEN(PTE_USER));
    int writable = !CHOSEN(READ_ONLY_ABOVE) & CHOSEN(PDE_WRITE) & (large | CHOSEN(PTE_WRITE));
    int runs = !CHOSEN(PDE_NO_EXECUTE) & (large | !CHOSEN(PTE_NO_EXECUTE)), any_write = !user & !CHOSEN(WRITE_PROTECT);
    outcome->fault = (user & !for_user) | (write & !writable & !any_write) | (fetch & !runs);
    if (CHOSEN(PROTECTION_KEYS) & CHOSEN(KEY) & for_user & !fetch &&
        (CHOSEN(PKRU_NO_ACCESS) | (CHOSEN(PKRU_NO_WRITE) & write & !any_write))) {
        outcome->fault = 1;
        outcome->error |= E_KEY;
    }
    if (outcome->fault)
        return;
    outcome->pde |= A | (large && write ? D : 0);
    if (!large)
        outcome->pte |= A | (write ? D : 0);
}

static u64 do_access(u64 write_or_fetch)
{
    if (write_or_fetch == 2)
        asm volatile("call %0" : : "r"(PLACE) : "memory");
    else if (write_or_fetch)
        *(volatile u8 *)PLACE = 0xC3;
    else
        *(volatile u8 *)PLACE;
    return 0;
}

static int right(void)
{
    struct outcome expected = {directory[0], entries[0]};
    if (CHOSEN(READ_BEFORE)) {
        work_out(&expected, 0, 0, 0);
        call_at(0, do_access, 0);
    }
    work_out(&expected, CHOSEN(BY_USER), CHOSEN(TO_WRITE), CHOSEN(TO_FETCH));
    faulted = fault_error = 0;
    call_at(CHOSEN(BY_USER) ? 3 : 0, do_access, CHOSEN(TO_WRITE) | CHOSEN(TO_FETCH) << 1);
    u64 ignored = expected.fault ? A : 0; /* the processor may set it above what faults */
    return faulted == expected.fault && (!faulted || fault_error == expected.error) && entries[0] == expected.pte &&
        ((directory[0] ^ expected.pde) & ~ignored) == 0;
}

/* The kernel's own pages as supervisor's (or as user's again): SMEP is about user's. */
static void user_pages_off(int off)
{
    volatile u64 *first = (u64 *)(page_root[0] & ~0xFFFul);
    volatile u64 *large = (u64 *)(first[0] & ~0xFFFul);
    for (int i = 0; i < 8; i++)
        large[i] = off ? large[i] & ~4ul : large[i] | 4;
    set_cr3(cr3());
}

static void smep(void)
{
    choice = 1 << PDE_PRESENT | 1 << PDE_USER | 1 << PDE_WRITE | 1 << PTE_PRESENT | 1 << PTE_USER | 1 << WRITE_PROTECT | 1 << NXE;
    set_controls();
    build();
    user_pages_off(1);
    set_control4(control4() | CR4_SMEP);
    faulted = fault_error = 0;
    call_at(0, do_access, 0);
    check(!faulted, "with SMEP the supervisor reads a user page");
    call_at(0, do_access, 2);
    check(faulted == 1 && fault_error == (E_PRESENT | E_FETCH), "and does not execute it");
    set_control4(control4() & ~(u64)CR4_SMEP);
    user_pages_off(0);
}

/* Through 32-bit code, for the levels of paging may not change in 64-bit mode; the old root becomes one of two below. */
volatile u64 top[512] __attribute__((aligned(4096)));
static volatile u64 upper[512] __attribute__((aligned(4096)));
void use_top(void);
asm("use_top:\n"
    "    push 0x18\n"
    "    push offset 1f\n"
    "    .byte 0x48, 0xCB\n"               /* RETF, 64 bits */
    ".code32\n"
    "1:  mov eax, cr0\n"
    "    btr eax, 31\n"
    "    mov cr0, eax\n"
    "    mov eax, offset top\n"
    "    mov cr3, eax\n"
    "    mov eax, cr4\n"
    "    bts eax, 12\n"
    "    mov cr4, eax\n"
    "    mov eax, cr0\n"
    "    bts eax, 31\n"
    "    mov cr0, eax\n"
    "    .byte 0xEA\n"
    "    .long 2f\n"
    "    .word 8\n"
    ".code64\n"
    "2:  ret\n");

static void five_levels(void)
{
    top[0] = (u64)page_root | 7;
    top[511] = (u64)upper | 7;
    upper[PLACE >> 39 & 511] = (u64)pointers | 7;
    use_top();
    check(control4() >> 12 & 1, "five levels");
}

static void try_all(u64 step)
{
    u64 tried = 0, wrong = 0;
    for (choice = 0; choice >> CHOICES == 0; choice += step) {
        if (!sensible())
            continue;
        tried++;
        set_controls();
        build();
        if (!right() && wrong++ < 4) {
            put("choice ");
            put_number(choice);
            put(" faulted ");
            put_number(faulted);
            put(" error ");
            put_number(fault_error);
            put("\n");
        }
    }
    put("tried ");
    put_number(tried);
    put("\n");
    check(!wrong, "every access as it must be");
}

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    char *line = (char *)(u64)information[4];
    u64 step;
    set_up();
    set_up_user();
    handle_directly(14, page_fault, 0);
    while (*line)
        line++;
    step = line[-1] == '+' ? 1 : line[-1] == '-' ? 97 : 1999;
    keys_there = cpuid(7, 0).c >> 3 & 1;
    page_root[PLACE >> 39 & 511] = (u64)pointers | 7;
    *(volatile u8 *)PAGE_AT = 0xC3;
    try_all(step);
    if (cpuid(7, 0).b >> 7 & 1)
        smep();
    if (cpuid(7, 0).c >> 16 & 1) {
        five_levels();
        try_all(step);
    }
    return failures;
}
