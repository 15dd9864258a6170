"""The high precision event timer (IA-PC HPET Specification 1.0a): a 64-bit counter and three comparators.

The counter runs at 100 MHz. All comparators can be periodic, edge or level-triggered, and send messages ("FSB interrupts").
With legacy replacement, the first two take the place of the 8254 and the RTC.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from belljar.devices.clock import Clock, Timer

HPET_GPA = 0xFED0_0000
HPET_SIZE = 0x400
PERIOD_NS = 10
COMPARATORS = 3
ROUTABLE = 0x00F0_0000
"""GSIs 20 to 23, one bit each."""

_FEMTOSECONDS = 1_000_000
_VENDOR = 0x8086
CAPABILITIES = PERIOD_NS * _FEMTOSECONDS << 32 | _VENDOR << 16 | 1 << 15 | 1 << 13 | COMPARATORS - 1 << 8 | 1
"""Period, vendor, legacy replacement, 64 bits, comparators less one, revision (2.3.4)."""

REG_CAPABILITIES, REG_CONFIGURATION, REG_STATUS, REG_COUNTER, REG_COMPARATORS = 0x00, 0x10, 0x20, 0xF0, 0x100
COMPARATOR_SIZE = 0x20
ENABLE, LEGACY = 1, 2

T_LEVEL, T_ENABLE, T_PERIODIC, T_CAN_PERIODIC, T_IS_64, T_SET_VALUE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6
T_32_BITS, T_FSB_ENABLE, T_CAN_FSB = 1 << 8, 1 << 14, 1 << 15
T_ROUTE_SHIFT, T_ROUTE_MASK = 9, 0x1F
T_CAPABILITIES = ROUTABLE << 32 | T_CAN_PERIODIC | T_IS_64 | T_CAN_FSB
T_WRITABLE = T_LEVEL | T_ENABLE | T_PERIODIC | T_SET_VALUE | T_32_BITS | T_FSB_ENABLE | T_ROUTE_MASK << T_ROUTE_SHIFT
"""A comparator's configuration (2.3.8)."""

_ALL = (1 << 64) - 1
_FAR = 1 << 60
"""Ticks: 365 years. A match further away than that is one with a comparator that was passed."""
_LEGACY_GSIS = (0, 8)


class _Comparator:
    """A comparator's registers and its appointment with the clock."""

    def __init__(self) -> None:
        self.configuration = T_CAPABILITIES
        self.value = _ALL
        self.period = 0
        self.fsb = 0
        self.timer: Timer | None = None

    @property
    def mask(self) -> int:
        """The width it compares with."""
        return 0xFFFF_FFFF if self.configuration & T_32_BITS else _ALL


