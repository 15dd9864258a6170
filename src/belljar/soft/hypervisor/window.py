"""The device side of an instruction that the processor carries out with its window open (processor/core/window.py)."""

from __future__ import annotations

from typing import Final, Protocol, cast

from belljar.engine import Bus
from belljar.soft.hypervisor.exit_log import MMIO, ExitLog
from belljar.soft.hypervisor.mmu.mmu import Mmu
from belljar.soft.processor._core import Processor

PAGE_MASK: Final = -4096


class Owner(Protocol):
    """The vCPU, as far as the window knows it."""

    log: ExitLog
    reporting: bool
    processor: Processor

    def report_access(self) -> None:
        """The last access of the log was served."""


class DeviceWindow:
    """Answers the processor's accesses from memory slots and the bus. `failure` is what a device raised, if one did.

    `bus` is whose devices are behind it, `device_gpa` a page that no memory slot has.
    `ahead` holds what INS has asked of its port and not yet stored.
    """

    def __init__(self, mmu: Mmu, owner: Owner) -> None:
        self._mmu = mmu
        self._owner = owner
        self.bus: Bus
        self.device_gpa = -1
        self.failure: BaseException | None = None
        self.ahead = b""
        self._expected = (0, 0, 1)

    def close(self) -> None:
        """Let go of the vCPU, which refers to this window."""
        self._owner = cast(Owner, None)

    def fail(self) -> None:
        """Raise what a device raised."""
        failure, self.failure = self.failure, None
        assert failure is not None
        raise failure

    def resolve(self, gpa: int, wanted: int) -> bool:
        """Map memory at `gpa` if there is some for it."""
        return self._mmu.resolve(gpa, wanted)

    def read(self, gpa: int, size: int) -> int:
        """A load: from read-only memory, of which only stores are a device's, or from the bus."""
        if gpa & PAGE_MASK != self.device_gpa and self._mmu.find(gpa) is not None:
            return int.from_bytes(self._mmu.read(gpa, size).ljust(size, b"\xff"), "little")
        owner = self._owner
        owner.log.counts[MMIO] += 1
        value = (1 << 8 * size) - 1
        try:
            value &= self.bus.mmio_read(gpa, size)
        finally:
            if owner.reporting:
                owner.log.mmio(gpa, False, size, value)
        if owner.reporting:
            owner.report_access()
        return value

    def write(self, gpa: int, size: int, value: int) -> None:
        """A store."""
        owner = self._owner
        owner.log.counts[MMIO] += 1
        if not owner.reporting:  # nobody will ask what it was
            self.bus.mmio_write(gpa, size, value)
            return
        owner.log.mmio(gpa, True, size, value)
        self.bus.mmio_write(gpa, size, value)
        owner.report_access()

    def expect(self, port: int, size: int, count: int) -> None:
        """REP INS will want `count` items of a port: they are asked for at once, when the first is wanted."""
        if self._expected[:2] != (port, size):
            self.ahead = b""
        self._expected = (port, size, count)

    def port_read(self, port: int, size: int) -> int:
        """INS."""
        if not self.ahead:
            self.ahead = self._read_port(port, size)
        item, self.ahead = self.ahead[:size], self.ahead[size:]
        return int.from_bytes(item, "little")

    def _read_port(self, port: int, size: int) -> bytes:
        owner = self._owner
        owner.processor.charge_exit()
        count = self._expected[2]
        data = b"\xff" * size * count
        try:
            if count == 1:
                data = (self.bus.port_read(port, size) & (1 << 8 * size) - 1).to_bytes(size, "little")
            else:
                data = self.bus.port_read_block(port, size, count)[: size * count].ljust(size * count, b"\xff")
        finally:
            owner.log.port(port, size, False, data, count)
        if owner.reporting:
            owner.report_access()
        return data

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUTS."""
        owner = self._owner
        owner.processor.charge_exit()
        owner.log.port(port, size, True, value.to_bytes(size, "little"), 1)
        self.bus.port_write(port, size, value)
        if owner.reporting:
            owner.report_access()
