"""The real-time clock: calendar, formats, interrupts, and the CMOS memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.devices.clock import InstructionClock
from belljar.devices.rtc import Rtc, memory_size_bytes
from belljar.devices.rtc_time import NEVER, RtcTime, next_match

SECOND = 10**9


class Board:
    def __init__(self, start: int = 946_684_800, **options) -> None:
        self.clock = InstructionClock()
        self.levels: list[bool] = []
        self.rtc = Rtc(self.clock, self.levels.append, start=start, **options)

    def read(self, index: int) -> int:
        self.rtc.port_write(0x70, 1, index)
        return self.rtc.port_read(0x71, 1)

    def write(self, index: int, value: int) -> None:
        self.rtc.port_write(0x70, 1, index)
        self.rtc.port_write(0x71, 1, value)

    def time(self) -> tuple[int, ...]:
        return tuple(self.read(index) for index in (0x32, 9, 8, 7, 6, 4, 2, 0))


def test_the_date_is_decimal_and_goes_on() -> None:
    board = Board()
    assert board.time() == (0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0)
    board.clock.advance(59 * 86_400 * SECOND + 86_399 * SECOND)
    assert board.time() == (0x20, 0x00, 0x02, 0x29, 3, 0x23, 0x59, 0x59)
    board.clock.advance(SECOND)
    assert board.time() == (0x20, 0x00, 0x03, 0x01, 4, 0, 0, 0)


@given(st.integers(0, 200 * 365 * 86_400), st.integers(0, 100 * 365 * 86_400))
def test_the_calendar_is_the_gregorian_one(start: int, later: int) -> None:
    time = RtcTime.from_unix(start).add(later)
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=start + later)
    assert (time.year, time.month, time.day, time.weekday) == (
        when.year,
        when.month,
        when.day,
        when.isoweekday() % 7 + 1,
    )
    assert time.second == when.hour * 3600 + when.minute * 60 + when.second


@given(st.integers(0, 200 * 365 * 86_400), st.sampled_from([0, 2, 4, 6]))
def test_every_format_goes_back_and_forth(seconds: int, mode: int) -> None:
    cmos = bytearray(128)
    cmos[0x0B] = mode
    time = RtcTime.from_unix(seconds)
    time.store(cmos)
    assert RtcTime.load(cmos) == time


@pytest.mark.parametrize(
    ("mode", "hour", "register"),
    [(0, 0, 0x12), (0, 12, 0x92), (0, 23, 0x91), (4, 13, 0x81), (6, 13, 13), (2, 13, 0x13)],
)
def test_hours_of_twelve_say_whether_it_is_afternoon(mode: int, hour: int, register: int) -> None:
    cmos = bytearray(128)
    cmos[0x0B] = mode
    RtcTime(2000, 1, 1, 1, hour * 3600).store(cmos)
    assert cmos[4] == register


def test_set_stops_the_time_and_what_passes_is_lost() -> None:
    board = Board()
    board.write(0x0B, 0x82)
    for index, value in ((0, 0x30), (2, 0x59), (4, 0x23), (7, 0x31), (8, 0x12), (9, 0x99)):
        board.write(index, value)
    board.clock.advance(10 * SECOND)
    assert board.read(0) == 0x30
    board.write(0x0B, 0x02)
    board.clock.advance(30 * SECOND)
    assert board.time()[:4] == (0x21, 0x00, 0x01, 0x01)


def test_an_update_announces_itself() -> None:
    board = Board()
    assert not board.read(0x0A) & 0x80
    board.clock.advance(SECOND - 2_300_000)
    assert not board.read(0x0A) & 0x80
    board.clock.advance(2_000_000)
    assert board.read(0x0A) & 0x80
    board.write(0x0B, 0x82)
    assert not board.read(0x0A) & 0x80


def test_update_interrupts_come_each_second_until_acknowledged() -> None:
    board = Board()
    board.write(0x0A, 0x20)
    board.write(0x0B, 0x12)
    board.clock.advance(SECOND)
    assert board.levels == [True]
    board.clock.advance(5 * SECOND)
    assert board.levels == [True], "the line stays up until register C is read"
    assert board.read(0x0C) == 0x90
    assert (board.levels, board.read(0x0C)) == ([True, False], 0)
    board.clock.advance(SECOND)
    assert board.levels == [True, False, True]


@pytest.mark.parametrize(("rate", "hertz"), [(6, 1024), (15, 2), (1, 256), (3, 8192)])
def test_periodic_interrupts_come_at_their_rate(rate: int, hertz: int) -> None:
    board = Board()
    board.write(0x0A, 0x20 | rate)
    board.write(0x0B, 0x42)
    count = 0
    for _ in range(hertz):
        deadline_ns = board.clock.next_deadline_ns()
        assert deadline_ns is not None
        board.clock.advance_to(deadline_ns)
        count += board.read(0x0C) == 0xC0 or board.read(0x0C) == 0xD0
    assert abs(board.clock.now_ns() - SECOND) < SECOND // hertz


def test_alarms_match_exactly_or_every_time() -> None:
    board = Board()
    for index, value in ((0x0A, 0x20), (1, 0x05), (3, 0x02), (5, 0xC0)):
        board.write(index, value)
    board.write(0x0B, 0x22)
    assert board.clock.next_deadline_ns() == 125 * SECOND
    board.clock.advance(124 * SECOND)
    assert board.levels == []
    board.clock.advance(SECOND)
    assert board.levels == [True]
    assert board.read(0x0C) == 0xB0
    assert board.clock.next_deadline_ns() == 3725 * SECOND


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 86_399), st.sampled_from([0, 5, 59, 60, 0xC0]), st.sampled_from([0, 30, 59, 77, 0xFF]),
    st.sampled_from([0, 11, 23, 24, 0xE0]),
)  # fmt: skip
def test_the_next_alarm_is_the_first_second_that_matches(now: int, second: int, minute: int, hour: int) -> None:
    cmos = bytearray(128)
    cmos[0x0B] = 6
    cmos[1], cmos[3], cmos[5] = second, minute, hour
    found = next_match(RtcTime(2000, 1, 1, 1, now), cmos)

    def matches(at: int) -> bool:
        parts = zip((at % 60, at // 60 % 60, at // 3600), (second, minute, hour), strict=True)
        return all(alarm >= 0xC0 or alarm == part for part, alarm in parts)

    wait = next((step for step in range(1, 86_401) if matches((now + step) % 86_400)), NEVER)
    assert found == wait


def test_flags_are_set_without_interrupts_too() -> None:
    board = Board()
    board.clock.advance(2 * SECOND)
    assert board.read(0x0C) == 0x50
    assert board.levels == []


def test_a_stopped_divider_stops_everything_and_starts_half_a_second_early() -> None:
    board = Board()
    board.write(0x0A, 0x60)
    board.clock.advance(100 * SECOND)
    assert (board.read(0), board.read(0x0C)) == (0, 0)
    board.write(0x0A, 0x26)
    board.clock.advance(SECOND // 2)
    assert board.read(0) == 1


def test_memory_keeps_what_is_written_and_tells_how_much_ram_there_is() -> None:
    board = Board(memory=memory_size_bytes(3 << 30, 5 << 30))
    assert board.read(0x15) | board.read(0x16) << 8 == 640
    assert board.read(0x17) | board.read(0x18) << 8 == 0xFFFF
    assert (board.read(0x34) | board.read(0x35) << 8) << 16 == (3 << 30) - (16 << 20)
    assert sum(board.read(0x5B + i) << 8 * i for i in range(3)) << 16 == 5 << 30
    board.write(0x8F, 0x5A)
    assert (board.read(0x0F), board.rtc.nmi_disabled, board.read(0x0D)) == (0x5A, False, 0x80)
    board.rtc.port_write(0x70, 1, 0x8F)
    assert board.rtc.nmi_disabled
    board.rtc.port_write(0x72, 1, 0x10)
    board.rtc.port_write(0x73, 1, 0x77)
    assert (board.rtc.port_read(0x73, 1), board.rtc.port_read(0x70, 1), board.rtc.cmos[0x90]) == (0x77, 0xFF, 0x77)
