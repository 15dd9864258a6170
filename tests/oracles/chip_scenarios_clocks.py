"""Scenarios of one CPU: where the 8254, the RTC and the HPET arrive."""

from __future__ import annotations

from .chip_scenarios import DIVIDE, INITIAL, LVT_LINT0, LVT_TIMER, initialize_pics, scenario, then_eoi, then_pic_eoi, us
from .scripts import HALT, HPET, RATIO, TIMED, Script


@scenario("!0 40 40 40 40 40")
def the_8254_reaches_the_ioapic_on_pin_2(s: Script) -> None:
    s.handler(0x40, then_eoi())
    s.redirect(2, 0x40)
    s.out(0x43, 0x34)
    s.out(0x40, 0, 0x10)
    s.op(HALT, 1, 5)


@scenario("!0 20 20 20 20 20")
def the_8254_reaches_lint0_through_the_8259(s: Script) -> None:
    initialize_pics(s, 0xFE)
    s.handler(0x20, then_pic_eoi(0x20))
    s.apic(LVT_LINT0, 0x700)
    s.out(0x43, 0x34)
    s.out(0x40, 0, 0x10)
    s.op(HALT, 1, 5)
    s.out(0x21, 0xFF)


@scenario("=1 !0 20")
def a_masked_lint0_holds_the_8259_back(s: Script) -> None:
    initialize_pics(s, 0xFE)
    s.handler(0x20, then_pic_eoi(0x20))
    s.out(0x43, 0x30)
    s.out(0x40, 0, 1)
    s.op(TIMED, max(us(500), s.pace))
    s.flush()
    s.out(0x20, 0x0A)
    s.inp(0x20, 1)
    s.apic(LVT_LINT0, 0x700)
    s.window()


def take_from_8259(handler: Script) -> None:
    """By polling, as LINT0 gives no vector unless it is ExtINT."""
    handler.out(0x20, 0x0C)
    handler.inp(0x20)
    handler.out(0x20, 0x20)


@scenario("!0 51:80/51 51:80/51", qemu="it takes ExtINT besides", kernel=False)
def lint0_can_be_fixed(s: Script) -> None:
    initialize_pics(s, 0xFE)
    s.handler(0x51, then_eoi(take_from_8259))
    s.apic(LVT_LINT0, 0x51)
    s.out(0x43, 0x34)
    s.out(0x40, 0, 0x10)
    s.op(HALT, 1, 2)
    s.out(0x21, 0xFF)


@scenario("!0 2:80/2", kernel=False)
def lint0_can_be_an_nmi(s: Script) -> None:
    initialize_pics(s, 0xFE)
    handler = Script()
    take_from_8259(handler)
    s.handler(2, handler)
    s.apic(LVT_LINT0, 0x400)
    s.out(0x43, 0x30)
    s.out(0x40, 0, 0x20)
    s.op(HALT, 0)
    s.out(0x21, 0xFF)


@scenario("!0 28:c0/28 28:c0/28 28:c0/28")
def the_rtc_reaches_the_slave_8259(s: Script) -> None:
    initialize_pics(s, 0xFB, 0xFE)
    s.apic(LVT_LINT0, 0x700)
    handler = Script()
    handler.out(0x70, 0x0C)
    handler.inp(0x71, 0xC0)
    handler.out(0xA0, 0x20)
    handler.out(0x20, 0x20)
    s.handler(0x28, handler)
    rtc_ticks(s, 0x28)
    s.op(HALT, 1, 3)
    s.out(0x70, 0x0B)
    s.out(0x71, 2)


def rtc_ticks(s: Script, rate: int) -> None:
    """Forget what was, then interrupt periodically."""
    for register, value in ((0x0A, rate), (0x0B, 0x42)):
        s.out(0x70, 0x0C)
        s.silent_in(0x71)
        s.out(0x70, register)
        s.out(0x71, value)


