"""Scenarios of one CPU: its local APIC, the 8259s' spurious interrupts, the keyboard controller, PCI."""

from __future__ import annotations

from .chip_scenarios import (
    APIC_BASE,
    CURRENT,
    DIVIDE,
    ESR,
    INITIAL,
    LVT_ERROR,
    LVT_LINT0,
    LVT_TIMER,
    SVR,
    TPR,
    initialize_pics,
    ipi,
    scenario,
    then_eoi,
    then_pic_eoi,
    us,
)
from .scripts import DELAY, HALT, LAPIC, READ_CR8, READ_MSR, TIMED, WINDOW, WRITE_CR8, WRITE_MSR, Script


@scenario("!0 40 =0 =f4240")
def a_one_shot_count_comes_once(s: Script) -> None:
    s.handler(0x40, then_eoi())
    s.apic(DIVIDE, 0xB)
    s.apic(LVT_TIMER, 0x40)
    s.apic(INITIAL, 1_000_000)
    s.op(HALT, 1)
    s.flush()
    s.load(LAPIC + CURRENT)
    s.load(LAPIC + INITIAL)
    s.op(TIMED, us(500))


@scenario("!0 40 40 40 =0")
def a_periodic_count_goes_on_until_it_is_0(s: Script) -> None:
    s.handler(0x40, then_eoi())
    s.apic(DIVIDE, 0xB)
    s.apic(LVT_TIMER, 0x20040)
    s.apic(INITIAL, 1_000_000)
    s.op(HALT, 1, 3)
    s.flush()
    s.apic(INITIAL, 0)
    s.load(LAPIC + CURRENT)


@scenario("=0")
def a_masked_count_is_lost(s: Script) -> None:
    s.handler(0x40, then_eoi())
    s.apic(DIVIDE, 0xB)
    s.apic(LVT_TIMER, 0x10040)
    s.apic(INITIAL, 100_000)
    s.op(DELAY, us(200))
    s.load(LAPIC + CURRENT)
    s.apic(LVT_TIMER, 0x40)
    s.window()


@scenario(
    "=0 =0 =20 =0 =80 !0 47 =20",
    qemu="it sends illegal vectors and takes them; it has no error interrupt",
    kernel=False,
)
def errors_show_behind_a_write_of_esr(s: Script) -> None:
    s.load(LAPIC + ESR)
    ipi(s, 0x0F)
    s.load(LAPIC + ESR)
    s.apic(ESR, 0)
    s.load(LAPIC + ESR)
    s.apic(ESR, 0)
    s.load(LAPIC + ESR)
    s.load(LAPIC + 0x3C0, 0)
    s.apic(ESR, 0)
    s.load(LAPIC + ESR)
    s.handler(0x47, then_eoi())
    s.apic(LVT_ERROR, 0x47)
    ipi(s, 0x03)
    s.window()
    s.apic(ESR, 0)
    s.load(LAPIC + ESR)


@scenario("=10700 =0 !0 40 =10700", qemu="it masks nothing and takes interrupts")
def a_local_apic_off_by_software_masks_its_table_and_keeps_requests(s: Script) -> None:
    s.handler(0x40, then_eoi())
    ipi(s, 0x40)
    s.apic(LVT_LINT0, 0x700)
    s.apic(SVR, 0xFF)
    s.apic(LVT_LINT0, 0x700)
    s.load(LAPIC + LVT_LINT0)
    ipi(s, 0x41)
    s.load(LAPIC + 0x220, 2)
    s.apic(SVR, 0x1FF)
    s.window()
    s.load(LAPIC + LVT_LINT0)


@scenario("=fa0d =fa0d =fa0d =fee00900", qemu="it checks nothing")
def an_apic_base_that_is_none_faults(s: Script) -> None:
    for value in (0xFEE00901, 0xFEE00A00, 0xFEE00500):
        s.op(WRITE_MSR, APIC_BASE, value)
    s.op(READ_MSR, APIC_BASE, ~0)


