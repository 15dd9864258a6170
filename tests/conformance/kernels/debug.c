/* Debug exceptions (SDM 3B 17.2 and 17.3): what raises them, when, what DR6 says, and what MOV SS holds back. At CPL 0 and, with
I/O privilege, at CPL 3. */

#include "kit.h"

enum { DR6_ONES = 0xFFFF0FF0, B0 = 1, B1 = 2, BD = 1 << 13, BS = 1 << 14, DR7_ONE = 0x400, CR4_DE = 1 << 3 };

static volatile u64 places[16], statuses[16];
static volatile int count, undefined;
static volatile u64 after_breakpoint;

#define DR(number) \
    static u64 dr##number(void) { u64 value; asm volatile("mov %0, dr" #number : "=r"(value)); return value; } \
    static void set_dr##number(u64 value) { asm volatile("mov dr" #number ", %0" : : "r"(value) : "memory"); }
DR(0) DR(1) DR(4) DR(6) DR(7)
static u64 control4(void) { u64 value; asm volatile("mov %0, cr4" : "=r"(value)); return value; }
static void set_control4(u64 value) { asm volatile("mov cr4, %0" : : "r"(value) : "memory"); }

static void debug(struct frame *frame)
{
    places[count & 15] = frame->rip;
    statuses[count & 15] = dr6();
    if (statuses[count & 15] & B0)
        frame->rflags |= 1 << 16; /* RF: over the breakpoint */
    if (++count >= 12) {
        frame->rflags &= ~0x100ul;
        set_dr7(DR7_ONE);
    }
}

static void breakpoint(struct frame *frame) { after_breakpoint = frame->rip; }
static void invalid(struct frame *frame) { undefined++; set_control4(control4() & ~(u64)CR4_DE); }

