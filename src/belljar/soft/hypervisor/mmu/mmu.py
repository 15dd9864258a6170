"""Where guest-physical memory is: slots, mapped into the nested tables when they are first touched."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from belljar.engine import MemoryRegion
from belljar.errors import EngineError
from belljar.soft.hypervisor.controls import PHYSICAL_BITS
from belljar.soft.hypervisor.device_page import NOWHERE, DevicePage
from belljar.soft.hypervisor.mmu.tables import EPT_EXECUTE, EPT_READ, EPT_RWX, EPT_WRITE, PAGE_SIZE, EptTables, PagePool
from belljar.soft.processor._core import HostMemory

LARGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True)
class Slot:
    """A memory region at its host-physical address `hpa`."""

    region: MemoryRegion
    gpa: int
    size: int
    hpa: int
    readonly: bool


class Mmu:
    """The guest-physical address space of one VM. `memory` is the host-physical one that it lies in."""

    def __init__(self, memory: HostMemory) -> None:
        self.memory = memory
        self.pool = PagePool(memory)
        self.tables = EptTables(memory, self.pool)
        self._slots: list[Slot] = []
        self._starts: list[int] = []
        self.device_page = DevicePage()
        """The last page that was found to be in no slot."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """All slots in the order of their addresses."""
        return tuple(self._slots)

    def add(self, region: MemoryRegion) -> None:
        """Make a region a slot. Raises EngineError if it overlaps another or reaches beyond the processor's addresses."""
        end = region.gpa + region.size
        if end > 1 << PHYSICAL_BITS:
            raise EngineError(
                f"memory at guest-physical {region.gpa:#x} reaches beyond the {PHYSICAL_BITS} address bits of the soft processor",
                hint="put it lower",
            )
        position = bisect_right(self._starts, region.gpa)
        for other in self._slots[max(position - 1, 0) : position + 1]:
            if region.gpa < other.gpa + other.size and other.gpa < end:
                raise EngineError(f"memory at guest-physical {region.gpa:#x} overlaps that at {other.gpa:#x}")
        align = LARGE_PAGE if region.size >= LARGE_PAGE else PAGE_SIZE
        hpa = self.memory.attach(region.hva, region.size, align)
        self.device_page.gpa = NOWHERE
        self._slots.insert(position, Slot(region, region.gpa, region.size, hpa, region.readonly))
        self._starts.insert(position, region.gpa)

    def remove(self, region: MemoryRegion) -> None:
        """Take a region's slot away. Harmless if there is none."""
        for position, slot in enumerate(self._slots):
            if slot.region is region:
                del self._slots[position], self._starts[position]
                self.tables.unmap(slot.gpa, slot.size)
                self.memory.detach(slot.hpa)  # flushes every processor's translations, too
                return

    def forget(self, gpa: int) -> None:
        """Take the mapping of a page away; the next access maps it again. Translations must be flushed."""
        self.tables.unmap(gpa & -PAGE_SIZE, PAGE_SIZE)

    def find(self, gpa: int) -> Slot | None:
        """The slot that holds the byte at `gpa`."""
        position = bisect_right(self._starts, gpa) - 1
        if position >= 0:
            slot = self._slots[position]
            if gpa < slot.gpa + slot.size:
                return slot
        return None

    def is_device(self, gpa: int) -> bool:
        """Whether no slot has the page of `gpa`, which is then `device_page`."""
        if self.find(gpa) is not None:
            return False
        self.device_page.gpa = gpa & -PAGE_SIZE
        return True

    def resolve(self, gpa: int, wanted: int) -> bool:
        """An EPT violation: map the page if a slot allows what is wanted (EPT_*). False: it is for a device."""
        slot = self.find(gpa)
        if slot is None or (slot.readonly and wanted & EPT_WRITE):
            return False
        rights = EPT_READ | EPT_EXECUTE if slot.readonly else EPT_RWX
        offset = slot.hpa - slot.gpa
        start = gpa & -LARGE_PAGE
        if offset % LARGE_PAGE == 0 and slot.gpa <= start and start + LARGE_PAGE <= slot.gpa + slot.size:
            self.tables.map(start, start + offset, level=2, rights=rights)
        else:
            page = gpa & -PAGE_SIZE
            self.tables.map(page, page + offset, level=1, rights=rights)
        return True

    def read(self, gpa: int, size: int) -> bytes:
        """Bytes of guest-physical memory as far as slots reach; shorter, or empty, where they end."""
        data = b""
        while len(data) < size:
            slot = self.find(gpa + len(data))
            if slot is None:
                break
            offset = gpa + len(data) - slot.gpa
            data += self.memory.read(slot.hpa + offset, min(size - len(data), slot.size - offset))
        return data
