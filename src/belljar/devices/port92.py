"""Port 0x92, a PS/2's system control port A: the A20 gate and a fast reset of the processor (Intel 82371AB 4.2.5.3)."""

from __future__ import annotations

from collections.abc import Callable

PORT_92 = 0x92
FAST_INIT, A20 = 0x01, 0x02


class Port92:
    """Port 0x92. `reset` is called when bit 0 rises; `a20` with the gate's new state."""

    ports = range(PORT_92, PORT_92 + 1)
    port_width = 1

    def __init__(self, reset: Callable[[], None], a20: Callable[[bool], None] = lambda enabled: None) -> None:
        self._reset = reset
        self._set_a20 = a20
        self._value = A20

    def port_read(self, port: int, size: int) -> int:
        """What was written."""
        return self._value

    def port_write(self, port: int, size: int, value: int) -> None:
        """The gate, and a reset where bit 0 goes from 0 to 1."""
        changed = self._value ^ value
        self._value = value
        if changed & A20:
            self._set_a20(bool(value & A20))
        if changed & value & FAST_INIT:
            self._reset()

    def state(self) -> dict[str, int]:
        """The register."""
        return {"value": self._value}

    def restore(self, state: dict[str, int]) -> None:
        """Take it back."""
        self._value = state["value"]
