"""The calendar of an MC146818: time of day and date in its registers' formats, and when an alarm matches."""

from __future__ import annotations

from typing import Protocol

from belljar.records import dataclass

_SECONDS, _MINUTES, _HOURS, _WEEKDAY, _DAY, _MONTH, _YEAR, _REG_B, _CENTURY = 0, 2, 4, 6, 7, 8, 9, 0x0B, 0x32
_SECONDS_ALARM, _MINUTES_ALARM, _HOURS_ALARM = 1, 3, 5
_BINARY, _24_HOURS = 0x04, 0x02
_PM = 0x80
_ANY = 0xC0
"""An alarm byte with both top bits set matches always (MC146818A, "Time, Calendar, and Alarm Locations")."""

NEVER = 1 << 62
"""Seconds: longer than any machine runs."""

DAY = 86_400
DAYS_IN_400_YEARS = 146_097
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Registers(Protocol):
    """The chip's bytes by index."""

    def __getitem__(self, index: int, /) -> int:
        """One of them."""

    def __setitem__(self, index: int, value: int, /) -> None:
        """Set it."""


def is_leap(year: int) -> bool:
    """Whether a year has 366 days in the Gregorian calendar."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def days_in(year: int, month: int) -> int:
    """The days of a month, 1 to 12."""
    return 29 if month == 2 and is_leap(year) else _MONTH_DAYS[month - 1]


@dataclass(frozen=True, slots=True)
class RtcTime:
    """A date and a second of the day. Any value is allowed to come out of registers; sums are always valid."""

    year: int
    month: int
    day: int
    weekday: int
    second: int

    @classmethod
    def from_unix(cls, seconds: int) -> RtcTime:
        """From seconds since 1970 UTC."""
        return cls(1970, 1, 1, 5, 0).add(seconds)

    @classmethod
    def load(cls, cmos: Registers) -> RtcTime:
        """From the registers. What is no time or date (month 0, a BCD digit above 9) is taken for the nearest one."""
        decode = _decoder(cmos[_REG_B])
        year = decode(cmos[_CENTURY]) * 100 + decode(cmos[_YEAR])
        month = min(max(decode(cmos[_MONTH]), 1), 12)
        second = _hour(cmos[_HOURS], cmos[_REG_B]) * 3600 + decode(cmos[_MINUTES]) * 60 + decode(cmos[_SECONDS])
        day = min(max(decode(cmos[_DAY]), 1), days_in(year, month))
        return cls(year, month, day, min(max(decode(cmos[_WEEKDAY]), 1), 7), min(second, DAY - 1))

    def store(self, cmos: Registers) -> None:
        """Into the registers, in the format that register B says."""
        encode = _encoder(cmos[_REG_B])
        hour = self.second // 3600
        if cmos[_REG_B] & _24_HOURS:
            cmos[_HOURS] = encode(hour)
        else:
            cmos[_HOURS] = encode(hour % 12 or 12) | (_PM if hour >= 12 else 0)
        cmos[_MINUTES] = encode(self.second // 60 % 60)
        cmos[_SECONDS] = encode(self.second % 60)
        cmos[_WEEKDAY], cmos[_DAY], cmos[_MONTH] = encode(self.weekday), encode(self.day), encode(self.month)
        cmos[_YEAR], cmos[_CENTURY] = encode(self.year % 100), encode(self.year // 100 % 100)

    def add(self, seconds: int) -> RtcTime:
        """So many seconds later."""
        days, second = divmod(self.second + seconds, DAY)
        weekday = (self.weekday - 1 + days) % 7 + 1
        eras, days = divmod(days, DAYS_IN_400_YEARS)
        year, month, day = self.year + 400 * eras, self.month, self.day + days
        while day > (length := days_in(year, month)):
            day -= length
            month += 1
            if month > 12:
                year, month = year + 1, 1
        return RtcTime(year, month, day, weekday, second)


def next_match(time: RtcTime, cmos: Registers) -> int:
    """In how many seconds, 1 to 86,400, the alarm matches; more than any if it never will (an hour that does not exist)."""
    mode = cmos[_REG_B]
    decode = _decoder(mode)
    hours = _choices(cmos[_HOURS_ALARM], _hour(cmos[_HOURS_ALARM], mode), 24)
    minutes = _choices(cmos[_MINUTES_ALARM], decode(cmos[_MINUTES_ALARM]), 60)
    seconds = _choices(cmos[_SECONDS_ALARM], decode(cmos[_SECONDS_ALARM]), 60)
    if not hours or not minutes or not seconds:
        return NEVER
    hour, minute, second = time.second // 3600, time.second // 60 % 60, time.second % 60
    for h in hours:
        if h < hour:
            continue
        for m in minutes:
            if h == hour and m < minute:
                continue
            for s in seconds:
                if (h, m, s) > (hour, minute, second):
                    return h * 3600 + m * 60 + s - time.second
    return DAY - time.second + hours[0] * 3600 + minutes[0] * 60 + seconds[0]


def _choices(raw: int, value: int, count: int) -> range:
    if raw & _ANY == _ANY:
        return range(count)
    return range(value, value + 1) if value < count else range(0)


def _decoder(mode: int) -> type[int] | _Bcd:
    return int if mode & _BINARY else _from_bcd


def _encoder(mode: int) -> type[int] | _Bcd:
    return int if mode & _BINARY else _to_bcd


class _Bcd(Protocol):
    def __call__(self, value: int, /) -> int: ...


def _from_bcd(value: int) -> int:
    return (value >> 4) * 10 + (value & 0xF)


def _to_bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


def _hour(raw: int, mode: int) -> int:
    decode = _decoder(mode)
    if mode & _24_HOURS:
        return decode(raw)
    return decode(raw & ~_PM) % 12 + (12 if raw & _PM else 0)
