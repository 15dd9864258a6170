/* Firmware configuration, command line, all CPUs by one broadcast, interprocessor interrupts in x2APIC and xAPIC mode. */

#include "kit.h"

static volatile u32 seen[16];
static volatile u64 total;

static void tell(u64 argument) { seen[argument] = apic_id() + 1; }
static void add(u64 argument)
{
    for (int i = 0; i < 1000; i++)
        asm volatile("lock add %0, %1" : "+m"(total) : "r"(argument));
}

int main(void)
{
    u32 *information = (u32 *)(u64)boot_information[0];
    set_up();
    put("line ");
    put((char *)(u64)information[4]);
    put("\n");
    put("memory ");
    put_number(firmware(3, 8));
    put(" upper ");
    put_number(information[2]);
    put(" signature ");
    put_number(firmware(0, 4));
    put("\n");
    int cpus = start_others();
    check(cpus == firmware(15, 2), "as many CPUs as there may be");
    for (int cpu = 1; cpu < cpus; cpu++)
        on_cpu(cpu, tell, cpu);
    int right = 1;
    for (int cpu = 1; cpu < cpus; cpu++)
        right &= seen[cpu] == cpu + 1;
    check(right, "each CPU where it was called");
    for (int round = 0; round < 20; round++)
        for (int cpu = 1; cpu < cpus; cpu++)
            on_cpu(cpu, add, cpu);
    check(total == 20000ul * (cpus - 1) * cpus / 2, "all of them added");
    put("cpus ");
    put_number(cpus);
    put("\n");
    return failures;
}
