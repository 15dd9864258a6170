"""PM1 event and control registers of ACPI's fixed hardware (ACPI Specification 6.5, 4.8.3.1 and 4.8.3.2), ports 0x600 to 0x605.

Of events there is the power-management timer's; of sleep states S5, soft off. The machine is always in ACPI mode.
"""

from __future__ import annotations

from collections.abc import Callable

from belljar.devices.clock import Clock, Timer
from belljar.devices.pm_timer import PmTimer

PM1_PORT = 0x600
"""Where the 82371AB's successors in virtual machines have it: the PM base itself."""

EVENT_PORT, CONTROL_PORT, PM1_END = PM1_PORT, PM1_PORT + 4, PM1_PORT + 6
STATUS, ENABLE, CONTROL = 0, 2, 4
"""Offsets of three registers of 16 bits."""

TIMER = 1 << 0
GLOBAL, POWER_BUTTON, SLEEP_BUTTON, RTC = 1 << 5, 1 << 8, 1 << 9, 1 << 10
"""Events: their bit in the status register (table 4.11) and in the enable register (table 4.12)."""

_ENABLES = TIMER | GLOBAL | POWER_BUTTON | SLEEP_BUTTON | RTC

SCI_ENABLED, _BUS_MASTER_RELOAD = 1 << 0, 1 << 1
SLEEP_TYPE_SHIFT, _SLEEP_TYPE, SLEEP_ENABLE = 10, 7 << 10, 1 << 13
"""Control (table 4.13). SCI_EN reads as 1 without SMI_CMD (5.2.9); SLP_EN is write-only."""

SOFT_OFF = 0
"""The SLP_TYP of S5, as the 82371AB has it."""


class Pm1:
    """The registers. `line` is the SCI; `power_off` is called when the guest enters S5; other sleep types do nothing."""

    port_width = 2

    def __init__(
        self, clock: Clock, pm_timer: PmTimer, line: Callable[[bool], object], power_off: Callable[[], None]
    ) -> None:
        self.ports = range(PM1_PORT, PM1_END)
        self._clock = clock
        self._pm_timer = pm_timer
        self._line = line
        self._power_off = power_off
        self._status = 0
        self._enabled = 0
        self._control = 0
        self._changes = pm_timer.changes_of_top_bit()
        self._timer: Timer | None = None
        self._level = False

    def port_read(self, port: int, size: int) -> int:
        """A register's bytes from this port on."""
        self._catch_up()
        offset = port - PM1_PORT
        value = (self._status, self._enabled, self._control | SCI_ENABLED)[offset >> 1]
        return value >> 8 * (offset & 1) & (1 << 8 * size) - 1

    def port_write(self, port: int, size: int, value: int) -> None:
        """Clear events by ones in the status register; set the others. A byte leaves the other half as it is."""
        self._catch_up()
        offset, shift = port - PM1_PORT & ~1, 8 * (port & 1)
        mask = ((1 << 8 * size) - 1) << shift & 0xFFFF
        value = value << shift & mask
        if offset == STATUS:
            self._status &= ~value
        elif offset == ENABLE:
            self._enabled = (self._enabled & ~mask | value) & _ENABLES
        else:
            self._control = (self._control & ~mask | value) & (_SLEEP_TYPE | _BUS_MASTER_RELOAD)
            if value & SLEEP_ENABLE and self._control & _SLEEP_TYPE == SOFT_OFF << SLEEP_TYPE_SHIFT:
                self._power_off()
        self._follow()

    def _catch_up(self) -> None:
        changes = self._pm_timer.changes_of_top_bit()
        if changes != self._changes:
            self._changes = changes
            self._status |= TIMER

    def _follow(self) -> None:
        """Bring the SCI, and the timer that may raise it, up to date."""
        level = bool(self._status & self._enabled)
        if level != self._level:
            self._level = level
            self._line(level)
        wanted = bool(self._enabled & ~self._status & TIMER)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wanted:
            self._timer = self._clock.call_at(self._pm_timer.next_change_ns(), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._catch_up()
        self._follow()

    def awaited(self) -> list[int]:
        """The line that its timer may raise, if it is on one (`belljar.machine.wakeups`)."""
        gsi = getattr(self._line, "gsi", None)
        return [gsi] if gsi is not None else []

    def state(self) -> dict[str, int]:
        """The registers, and how many changes of the timer's highest bit they know of."""
        self._catch_up()
        return {
            "status": self._status,
            "enabled": self._enabled,
            "control": self._control,
            "changes": self._changes,
            "level": int(self._level),
        }

    def restore(self, state: dict[str, int]) -> None:
        """Take them back, after the timer's."""
        self._status, self._enabled, self._control = state["status"], state["enabled"], state["control"]
        self._changes, self._level = state["changes"], bool(state["level"])
        self._follow()
