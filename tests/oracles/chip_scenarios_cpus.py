"""Scenarios of four CPUs: interprocessor interrupts, starts, halts."""

from __future__ import annotations

from .chip_scenarios import APIC_BASE, EOI, ICR, ICR_HIGH, LDR, SVR, TPR, scenario, then_eoi
from .scripts import HALT, JOIN, LAPIC, READ_MSR, START, WAIT, Script


@scenario("=1 =1 =1 =1 =fee00900 =fee00800", cpus=4)
def a_second_start_up_ipi_is_not_heard(s: Script) -> None:
    s.apic(ICR, 0xC4608)
    s.rest()
    for cpu in range(1, 4):
        s.op(START, cpu=cpu)
    s.apic(ICR_HIGH, 1 << 24)
    s.apic(ICR, 0x8500)  # INIT level de-assert
    s.rest()
    s.op(START, cpu=1)
    s.op(READ_MSR, APIC_BASE, ~0)
    s.op(READ_MSR, APIC_BASE, ~0, cpu=3)


@scenario("!0 40 !0 41 !1 41 !2 41 !3 41 !1 42 !2 42 !3 42 !2 40 !0 41 !1 41 !2 41 !3 41 !0 42 !1 42 !3 42", cpus=4)
def shorthands_mean_oneself_all_and_others(s: Script) -> None:
    for vector in (0x40, 0x41, 0x42):
        s.handler(vector, then_eoi())
    for sender in (0, 2):
        for shorthand, vector in ((0x40000, 0x40), (0x80000, 0x41), (0xC0000, 0x42)):
            s.apic(ICR, 0x4000 | shorthand | vector, cpu=sender)
            s.rest()
            for cpu in range(4):
                s.window(cpu=cpu)


@scenario("!2 40 !3 40", cpus=4, qemu="it takes the first", kernel=False)
def the_lowest_priority_is_the_least_busy_cpus(s: Script) -> None:
    s.handler(0x40, then_eoi())
    for cpu, priority in enumerate((0x80, 0x70, 0x10, 0x60)):
        s.apic(TPR, priority, cpu=cpu)
    s.apic(ICR_HIGH, 0xF << 24)
    s.apic(ICR, 0x4940)
    for cpu in range(4):
        s.apic(TPR, 0, cpu=cpu)
        s.window(cpu=cpu)
    s.redirect(5, 0x940, 0x0E)
    s.apic(TPR, 0x10, cpu=1)
    s.apic(TPR, 0x20, cpu=2)
    s.line(5, 1)
    s.line(5, 0)
    for cpu in range(4):
        s.apic(TPR, 0, cpu=cpu)
        s.window(cpu=cpu)


@scenario("!3 61 =c061 =c061 !3 61 =8061", cpus=4, kernel=False)
def a_level_is_another_cpus_until_it_ends_it(s: Script) -> None:
    s.redirect(10, 0x18000)
    s.redirect(10, 0x8061, 3)
    s.line(10, 1)
    s.rest()
    s.window(cpu=3)
    s.entry(10)
    s.window(cpu=3)
    s.apic(EOI, 0, cpu=3)
    s.entry(10)
    s.window(cpu=3)
    s.line(10, 0)
    s.apic(EOI, 0, cpu=3)
    s.entry(10)
    s.window(cpu=3)


@scenario("=1 !1 2", cpus=4)
def an_nmi_ends_a_halt_without_interrupts(s: Script) -> None:
    s.op(HALT, 0, 1, cpu=1, later=True)
    s.rest()
    s.apic(ICR_HIGH, 1 << 24)
    s.apic(ICR, 0x4400)
    s.op(JOIN, cpu=1)


@scenario("=1 !1 2 !1 40", cpus=4)
def an_interrupt_does_not(s: Script) -> None:
    s.handler(0x40, then_eoi())
    s.op(HALT, 0, 1, cpu=1, later=True)
    s.rest()
    s.apic(ICR_HIGH, 1 << 24)
    s.apic(ICR, 0x4040)
    s.rest()
    s.flush()
    s.apic(ICR, 0x4400)
    s.op(JOIN, cpu=1)
    s.flush()
    s.window(cpu=1)


@scenario("=1 !2 40", cpus=4)
def an_ipi_ends_a_halt(s: Script) -> None:
    s.handler(0x40, then_eoi())
    s.op(HALT, 1, 1, cpu=2, later=True)
    s.rest()
    s.apic(ICR_HIGH, 2 << 24)
    s.apic(ICR, 0x4040)
    s.op(JOIN, cpu=2)


@scenario("=1 =2 =0 =ff =0 =2", cpus=4)
def init_stops_a_cpu_and_resets_its_apic(s: Script) -> None:
    s.apic(TPR, 0x55, cpu=2)
    s.apic(ICR_HIGH, 2 << 24)
    s.apic(ICR, 0x4500)
    s.rest()
    s.op(START, cpu=2)
    s.apic(ICR, 0x4608)
    s.op(WAIT, 0, 2, cpu=2)
    for register in (TPR, SVR, LDR):
        s.load(LAPIC + register, cpu=2)
    s.op(HALT, 0, cpu=3, later=True)
    s.rest()
    s.apic(ICR_HIGH, 3 << 24)
    s.apic(ICR, 0x4500)
    s.rest()
    s.apic(ICR, 0x4608)
    s.op(WAIT, 0, 2, cpu=3)
