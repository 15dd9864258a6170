"""Port 0x61, a PC's system control port B: counter 2's gate and output, the speaker, the refresh toggle.

(IBM PC/AT Technical Reference, "Speaker"; Intel 82371AB 4.2.5.2.)
"""

from __future__ import annotations

from belljar.devices.clock import Clock
from belljar.devices.i8254 import Pit

SYSTEM_CONTROL_PORT = 0x61

GATE, SPEAKER, PARITY_OFF, CHANNEL_CHECK_OFF = 0x01, 0x02, 0x04, 0x08
WRITABLE = GATE | SPEAKER | PARITY_OFF | CHANNEL_CHECK_OFF
REFRESH, OUT = 0x10, 0x20

REFRESH_NS = 15_085
"""Memory was refreshed every 18 clocks of 1.193182 MHz; the bit changes each time."""


class SystemControlB:
    """Port 0x61."""

    ports = range(SYSTEM_CONTROL_PORT, SYSTEM_CONTROL_PORT + 1)
    port_width = 1

    def __init__(self, clock: Clock, pit: Pit) -> None:
        self._clock = clock
        self._pit = pit
        self._value = 0

    def port_read(self, port: int, size: int) -> int:
        """What was written, the toggle, and counter 2's output."""
        refresh = REFRESH if self._clock.now_ns() // REFRESH_NS & 1 else 0
        return self._value | refresh | (OUT if self._pit.speaker_out else 0)

    def port_write(self, port: int, size: int, value: int) -> None:
        """The gate and the rest; the speaker makes no sound here."""
        self._value = value & WRITABLE
        self._pit.set_speaker_gate(bool(value & GATE))

    def state(self) -> dict[str, int]:
        """The writable bits."""
        return {"value": self._value}

    def restore(self, state: dict[str, int]) -> None:
        """Take them back; the gate is the timer's."""
        self._value = state["value"]