@scenario("!0 50 40 =0")
def cr8_is_the_upper_half_of_tpr(s: Script) -> None:
    s.handler(0x40, then_eoi())
    s.handler(0x50, then_eoi())
    s.op(WRITE_CR8, 0, 5)
    ipi(s, 0x50)
    ipi(s, 0x40)
    s.window()
    s.op(WRITE_CR8, 0, 4)
    s.op(WINDOW, 4)
    s.op(WRITE_CR8, 0, 3)
    s.window()
    s.apic(TPR, 0)
    s.op(READ_CR8)


@scenario("=4 =0 !0 2f =0")
def a_level_that_falls_early_is_spurious_at_the_slave_and_nothing_at_the_master(s: Script) -> None:
    initialize_pics(s, 0xFB, 0xBF)
    s.apic(LVT_LINT0, 0x700)
    handler = Script()
    handler.out(0x20, 0x20)  # the slave has nothing in service
    s.handler(0x2F, handler)
    s.out(0x4D1, 0x40)
    s.line(14, 1)
    s.line(14, 0)
    for port in (0x20, 0xA0):
        s.out(port, 0x0A)
        s.inp(port)
    s.window()
    initialize_pics(s, 0xDF)
    s.out(0x4D0, 0x20)
    s.line(5, 1)
    s.line(5, 0)
    s.window()
    s.out(0x20, 0x0B)
    s.inp(0x20)


@scenario("!0 25", qemu="its 8259 is not on the IOAPIC", kernel=False)
def the_8259_is_on_pin_0_of_the_ioapic(s: Script) -> None:
    initialize_pics(s, 0xDF)
    s.redirect(0, 0x700)
    s.handler(0x25, then_pic_eoi(0x25))
    s.line(5, 1)
    s.window()


@scenario("=55 =0 =4 =64 =7e =1 =fa =1 =ee =0 =fa =ab =41 =fa =aa")
def the_keyboard_controller_answers(s: Script) -> None:
    for command in (0xAA, 0xAB):
        s.out(0x64, command)
        s.inp(0x60)
    s.inp(0x64, 0x05)
    s.out(0x64, 0x60)
    s.out(0x60, 0x64)
    s.out(0x64, 0x20)
    s.inp(0x60)
    s.out(0x64, 0xD2)
    s.out(0x60, 0x7E)
    s.inp(0x60)
    s.out(0x64, 0xAE)
    s.out(0x60, 0xF5)
    s.inp(0x64, 1)
    s.inp(0x60)
    s.out(0x60, 0xEE)
    s.inp(0x64, 1)
    s.inp(0x60)
    s.inp(0x64, 1)
    s.out(0x60, 0xF2)
    for _ in range(3):
        s.inp(0x60)
    s.out(0x60, 0xFF)
    for _ in range(2):
        s.inp(0x60)
    s.out(0x64, 0xAD)


@scenario("!0 41:1:ee/41 !0 41:1:33/41")
def the_keyboard_interrupts_on_line_1(s: Script) -> None:
    s.redirect(1, 0x41)
    s.handler(0x41, then_eoi(lambda e: (e.inp(0x64, 1), e.inp(0x60))))
    s.out(0x64, 0x60)
    s.out(0x60, 0x65)
    s.out(0x64, 0xAE)
    s.out(0x60, 0xEE)
    s.window()
    s.out(0x64, 0xD2)
    s.out(0x60, 0x33)
    s.window()
    s.out(0x64, 0xAD)
    s.out(0x64, 0x60)
    s.out(0x60, 0x64)


@scenario("=12378086 =1237 =ffffffff =ffff =ff =ffffffff =ffffffff =80000000")
def an_empty_pci_slot_answers_all_ones(s: Script) -> None:
    s.out(0xCF8, 0x80000000, size=4)
    s.inp(0xCFC, size=4)
    s.inp(0xCFE, size=2)
    s.out(0xCF8, 0x80000000 | 31 << 11, size=4)
    s.inp(0xCFC, size=4)
    s.inp(0xCFC, size=2)
    s.inp(0xCFF, size=1)
    s.out(0xCF8, 0x80FF0000, size=4)
    s.inp(0xCFC, size=4)
    s.out(0xCF8, 0, size=4)
    s.inp(0xCFC, size=4)
    s.out(0xCF8, 0x80000000, size=4)
    s.out(0xCF8, 0x12)
    s.inp(0xCF8, size=4)
