"""The EPT tables: four levels of pages in host-physical memory (SDM 3C 29.3.2)."""

from __future__ import annotations

from belljar.soft.processor._core import HostMemory

PAGE_SIZE = 4096

EPT_READ, EPT_WRITE, EPT_EXECUTE = 1, 2, 4
EPT_RWX = EPT_READ | EPT_WRITE | EPT_EXECUTE
EPT_WRITE_BACK = 6 << 3
"""Memory type of a leaf entry (SDM 3C table 29-6)."""
EPT_LARGE = 1 << 7
EPTP_WALK_LENGTH_4 = 3 << 3
EPTP_WRITE_BACK = 6
"""SDM 3C table 25-9."""

ADDRESS_MASK = (1 << 52) - PAGE_SIZE

POOL_PAGES = 16
"""How many pages for tables are taken from the host at a time."""


class PagePool:
    """Zeroed pages of host-physical memory for tables, given back together."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        self._free: list[int] = []
        self.pages = 0

    def take(self) -> int:
        """A zeroed page's host-physical address."""
        if not self._free:
            start = self._memory.allocate(POOL_PAGES * PAGE_SIZE)
            self._free = [start + i * PAGE_SIZE for i in reversed(range(POOL_PAGES))]
        self.pages += 1
        return self._free.pop()

    def give_back(self, hpa: int) -> None:
        """A page that nothing refers to any more."""
        self._memory.write(hpa, bytes(PAGE_SIZE))
        self._free.append(hpa)
        self.pages -= 1


class EptTables:
    """One tree of EPT tables. Level 1 entries map 4 KiB, level 2 entries 2 MiB."""

    def __init__(self, memory: HostMemory, pool: PagePool) -> None:
        self._memory = memory
        self._pool = pool
        self.root_hpa = pool.take()

    @property
    def eptp(self) -> int:
        """The EPT pointer for the VMCS."""
        return self.root_hpa | EPTP_WALK_LENGTH_4 | EPTP_WRITE_BACK

    def map(self, gpa: int, hpa: int, *, level: int, rights: int) -> None:
        """Map the page of `level` at `gpa` to `hpa`; what was mapped there by smaller pages is replaced."""
        table = self.root_hpa
        for step in range(4, level, -1):
            table = self._descend(table + (gpa >> 9 * step + 3 & 511) * 8)
        slot = table + (gpa >> 9 * level + 3 & 511) * 8
        old = self._memory.read_u64(slot)
        self._memory.write_u64(slot, hpa | rights | EPT_WRITE_BACK | (EPT_LARGE if level > 1 else 0))
        if old & EPT_RWX and level > 1 and not old & EPT_LARGE:
            self._free_table(old & ADDRESS_MASK, level - 1)

    def _descend(self, slot: int) -> int:
        entry = self._memory.read_u64(slot)
        if not entry & EPT_RWX:
            entry = self._pool.take() | EPT_RWX
            self._memory.write_u64(slot, entry)
        return entry & ADDRESS_MASK

    def unmap(self, gpa: int, size: int) -> None:
        """Take the mappings of a range away, large pages that reach out of it included; translations must be flushed."""
        self._unmap(self.root_hpa, 4, 0, gpa, gpa + size)

    def _unmap(self, table: int, level: int, base: int, start: int, end: int) -> None:
        span = 1 << 9 * level + 3
        first = max(start - base, 0) // span
        last = min((end - base + span - 1) // span, 512)
        for index in range(first, last):
            slot = table + index * 8
            entry = self._memory.read_u64(slot)
            if not entry & EPT_RWX:
                continue
            if level == 1 or entry & EPT_LARGE:
                self._memory.write_u64(slot, 0)
            else:
                self._unmap(entry & ADDRESS_MASK, level - 1, base + index * span, start, end)

    def _free_table(self, table: int, level: int) -> None:
        if level > 1:
            for index in range(512):
                entry = self._memory.read_u64(table + index * 8)
                if entry & EPT_RWX and not entry & EPT_LARGE:
                    self._free_table(entry & ADDRESS_MASK, level - 1)
        self._pool.give_back(table)
