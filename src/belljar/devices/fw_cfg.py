"""The firmware configuration device of QEMU's machines, read through ports (QEMU docs/specs/fw_cfg.rst): 0x510 and 0x511.

A 16-bit write to 0x510 chooses an item, reads of 0x511 give its bytes, zeros after its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from belljar.errors import ConfigurationError

FW_CFG_PORT = 0x510
SIGNATURE = b"QEMU"
REVISION_TRADITIONAL = 1
FILE_FIRST = 0x20
FILE_SLOTS = 0x10
FILE_NAME_SIZE = 56
_ITEM_MASK = 0x3FFF
"""Without the bits for writing and for items of an architecture (fw_cfg.rst, "Selector (Control) Register")."""


class Item(IntEnum):
    """Items with numbers of their own."""

    SIGNATURE = 0x00
    ID = 0x01
    UUID = 0x02
    RAM_SIZE = 0x03
    NOGRAPHIC = 0x04
    NB_CPUS = 0x05
    MACHINE_ID = 0x06
    KERNEL_ADDRESS = 0x07
    KERNEL_SIZE = 0x08
    KERNEL_COMMAND_LINE = 0x09
    INITRD_ADDRESS = 0x0A
    INITRD_SIZE = 0x0B
    BOOT_DEVICE = 0x0C
    NUMA = 0x0D
    BOOT_MENU = 0x0E
    MAX_CPUS = 0x0F
    KERNEL_ENTRY = 0x10
    KERNEL_DATA = 0x11
    INITRD_DATA = 0x12
    COMMAND_LINE_ADDRESS = 0x13
    COMMAND_LINE_SIZE = 0x14
    COMMAND_LINE_DATA = 0x15
    FILE_DIRECTORY = 0x19


class FwCfg:
    """The device. `ram_size` is in bytes; `files` are found through the directory, by name."""

    port_width = 2
    ports = range(FW_CFG_PORT, FW_CFG_PORT + 2)

    def __init__(
        self,
        *,
        cpus: int,
        ram_size: int,
        max_cpus: int | None = None,
        command_line: bytes = b"",
        initrd: bytes = b"",
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        line = command_line + b"\0"
        self._items: dict[int, bytes] = {
            Item.SIGNATURE: SIGNATURE,
            Item.ID: _u32(REVISION_TRADITIONAL),
            Item.UUID: bytes(16),
            Item.RAM_SIZE: ram_size.to_bytes(8, "little"),
            Item.NOGRAPHIC: _u16(1),
            Item.NB_CPUS: _u16(cpus),
            Item.MAX_CPUS: _u16(max_cpus or cpus),
            Item.BOOT_MENU: _u16(0),
            Item.COMMAND_LINE_SIZE: _u32(len(line)),
            Item.COMMAND_LINE_DATA: line,
            Item.INITRD_SIZE: _u32(len(initrd)),
            Item.INITRD_DATA: initrd,
        }
        self._add_files(files or {})
        self._selected = 0
        self._offset = 0

    def _add_files(self, files: Mapping[str, bytes]) -> None:
        if len(files) > FILE_SLOTS:
            raise ConfigurationError(f"fw_cfg has room for {FILE_SLOTS} files, not {len(files)}")
        directory = len(files).to_bytes(4, "big")
        for number, (name, data) in enumerate(sorted(files.items())):
            encoded = name.encode()
            if len(encoded) >= FILE_NAME_SIZE:
                raise ConfigurationError(f"fw_cfg: {name!r} is longer than {FILE_NAME_SIZE - 1} bytes")
            key = FILE_FIRST + number
            self._items[key] = data
            directory += len(data).to_bytes(4, "big") + key.to_bytes(2, "big") + bytes(2)
            directory += encoded.ljust(FILE_NAME_SIZE, b"\0")
        self._items[Item.FILE_DIRECTORY] = directory

    def port_read(self, port: int, size: int) -> int:
        """The next byte of the chosen item; the selector cannot be read."""
        if port == FW_CFG_PORT:
            return 0
        item = self._items.get(self._selected, b"")
        if self._offset >= len(item):
            return 0
        value = item[self._offset]
        self._offset += 1
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        """Choose an item. Data cannot be written, as in QEMU since 2.4."""
        if port == FW_CFG_PORT and size == 2:
            self._selected = value & _ITEM_MASK
            self._offset = 0

    def state(self) -> dict[str, int]:
        """Which item, and where in it."""
        return {"selected": self._selected, "offset": self._offset}

    def restore(self, state: dict[str, int]) -> None:
        """Take them back."""
        self._selected, self._offset = state["selected"], state["offset"]


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
