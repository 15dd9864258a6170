"""The debug console on port 0xE9, known from Bochs and QEMU: every byte written is a byte of console output."""

from __future__ import annotations

from belljar.devices.console import Output

DEBUG_CONSOLE_PORT = 0xE9
"""The port; reading it gives its own number, by which guests find out that it is there."""


class DebugConsole:
    """Port 0xE9. A word or doubleword written there prints its bytes, lowest first."""

    ports = range(DEBUG_CONSOLE_PORT, DEBUG_CONSOLE_PORT + 1)
    port_width = 4
    batched_ports = (DEBUG_CONSOLE_PORT,)

    def __init__(self, output: Output) -> None:
        self._write = output.write

    def port_read(self, port: int, size: int) -> int:
        """0xE9, as on Bochs."""
        return DEBUG_CONSOLE_PORT

    def port_write(self, port: int, size: int, value: int) -> None:
        """Print `size` bytes."""
        self._write(value.to_bytes(size, "little"))

    def port_write_bytes(self, port: int, data: bytes) -> None:
        """Print a block."""
        self._write(data)
