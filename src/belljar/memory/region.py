"""One piece of guest-physical memory: where it lies in the guest, and where in this process."""

from __future__ import annotations

import os

from belljar.errors import ClosedError
from belljar.memory.backing import PAGE_SIZE, Backing


class Region:
    """A memory slot: `size` bytes at guest-physical `gpa`, in this process at `hva`. Made by `GuestMemory.add`.

    Satisfies `belljar.engine.MemoryRegion`. `readonly` binds the guest, whose stores leave with an MMIO exit
    (KVM_MEM_READONLY, api.rst 4.35); the host fills such a region through `view`, or `GuestMemory.write(..., force=True)`.
    """

    __slots__ = ("__weakref__", "_backing", "_view", "gpa", "log_dirty", "name", "readonly", "size", "slot")

    def __init__(self, slot: int, gpa: int, name: str, backing: Backing, *, readonly: bool, log_dirty: bool) -> None:
        self.slot = slot
        self.gpa = gpa
        self.size = backing.size
        self.name = name
        self.readonly = readonly
        self.log_dirty = log_dirty
        self._backing: Backing | None = backing
        self._view: memoryview | None = memoryview(backing.mapping)

    @property
    def end_gpa(self) -> int:
        """The first guest-physical address after it."""
        return self.gpa + self.size

    @property
    def hva(self) -> int:
        """The host-virtual address of the first byte. Raises ClosedError."""
        return self._open_backing().hva

    @property
    def fd(self) -> int:
        """The memfd behind it, -1 for anonymous memory. Raises ClosedError.

        It stays the region's own: pass it on (SCM_RIGHTS, /proc/PID/fd), do not close it. Sealed against resizing.
        """
        return self._open_backing().fd

    @property
    def obtained(self) -> str:
        """The system calls that this memory came from, for people."""
        return self._open_backing().calls

    @property
    def view(self) -> memoryview:
        """All of it as writable bytes, no copy, also when `readonly`. Raises ClosedError."""
        if self._view is None:
            raise self._closed()
        return self._view

    @property
    def allocated(self) -> int | None:
        """Bytes that the host's memory really holds by now, None where the kernel does not count (anonymous memory)."""
        backing = self._open_backing()
        if backing.fd < 0:
            return None
        return os.fstat(backing.fd).st_blocks * 512  # stat(2): always units of 512 bytes

    @property
    def closed(self) -> bool:
        """Whether its memory has been given back."""
        return self._backing is None

    def contains(self, gpa: int, size: int = 1) -> bool:
        """Whether all of `size` bytes at `gpa` lie in it."""
        return self.gpa <= gpa and gpa + size <= self.gpa + self.size

    def zero(self, gpa: int, size: int) -> None:
        """Set a range, checked by the caller, to zeros; whole pages go back to the host instead of being written."""
        view, backing = self.view, self._open_backing()
        start, end = gpa - self.gpa, gpa - self.gpa + size
        first_page = (start + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
        last_page = end // PAGE_SIZE * PAGE_SIZE
        if first_page >= last_page:
            view[start:end] = bytes(size)
            return
        view[start:first_page] = bytes(first_page - start)
        view[last_page:end] = bytes(end - last_page)
        backing.discard(first_page, last_page - first_page)

    def flush_page(self, gpa: int) -> None:
        """Have the host's page tables forget the page of an address in it; its content stays."""
        self._open_backing().drop_page((gpa - self.gpa) // PAGE_SIZE * PAGE_SIZE)

    def close(self) -> None:
        """Give the memory back; called by `GuestMemory`. Views that others hold keep the bytes alive, and see no guest."""
        backing, self._backing = self._backing, None
        view, self._view = self._view, None
        if view is not None:
            try:  # noqa: SIM105  (as in Backing.close)
                view.release()
            except BufferError:  # an array of somebody's stands on it
                pass
        if backing is not None:
            backing.close()

    def _open_backing(self) -> Backing:
        if self._backing is None:
            raise self._closed()
        return self._backing

    def _closed(self) -> ClosedError:
        return ClosedError(
            f"memory {self.name} at guest-physical {self.gpa:#x} was given back", hint="its machine is closed"
        )

    def __del__(self) -> None:
        if getattr(self, "_backing", None) is not None:
            self.close()

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        kind = "ROM" if self.readonly else "RAM"
        return f"<Region {self.name}: slot {self.slot}, {kind} {self.gpa:#x}..{self.end_gpa - 1:#x}{state}>"