@scenario("!0 48:c0/48 48:c0/48 48:c0/48")
def the_rtc_reaches_the_ioapic_on_pin_8(s: Script) -> None:
    s.handler(0x48, then_eoi(lambda e: (e.out(0x70, 0x0C), e.inp(0x71, 0xC0))))
    s.redirect(8, 0x48)
    rtc_ticks(s, 0x28)
    s.op(HALT, 1, 3)
    s.out(0x70, 0x0B)
    s.out(0x71, 2)


@scenario("!0 48 =c0 !0 48", qemu="a line that is up can rise there")
def the_rtc_waits_until_register_c_is_read(s: Script) -> None:
    s.handler(0x48, then_eoi())
    s.redirect(8, 0x48)
    rtc_ticks(s, 0x23)
    s.op(HALT, 1)
    s.op(TIMED, us(400))
    s.flush()
    s.out(0x70, 0x0C)
    s.inp(0x71, 0xC0)
    s.op(HALT, 1)
    s.flush()
    s.out(0x70, 0x0B)
    s.out(0x71, 2)


def rollover(b: int, before: str, after: str) -> None:
    """February ends in a leap year, in one of the four formats."""

    def write(s: Script) -> None:
        def encode(value: int) -> int:
            return value if b & 4 else value // 10 << 4 | value % 10

        s.out(0x70, 0x0A)
        s.out(0x71, 0x26)
        s.out(0x70, 0x0B)
        s.out(0x71, 0x80 | b)
        registers = ((0, 59), (2, 59), (4, 23 if b & 2 else 11), (6, 7), (7, 28), (8, 2), (9, 4), (0x32, 20))
        for index, value in registers:
            s.out(0x70, index)
            s.out(0x71, encode(value) | (0x80 if index == 4 and not b & 2 else 0))
        read_time(s)
        s.out(0x70, 0x0C)
        s.silent_in(0x71)
        s.handler(0x48, then_eoi())
        s.redirect(8, 0x48)
        s.out(0x70, 0x0B)
        s.out(0x71, b | 0x10)
        s.op(HALT, 1)
        s.flush()
        read_time(s)
        s.out(0x70, 0x0C)
        s.inp(0x71, 0x90)
        s.out(0x70, 0x0B)
        s.out(0x71, 2)

    write.__name__ = f"the_rtc_goes_on_to_the_29th_of_february_in_format_{b}"
    scenario(f"{before} !0 48 {after} =90", kernel=False)(write)


def read_time(s: Script) -> None:
    """All registers of the calendar."""
    for index in (0, 2, 4, 6, 7, 8, 9, 0x32):
        s.out(0x70, index)
        s.inp(0x71)


rollover(0, "=59 =59 =91 =7 =28 =2 =4 =20", "=0 =0 =12 =1 =29 =2 =4 =20")
rollover(6, "=3b =3b =17 =7 =1c =2 =4 =14", "=0 =0 =0 =1 =1d =2 =4 =14")


@scenario("!0 48:a0/48 =59", kernel=False)
def the_rtc_alarm_matches_with_wildcards(s: Script) -> None:
    s.handler(0x48, then_eoi(lambda e: (e.out(0x70, 0x0C), e.inp(0x71, 0xA0))))
    s.redirect(8, 0x48)
    s.out(0x70, 0x0B)
    s.out(0x71, 0x82)
    for index, value in ((0, 0x58), (2, 0x10), (4, 0x12), (1, 0x59), (3, 0xFF), (5, 0xC0)):
        s.out(0x70, index)
        s.out(0x71, value)
    s.out(0x70, 0x0C)
    s.silent_in(0x71)
    s.out(0x70, 0x0B)
    s.out(0x71, 0x22)
    s.op(HALT, 1)
    s.flush()
    s.out(0x70, 0)
    s.inp(0x71)
    s.out(0x70, 0x0B)
    s.out(0x71, 2)


