/* What kernels ask of the processor itself: MSRs, time-stamp counter, identification, faults and their flags, paging features. */

#include "kit.h"

#define CANONICAL 0x123456789ABCul
#define NOT_CANONICAL 0xAAAAAAAAAAAAAAAAul

static u32 msr;
static void write_msr(u64 value) { wrmsr(msr, value); }
static void read_msr(u64 number) { rdmsr(number); }

static int keeps(u32 number, u64 value)
{
    u64 before = rdmsr(number);
    wrmsr(number, value);
    u64 after = rdmsr(number);
    wrmsr(number, before);
    return after == value;
}

static int refuses(u32 number, u64 value)
{
    msr = number;
    return faults(write_msr, value) == 13;
}

static void msrs(void)
{
    static const u32 addresses[] = {0xC0000100, 0xC0000101, 0xC0000102, 0xC0000082, 0xC0000083};
    check(keeps(0x174, 0x1234) && keeps(0x175, CANONICAL) && keeps(0x176, CANONICAL), "SYSENTER MSRs");
    check(keeps(0x277, 0x07070707), "IA32_PAT");
    check(keeps(0x1A0, (rdmsr(0x1A0) & 0x1880) | (0x400C50809 & ~0x1880ul)), "IA32_MISC_ENABLE");
    for (int i = 0; i < 5; i++)
        check(keeps(addresses[i], CANONICAL) && refuses(addresses[i], NOT_CANONICAL), "an MSR that holds an address");
    check(keeps(0xC0000080, rdmsr(0xC0000080) | 1) && keeps(0xC0000084, 0xFFFFFFFF), "EFER.SCE and SFMASK");
    check(faults(read_msr, 0x12345) == 13, "an MSR that there is not");
}

static void machine_checks(void)
{
    if (!(cpuid(1, 0).d >> 14 & 1)) {
        put("no machine checks\n");
        return;
    }
    u32 banks = rdmsr(0x179) & 0xFF;
    int right = banks > 0;
    for (u32 bank = 0; bank < banks; bank++) {
        u32 first = 0x400 + 4 * bank;
        right &= keeps(first, 0) && keeps(first, ~0ul) && refuses(first, NOT_CANONICAL);
        right &= keeps(first + 1, 0) && refuses(first + 1, 1);
        right &= keeps(first + 2, 0) && keeps(first + 2, ~0ul) && keeps(first + 3, ~0ul);
    }
    check(right, "machine-check banks");
    msr = 0x400 + 4 * banks;
    check(banks > 31 || (faults(read_msr, msr) == 13 && refuses(msr, 0)), "none behind them");
}

static void time(void)
{
    const u64 far = 100000000000;
    wrmsr(IA32_TSC, far);
    u64 after = rdtsc();
    check(after >= far && after < 2 * far, "a time-stamp counter that is set");
    if (!(cpuid(7, 0).b >> 1 & 1)) {
        put("no IA32_TSC_ADJUST\n");
        return;
    }
    wrmsr(IA32_TSC_ADJUST, 0);
    u64 before = rdtsc();
    wrmsr(IA32_TSC_ADJUST, far);
    check(rdmsr(IA32_TSC_ADJUST) == far && rdtsc() - before >= far, "IA32_TSC_ADJUST moves it");
    wrmsr(IA32_TSC_ADJUST, 0);
    before = rdtsc();
    wrmsr(IA32_TSC, far);
    check(before <= far - rdmsr(IA32_TSC_ADJUST) && rdtsc() >= far, "and shows how it was moved");
    wrmsr(IA32_TSC_ADJUST, 0);
    before = rdtsc();
    wrmsr(IA32_TSC, far);
    u64 since = rdtsc() - far, until = far - rdmsr(IA32_TSC_ADJUST) - before;
    check(until <= 2 * since, "which was at once");
}

static void identities(void)
{
    u32 value, aux = 1;
    if (cpuid(0x80000001, 0).d >> 27 & 1) {
        wrmsr(0xC0000103, 0x100);
        asm volatile("rdtscp" : "=c"(aux) : : "eax", "edx");
        check(aux == 0x100, "RDTSCP");
    }
    if (cpuid(7, 0).c >> 22 & 1) {
        wrmsr(0xC0000103, 10);
        asm volatile(".byte 0xF3, 0x0F, 0xC7, 0xF8" : "=a"(value));
        check(value == 10, "RDPID");
    }
}

static volatile u32 flags_at_fault;
static u64 resume;
static void note(struct frame *frame) { flags_at_fault = frame->rflags | frame->vector << 24; frame->rip = resume; }

#define FAULT(code) asm volatile("lea rax, [rip + 1f]\nmov %0, rax\n" code "\n1:" : "=m"(resume) : : "rax", "memory", "cc")

