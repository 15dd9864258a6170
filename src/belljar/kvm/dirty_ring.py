"""A vCPU's dirty ring: the pages it wrote, in the order it wrote them (KVM_CAP_DIRTY_LOG_RING, api.rst section 8)."""

from __future__ import annotations

import mmap

from belljar.errors import ClosedError
from belljar.kvm.abi.flags import KVM_DIRTY_GFN_F_DIRTY, KVM_DIRTY_GFN_F_RESET
from belljar.kvm.abi.run import KVM_DIRTY_LOG_PAGE_OFFSET
from belljar.kvm.abi.structs import kvm_dirty_gfn
from belljar.records import dataclass


@dataclass(frozen=True, slots=True)
class DirtyPage:
    """A page that was written: its slot (address space in the high 16 bits) and its number in the slot."""

    slot: int
    page: int


class DirtyRing:
    """The mapped ring of one vCPU; a context manager. Made by `Vcpu.dirty_ring`."""

    def __init__(self, vcpu_fd: int, entries: int) -> None:
        self.entries = entries
        self._next = 0
        self._mapping: mmap.mmap | None = mmap.mmap(
            vcpu_fd, entries * kvm_dirty_gfn.size, offset=KVM_DIRTY_LOG_PAGE_OFFSET * mmap.PAGESIZE
        )

    def harvest(self) -> list[DirtyPage]:
        """Take what is new. The entries become free, and the pages watched again, with `Vm.reset_dirty_rings`."""
        if self._mapping is None:
            raise ClosedError("this dirty ring is closed")
        view = memoryview(self._mapping)
        taken: list[DirtyPage] = []
        while len(taken) < self.entries:
            entry = kvm_dirty_gfn.at(view, self._next % self.entries * kvm_dirty_gfn.size)
            if entry.flags & (KVM_DIRTY_GFN_F_DIRTY | KVM_DIRTY_GFN_F_RESET) != KVM_DIRTY_GFN_F_DIRTY:
                break
            taken.append(DirtyPage(entry.slot, entry.offset))
            entry.flags = KVM_DIRTY_GFN_F_RESET
            self._next += 1
        return taken

    def close(self) -> None:
        """Unmap it. Harmless when repeated."""
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            mapping.close()

    def __enter__(self) -> DirtyRing:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
