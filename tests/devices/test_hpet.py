"""The high precision event timer, as its specification 1.0a describes it."""

from __future__ import annotations

from itertools import count

import pytest

from belljar.devices.clock import HostClock
from belljar.devices.hpet import Hpet
from devices.pc import Pc

BASE = 0xFED00000
CONFIGURATION, STATUS, COUNTER = BASE + 0x10, BASE + 0x20, BASE + 0xF0
LEVEL, ENABLED, PERIODIC, SET, BITS_32, FSB = 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 8, 1 << 14
ROUTE_20 = 20 << 9


def comparator(number: int) -> int:
    return BASE + 0x100 + 0x20 * number


class Board:
    def __init__(self) -> None:
        self.pc = Pc(1)
        self.bus = self.pc.bus
        for pin in range(24):
            self.pc.chips.ioapic.write_register(0x10 + 2 * pin, 0x40 + pin)
        self.lapic = self.pc.lapics[0]
        self.lapic.write(0x0F, 0x1FF)
        self.pc.out(0x21, 0xFF)

    def write(self, gpa: int, value: int, size: int = 8) -> None:
        self.bus.mmio_write(gpa, size, value)

    def read(self, gpa: int, size: int = 8) -> int:
        return self.bus.mmio_read(gpa, size)

    def taken(self) -> list[int]:
        vectors = []
        while self.lapic.has_interrupt():
            vectors.append(self.lapic.take())
            self.lapic.write(0x0B, 0)
        return vectors


def test_capabilities_are_read_only() -> None:
    board = Board()
    assert board.read(BASE) == 0x00989680_8086A201
    assert board.read(comparator(0), 4) == 0x8030
    assert board.read(comparator(2) + 4, 4) == 0x00F00000
    board.write(comparator(1), 0xFFFFFFFF_FFFFFFFF)
    assert board.read(comparator(1)) == 0x00F00000_0000FF7E
    assert board.read(comparator(3)) == 0


def test_the_counter_runs_while_enabled_and_is_set_while_not() -> None:
    board = Board()
    board.write(COUNTER, 0xFFFFFFFF)
    board.pc.clock.advance(1000)
    assert board.read(COUNTER) == 0xFFFFFFFF
    board.write(CONFIGURATION, 1)
    board.pc.clock.advance(1000)
    assert board.read(COUNTER) == 0xFFFFFFFF + 100
    assert (board.read(COUNTER + 4, 4), board.read(COUNTER, 4)) == (1, 99)
    board.write(CONFIGURATION, 0)
    board.pc.clock.advance(1000)
    assert board.read(COUNTER) == 0xFFFFFFFF + 100
    board.write(COUNTER + 4, 7, 4)
    assert board.read(COUNTER) == 7 << 32 | 99
    board.write(COUNTER, 5, 2)
    assert board.read(COUNTER) == 7 << 32 | 99


def test_a_one_shot_comparator_interrupts_once() -> None:
    board = Board()
    board.write(comparator(0), ENABLED | ROUTE_20)
    board.write(comparator(0) + 8, 500)
    board.write(CONFIGURATION, 1)
    board.pc.clock.advance(4_999)
    assert board.taken() == []
    board.pc.clock.advance(1)
    assert board.taken() == [0x40 + 20]
    board.pc.clock.advance(10**12)
    assert board.taken() == []
    assert board.pc.clock.next_deadline_ns() is None


def test_comparators_of_a_counter_that_starts_match_even_if_the_host_takes_its_time() -> None:
    clock, raised = HostClock(source=count(0, 10_000).__next__), []  # everybody who looks at the time finds it later
    hpet = Hpet(clock, lambda gsi: lambda level: raised.append(gsi) if level else None)
    for number in (1, 2):
        hpet.mmio_write(comparator(number), 8, ENABLED | 20 + number << 9)
        hpet.mmio_write(comparator(number) + 8, 8, 100 + number)
    hpet.mmio_write(CONFIGURATION, 8, 1)
    clock.run_due()
    assert raised == [21, 22]


def test_a_32_bit_comparator_matches_with_every_wrap() -> None:
    board = Board()
    board.write(comparator(0), ENABLED | ROUTE_20 | BITS_32)
    board.write(comparator(0) + 8, 1 << 32 | 500)
    assert board.read(comparator(0) + 8) == 500
    board.write(CONFIGURATION, 1)
    board.pc.clock.advance(5_000)
    assert board.taken() == [0x54]
    assert board.pc.clock.next_deadline_ns() == 5_000 + (1 << 32) * 10


