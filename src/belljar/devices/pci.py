"""A PCI host bridge with configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2): ports 0xCF8 and 0xCFC.

Slots without a function answer all ones. Bus 0 has the bridge itself, as an Intel 82441FX shows it.
"""

from __future__ import annotations

from typing import Any, Protocol

from belljar.errors import ConfigurationError

CONFIG_ADDRESS_PORT = 0xCF8
CONFIG_DATA_PORT = 0xCFC
ENABLE = 1 << 31
_ADDRESS_WRITABLE = 0x80FF_FFFC

HOST_BRIDGE = {0x00: 0x8086, 0x02: 0x1237, 0x0A: 0x0600}
"""Vendor, device and class words of the 82441FX (290549-001, 3.2)."""
_CONFIG_SIZE = 256
_VENDOR_TO_CLASS = range(0x10)
_COMMAND = range(0x04, 0x06)


class PciFunction(Protocol):
    """One function's configuration space of 256 bytes. `size` is 1, 2 or 4; an access never crosses a doubleword."""

    def config_read(self, offset: int, size: int) -> int:
        """Read configuration space."""

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write it."""


class HostBridge:
    """Function 0 of device 0: identification, a command register, and bytes that firmware may keep its settings in."""

    def __init__(self) -> None:
        self._space = bytearray(_CONFIG_SIZE)
        for offset, value in HOST_BRIDGE.items():
            self._space[offset : offset + 2] = value.to_bytes(2, "little")

    def config_read(self, offset: int, size: int) -> int:
        """Read configuration space."""
        return int.from_bytes(self._space[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write it; the header is read-only but for the command register."""
        for i, byte in enumerate(value.to_bytes(size, "little")):
            if offset + i in _COMMAND or (offset + i not in _VENDOR_TO_CLASS and offset + i >= 0x40):
                self._space[offset + i] = byte

    def state(self) -> dict[str, bytes]:
        """Configuration space."""
        return {"space": bytes(self._space)}

    def restore(self, state: dict[str, bytes]) -> None:
        """Take it back."""
        self._space[:] = state["space"]


class PciHost:
    """The mechanism. `address` and `data` are the two devices to attach to a bus; 0xCF9 between them is another's."""

    def __init__(self) -> None:
        self.bridge = HostBridge()
        self._functions: dict[int, PciFunction] = {0: self.bridge}
        self.selected = 0
        self.address = _AddressPort(self)
        self.data = _DataPorts(self)

    def add(self, device: int, function: int, what: PciFunction, *, bus: int = 0) -> None:
        """Put a function (0 to 7) of a device (0 to 31) on a bus (0 to 255). Raises ConfigurationError if the slot is taken."""
        if not (0 <= bus <= 255 and 0 <= device <= 31 and 0 <= function <= 7):
            raise ConfigurationError(f"there is no PCI slot {bus:02x}:{device:02x}.{function}")
        key = bus << 8 | device << 3 | function
        if key in self._functions:
            raise ConfigurationError(f"PCI slot {bus:02x}:{device:02x}.{function} is taken")
        self._functions[key] = what

    def _function(self) -> PciFunction | None:
        return self._functions.get(self.selected >> 8 & 0xFFFF) if self.selected & ENABLE else None

    def read(self, byte: int, size: int) -> int:
        """Read `size` bytes from `byte` (0 to 3) of the doubleword that was chosen."""
        what = self._function()
        if what is None or byte + size > 4:
            return (1 << 8 * size) - 1
        return what.config_read(self.selected & 0xFC | byte, size)

    def write(self, byte: int, size: int, value: int) -> None:
        """Write there."""
        what = self._function()
        if what is not None and byte + size <= 4:
            what.config_write(self.selected & 0xFC | byte, size, value)

    def devices(self) -> tuple[object, ...]:
        """Everything to attach to a bus."""
        return self.address, self.data

    def state(self) -> dict[str, Any]:
        """The address register and the bridge; other functions have their own."""
        return {"selected": self.selected, "bridge": self.bridge.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.selected = state["selected"]
        self.bridge.restore(state["bridge"])


class _AddressPort:
    """0xCF8: a doubleword; narrower accesses are no part of the mechanism and go to a port that is not there."""

    ports = range(CONFIG_ADDRESS_PORT, CONFIG_ADDRESS_PORT + 1)
    port_width = 4

    def __init__(self, host: PciHost) -> None:
        self._host = host

    def port_read(self, port: int, size: int) -> int:
        """As `belljar.devices.bus.PortDevice`."""
        return self._host.selected if size == 4 else (1 << 8 * size) - 1

    def port_write(self, port: int, size: int, value: int) -> None:
        """As `belljar.devices.bus.PortDevice`."""
        if size == 4:
            self._host.selected = value & _ADDRESS_WRITABLE


class _DataPorts:
    """0xCFC to 0xCFF: the chosen doubleword, or parts of it."""

    ports = range(CONFIG_DATA_PORT, CONFIG_DATA_PORT + 4)
    port_width = 4

    def __init__(self, host: PciHost) -> None:
        self._host = host

    def port_read(self, port: int, size: int) -> int:
        """As `belljar.devices.bus.PortDevice`."""
        return self._host.read(port - CONFIG_DATA_PORT, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """As `belljar.devices.bus.PortDevice`."""
        self._host.write(port - CONFIG_DATA_PORT, size, value)
