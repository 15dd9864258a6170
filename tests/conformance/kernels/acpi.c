/* ACPI's tables as kernels find them, what they say of this machine, and the fixed hardware whose ports they name. */

#include "kit.h"

#define RSDP_SIGNATURE 0x2052545020445352ul
#define PIN_SELECT (*(volatile u32 *)0xFEC00000)
#define PIN_WINDOW (*(volatile u32 *)0xFEC00010)
#define SCI_VECTOR 0x51

static u16 u16_at(const u8 *at) { return at[0] | at[1] << 8; }
static u32 u32_at(const u8 *at) { return u16_at(at) | (u32)u16_at(at + 2) << 16; }

static int sums_to_zero(const u8 *at, u32 size)
{
    u8 sum = 0;
    while (size--)
        sum += *at++;
    return !sum;
}

static u32 named(const char *name) { return u32_at((const u8 *)name); }

static u8 *root;

static u8 *table(const char *name)
{
    for (u32 at = 36; at < u32_at(root + 4); at += 4) {
        u8 *found = (u8 *)(u64)u32_at(root + at);
        if (u32_at(found) == named(name))
            return sums_to_zero(found, u32_at(found + 4)) ? found : 0;
    }
    return 0;
}

static void processors(const u8 *madt)
{
    u32 cpus = 0, ioapics = 0;
    for (u32 at = 44; at < u32_at(madt + 4); at += madt[at + 1]) {
        cpus += madt[at] == 0 && madt[at + 3] == cpus && madt[at + 4] & 1;
        ioapics += madt[at] == 1 && u32_at(madt + at + 4) == 0xFEC00000;
    }
    check(cpus == firmware(5, 2) && ioapics == 1, "MADT: the CPUs and the IOAPIC");
    check(u32_at(madt + 36) == 0xFEE00000, "where the local APICs are");
}

static volatile int interrupts;
static u16 event_port;

static void sci(struct frame *frame)
{
    interrupts++;
    out16(event_port, 1);
    apic_write(APIC_EOI, 0);
}

static void timer_event(u16 timer_port)
{
    handle(SCI_VECTOR, sci);
    PIN_SELECT = 0x10 + 2 * 9 + 1;
    PIN_WINDOW = 0;
    PIN_SELECT = 0x10 + 2 * 9;
    PIN_WINDOW = SCI_VECTOR | 1 << 15; /* level-triggered */
    out16(event_port, 0xFFFF);
    check(!(in16(event_port) & 1), "an event that is cleared");
    out16(event_port + 2, 1);
    check(in16(event_port + 2) == 1, "and enabled");
    u32 before = in32(timer_port) >> 23;
    asm volatile("sti; hlt; cli");
    check(interrupts == 1 && (in32(timer_port) >> 23) != before, "an interrupt as the timer's highest bit changes");
    out16(event_port + 2, 0);
}

int main(void)
{
    const u8 *at = (const u8 *)0xE0000;
    set_up();
    while (at < (const u8 *)0x100000 && *(const u64 *)at != RSDP_SIGNATURE)
        at += 16;
    check(at < (const u8 *)0x100000, "an RSDP below 1 MiB");
    check(sums_to_zero(at, 20) && sums_to_zero(at, u32_at(at + 20)), "its sums");
    root = (u8 *)(u64)u32_at(at + 16);
    check(u32_at(root) == named("RSDT") && sums_to_zero(root, u32_at(root + 4)), "RSDT");
    const u8 *fadt = table("FACP"), *madt = table("APIC"), *hpet = table("HPET");
    if (!fadt || !madt || !hpet) {
        check(0, "FADT, MADT, HPET");
        return failures;
    }
    const u8 *facs = (const u8 *)(u64)u32_at(fadt + 36), *dsdt = (const u8 *)(u64)u32_at(fadt + 40);
    check(u32_at(facs) == named("FACS") && u32_at(facs + 4) == 64 && !((u64)facs & 63), "FACS");
    check(u32_at(dsdt) == named("DSDT") && sums_to_zero(dsdt, u32_at(dsdt + 4)), "DSDT");
    processors(madt);
    check(*(volatile u32 *)(u64)u32_at(hpet + 44) == u32_at(hpet + 36), "the HPET that its table tells of");
    u16 timer_port = u32_at(fadt + 76), control_port = u32_at(fadt + 64);
    event_port = u32_at(fadt + 56);
    u32 first = in32(timer_port);
    for (int i = 0; i < 10000 && in32(timer_port) == first; i++)
        ;
    check(in32(timer_port) != first && in32(timer_port) < 1 << 24, "a timer of 24 bits that counts");
    check(in16(control_port) & 1, "ACPI mode");
    timer_event(timer_port);
    put("off\n");
    out16(control_port, dsdt[36 + 10] << 10 | 1 << 13);
    check(0, "switched off");
    return failures;
}