class Hpet:
    """The chip. `line_of(gsi)` gives it a source's hold on a line; `legacy` is told when it takes the place of 8254 and RTC."""

    def __init__(
        self,
        clock: Clock,
        line_of: Callable[[int], Callable[[bool], object]],
        *,
        send_msi: Callable[[int, int, str], object] | None = None,
        legacy: Callable[[bool], None] | None = None,
        gpa: int = HPET_GPA,
    ) -> None:
        self.mmio = range(gpa, gpa + HPET_SIZE)
        self._clock = clock
        gsis = (*_LEGACY_GSIS, *(gsi for gsi in range(32) if ROUTABLE >> gsi & 1))
        self._lines = {gsi: line_of(gsi) for gsi in gsis}
        self._send_msi = send_msi
        self._legacy = legacy
        self.configuration = 0
        self.status = 0
        self._counter = 0
        self._since_ns = 0
        self.comparators = tuple(_Comparator() for _ in range(COMPARATORS))

    # -- registers -----------------------------------------------------------------------------------------------------

    def counter(self) -> int:
        """The main counter."""
        if not self.configuration & ENABLE:
            return self._counter
        return (self._counter + (self._clock.now_ns() - self._since_ns) // PERIOD_NS) & _ALL

    def mmio_read(self, gpa: int, size: int) -> int:
        """A register, or a part of one."""
        offset = gpa - self.mmio.start
        return self._read(offset & ~7) >> 8 * (offset & 7) & (1 << 8 * size) - 1

    def _read(self, offset: int) -> int:
        if offset >= REG_COMPARATORS:
            number, register = divmod(offset - REG_COMPARATORS, COMPARATOR_SIZE)
            if number >= COMPARATORS:
                return 0
            comparator = self.comparators[number]
            if register == 8:
                self._catch_up(comparator)
                return comparator.value
            return (comparator.configuration, 0, comparator.fsb, 0)[register >> 3]
        if offset == REG_COUNTER:
            return self.counter()
        return {REG_CAPABILITIES: CAPABILITIES, REG_CONFIGURATION: self.configuration, REG_STATUS: self.status}.get(
            offset, 0
        )

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A register or half of one; narrower writes are not allowed (2.3.3) and lost."""
        offset = gpa - self.mmio.start
        if size not in (4, 8) or offset % size:
            return
        shift = 8 * (offset & 7)
        mask = (1 << 8 * size) - 1 << shift
        offset &= ~7
        value = value << shift & mask
        if offset >= REG_COMPARATORS:
            number, register = divmod(offset - REG_COMPARATORS, COMPARATOR_SIZE)
            if number < COMPARATORS:
                self._write_comparator(number, register, value, mask)
        elif offset == REG_CONFIGURATION:
            self._configure((self.configuration & ~mask | value) & (ENABLE | LEGACY))
        elif offset == REG_STATUS:
            self._acknowledge(value)
        elif offset == REG_COUNTER:
            self._counter = self.counter() & ~mask | value
            self._since_ns = self._clock.now_ns()
            self._arm_all(self._counter)

    def _configure(self, value: int) -> None:
        changed = self.configuration ^ value
        if changed & ENABLE:
            self._counter, self._since_ns = self.counter(), self._clock.now_ns()
        if changed & LEGACY:
            self._release_lines()
            if self._legacy is not None:
                self._legacy(bool(value & LEGACY))
        self.configuration = value
        if changed:
            self._arm_all(self._counter if changed & ENABLE else self.counter())

    def _acknowledge(self, bits: int) -> None:
        for number in range(COMPARATORS):
            bit = 1 << number
            if bits & self.status & bit:
                self.status &= ~bit
                self._drive(number, False)
                self._arm(number, self.counter())

    def _write_comparator(self, number: int, register: int, value: int, mask: int) -> None:
        comparator = self.comparators[number]
        if register == 0:
            self._configure_comparator(number, comparator.configuration & ~mask | value)
        elif register == 8:
            merged = (comparator.value & ~mask | value) & comparator.mask
            if not comparator.configuration & T_PERIODIC or comparator.configuration & T_SET_VALUE:
                comparator.value = merged
            if comparator.configuration & T_PERIODIC:
                comparator.period = (comparator.period & ~mask | value) & comparator.mask
            comparator.configuration &= ~T_SET_VALUE
        elif register == 0x10:
            comparator.fsb = comparator.fsb & ~mask | value
        self._arm(number, self.counter())

    def _configure_comparator(self, number: int, value: int) -> None:
        comparator = self.comparators[number]
        before = comparator.configuration
        comparator.configuration = value & T_WRITABLE | T_CAPABILITIES
        changed = before ^ comparator.configuration
        if self.status >> number & 1 and (changed & (T_LEVEL | T_ROUTE_MASK << T_ROUTE_SHIFT | T_FSB_ENABLE)):
            self.status &= ~(1 << number)
            self._drive_gsi(self._gsi(number, before), False)
        if changed & T_32_BITS:
            comparator.value &= comparator.mask
            comparator.period &= comparator.mask

    # -- time ----------------------------------------------------------------------------------------------------------

    def _catch_up(self, comparator: _Comparator) -> int:
        """Move a periodic comparator past the counter, as its matches have; how many there were."""
        periodic = comparator.configuration & T_PERIODIC and comparator.period
        if not periodic or not self.configuration & ENABLE:
            return 0
        behind = (self.counter() - comparator.value) & comparator.mask
        if behind > comparator.mask >> 1:
            return 0
        matches = behind // comparator.period + 1
        comparator.value = (comparator.value + matches * comparator.period) & comparator.mask
        return matches

    def _arm_all(self, counter: int) -> None:
        for number in range(COMPARATORS):
            self._arm(number, counter)

    def _arm(self, number: int, counter: int) -> None:
        """Make the appointment for the next match behind `counter`: the host's time may have passed it meanwhile."""
        comparator = self.comparators[number]
        if comparator.timer is not None:
            comparator.timer.cancel()
            comparator.timer = None
        if not self.configuration & ENABLE or not comparator.configuration & T_ENABLE:
            return
        self._catch_up(comparator)
        ticks = (comparator.value - counter) & comparator.mask or comparator.mask + 1
        if self.status >> number & 1:
            # Nothing more can happen to the line before the guest clears the status. A period is to be kept all the same, by
            # looking before the counter is so far ahead that it seems to be behind.
            if not comparator.configuration & T_PERIODIC:
                return
            ticks = max(ticks, comparator.mask >> 2)
        if ticks > _FAR:
            return
        reached_ns = self._since_ns + (counter - self._counter & _ALL) * PERIOD_NS
        now_ns = self._clock.now_ns()
        deadline_ns = max(reached_ns + ticks * PERIOD_NS, now_ns + 1)
        if comparator.configuration & T_PERIODIC:
            deadline_ns = max(deadline_ns, now_ns + self._clock.min_tick_ns)
        comparator.timer = self._clock.call_at(deadline_ns, partial(self._expire, number))

    def _expire(self, number: int) -> None:
        comparator = self.comparators[number]
        comparator.timer = None
        self._catch_up(comparator)
        self._interrupt(number)
        self._arm(number, self.counter())

    # -- interrupts ----------------------------------------------------------------------------------------------------

    def _gsi(self, number: int, configuration: int) -> int:
        if self.configuration & LEGACY and number < len(_LEGACY_GSIS):
            return _LEGACY_GSIS[number]
        return configuration >> T_ROUTE_SHIFT & T_ROUTE_MASK

    def awaited(self) -> list[int | tuple[int, int]]:
        """The lines and messages that its timers may raise and send (`belljar.machine.wakeups`)."""
        causes: list[int | tuple[int, int]] = []
        for number, comparator in enumerate(self.comparators):
            if comparator.timer is None or self.status >> number & 1:
                continue
            if comparator.configuration & T_FSB_ENABLE:
                causes.append((comparator.fsb >> 32, comparator.fsb & 0xFFFF_FFFF))
            else:
                causes.append(self._gsi(number, comparator.configuration))
        return causes

    def _drive_gsi(self, gsi: int, level: bool) -> None:
        line = self._lines.get(gsi)
        if line is not None:  # a route that is not among those offered leads nowhere
            line(level)

    def _drive(self, number: int, level: bool) -> None:
        self._drive_gsi(self._gsi(number, self.comparators[number].configuration), level)

    def _release_lines(self) -> None:
        for line in self._lines.values():
            line(False)
        self.status = 0

    def _interrupt(self, number: int) -> None:
        comparator = self.comparators[number]
        if comparator.configuration & T_FSB_ENABLE:
            if self._send_msi is not None:
                self._send_msi(comparator.fsb >> 32, comparator.fsb & 0xFFFF_FFFF, f"hpet {number}")
        elif comparator.configuration & T_LEVEL:
            self.status |= 1 << number
            self._drive(number, True)
        else:
            self._drive(number, True)
            self._drive(number, False)

    def state(self) -> dict[str, Any]:
        """Registers, and since when the counter runs."""
        return {
            "configuration": self.configuration,
            "status": self.status,
            "counter": self._counter,
            "since_ns": self._since_ns,
            "comparators": [[c.configuration, c.value, c.period, c.fsb] for c in self.comparators],
            "timers_ns": [c.timer.deadline_ns if c.timer is not None else -1 for c in self.comparators],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back, and the appointments with the clock."""
        self.configuration, self.status = state["configuration"], state["status"]
        self._counter, self._since_ns = state["counter"], state["since_ns"]
        for number, comparator in enumerate(self.comparators):
            comparator.configuration, comparator.value, comparator.period, comparator.fsb = state["comparators"][number]
            if comparator.timer is not None:
                comparator.timer.cancel()
                comparator.timer = None
            deadline_ns = state["timers_ns"][number]
            if deadline_ns >= 0:
                comparator.timer = self._clock.call_at(deadline_ns, partial(self._expire, number))
