"""The real-time clock and CMOS memory of a PC (Motorola MC146818A data sheet; Intel 82371AB 4.2.4): ports 0x70 to 0x73.

The time is kept as the guest sees it, in the registers, and brought up to date when somebody looks. The update that
ends each second takes 2.2 ms, during which UIP says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from belljar.devices.clock import MIN_TICK_NS, NS_PER_SECOND, Clock, Timer
from belljar.devices.rtc_time import RtcTime, next_match

RTC_PORT = 0x70
CMOS_SIZE = 256
DEFAULT_START = 946_684_800
"""2000-01-01 00:00:00 UTC, so that runs are the same on any day."""

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
WEEKDAY, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D = range(6, 14)
CENTURY = 0x32

A_UIP, A_DIVIDER, A_DIVIDER_RUNS, A_DIVIDER_RESET, A_RATE = 0x80, 0x70, 0x20, 0x60, 0x0F
B_SET, B_PERIODIC, B_ALARM, B_UPDATE, B_BINARY, B_24_HOURS = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
C_IRQ, C_PERIODIC, C_ALARM, C_UPDATE = 0x80, 0x40, 0x20, 0x10
C_ALL = C_PERIODIC | C_ALARM | C_UPDATE
D_VALID = 0x80

UIP_NS = 2_228_000
"""UIP comes 244 us before the update, which takes 1984 us (MC146818A, table 6)."""
FIRST_UPDATE_NS = 500_000_000
"""The first update comes half a second after the divider is let go (MC146818A, "Divider Control")."""

NMI_OFF, INDEX_MASK = 0x80, 0x7F

EQUIPMENT = 0x14
BASE_MEMORY, EXTENDED_MEMORY, EXTENDED_MEMORY_COPY, MEMORY_ABOVE_16M, MEMORY_ABOVE_4G = 0x15, 0x17, 0x30, 0x34, 0x5B
"""Where firmware leaves the size of memory: 1 KiB units, 64 KiB units above 16 MiB and 4 GiB (Bochs, QEMU, SeaBIOS)."""


def memory_size_bytes(low: int, high: int = 0) -> dict[int, int]:
    """CMOS bytes that tell the size of memory: `low` bytes from 0 up to 4 GiB, `high` bytes above. Saturated where too large."""
    kib, mib, blocks = 1 << 10, 1 << 20, 1 << 16
    extended = min(max(low - mib, 0) // kib, 0xFFFF)
    above_16m = min(max(low - 16 * mib, 0) // blocks, 0xFFFF)
    above_4g = min(high // blocks, 0xFF_FFFF)
    places = (
        (BASE_MEMORY, min(low, 640 * kib) // kib, 2),
        (EXTENDED_MEMORY, extended, 2),
        (EXTENDED_MEMORY_COPY, extended, 2),
        (MEMORY_ABOVE_16M, above_16m, 2),
        (MEMORY_ABOVE_4G, above_4g, 3),
    )
    return {at + byte: value >> 8 * byte & 0xFF for at, value, size in places for byte in range(size)}


class Rtc:
    """The clock. `line` follows its interrupt pin (IRQ 8); `start` is the time at the clock's 0, in seconds since 1970 UTC.

    `alarm` is called when an alarm goes off that may interrupt; `wakes` says which lines and messages that means.
    """

    port_width = 1

    def __init__(
        self,
        clock: Clock,
        line: Callable[[bool], object] | None = None,
        *,
        start: int = DEFAULT_START,
        memory: dict[int, int] | None = None,
        alarm: Callable[[], None] = lambda: None,
        wakes: Callable[[], list[int | tuple[int, int]]] = list,
    ) -> None:
        self.ports = range(RTC_PORT, RTC_PORT + 4)
        self._clock = clock
        self._line = line
        self._alarm = alarm
        self._wakes = wakes
        self._rings = False
        self._connected = True
        self._index = self._high_index = 0
        self.nmi_disabled = False
        """Bit 7 of port 0x70."""
        self.cmos = bytearray(CMOS_SIZE)
        self.cmos[REG_A] = A_DIVIDER_RUNS | 6
        self.cmos[REG_B] = B_24_HOURS
        for index, value in (memory or {}).items():
            self.cmos[index] = value
        now_ns = clock.now_ns()
        RtcTime.from_unix(start + now_ns // NS_PER_SECOND).store(self.cmos)
        self._flags = 0
        self._updated_ns = now_ns - now_ns % NS_PER_SECOND
        self._periodic_ns = now_ns
        self._timer: Timer | None = None
        self._level = False

    # -- ports ---------------------------------------------------------------------------------------------------------

    def port_read(self, port: int, size: int) -> int:
        """The register that was chosen; the index ports cannot be read."""
        if not port & 1:
            return 0xFF
        if port == RTC_PORT + 3:
            return self.cmos[self._high_index]
        self._catch_up()
        if self._index == REG_A:
            return self.cmos[REG_A] | (A_UIP if self._updating() else 0)
        if self._index == REG_C:
            value = self._flags | (C_IRQ if self._flags & self.cmos[REG_B] & C_ALL else 0)
            self._flags = 0
            self._follow()
            return value
        return D_VALID if self._index == REG_D else self.cmos[self._index]

    def port_write(self, port: int, size: int, value: int) -> None:
        """Choose a register, or write it."""
        if port == RTC_PORT:
            self._index = value & INDEX_MASK
            self.nmi_disabled = bool(value & NMI_OFF)
        elif port == RTC_PORT + 2:
            self._high_index = value & INDEX_MASK | CMOS_SIZE // 2
        elif port == RTC_PORT + 3:
            self.cmos[self._high_index] = value
        else:
            self._catch_up()
            self._write(self._index, value)
            self._follow()

    def _write(self, index: int, value: int) -> None:
        if index == REG_A:
            self._write_a(value & ~A_UIP)
        elif index == REG_B:
            if value & B_SET:
                value &= ~B_UPDATE  # MC146818A, "SET"
            elif self.cmos[REG_B] & B_SET:
                self._restart_seconds()
            self.cmos[REG_B] = value
        elif index not in (REG_C, REG_D):
            self.cmos[index] = value

    def _write_a(self, value: int) -> None:
        now_ns = self._clock.now_ns()
        ran, runs = self._runs(), value & A_DIVIDER == A_DIVIDER_RUNS
        self.cmos[REG_A] = value
        if runs and not ran:
            self._updated_ns = now_ns + FIRST_UPDATE_NS - NS_PER_SECOND
            self._periodic_ns = now_ns

    def _restart_seconds(self) -> None:
        """Updates that fell into the time of SET are lost; the divider went on."""
        now_ns = self._clock.now_ns()
        self._updated_ns += max(0, (now_ns - self._updated_ns) // NS_PER_SECOND) * NS_PER_SECOND

    # -- time ------------------------------------------------------------------------------------------------------------

    def _runs(self) -> bool:
        return self.cmos[REG_A] & A_DIVIDER == A_DIVIDER_RUNS

    def _counts(self) -> bool:
        return self._runs() and not self.cmos[REG_B] & B_SET

    def _updating(self) -> bool:
        if not self._counts():
            return False
        return (self._clock.now_ns() - self._updated_ns) % NS_PER_SECOND >= NS_PER_SECOND - UIP_NS

    @property
    def period_ns(self) -> int:
        """The periodic interrupt's period, 0 if it is off (MC146818A, table 5, with a 32.768 kHz crystal)."""
        rate = self.cmos[REG_A] & A_RATE
        if not rate or not self._runs():
            return 0
        return (1 << (rate + 6 if rate <= 2 else rate - 1)) * NS_PER_SECOND // 32_768

    def _catch_up(self) -> None:
        """Let the seconds and periods pass that have passed."""
        now_ns = self._clock.now_ns()
        period_ns = self.period_ns
        if period_ns and now_ns >= self._periodic_ns + period_ns:
            self._periodic_ns += (now_ns - self._periodic_ns) // period_ns * period_ns
            self._flags |= C_PERIODIC
        if not self._counts():
            return
        seconds = (now_ns - self._updated_ns) // NS_PER_SECOND
        if seconds <= 0:
            return
        self._updated_ns += seconds * NS_PER_SECOND
        time = RtcTime.load(self.cmos)
        if next_match(time, self.cmos) <= seconds:
            self._flags |= C_ALARM
        time.add(seconds).store(self.cmos)
        self._flags |= C_UPDATE

    # -- interrupts --------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        rings = bool(self._flags & self.cmos[REG_B] & C_ALARM)
        if rings != self._rings:
            self._rings = rings
            if rings:
                self._alarm()
        level = bool(self._flags & self.cmos[REG_B] & C_ALL)
        if level != self._level:
            self._level = level
            if self._line is not None and self._connected:
                self._line(level)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Before the guest reads register C, nothing more can happen to a line that is up; an alarm is heard all the same.
        if rings or (level and not self.cmos[REG_B] & B_ALARM):
            return
        deadline_ns = self._next_alarm_ns() if level else self._next_event_ns()
        if deadline_ns is not None:
            self._timer = self._clock.call_at(max(deadline_ns, self._clock.now_ns() + MIN_TICK_NS), self._tick)

    def awaited(self) -> list[int | tuple[int, int]]:
        """The line that its timer may raise, if it is on one, and what its alarm wakes (`belljar.machine.wakeups`)."""
        gsi = getattr(self._line, "gsi", None)
        own = [gsi] if gsi is not None and self._connected and not self._level else []
        return [*own, *(self._wakes() if self.cmos[REG_B] & B_ALARM else [])]

    def _next_event_ns(self) -> int | None:
        enabled = self.cmos[REG_B]
        events = []
        if enabled & B_PERIODIC and self.period_ns:
            events.append(self._periodic_ns + self.period_ns)
        if enabled & B_UPDATE and self._counts():
            events.append(self._updated_ns + NS_PER_SECOND)
        elif enabled & B_ALARM and (alarm_ns := self._next_alarm_ns()) is not None:
            events.append(alarm_ns)
        return min(events) if events else None

    def _next_alarm_ns(self) -> int | None:
        if not self._counts():
            return None
        return self._updated_ns + next_match(RtcTime.load(self.cmos), self.cmos) * NS_PER_SECOND

    def _tick(self) -> None:
        self._timer = None
        self._catch_up()
        self._follow()

    def connect(self, connected: bool) -> None:
        """Connect the interrupt pin to its line, or not (an HPET in legacy mode takes its place)."""
        self._connected = connected
        if self._line is not None and self._level:
            self._line(connected)

    def state(self) -> dict[str, Any]:
        """Registers and memory, and since when they are as they are."""
        return {
            "index": self._index,
            "high_index": self._high_index,
            "nmi_disabled": int(self.nmi_disabled),
            "cmos": bytes(self.cmos),
            "flags": self._flags,
            "updated_ns": self._updated_ns,
            "periodic_ns": self._periodic_ns,
            "level": int(self._level),
            "connected": int(self._connected),
            "rings": int(self._rings),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._index, self._high_index = state["index"], state["high_index"]
        self.nmi_disabled = bool(state["nmi_disabled"])
        self.cmos[:] = state["cmos"]
        self._flags = state["flags"]
        self._updated_ns, self._periodic_ns = state["updated_ns"], state["periodic_ns"]
        self._level, self._connected = bool(state["level"]), bool(state["connected"])
        self._rings = bool(state["rings"])  # whoever is to hear of it has heard
        self._follow()
