/* Instructions do to the test device's I/O memory what they do to RAM: operands of every kind, strings across two of its pages, a
stack in it. On a hypervisor all of this is emulation. */

#include "kit.h"

#define IO_MEMORY ((u8 *)0xFF000000)
#define SIZE 0x2000

static u8 ram[SIZE] __attribute__((aligned(4096)));
struct outcome { u64 a, b, flags; };
typedef struct outcome action(u8 *memory);

#define ACTION(name, code) \
    static struct outcome name(u8 *memory) \
    { \
        struct outcome out = {0x1122334455667788, 0x0102030405060708}; \
        asm volatile("push 0x246\npopfq\ncld\n" code "\npushfq\npop rdx\ncld" \
                     : "+a"(out.a), "+b"(out.b), "=&d"(out.flags), "+D"(memory) : : "rcx", "rsi", "r8", "r9", "r10", "memory", "cc"); \
        out.flags &= 0x8D5; \
        return out; \
    }

ACTION(moves, "mov [rdi], rax\nmov ebx, [rdi + 4]\nmov [rdi + 16], bl\nmovzx eax, word ptr [rdi + 1]\nmovsx rbx, byte ptr [rdi]\n"
              "mov word ptr [rdi + 40], 0x1234\nmov qword ptr [rdi + 48], -5\nmovsxd rcx, dword ptr [rdi]\nadd rbx, rcx")
ACTION(arithmetic, "or dword ptr [rdi], 0x8001\nadd [rdi], ebx\nxor [rdi + 8], rax\nsub word ptr [rdi], 0x26\nstc\n"
                   "adc dword ptr [rdi + 4], 0x100\nstc\nsbb [rdi + 9], bl\nand qword ptr [rdi], 0x7E77FFFF\ntest [rdi], eax\n"
                   "add rbx, [rdi]\ncmp rbx, [rdi + 8]\nsbb rax, rax")
ACTION(single, "inc dword ptr [rdi]\nlock dec byte ptr [rdi + 1]\nlock neg qword ptr [rdi + 8]\nlock not word ptr [rdi + 3]\nneg byte ptr [rdi + 5]")
ACTION(exchanges, "xchg [rdi], al\nxchg [rdi + 2], ax\nxchg [rdi + 8], rbx\nlock xadd [rdi], eax\nxadd [rdi + 16], rbx\nmov rax, [rdi]\n"
                  "lock cmpxchg [rdi], rbx\nmov ecx, 1\ncmpxchg [rdi + 4], ecx")
ACTION(bits, "bts dword ptr [rdi], 33\nmov ecx, 66\nlock btc [rdi], ecx\nmov rcx, -1\nbtr [rdi + 16], rcx\nbt [rdi], ecx\nbsf rax, [rdi]\n"
             "bsr ebx, [rdi + 4]\nsetc [rdi + 20]")
ACTION(shifts, "mov cl, 3\nshl dword ptr [rdi], cl\nsar qword ptr [rdi + 8], 5\nrol byte ptr [rdi + 3], 1\nrcr word ptr [rdi + 4], cl\n"
               "shld [rdi + 16], eax, cl\nshrd [rdi + 24], rbx, 7")
ACTION(products, "imul rax, [rdi]\nimul ebx, [rdi + 4], 311\nimul bx, word ptr [rdi], 51\nmul dword ptr [rdi + 8]\nadd rbx, rdx\n"
                 "mov qword ptr [rdi + 32], 1000003\nxor edx, edx\ndiv qword ptr [rdi + 32]\nadd rbx, rdx\ncdq\nidiv dword ptr [rdi + 32]\n"
                 "add rbx, rdx\nxor ecx, ecx\nadd ecx, 0")