static void resume_flag(void)
{
    handle(13, note);
    FAULT("mov rbx, -1\nmov cr4, rbx");
    check(flags_at_fault >> 24 == 13 && flags_at_fault >> 16 & 1, "#GP, with RF in the pushed flags");
    handle(6, note);
    FAULT("ud2");
    check(flags_at_fault >> 24 == 6 && flags_at_fault >> 16 & 1, "#UD, the same");
    handle(13, 0);
    handle(6, 0);
}

static void rdpmc(u64 counter) { asm volatile("rdpmc" : : "c"((u32)counter) : "eax", "edx"); }
static void forced_emulation(u64 unused) { asm volatile("ud2\n.ascii \"kvm\"\nnop"); }

/* ENDBR64, RDSSPQ and a jump with NOTRACK: compilers write them for all processors, for which they are NOPs (SDM 1 17.1.3). */
static void branch_tracking(u64 unused)
{
    asm volatile(".byte 0xF3, 0x0F, 0x1E, 0xFA, 0xF3, 0x48, 0x0F, 0x1E, 0xC8\nlea rax, [rip + 1f]\n.byte 0x3E, 0xFF, 0xE0\n1:" : : : "rax");
}

static void clflush(u64 gva) { asm volatile("clflush [%0]" : : "r"(gva)); }
static void sfence(u64 gva) { asm volatile("sfence"); }
static void mfence(u64 gva) { asm volatile("mfence"); }
static void clflushopt(u64 gva) { asm volatile(".byte 0x66, 0x0F, 0xAE, 0x3B" : : "b"(gva)); }
static void clwb(u64 gva) { asm volatile(".byte 0x66, 0x0F, 0xAE, 0x33" : : "b"(gva)); }
static void bad_clwb(u64 gva) { asm volatile(".byte 0x66, 0x0F, 0xAE, 0xF0"); }
static void pcommit(u64 gva) { asm volatile(".byte 0x66, 0x0F, 0xAE, 0xF8"); }
static void rdpru(u64 which) { asm volatile(".byte 0x0F, 0x01, 0xFD" : : "c"(which) : "eax", "edx"); }
static void vmxon(u64 gva) { asm volatile("vmxon [%0]" : : "r"(gva) : "memory"); }
static void xgetbv(u64 which) { asm volatile("xgetbv" : : "c"(which) : "eax", "edx"); }
static void set_cr4(u64 value) { asm volatile("mov cr4, %0" : : "r"(value)); }
static void set_cr0(u64 value) { asm volatile("mov cr0, %0" : : "r"(value)); }
static u64 cr4(void) { u64 value; asm volatile("mov %0, cr4" : "=r"(value)); return value; }
static u64 cr0(void) { u64 value; asm volatile("mov %0, cr0" : "=r"(value)); return value; }

static void as_announced(void)
{
    struct cpuid one = cpuid(1, 0), seven = cpuid(7, 0);
    u64 here = (u64)&resume;
    check((faults(clflush, here) == 6) != (one.d >> 19 & 1), "CLFLUSH");
    check((faults(sfence, here) == 6) != (one.d >> 25 & 1), "SFENCE");
    check((faults(mfence, here) == 6) != (one.d >> 26 & 1), "MFENCE");
    check((faults(clflushopt, here) == 6) != (seven.b >> 23 & 1), "CLFLUSHOPT");
    check((faults(clwb, here) == 6) != (seven.b >> 24 & 1), "CLWB");
    check(faults(bad_clwb, here) == 6, "CLWB of a register");
    check(!faults(branch_tracking, 0), "NOPs of branch tracking");
    check(faults(rdpmc, 64) == 13, "a performance counter that there is not");
    check(faults(forced_emulation, 0) == 6, "no emulation by force");
    if (!(seven.d >> 26 & 1) && !(cpuid(0x80000008, 0).b >> 12 & 1))
        check(faults(read_msr, 0x48) == 13 && refuses(0x48, 0) && refuses(0x49, 0) && refuses(0x49, 1), "speculation's MSRs");
    if (!(seven.d >> 28 & 1))
        check(refuses(0x10B, 0) && refuses(0x10B, 1), "IA32_FLUSH_CMD");
    check((faults(pcommit, here) == 6) != (seven.b >> 22 & 1), "PCOMMIT");
    if (!(cpuid(0x80000008, 0).b >> 4 & 1))
        check(faults(rdpru, 0) == 6, "RDPRU");
    if (!(one.c >> 5 & 1))
        check(faults(vmxon, here) == 6, "VMXON");
    check(faults(xgetbv, 0) == 6 && !(one.c >> 27 & 1), "XGETBV without CR4.OSXSAVE");
    if (!(one.c >> 26 & 1))
        check(faults(set_cr4, cr4() | 1 << 18) == 13, "CR4.OSXSAVE without XSAVE");
}

