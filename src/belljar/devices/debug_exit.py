"""The debug exit on port 0xF4, known from QEMU's isa-debug-exit: a guest ends its run with a status of its choice."""

from __future__ import annotations

from collections.abc import Callable

DEBUG_EXIT_PORT = 0xF4
"""The first of four ports."""


class DebugExit:
    """Port 0xF4: writing `value` ends the run with status `(value << 1) | 1`, so that a guest cannot fake success."""

    ports = range(DEBUG_EXIT_PORT, DEBUG_EXIT_PORT + 4)
    port_width = 4

    def __init__(self, end: Callable[[int], None]) -> None:
        self._end = end

    def port_read(self, port: int, size: int) -> int:
        """Zero, as on QEMU."""
        return 0

    def port_write(self, port: int, size: int, value: int) -> None:
        """End the run."""
        self._end((value << 1) | 1)