@scenario("!0 40 48")
def a_replacing_hpet_is_on_pins_2_and_8(s: Script) -> None:
    s.store(HPET + 0xF0, 0)
    s.store(HPET + 0xF4, 0)
    for number, ticks in ((0, 3_000_000), (1, 4_000_000)):
        s.store(HPET + 0x100 + 0x20 * number, 4)
        s.store(HPET + 0x108 + 0x20 * number, ticks)
        s.store(HPET + 0x10C + 0x20 * number, 0)
    s.handler(0x40, then_eoi())
    s.handler(0x48, then_eoi())
    s.store(HPET + 0x10, 3)
    s.redirect(2, 0x40)
    s.redirect(8, 0x48)
    s.op(HALT, 1, 2)
    s.flush()
    s.store(HPET + 0x10, 0)
    s.store(HPET + 0x100, 0)
    s.store(HPET + 0x120, 0)


@scenario("!0 40 40 40")
def a_replacing_hpet_ticks(s: Script) -> None:
    s.redirect(2, 0x40)
    s.handler(0x40, then_eoi())
    s.store(HPET + 0xF0, 0)
    s.store(HPET + 0xF4, 0)
    s.store(HPET + 0x100, 0x4C)
    s.store(HPET + 0x108, 50_000)
    s.store(HPET + 0x108, 50_000)
    s.store(HPET + 0x10, 3)
    s.op(HALT, 1, 3)
    s.flush()
    s.store(HPET + 0x10, 0)
    s.store(HPET + 0x100, 0)


@scenario("=12345678 =9abc =1111 =0 =777 =777 =2222 =1 =777 =777 =3333 =2 =777 =777 =2 =0")
def an_hpet_keeps_what_is_written_while_it_stands(s: Script) -> None:
    s.store(HPET + 0xF0, 0x12345678)
    s.store(HPET + 0xF4, 0x9ABC)
    s.load(HPET + 0xF0)
    s.load(HPET + 0xF4)
    for number in range(3):
        at = HPET + 0x100 + 0x20 * number
        s.store(at, 0)
        s.store(at + 8, 0x1111 * (number + 1))
        s.store(at + 12, number)
        s.load(at + 8)
        s.load(at + 12)
        s.store(at, 0x4C)
        for value in (0x777, 0x55):
            s.store(at + 8, value)
            s.load(at + 8)
        s.store(at, 0)
    s.store(HPET + 0x10, 0xFFFFFFFE)
    s.load(HPET + 0x10)
    s.store(HPET + 0x10, 0)
    s.load(HPET + 0x20)


PM_HZ, HPET_HZ, APIC_HZ, PIT_HZ = 3_579_545, 100_000_000, 1_000_000_000, 1_193_182
PM_CLOCK, _, APIC_CLOCK, HPET_CLOCK, PIT_CLOCK, SPEAKER_CLOCK = range(6)
"""As kernels/script.c numbers them."""


@scenario("=1 =1 =1 =1 =1 =1")
def all_clocks_agree(s: Script) -> None:
    s.apic(DIVIDE, 0xB)
    s.apic(LVT_TIMER, 0x10040)
    s.apic(INITIAL, 0xFFFFFFFF)
    s.store(HPET + 0x10, 1)
    s.out(0x43, 0x34)
    s.out(0x40, 0, 0)
    s.out(0x61, 1)
    s.out(0x43, 0xB4)
    s.out(0x42, 0, 0)
    for clock, hz in ((HPET_CLOCK, HPET_HZ), (APIC_CLOCK, APIC_HZ), (PIT_CLOCK, PIT_HZ), (SPEAKER_CLOCK, PIT_HZ)):
        agree(s, clock, hz)
    for divide, by in ((0x0, 2), (0xA, 128)):
        s.apic(DIVIDE, divide)
        agree(s, APIC_CLOCK, APIC_HZ // by)
    s.apic(INITIAL, 0)
    s.store(HPET + 0x10, 0)
    s.out(0x61, 0)


def agree(s: Script, clock: int, hz: int) -> None:
    """A clock with the ACPI timer."""
    s.op(RATIO, clock | PM_CLOCK << 8, us(500) << 32 | hz * 1000 // PM_HZ)
