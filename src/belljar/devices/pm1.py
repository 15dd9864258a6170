"""PM1 event and control registers of ACPI's fixed hardware (ACPI Specification 6.5, 4.8.3.1 and 4.8.3.2), ports 0x600 to 0x605.

Of events there are the power-management timer's and the real-time clock's alarm, which also wakes; of sleep states S3, suspend
to RAM, and S5, soft off. The machine is always in ACPI mode.

In S3 processors lose their state: they get INIT, and the bootstrap processor waits in firmware (`belljar.boot.firmware`) until it
gets another one, when WAK_STS sends it on to the guest's waking vector (ACPI 6.5, 16.3.2).
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

WAKE = 1 << 15
"""WAK_STS, in the status register alone."""

_ENABLES = TIMER | GLOBAL | POWER_BUTTON | SLEEP_BUTTON | RTC

SCI_ENABLED, _BUS_MASTER_RELOAD = 1 << 0, 1 << 1
SLEEP_TYPE_SHIFT, SLEEP_TYPE, SLEEP_ENABLE = 10, 7 << 10, 1 << 13
"""Control (table 4.13). SCI_EN reads as 1 without SMI_CMD (5.2.9); SLP_EN is write-only."""

SOFT_OFF, SUSPEND = 0, 1
"""The SLP_TYP of S5 and S3, as the 82371AB has them."""

INIT_BROADCAST, INIT_BOOTSTRAP = (0xFEEF_F000, 0x500), (0xFEE0_0000, 0x500)
"""Messages to all processors and to the first (SDM 3A 11.11: delivery mode 101B)."""


class Pm1:
    """The registers. `line` is the SCI; `power_off` is called when the guest enters S5.

    `send_msi(gpa, data)` resets processors for S3, which there is not without. Other sleep types do nothing.
    """

    port_width = 2

    def __init__(
        self,
        clock: Clock,
        pm_timer: PmTimer,
        line: Callable[[bool], object],
        power_off: Callable[[], None],
        send_msi: Callable[[int, int], object] | None = None,
    ) -> None:
        self.ports = range(PM1_PORT, PM1_END)
        self._clock = clock
        self._pm_timer = pm_timer
        self._line = line
        self._power_off = power_off
        self._send_msi = send_msi
        self._asleep = False
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
            self._control = (self._control & ~mask | value) & (SLEEP_TYPE | _BUS_MASTER_RELOAD)
            if value & SLEEP_ENABLE:
                self._sleep(self._control >> SLEEP_TYPE_SHIFT & 7)
        self._follow()

    def _sleep(self, kind: int) -> None:
        if kind == SOFT_OFF:
            self._power_off()
        elif kind == SUSPEND and self._send_msi is not None:
            self._asleep = True
            self._send_msi(*INIT_BROADCAST)
            self._send_msi(*INIT_BOOTSTRAP)

    def alarm(self) -> None:
        """The real-time clock's alarm goes off."""
        self._catch_up()
        self._status |= RTC
        self._follow()

    def wakes_by_alarm(self) -> list[int | tuple[int, int]]:
        """What an alarm raises and sends now: the SCI, and the message that ends S3."""
        if not self._enabled & RTC:
            return []
        return [*self.awaited(), *([INIT_BOOTSTRAP] if self._asleep else [])]

    def _catch_up(self) -> None:
        changes = self._pm_timer.changes_of_top_bit()
        if changes != self._changes:
            self._changes = changes
            self._status |= TIMER

    def _follow(self) -> None:
        """Bring the SCI, and the timer that may raise it, up to date."""
        if self._asleep and self._status & self._enabled & RTC:
            self._asleep = False
            self._status |= WAKE
            if self._send_msi is not None:
                self._send_msi(*INIT_BOOTSTRAP)
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
        """The line that its timer may raise, if it is on one and not up (`belljar.machine.wakeups`)."""
        gsi = getattr(self._line, "gsi", None)
        return [gsi] if gsi is not None and not self._level else []

    def state(self) -> dict[str, int]:
        """The registers, and how many changes of the timer's highest bit they know of."""
        self._catch_up()
        return {
            "status": self._status,
            "enabled": self._enabled,
            "control": self._control,
            "changes": self._changes,
            "level": int(self._level),
            "asleep": int(self._asleep),
        }

    def restore(self, state: dict[str, int]) -> None:
        """Take them back, after the timer's."""
        self._status, self._enabled, self._control = state["status"], state["enabled"], state["control"]
        self._changes, self._level = state["changes"], bool(state["level"])
        self._asleep = bool(state["asleep"])
        self._follow()
