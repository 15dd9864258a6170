/* The processor as C knows it: numbers, what boot.S leaves of an interrupt, gates, single instructions. */

#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

struct frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error, rip, cs, rflags, rsp, ss;
};

struct gate {
    u16 low, selector, kind, middle;
    u32 high, reserved;
};

#define IDT ((volatile struct gate *)0)

static inline u8 in8(u16 port) { u8 value; asm volatile("in %0, %1" : "=a"(value) : "Nd"(port)); return value; }
static inline u16 in16(u16 port) { u16 value; asm volatile("in %0, %1" : "=a"(value) : "Nd"(port)); return value; }
static inline u32 in32(u16 port) { u32 value; asm volatile("in %0, %1" : "=a"(value) : "Nd"(port)); return value; }
static inline void out8(u16 port, u8 value) { asm volatile("out %1, %0" : : "a"(value), "Nd"(port) : "memory"); }
static inline void out16(u16 port, u16 value) { asm volatile("out %1, %0" : : "a"(value), "Nd"(port) : "memory"); }
static inline void out32(u16 port, u32 value) { asm volatile("out %1, %0" : : "a"(value), "Nd"(port) : "memory"); }
static inline void relax(void) { asm volatile("pause" : : : "memory"); }

/* For hosts that emulate CPL 0 and look for interrupts only at an exit; others need none of it. */
static inline void chance(void)
{
    in8(0x80);
    in8(0x80);
}

static inline void interrupts_on(void) { asm volatile("sti; nop" : : : "memory"); }
static inline void interrupts_off(void) { asm volatile("cli" : : : "memory"); }

static inline u64 rdmsr(u32 msr)
{
    u32 low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return low | (u64)high << 32;
}

static inline void wrmsr(u32 msr, u64 value)
{
    asm volatile("wrmsr" : : "a"((u32)value), "d"((u32)(value >> 32)), "c"(msr) : "memory");
}

static inline u64 rdtsc(void)
{
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return low | (u64)high << 32;
}

struct cpuid { u32 a, b, c, d; };

static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
    struct cpuid found;
    asm volatile("cpuid" : "=a"(found.a), "=b"(found.b), "=c"(found.c), "=d"(found.d) : "0"(leaf), "2"(subleaf));
    return found;
}

static inline u64 cr3(void) { u64 value; asm volatile("mov %0, cr3" : "=r"(value)); return value; }
static inline void set_cr3(u64 value) { asm volatile("mov cr3, %0" : : "r"(value) : "memory"); }
static inline u64 cr8(void) { u64 value; asm volatile("mov %0, cr8" : "=r"(value)); return value; }
static inline void set_cr8(u64 value) { asm volatile("mov cr8, %0" : : "r"(value) : "memory"); }
