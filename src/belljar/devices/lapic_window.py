"""Where a CPU sees its own local APIC in memory: in front of the machine's buses, one page that each CPU has to itself."""

from __future__ import annotations

from typing import Final

from belljar.devices.lapic import Lapic
from belljar.engine import Bus
from belljar.x86.local_apic import LAPIC_SIZE

_PAGE_MASK: Final = -LAPIC_SIZE


class LapicWindow:
    """The buses as one CPU sees them: its local APIC's page, and behind it the machine's. Satisfies `engine.Bus`.

    The page is where IA32_APIC_BASE says; in x2APIC mode, or with the APIC off, there is none.
    """

    def __init__(self, lapic: Lapic, bus: Bus) -> None:
        self.lapic = lapic
        self.bus = bus
        self.port_read = bus.port_read
        self.port_write = bus.port_write
        self.port_read_block = bus.port_read_block
        self.port_write_block = bus.port_write_block

    def mmio_read(self, gpa: int, size: int) -> int:
        """A load. Registers are 32 bits at multiples of 16; a load across their end gives 0 (SDM 3A 11.4.1: undefined)."""
        if gpa & _PAGE_MASK != self.lapic.window_gpa:
            return self.bus.mmio_read(gpa, size)
        index, byte = gpa >> 4 & 0xFF, gpa & 0xF
        value = self.lapic.read(index)
        if value is None:
            self.lapic.illegal_register()
            return 0
        return value >> 8 * byte & (1 << 8 * size) - 1 if byte + size <= 4 else 0

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A store. Only 32 bits at a multiple of 16 reach a register."""
        if gpa & _PAGE_MASK != self.lapic.window_gpa:
            self.bus.mmio_write(gpa, size, value)
            return
        if size != 4 or gpa & 0xF:
            return
        index = gpa >> 4 & 0xFF
        if not self.lapic.write(index, value) and self.lapic.read(index) is None:
            self.lapic.illegal_register()