ACTION(conditions, "cmp eax, eax\ncmovne ebx, [rdi]\ncmove eax, [rdi]\nsetz [rdi + 9]\nsetnz [rdi + 10]")
ACTION(stack, "mov r8, rsp\nlea rsp, [rdi + 1024]\npush -7\npush rbx\npush qword ptr [rdi]\npushw [rdi + 4]\npopw [rdi + 64]\npop rax\n"
              "pop qword ptr [rdi + 72]\npushfq\npop rcx\nmov rbp, rbp\nmov r9, rbp\nenter 0x18, 0\nleave\nmov rbp, r9\nlea rcx, [rip + 1f]\n"
              "push rcx\nret\n1: call 2f\n2: pop rcx\nmov rsp, r8\nxor ecx, ecx")
ACTION(copies, "lea rsi, [rdi + 0x0FF9]\nmov r8, rdi\nadd rdi, 0x300\nmov ecx, 20\nrep movsb\nmov rsi, r8\nlea rdi, [r8 + 0x0FFC]\nmov ecx, 5\n"
               "rep movsq\nlea rdi, [r8 + 0x0FE1]\nmov ecx, 30\nrep stosb\nmov rdi, r8\nlodsd\nstd\nlea rdi, [r8 + 0x400]\nmov ecx, 7\nrep stosw\n"
               "xor ecx, ecx\nadd ecx, 0")
ACTION(compares, "mov r8, rdi\nlea rsi, [rdi + 0x100]\nmov ecx, 30\nxor edx, edx\nrepe cmpsb\nmov rbx, rcx\nmov rdi, r8\nlea rsi, [r8 + 0x100]\nmov ecx, 7\n"
                 "repe cmpsd\nlea rbx, [rbx + rcx * 8]\nmov rdi, r8\nmov al, 0x30\nmov ecx, 0x200\nrepne scasb\nlea rbx, [rbx + rcx * 8]\nmov rdi, r8\nmov rax, [r8]\nscasq")
ACTION(ports, "mov edx, 0xE0\nmov rsi, rdi\nmov ecx, 5\nrep outsb\nin al, dx\nmovzx ebx, al\nmov r8, rdi\nadd rdi, 0x0FFE\nmov ecx, 6\nrep insb\nmov rdi, r8\n"
              "xor ecx, ecx\nadd ecx, 0")
ACTION(across, "mov word ptr [rdi + 0x0FFF], 0x7799\nmov ebx, [rdi + 0x0FFD]\nmov [rdi + 0x0FFB], rax\nadd dword ptr [rdi + 0x0FFE], 0x10203")
ACTION(wide, "mov rax, [rdi]\nmov rdx, [rdi + 8]\nmov rcx, 77\nlock cmpxchg16b [rdi]\nmov rax, 5\nlock cmpxchg8b [rdi + 16]\nmovbe rcx, [rdi]\nadd rbx, rcx")

static const struct { const char *name; action *act; } actions[] = {
    {"moves", moves}, {"arithmetic", arithmetic}, {"operations on one operand", single}, {"exchanges", exchanges}, {"bits", bits},
    {"shifts", shifts}, {"products", products}, {"conditions", conditions}, {"stack", stack}, {"copies", copies},
    {"comparisons", compares}, {"ports", ports}, {"across pages", across}, {"wide exchanges", wide},
};

static void fill(u8 *memory)
{
    volatile u64 *words = (u64 *)memory;
    for (u64 i = 0; i < SIZE / 8; i++)
        words[i] = i * 0x0107050311090D0F;
    for (int i = 0; i < 3; i++)
        words[0x100 / 8 + i] = words[i]; /* alike for a while, for comparisons */
}

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    char *line = (char *)(u64)information[4];
    set_up();
    while (*line)
        line++;
    int all = sizeof actions / sizeof *actions; /* the last, which KVM's emulator has not in whole, if the line ends with + */
    for (int i = 0; i < (line[-1] == '+' ? all : all - 1); i++) {
        int same = 1;
        fill(ram);
        fill(IO_MEMORY);
        struct outcome wanted = actions[i].act(ram), got = actions[i].act(IO_MEMORY);
        for (int at = 0; at < SIZE / 8; at++)
            same &= ((volatile u64 *)ram)[at] == ((volatile u64 *)IO_MEMORY)[at];
        check(same && wanted.a == got.a && wanted.b == got.b && wanted.flags == got.flags, actions[i].name);
    }
    return failures;
}
