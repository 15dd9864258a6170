"""The test device that the KVM unit tests expect (QEMU's pc-testdev): a latch, interrupt lines, page flush, memory-like I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

LATCH_PORT, FLUSH_PORT, LATCH_ALIAS_PORT = 0xE0, 0xE4, 0xE8
LATCH_SIZE = 4
LINES_PORT = 0x2000
LINES = 24
IO_RAM_GPA = 0xFF00_0000
IO_RAM_SIZE = 0x10000
PAGE_SIZE = 4096


class TestLatch:
    """Four bytes at 0xE0 and again at 0xE8, which keep what is written: accesses of every size and alignment can be checked."""

    __test__ = False
    port_width = 4

    def __init__(self, port: int = LATCH_PORT, alias_of: TestLatch | None = None) -> None:
        self.ports = range(port, port + LATCH_SIZE)
        self._bytes: bytearray = alias_of._bytes if alias_of is not None else bytearray(LATCH_SIZE)

    def port_read(self, port: int, size: int) -> int:
        """`size` bytes from this one on; what lies beyond the last reads as 0."""
        offset = port - self.ports.start
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def port_write(self, port: int, size: int, value: int) -> None:
        """Set them; what would lie beyond the last is lost."""
        offset = port - self.ports.start
        kept = min(size, LATCH_SIZE - offset)
        self._bytes[offset : offset + kept] = value.to_bytes(size, "little")[:kept]

    def state(self) -> dict[str, Any]:
        """The bytes."""
        return {"bytes": bytes(self._bytes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._bytes[:] = state["bytes"]


class TestFlush:
    """Port 0xE4: a write of a guest-physical address calls `flush` with its page, which is to drop translations of it."""

    __test__ = False
    ports = range(FLUSH_PORT, FLUSH_PORT + 4)
    port_width = 4

    def __init__(self, flush: Callable[[int], None]) -> None:
        self._flush = flush

    def port_read(self, port: int, size: int) -> int:
        """All ones: it can only be written."""
        return (1 << 8 * size) - 1

    def port_write(self, port: int, size: int, value: int) -> None:
        """Flush the page."""
        if port == FLUSH_PORT:
            self._flush(value & -PAGE_SIZE)


class TestLines:
    """Ports 0x2000 to 0x2017: a byte that is not 0 raises the interrupt line of that number, 0 lowers it."""

    __test__ = False
    ports = range(LINES_PORT, LINES_PORT + LINES)
    port_width = 1

    def __init__(self, lines: Sequence[Callable[[bool], object]]) -> None:
        self._lines = tuple(lines)

    def port_read(self, port: int, size: int) -> int:
        """All ones: they can only be written."""
        return 0xFF

    def port_write(self, port: int, size: int, value: int) -> None:
        """Drive a line."""
        number = port - LINES_PORT
        if number < len(self._lines):
            self._lines[number](value != 0)


class TestIoRam:
    """64 KiB at 0xFF000000 that behave as memory and are reached as I/O."""

    __test__ = False
    mmio = range(IO_RAM_GPA, IO_RAM_GPA + IO_RAM_SIZE)

    def __init__(self) -> None:
        self._bytes = bytearray(IO_RAM_SIZE)

    def mmio_read(self, gpa: int, size: int) -> int:
        """A load; 0 beyond the end."""
        offset = gpa - IO_RAM_GPA
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A store."""
        offset = gpa - IO_RAM_GPA
        kept = min(size, IO_RAM_SIZE - offset)
        self._bytes[offset : offset + kept] = value.to_bytes(size, "little")[:kept]

    def state(self) -> dict[str, Any]:
        """The bytes."""
        return {"bytes": bytes(self._bytes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._bytes[:] = state["bytes"]


class TestDevice:
    """All parts together: `devices` are to be attached to a bus. `line_of(gsi)` gives a source's hold on a line."""

    __test__ = False

    def __init__(self, line_of: Callable[[int], Callable[[bool], object]], flush: Callable[[int], None]) -> None:
        self.latch = TestLatch()
        self.io_ram = TestIoRam()
        self.devices: tuple[object, ...] = (
            self.latch,
            TestLatch(LATCH_ALIAS_PORT, alias_of=self.latch),
            TestFlush(flush),
            TestLines([line_of(number) for number in range(LINES)]),
            self.io_ram,
        )

    def state(self) -> dict[str, Any]:
        """The latch and the I/O memory."""
        return {"latch": self.latch.state(), "io_ram": self.io_ram.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.latch.restore(state["latch"])
        self.io_ram.restore(state["io_ram"])