static u64 descriptor[2];
static void invpcid(u64 type) { asm volatile(".byte 0x66, 0x0F, 0x38, 0x82, 0x18" : : "a"(descriptor), "b"(type) : "memory"); }

static void process_context_identifiers(void)
{
    int pcid = cpuid(1, 0).c >> 17 & 1, has_invpcid = cpuid(7, 0).b >> 10 & 1;
    u64 with = cr4() | 1 << 17, root = cr3();
    check(pcid || !has_invpcid, "no INVPCID without PCIDs");
    if (!pcid) {
        check(faults(set_cr4, with) == 13, "CR4.PCIDE without them");
    } else {
        check(!faults(set_cr4, with), "CR4.PCIDE");
        check(faults(set_cr0, cr0() & ~(1ul << 31)) == 13, "paging stays on with it");
        set_cr4(with & ~(1ul << 17));
        set_cr3(root | 1);
        check(faults(set_cr4, with) == 13, "not with a PCID in CR3");
        set_cr3(root);
    }
    if (!has_invpcid) {
        check(faults(invpcid, 2) == 6, "INVPCID is #UD");
        return;
    }
    descriptor[0] = 0;
    check(!faults(invpcid, 1), "INVPCID of PCID 0");
    descriptor[0] = 1;
    check(faults(invpcid, 1) == 13, "of another without CR4.PCIDE");
    set_cr4(with);
    descriptor[0] = 10;
    check(!faults(invpcid, 2), "with it");
    set_cr4(with & ~(1ul << 17));
}

static volatile u64 rip_at_fault;
static void note_rip(struct frame *frame) { rip_at_fault = frame->rip; frame->rip = resume; }

/* The hypercalls here are those that KVM answers to any guest; what is at the edge of the address space must not wrap. */
static void hypercalls(void)
{
    u64 answer = -1;
    asm volatile("vmcall" : "+a"(answer) : : "memory");
    check((long)answer == -1000, "a hypercall that there is not");
    answer = 10;
    asm volatile("vmcall" : "+a"(answer) : "b"(0xFFFFFFFFul), "c"(0ul), "d"(0xFFFFFFFFul), "S"(0ul) : "memory");
    check((long)answer == 0 || (long)answer == -1000, "IPIs to nobody by hypercall");
    answer = -1;
    asm volatile(".byte 0x0F, 0x01, 0xD9" : "+a"(answer) : : "memory");
    check((long)answer == -1000, "a hypercall by the other maker's instruction");
    static u64 edge[3][512] __attribute__((aligned(4096))), code[512] __attribute__((aligned(4096)));
    volatile u64 *root = page_root;
    root[255] = (u64)edge[0] | 7; /* the last page below the hole between canonical addresses */
    edge[0][511] = (u64)edge[1] | 7;
    edge[1][511] = (u64)edge[2] | 7;
    edge[2][511] = (u64)code | 7;
    handle(13, note_rip);
    for (u64 last = 0xC1; last <= 0xD9; last += 0xD9 - 0xC1) {
        *(volatile u64 *)&code[511] = 0x010FCCCCCCCCCC | last << 56;
        rip_at_fault = 0;
        asm volatile("lea rcx, [rip + 1f]\nmov %0, rcx\njmp %1\n1:" : "=m"(resume) : "r"(0x7FFFFFFFFFFDul), "a"(-1ul) : "rcx", "memory");
        check(rip_at_fault == 0x800000000000, "a hypercall at the edge of the address space");
    }
    handle(13, 0);
}

static void pages(void)
{
    static volatile u64 table[512] __attribute__((aligned(4096))), middle[512] __attribute__((aligned(4096))),
        low[512] __attribute__((aligned(4096))), page[512] __attribute__((aligned(4096)));
    volatile u64 *mapped = (volatile u64 *)(511ul << 30 | 5 << 21 | 7 << 12);
    u64 *pointers = (u64 *)(page_root[0] & ~0xFFFul);
    pointers[511] = (u64)table | 7;
    table[5] = (u64)low | 7;
    low[7] = (u64)page | 3;
    page[3] = 0x1234;
    check(mapped[3] == 0x1234 && (low[7] >> 5 & 3) == 1, "A set by a read");
    mapped[3] = 5;
    check(page[3] == 5 && (low[7] >> 5 & 3) == 3, "D by a write");
    low[7] = (u64)middle | 3;
    asm volatile("invlpg [%0]" : : "r"(mapped) : "memory");
    check(!mapped[3], "another page behind INVLPG");
    pointers[511] = 0;
    set_cr3(cr3());
}

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    char *line = (char *)(u64)information[4];
    set_up();
    msrs();
    machine_checks();
    time();
    resume_flag();
    pages();
    while (*line)
        line++;
    if (line[-1] != '+')
        return failures;
    identities();
    as_announced();
    process_context_identifiers();
    hypercalls();
    return failures;
}
