"""The reset control register at 0xCF9 (Intel 82371AB 4.2.6.1; ICH9 13.7.5): a write that raises bit 2 resets the machine."""

from __future__ import annotations

from collections.abc import Callable

RESET_PORT = 0xCF9
SYSTEM_RESET, RESET_CPU, FULL_RESET = 0x02, 0x04, 0x08


class ResetControl:
    """Port 0xCF9. `reset` is called with True for a hard reset (bit 1), False for one of the processors alone."""

    ports = range(RESET_PORT, RESET_PORT + 1)
    port_width = 1

    def __init__(self, reset: Callable[[bool], None]) -> None:
        self._reset = reset
        self._value = 0

    def port_read(self, port: int, size: int) -> int:
        """What was written; bit 2 reads as 0."""
        return self._value

    def port_write(self, port: int, size: int, value: int) -> None:
        """Set the kind; reset if bit 2 is set, which it never was before, for a reset clears it."""
        self._value = value & (SYSTEM_RESET | FULL_RESET)
        if value & RESET_CPU:
            self._reset(bool(value & SYSTEM_RESET))

    def state(self) -> dict[str, int]:
        """The register."""
        return {"value": self._value}

    def restore(self, state: dict[str, int]) -> None:
        """Take it back."""
        self._value = state["value"]