def test_a_periodic_comparator_adds_its_period() -> None:
    board = Board()
    board.write(comparator(1), ENABLED | ROUTE_20 | PERIODIC | SET)
    board.write(comparator(1) + 8, 10_000)
    board.write(comparator(1) + 8, 3_000)
    assert board.read(comparator(1) + 8) == 10_000, "only the first write after SET sets the comparator itself"
    board.write(CONFIGURATION, 1)
    times = []
    for _ in range(3):
        deadline_ns = board.pc.clock.next_deadline_ns()
        assert deadline_ns is not None
        board.pc.clock.advance_to(deadline_ns)
        assert board.taken() == [0x54]
        times.append(deadline_ns)
    assert times == [100_000, 130_000, 160_000]
    assert board.read(comparator(1) + 8) == 19_000
    board.pc.clock.advance(3_000_000)
    assert board.taken() == [0x54], "what was slept through is one interrupt"
    assert board.read(comparator(1) + 8) > board.read(COUNTER)


def test_a_periodic_comparator_goes_on_even_if_its_match_is_passed_while_it_is_looked_at() -> None:
    clock, raised = HostClock(source=count(0, 70_001).__next__), []
    hpet = Hpet(clock, lambda gsi: lambda level: raised.append(gsi) if level else None)
    hpet.mmio_write(comparator(0), 8, ENABLED | PERIODIC | SET | ROUTE_20)
    hpet.mmio_write(comparator(0) + 8, 8, 21_000)
    hpet.mmio_write(CONFIGURATION, 8, 1)
    for _ in range(1000):
        clock.run_due()
    assert clock.timers.active()
    assert len(raised) > 100


def test_a_level_stays_up_until_its_status_is_cleared() -> None:
    board = Board()
    board.pc.chips.ioapic.write_register(0x10 + 40, 0x54 | 1 << 15)
    board.write(comparator(2), ENABLED | ROUTE_20 | LEVEL)
    board.write(comparator(2) + 8, 10)
    board.write(CONFIGURATION, 1)
    board.pc.clock.advance(100)
    assert board.read(STATUS) == 4
    assert board.lapic.take() == 0x54
    board.lapic.write(0x0B, 0)
    assert board.lapic.take() == 0x54
    board.write(STATUS, 4)
    board.lapic.write(0x0B, 0)
    assert (board.taken(), board.read(STATUS)) == ([], 0)


def test_a_periodic_level_costs_no_time_until_its_status_is_cleared() -> None:
    board = Board()
    board.write(comparator(2), ENABLED | ROUTE_20 | LEVEL | PERIODIC | SET)
    board.write(comparator(2) + 8, 10_000)
    board.write(CONFIGURATION, 1)
    board.pc.clock.advance(100_000)
    assert (board.read(STATUS), board.pc.clock.timers.active()) == (4, [])
    board.pc.clock.advance(250_000)
    board.write(STATUS, 4)
    assert (board.read(STATUS), board.read(comparator(2) + 8)) == (0, 40_000)
    board.pc.clock.advance(50_000)
    assert board.read(STATUS) == 4


@pytest.mark.parametrize("waits_s", [1, 30, 44, 80])
def test_a_32_bit_period_is_kept_however_long_the_status_is_not_cleared(waits_s: int) -> None:
    board = Board()
    clock = board.pc.clock
    board.write(comparator(0), ENABLED | ROUTE_20 | LEVEL | PERIODIC | SET | BITS_32)
    board.write(comparator(0) + 8, 100_000)
    board.write(CONFIGURATION, 1)
    end_ns = clock.now_ns() + waits_s * 10**9
    while (due_ns := clock.next_deadline_ns()) is not None and due_ns < end_ns:
        clock.advance_to(due_ns)
    assert board.read(STATUS) == 1
    clock.advance_to(end_ns)
    board.write(STATUS, 1)
    clock.advance(1_000_000)
    assert board.read(STATUS) == 1


def test_comparator_sends_messages_where_its_route_says() -> None:
    board = Board()
    board.write(comparator(2) + 0x10, 0xFEE00000 << 32 | 0x77)
    board.write(comparator(2), ENABLED | FSB)
    board.write(comparator(2) + 8, 10)
    board.write(CONFIGURATION, 1)
    board.pc.clock.advance(100)
    assert board.taken() == [0x77]
    assert board.pc.chips.counts.entries()[0].source == "hpet 2"


def test_legacy_replacement_takes_the_place_of_8254_and_rtc() -> None:
    board = Board()
    board.pc.out(0x43, 0x14)
    board.pc.out(0x40, 200)
    board.write(comparator(0), ENABLED | ROUTE_20)
    board.write(comparator(0) + 8, 10_000)
    board.write(comparator(1), ENABLED)
    board.write(comparator(1) + 8, 10_000)
    board.write(CONFIGURATION, 3)
    board.pc.clock.advance(90_000)
    assert board.taken() == []
    board.pc.clock.advance(10_000)
    assert board.taken() == [0x48, 0x42]
    board.write(CONFIGURATION, 1)
    board.pc.clock.advance(1_000_000)
    assert board.taken() == [0x42]