/* Each steps through instructions whose places it lists from `1:` on: `2:`, `3:`... to the one behind POPF, which ends it. */
#define STEPS(name, body, ...) \
    u64 name(u64); \
    asm(#name ":\n    pushfq\n    pop rax\n    or rax, 0x100\n    push rax\n" body "    ret\n" \
        ".globl " #name "_places\n" #name "_places: .quad " #__VA_ARGS__ ", 0\n"); \
    extern u64 name##_places[];

STEPS(basic, "popfq\nand rax, ~0x100\n11: push rax\n12: popfq\n13: nop\n", 11b, 12b, 13b)
STEPS(exiting, "push rbx\nmov rcx, [rsp + 8]\npush rcx\npopfq\nand rcx, ~0x100\n11: push rcx\n12: xor eax, eax\n13: cpuid\n"
               "14: mov edx, 0x3FD\n15: in al, dx\n16: popfq\n17: pop rbx\npop rax\n", 11b, 12b, 13b, 14b, 15b, 16b, 17b)
STEPS(behind_sti, "cli\npopfq\nsti\n11: and rax, ~0x100\n12: push rax\n13: popfq\n14: cli\n", 11b, 12b, 13b, 14b)
STEPS(behind_mov_ss, "mov ecx, ss\npopfq\nmov ss, ecx\nand rax, ~0x100\n11: push rax\n12: popfq\n13: nop\n", 11b, 12b, 13b)
STEPS(trap_behind_mov_ss, "mov ecx, ss\npopfq\nmov ss, ecx\n.byte 0xF1\n11: and rax, ~0x100\n12: push rax\n13: popfq\n14: nop\n",
      11b, 12b, 13b, 14b)
STEPS(detect_behind_mov_ss, "mov edx, 0x2400\nmov dr7, rdx\nxor edx, edx\nmov ecx, ss\npopfq\nmov ss, ecx\n11: mov dr6, rdx\n12: and rax, ~0x100\n13: push rax\n"
      "14: popfq\n15: nop\n", 11b, 12b, 13b, 14b, 15b)

static int stepped(int cpl, u64 (*steps)(u64), u64 *wanted, u64 first)
{
    int number = 0, right = 1;
    count = 0;
    set_dr6(0);
    call_at(cpl, steps, 0);
    while (wanted[number])
        number++;
    for (int i = 0; i < number; i++)
        right &= places[i] == wanted[i] && statuses[i] == (i ? DR6_ONES | BS : first);
    if (count == number && right)
        return 1;
    for (int i = 0; i < count && i < 16; i++) {
        put("at ");
        put_number(places[i]);
        put(" wanted ");
        put_number(i < number ? wanted[i] : 0);
        put(" DR6 ");
        put_number(statuses[i]);
        put("\n");
    }
    return 0;
}

static void steps(int cpl)
{
    user_flags = 0x3002; /* IOPL 3 */
    put(cpl ? "CPL 3\n" : "CPL 0\n");
    check(stepped(cpl, basic, basic_places, DR6_ONES | BS), "single steps");
    check(stepped(cpl, exiting, exiting_places, DR6_ONES | BS), "of CPUID and IN");
    check(stepped(cpl, behind_sti, behind_sti_places, DR6_ONES | BS), "STI does not hold them back");
    check(stepped(cpl, behind_mov_ss, behind_mov_ss_places, DR6_ONES | BS), "MOV SS does");
    check(stepped(cpl, trap_behind_mov_ss, trap_behind_mov_ss_places, DR6_ONES), "INT1 behind MOV SS");
}

#define RUN(code, ...) asm volatile(code : : __VA_ARGS__ : "rax", "memory", "cc")
#define HERE(label) ({ extern char label[]; (u64)label; })

static volatile u32 watched[2] __attribute__((aligned(8)));

static int hit(int number, u64 place, u64 status) { return count == number && places[0] == place && statuses[0] == status; }

static void breakpoints(void)
{
    set_dr0(HERE(over_one));
    set_dr7(DR7_ONE | 2);
    count = 0;
    set_dr6(0);
    RUN("over_one: nop", "i"(0));
    check(hit(1, HERE(over_one), DR6_ONES | B0), "an instruction breakpoint, without BS");
    set_dr0(HERE(over_two));
    count = 0;
    set_dr6(BS | B1);
    RUN("over_two: nop", "i"(0));
    check(hit(1, HERE(over_two), DR6_ONES | BS | B0), "BS stays, B1 does not");
    set_dr0(HERE(over_three));
    count = 0;
    set_dr6(0);
    RUN("mov eax, ss\nmov ss, eax\nover_three: nop", "i"(0));
    check(count == 0, "MOV SS holds an instruction breakpoint back");
    set_dr1((u64)watched);
    set_dr7(DR7_ONE | 8 | 0xD << 20); /* 4 bytes, writes */
    count = 0;
    set_dr6(BS);
    RUN("mov dword ptr [%0], 42\nbehind_one: nop", "r"(watched));
    check(hit(1, HERE(behind_one), DR6_ONES | BS | B1), "a data breakpoint, BS stays");
    count = 0;
    set_dr6(0);
    RUN("mov dword ptr [%0], 42\nbehind_two: nop", "r"(watched));
    check(hit(1, HERE(behind_two), DR6_ONES | B1), "and is not set");
    count = 0;
    set_dr6(0);
    RUN(".byte 0xF1\nbehind_three: nop", "i"(0));
    check(hit(1, HERE(behind_three), DR6_ONES), "INT1");
}

/* MOV SS from watched memory, and another event right behind it: both come, in this order, and the first once. */
static void both(void)
{
    watched[0] = 0x10;
    set_dr7(DR7_ONE | 8 | 0xF << 20); /* 4 bytes, reads and writes */
    count = 0;
    RUN("mov ss, [%0]\n.byte 0x2E, 0x2E, 0xF1\nwatched_one: nop", "r"(watched));
    check(count == 1 && places[0] == HERE(watched_one), "INT1 behind a watched MOV SS");
    count = 0;
    RUN("mov ss, [%0]\nint 1\nwatched_two: nop", "r"(watched));
    check(count == 2 && places[1] == HERE(watched_two), "INT 1: two");
    count = 0;
    after_breakpoint = 0;
    RUN("mov ss, [%0]\n.byte 0x2E, 0x2E, 0x2E, 0xCC\nwatched_three: nop", "r"(watched));
    check(count == 1 && after_breakpoint == HERE(watched_three), "INT3: one of each");
    set_dr7(DR7_ONE);
}

int main(void)
{
    set_up();
    set_up_user();
    handle(1, debug);
    handle(3, breakpoint);
    handle(6, invalid);
    set_control4(control4() & ~(u64)CR4_DE);
    set_dr4(0);
    set_dr6(DR6_ONES | BS | B1);
    check(dr4() == (DR6_ONES | BS | B1) && !undefined, "DR4 is DR6");
    set_control4(control4() | CR4_DE);
    dr4();
    check(undefined == 1, "with CR4.DE it is #UD");
    set_dr6(0);
    RUN("int3\nbehind_int3: nop", "i"(0));
    check(after_breakpoint == HERE(behind_int3), "INT3");
    breakpoints();
    set_dr7(DR7_ONE);
    steps(0);
    steps(3);
    check(stepped(0, detect_behind_mov_ss, detect_behind_mov_ss_places, DR6_ONES | BD), "general detection behind MOV SS");
    both();
    return failures;
}
