"""ACPI's PM1 registers: events, the interrupt that they raise, sleep states."""

from __future__ import annotations

import pytest

from belljar.devices.clock import InstructionClock
from belljar.devices.pm1 import INIT_BOOTSTRAP, INIT_BROADCAST, RTC, TIMER, WAKE, Pm1
from belljar.devices.pm_timer import PmTimer
from devices.pc import Pc

STATUS, ENABLE, CONTROL = 0x600, 0x602, 0x604
SUSPEND, SOFT_OFF, SLEEP = 1 << 10, 0 << 10, 1 << 13


class Registers:
    """The registers, and what they did."""

    def __init__(self, *, firmware: bool = True) -> None:
        self.clock = InstructionClock()
        self.timer = PmTimer(self.clock)
        self.did: list[object] = []
        send = (lambda gpa, data: self.did.append((gpa, data))) if firmware else None
        self.pm1 = Pm1(self.clock, self.timer, self.did.append, lambda: self.did.append("off"), send)

    def read(self, port: int, size: int = 2) -> int:
        """IN."""
        return self.pm1.port_read(port, size)

    def write(self, port: int, value: int, size: int = 2) -> None:
        """OUT."""
        self.pm1.port_write(port, size, value)


def test_an_event_raises_the_line_until_it_is_cleared() -> None:
    pc = Registers()
    pc.write(ENABLE, TIMER)
    change_ns = pc.timer.next_change_ns()
    pc.clock.advance_to(change_ns - 1)
    assert pc.did == []
    pc.clock.advance(1)
    assert pc.did == [True]
    assert pc.read(STATUS) == TIMER
    pc.write(STATUS, 0)
    assert pc.did == [True]
    pc.write(STATUS, TIMER)
    assert (pc.did, pc.read(STATUS)) == ([True, False], 0)
    pc.clock.advance_to(pc.timer.next_change_ns())
    assert pc.did == [True, False, True]


def test_an_event_that_is_not_enabled_is_remembered() -> None:
    pc = Registers()
    pc.clock.advance_to(pc.timer.next_change_ns())
    assert (pc.read(STATUS), pc.did) == (TIMER, [])
    pc.write(ENABLE, TIMER)
    assert pc.did == [True]


def test_bytes_are_halves_of_registers() -> None:
    pc = Registers()
    pc.write(ENABLE + 1, RTC >> 8, 1)
    pc.write(ENABLE, TIMER, 1)
    assert (pc.read(ENABLE), pc.read(ENABLE + 1, 1)) == (RTC | TIMER, RTC >> 8)
    pc.write(ENABLE, 0xFFFF)
    assert pc.read(ENABLE) == 0x721
    pc.write(CONTROL, 0xFFFF & ~SLEEP)
    assert pc.read(CONTROL) == 0x1C03
    assert pc.did == []


def test_soft_off() -> None:
    pc = Registers()
    pc.write(CONTROL, SOFT_OFF)
    assert pc.did == []
    pc.write(CONTROL, SOFT_OFF | SLEEP)
    assert pc.did == ["off"]


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 6, 7])
def test_other_sleep_states_do_nothing(kind: int) -> None:
    pc = Registers()
    pc.write(CONTROL, kind << 10 | SLEEP)
    assert pc.did == []


def test_an_alarm_wakes_from_suspension_and_says_so() -> None:
    pc = Registers()
    pc.write(ENABLE, RTC)
    assert pc.pm1.wakes_by_alarm() == []
    pc.write(CONTROL, SUSPEND | SLEEP)
    assert pc.did == [INIT_BROADCAST, INIT_BOOTSTRAP]
    assert pc.pm1.wakes_by_alarm() == [INIT_BOOTSTRAP]
    pc.did.clear()
    pc.pm1.alarm()
    assert pc.did == [INIT_BOOTSTRAP, True]
    assert pc.read(STATUS) == RTC | WAKE
    pc.write(STATUS, RTC | WAKE)
    assert (pc.read(STATUS), pc.did[-1]) == (0, False)


def test_an_alarm_that_is_not_enabled_wakes_nobody() -> None:
    pc = Registers()
    pc.write(CONTROL, SUSPEND | SLEEP)
    pc.did.clear()
    pc.pm1.alarm()
    assert (pc.did, pc.pm1.wakes_by_alarm()) == ([], [])


def test_an_alarm_that_went_off_before_wakes_at_once() -> None:
    pc = Registers()
    pc.write(ENABLE, RTC)
    pc.pm1.alarm()
    pc.did.clear()
    pc.write(CONTROL, SUSPEND | SLEEP)
    assert pc.did == [INIT_BROADCAST, INIT_BOOTSTRAP, INIT_BOOTSTRAP]


def test_without_firmware_there_is_no_suspension() -> None:
    pc = Registers(firmware=False)
    pc.write(ENABLE, RTC)
    pc.write(CONTROL, SUSPEND | SLEEP)
    pc.pm1.alarm()
    assert (pc.did, pc.read(STATUS)) == ([True], RTC)


def test_state_goes_to_another_machine() -> None:
    pc, other = Registers(), Registers()
    pc.write(ENABLE, RTC)
    pc.write(CONTROL, SUSPEND | SLEEP)
    other.pm1.restore(pc.pm1.state())
    other.pm1.alarm()
    assert other.did == [INIT_BOOTSTRAP, True]


ALARM_INTERRUPT, PERIODIC_INTERRUPT = 0x20, 0x40


def pc_with_alarm(also: int = 0) -> Pc:
    """A PC whose real-time clock's alarm goes off each second."""
    pc = Pc()
    pc.out(0x70, 0x0B)
    pc.out(0x71, pc.inb(0x71) | ALARM_INTERRUPT | also)
    for register in (1, 3, 5):
        pc.out(0x70, register)
        pc.out(0x71, 0xC0)
    return pc


def test_the_clocks_alarm_arrives() -> None:
    pc = pc_with_alarm()
    assert not pc.pm1.port_read(STATUS, 2) & RTC
    pc.clock.advance(10**9)
    assert pc.pm1.port_read(STATUS, 2) & RTC


def test_the_clocks_alarm_arrives_though_another_of_its_interrupts_waits() -> None:
    pc = pc_with_alarm(PERIODIC_INTERRUPT)
    pc.clock.advance(10**7)  # a period has passed, and nobody has asked for it
    pc.clock.advance(10**9)
    assert pc.pm1.port_read(STATUS, 2) & RTC


def test_an_alarm_that_was_heard_is_not_heard_again_where_its_state_goes() -> None:
    pc, other = pc_with_alarm(), Pc()
    pc.clock.advance(10**9)
    other.pm1.port_write(ENABLE, 2, RTC)
    other.clock.restore(pc.clock.state())
    other.rtc.restore(pc.rtc.state())
    assert not other.pm1.port_read(STATUS, 2) & RTC
