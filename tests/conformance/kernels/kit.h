/* What the kernels of these tests share: console, exit, firmware configuration, local APICs, interrupts, other CPUs. */

#pragma once

#include "basics.h"

typedef void handler(struct frame *frame);

int main(void);
void finish(int status);
void put(const char *text);
void put_number(u64 value);
void check(int good, const char *what);
void handle(int vector, handler *handler);
void set_up(void);
u64 firmware(u16 item, int bytes);
int start_others(void);
void use_x2apic(void);
u32 apic_id(void);
u32 apic_read(u32 offset);
void apic_write(u32 offset, u32 value);
void send(u32 command, u32 destination);
void on_cpu(int cpu, void (*function)(u64), u64 argument);
void on_cpu_async(int cpu, void (*function)(u64), u64 argument);
void handle_directly(int vector, char *entry, int dpl);
void set_up_user(void);
u64 call_at(int cpl, u64 (*function)(u64), u64 argument);
int faults(void (*function)(u64), u64 argument);

extern u32 boot_information[2];
extern volatile int failures, online;
extern u64 page_root[512];
extern u64 user_flags;
extern u32 task_state[26];
extern u8 user_stack[8192];
extern char way_back[], end_of_kernel[], trampoline[], trampoline_end[], vectors[];

/* Offsets in the local APIC's page (SDM 3A table 11-1). */
enum {
    APIC_ID = 0x20, APIC_VERSION = 0x30, APIC_TPR = 0x80, APIC_EOI = 0xB0, APIC_SPURIOUS = 0xF0, APIC_ISR = 0x100,
    APIC_TMR = 0x180, APIC_ICR = 0x300, APIC_ICR_HIGH = 0x310, APIC_LVT_TIMER = 0x320, APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390, APIC_DIVIDE = 0x3E0,
};

/* ICR (SDM 3A 11.6.1). */
enum {
    FIXED = 0, NMI = 4 << 8, INIT = 5 << 8, START_UP = 6 << 8, ASSERT = 1 << 14, SELF = 1 << 18, ALL = 2 << 18,
    OTHERS = 3 << 18,
};

enum { IA32_TSC = 0x10, IA32_APIC_BASE = 0x1B, IA32_TSC_ADJUST = 0x3B, IA32_TSC_DEADLINE = 0x6E0 };
