"""The ACPI power-management timer (ACPI Specification 6.5, 4.8.3.3): 3.579545 MHz, 24 or 32 bits, read-only."""

from __future__ import annotations

from belljar.devices.clock import NS_PER_SECOND, Clock
from belljar.errors import ConfigurationError

PM_TIMER_HZ = 3_579_545
PM_TIMER_PORT = 0x608
"""Where the 82371AB's successors in virtual machines have it: PM base 0x600, offset 8."""


class PmTimer:
    """Four ports. `offset` is what it showed at the clock's 0."""

    port_width = 4

    def __init__(self, clock: Clock, *, port: int = PM_TIMER_PORT, bits: int = 24) -> None:
        if bits not in (24, 32):
            raise ConfigurationError(f"an ACPI timer has 24 or 32 bits, not {bits}")
        self.ports = range(port, port + 4)
        self._clock = clock
        self.bits = bits
        self.offset = 0

    def _ticks(self) -> int:
        return self._clock.now_ns() * PM_TIMER_HZ // NS_PER_SECOND + self.offset

    def value(self) -> int:
        """The timer now."""
        return self._ticks() & (1 << self.bits) - 1

    def changes_of_top_bit(self) -> int:
        """How often its highest bit has changed since 0; each time sets TMR_STS in the PM1 status register."""
        return self._ticks() >> self.bits - 1

    def next_change_ns(self) -> int:
        """The clock's time of the next change of the highest bit."""
        ticks = (self.changes_of_top_bit() + 1 << self.bits - 1) - self.offset
        return -(-ticks * NS_PER_SECOND // PM_TIMER_HZ)

    def port_read(self, port: int, size: int) -> int:
        """The timer's bytes from this port on."""
        return self.value() >> 8 * (port - self.ports.start) & (1 << 8 * size) - 1

    def port_write(self, port: int, size: int, value: int) -> None:
        """Read-only: nothing happens."""

    def state(self) -> dict[str, int]:
        """The offset; the rest follows from the clock."""
        return {"offset": self.offset}

    def restore(self, state: dict[str, int]) -> None:
        """Take it back."""
        self.offset = state["offset"]
