"""The port bus and the memory bus: which device answers which address.

A `Bus` is what a vCPU's run loop calls (`belljar.engine.Bus`). Addresses that no device claims behave as on a PC whose
bus floats: reads give all ones, writes are lost (and counted, so that a report can say so).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager
from operator import index
from threading import RLock
from typing import Protocol

from belljar.errors import ConfigurationError

PORT_COUNT = 0x10000
"""The size of the I/O address space in bytes (SDM 1 19.3)."""

_ALL_ONES = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}


def _key(port: int, size: int) -> int:
    return port << 3 | size  # written out where every access passes


class PortDevice(Protocol):
    """A device on the port bus. Ports are absolute; values unsigned; never raises for anything a guest can do."""

    @property
    def ports(self) -> range:
        """The ports it claims."""

    @property
    def port_width(self) -> int:
        """The widest access in bytes that it takes whole; the bus splits a wider one into bytes on adjacent ports."""

    def port_read(self, port: int, size: int) -> int:
        """IN from one of its ports."""

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT to one of its ports."""


class MemoryDevice(Protocol):
    """A device on the memory bus, as `PortDevice` is on the port bus. `size` is 1 to 8 bytes."""

    @property
    def mmio(self) -> range:
        """The guest-physical addresses it claims."""

    def mmio_read(self, gpa: int, size: int) -> int:
        """A load."""

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A store."""


PARTS = {"ports": ("port_width", "port_read", "port_write"), "mmio": ("mmio_read", "mmio_write")}
"""What a device needs beside its addresses, by what these are called."""


class Bus:
    """Dispatches port and memory accesses to devices by address. Not safe for two vCPU threads: see `LockedBus`."""

    def __init__(self) -> None:
        # By port and size, as `_key` says: only the sizes that the device takes whole.
        self._port_readers: dict[int, Callable[[int, int], int]] = {}
        self._port_writers: dict[int, Callable[[int, int, int], None]] = {}
        self._port_block_writers: dict[int, Callable[[int, bytes], None]] = {}
        self._yielding_ports: set[int] = set()
        self._yielding_memory: list[MemoryDevice] = []
        self._mmio_starts: list[int] = []
        self._mmio_devices: list[MemoryDevice] = []
        self.port_devices: list[PortDevice] = []
        self.unclaimed = 0
        """How many accesses no device answered."""

    def attach(self, device: object, *, gives_way: bool = False) -> None:
        """Put a device on the bus or buses that it has addresses for.

        Raises ConfigurationError if one is taken, if there are none, or if the device lacks what its protocol asks for
        (`PortDevice`, `MemoryDevice`).

        A device that `gives_way` leaves the ports that another one claims, before or after it, and its memory if any of it
        is claimed: what a machine has anyway must not be in the way of what its user puts there.
        """
        buses = [name for name in PARTS if isinstance(getattr(device, name, None), range)]
        if not buses:
            raise ConfigurationError(
                f"{type(device).__name__} has no addresses", hint="a range called `ports`, or one called `mmio`"
            )
        for name in buses:
            missing = [part for part in PARTS[name] if not hasattr(device, part)]
            if missing:
                raise ConfigurationError(
                    f"{type(device).__name__} has `{name}`, but no {', '.join(f'`{part}`' for part in missing)}",
                    hint="belljar.devices.bus says what devices have",
                )
        if "ports" in buses:
            self._attach_ports(device, gives_way)  # type: ignore[arg-type]
        if "mmio" in buses:
            self._attach_mmio(device, gives_way)  # type: ignore[arg-type]

    def _attach_ports(self, device: PortDevice, gives_way: bool) -> None:
        claimed = []
        for port in device.ports:
            if not 0 <= port < PORT_COUNT:
                raise ConfigurationError(f"{type(device).__name__}: port {port:#x} is outside the I/O address space")
            if _key(port, 1) not in self._port_writers or port in self._yielding_ports:
                claimed.append(port)
            elif not gives_way:
                raise ConfigurationError(f"{type(device).__name__}: port {port:#x} belongs to another device")
        self._yielding_ports.difference_update(claimed)
        if gives_way:
            self._yielding_ports.update(claimed)
        block_writer = getattr(device, "port_write_bytes", None)
        for port in claimed:
            self._port_block_writers.pop(port, None)
            for size in (1, 2, 4):
                self._port_readers.pop(_key(port, size), None)
                self._port_writers.pop(_key(port, size), None)
                if size == 1 or size <= device.port_width:
                    self._port_readers[_key(port, size)] = device.port_read
                    self._port_writers[_key(port, size)] = device.port_write
            if block_writer is not None:
                self._port_block_writers[port] = block_writer
        self.port_devices.append(device)

    def _attach_mmio(self, device: MemoryDevice, gives_way: bool) -> None:
        for other in self._mmio_devices[:]:
            if other.mmio.start < device.mmio.stop and device.mmio.start < other.mmio.stop:
                if other in self._yielding_memory:
                    self._detach_mmio(other)
                elif gives_way:
                    return
        if gives_way:
            self._yielding_memory.append(device)
        where = bisect_right(self._mmio_starts, device.mmio.start)
        before = self._mmio_devices[where - 1].mmio if where else range(0)
        after = self._mmio_devices[where].mmio if where < len(self._mmio_devices) else range(1 << 64, 1 << 64)
        if before.stop > device.mmio.start or device.mmio.stop > after.start:
            raise ConfigurationError(
                f"{type(device).__name__}: guest-physical {device.mmio.start:#x} belongs to another device"
            )
        self._mmio_starts.insert(where, device.mmio.start)
        self._mmio_devices.insert(where, device)

    def _detach_mmio(self, device: MemoryDevice) -> None:
        where = self._mmio_devices.index(device)
        del self._mmio_devices[where], self._mmio_starts[where]
        self._yielding_memory.remove(device)

    def port_read(self, port: int, size: int) -> int:
        """IN: the device's answer, all ones where there is none."""
        reader = self._port_readers.get(port << 3 | size)
        if reader is not None:
            answer = reader(port, size)
            return answer if type(answer) is int else index(answer)  # compiled callers take nothing else
        if size == 1:
            self.unclaimed += 1
            return 0xFF
        value = 0
        for i in range(size):
            value |= self.port_read((port + i) % PORT_COUNT, 1) << (8 * i)
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT: to the device, lost where there is none."""
        writer = self._port_writers.get(port << 3 | size)
        if writer is not None:
            writer(port, size, value)
        elif size == 1:
            self.unclaimed += 1
        else:
            for i in range(size):
                self.port_write((port + i) % PORT_COUNT, 1, (value >> (8 * i)) & 0xFF)

    def port_read_block(self, port: int, size: int, count: int) -> bytes:
        """REP INS: every item is a read of its own, as the processor makes them."""
        mask = _ALL_ONES[size]
        return b"".join((self.port_read(port, size) & mask).to_bytes(size, "little") for _ in range(count))

    def port_write_block(self, port: int, size: int, data: bytes) -> None:
        """REP OUTS or collected writes: in one piece to a device that takes bytes, else item by item."""
        writer = self._port_block_writers.get(port) if size == 1 else None
        if writer is not None:
            writer(port, data)
            return
        for i in range(0, len(data), size):
            self.port_write(port, size, int.from_bytes(data[i : i + size], "little"))

    def _mmio_device(self, gpa: int) -> MemoryDevice | None:
        where = bisect_right(self._mmio_starts, gpa)
        device = self._mmio_devices[where - 1] if where else None
        return device if device is not None and gpa in device.mmio else None

    def port_device(self, port: int) -> object | None:
        """The device that answers a port, for whoever looks on."""
        return getattr(self._port_readers.get(port << 3 | 1), "__self__", None)

    def mmio_device(self, gpa: int) -> object | None:
        """The device that answers a guest-physical address, for whoever looks on."""
        return self._mmio_device(gpa)

    def mmio_read(self, gpa: int, size: int) -> int:
        """A load from unbacked guest-physical memory."""
        device = self._mmio_device(gpa)
        if device is not None:
            answer = device.mmio_read(gpa, size)
            return answer if type(answer) is int else index(answer)
        self.unclaimed += 1
        return _ALL_ONES.get(size) or (1 << (8 * size)) - 1

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A store to unbacked guest-physical memory."""
        device = self._mmio_device(gpa)
        if device is not None:
            device.mmio_write(gpa, size, value)
        else:
            self.unclaimed += 1


class LockedBus(Bus):
    """A bus for several vCPU threads: one access at a time, machine-wide, so that devices need no locks of their own.

    `lock` must be re-entrant; an RLock if none is given.
    """

    def __init__(self, lock: AbstractContextManager[object] | None = None) -> None:
        super().__init__()
        self.lock = self._lock = RLock() if lock is None else lock

    def port_read(self, port: int, size: int) -> int:
        """As `Bus.port_read`."""
        with self._lock:
            return super().port_read(port, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """As `Bus.port_write`."""
        with self._lock:
            super().port_write(port, size, value)

    def port_write_block(self, port: int, size: int, data: bytes) -> None:
        """As `Bus.port_write_block`; the block is not interleaved with other vCPUs' writes."""
        with self._lock:
            super().port_write_block(port, size, data)

    def mmio_read(self, gpa: int, size: int) -> int:
        """As `Bus.mmio_read`."""
        with self._lock:
            return super().mmio_read(gpa, size)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """As `Bus.mmio_write`."""
        with self._lock:
            super().mmio_write(gpa, size, value)
