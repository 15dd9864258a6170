"""A guest's physical memory as a whole: regions and holes, and the host's checked way in."""

from __future__ import annotations

import operator
import os
from bisect import bisect_right
from types import TracebackType
from weakref import WeakSet

from belljar.errors import ClosedError, ConfigurationError, GuestMemoryError
from belljar.memory.backing import PAGE_SIZE, HugePages, allocate, check_size
from belljar.memory.region import Region

ADDRESS_SPACE_END = 1 << 64
"""Where addresses wrap."""

PHYSICAL_SPACE_END = 1 << 52
"""The first address beyond what any x86 processor can form (SDM 3A 4.1.4: MAXPHYADDR is at most 52)."""

TYPED_FORMATS = "bBhHiIlLqQfd"
"""The item formats of `typed_view`: the native ones of the struct module, little-endian on x86."""

_open_memories: WeakSet[GuestMemory] = WeakSet()


class GuestMemory:
    """Guest-physical memory: any number of regions with holes between them. A context manager.

    Every access is checked against the regions and raises GuestMemoryError where one byte is missing; an access of no
    bytes touches nothing and is fine anywhere. Addresses that wrap past 2^64 are refused. Reads and writes go across
    regions that touch; views lie within one. Numbers are little-endian.

    A guest running at the same time sees each aligned 1, 2, 4 or 8-byte access as a whole; longer ones may be seen in parts.
    After `fork`, the child's copy is closed: guest memory belongs to the process that made it.
    """

    __slots__ = ("__weakref__", "_closed", "_free_slots", "_last", "_next_slot", "_regions", "_starts")

    def __init__(self) -> None:
        self._regions: list[Region] = []
        self._starts: list[int] = []
        self._last: Region | None = None
        self._free_slots: list[int] = []
        self._next_slot = 0
        self._closed = False
        _open_memories.add(self)

    # -- regions -------------------------------------------------------------------------------------------------------

    def add(
        self,
        gpa: int,
        size: int,
        *,
        name: str = "ram",
        readonly: bool = False,
        mergeable: bool = False,
        huge_pages: HugePages | bool = False,
        log_dirty: bool = False,
    ) -> Region:
        """New zeroed memory of `size` bytes at `gpa`, both multiples of 4096; `gpa + size` at most 2^52.

        `mergeable` offers its pages to KSM (MADV_MERGEABLE, kernel Documentation/admin-guide/mm/ksm.rst) and makes it
        private anonymous memory, because KSM does not look at shared memory. `huge_pages` True is
        `HugePages.TRANSPARENT`. Raises ConfigurationError for what cannot be (bad sizes, overlap, options that exclude each
        other), FeatureUnsupported for what this host refuses, GuestMemoryError when it has not so much to give.
        """
        self._require_open()
        if huge_pages is True:
            huge_pages = HugePages.TRANSPARENT
        elif huge_pages is False:
            huge_pages = HugePages.NONE
        check_size(name, size, huge_pages)
        position = self._place_for(name, gpa, size)
        backing = allocate(name, size, mergeable=mergeable, huge_pages=huge_pages)
        if self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot, self._next_slot = self._next_slot, self._next_slot + 1
        region = Region(slot, gpa, name, backing, readonly=readonly, log_dirty=log_dirty)
        self._regions.insert(position, region)
        self._starts.insert(position, gpa)
        if self._last is None:
            self._last = region
        return region

    def remove(self, region: Region) -> None:
        """Give a region back and leave a hole; unmap it from the VM before. ConfigurationError if it is not one of ours."""
        self._require_open()
        if region not in self._regions:
            raise ConfigurationError(f"{region!r} is not a region of this memory")
        position = self._regions.index(region)
        del self._regions[position], self._starts[position]
        self._last = self._regions[0] if self._regions else None
        self._free_slots.append(region.slot)
        region.close()

    @property
    def regions(self) -> tuple[Region, ...]:
        """All regions in the order of their addresses."""
        return tuple(self._regions)

    @property
    def size(self) -> int:
        """Bytes of all regions together, holes not counted."""
        return sum(region.size for region in self._regions)

    def find(self, gpa: int) -> Region | None:
        """The region that holds the byte at `gpa`, None in a hole."""
        position = bisect_right(self._starts, gpa) - 1
        if position >= 0 and gpa < self._regions[position].end_gpa:
            return self._regions[position]
        return None

    def contains(self, gpa: int, size: int = 1) -> bool:
        """Whether memory stands behind all of `size` bytes at `gpa`."""
        try:
            self._check_range(gpa, size)
        except GuestMemoryError:
            return False
        while size > 0:
            region = self.find(gpa)
            if region is None:
                return False
            size -= region.end_gpa - gpa
            gpa = region.end_gpa
        return True

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def read(self, gpa: int, size: int) -> bytes:
        """A copy of `size` bytes at `gpa`. Raises GuestMemoryError, ClosedError."""
        region = self._last
        if region is not None and region.gpa <= gpa and size > 0 and gpa + size <= region.gpa + region.size:
            offset = gpa - region.gpa
            return bytes(region.view[offset : offset + size])
        return b"".join(bytes(piece) for piece in self._pieces(gpa, size))

    def write(self, gpa: int, data: bytes | bytearray | memoryview, *, force: bool = False) -> None:
        """Copy `data` to `gpa`. Raises GuestMemoryError before anything is written; ClosedError.

        Read-only regions refuse, unless `force` says that this is the host filling a ROM, not a device acting for a guest.
        """
        if not isinstance(data, (bytes, bytearray)):
            items = memoryview(data)
            data = items.cast("B") if items.c_contiguous else items.tobytes()
        size = len(data)
        region = self._last
        if (
            region is not None
            and region.gpa <= gpa
            and 0 < size <= region.gpa + region.size - gpa
            and (force or not region.readonly)
        ):
            offset = gpa - region.gpa
            region.view[offset : offset + size] = data
            return
        source = memoryview(data)
        position = 0
        for piece in self._pieces(gpa, size, writing=not force):
            piece[:] = source[position : position + len(piece)]
            position += len(piece)

    def zero(self, gpa: int, size: int, *, force: bool = False) -> None:
        """Set `size` bytes at `gpa` to zero; whole pages go back to the host, so that clearing gigabytes takes no time.

        Raises GuestMemoryError, ClosedError. Like every host write it does not show in the engine's dirty log.
        """
        for region, start, length in list(self._spans(gpa, size, writing=not force)):
            region.zero(start, length)

    def view(self, gpa: int, size: int) -> memoryview:
        """The bytes themselves, no copy; read-only where the region is. Raises GuestMemoryError if one region has not all.

        A view that outlives `close` keeps its bytes (host memory included) until it is gone, and no guest sees them then.
        """
        spans = list(self._spans(gpa, size))
        if not spans:
            return memoryview(b"")
        if len(spans) > 1:
            raise GuestMemoryError(
                gpa, size, "lies in several regions", hint="a view lies within one; read() copies across"
            )
        region = spans[0][0]
        piece = region.view[gpa - region.gpa : gpa - region.gpa + size]
        return piece.toreadonly() if region.readonly else piece

    def typed_view(self, gpa: int, item_format: str, count: int) -> memoryview:
        """`count` numbers at `gpa` as a view without copies: `typed_view(pt_gpa, "Q", 512)[3] = entry`.

        `item_format` is one of `TYPED_FORMATS`. Raises ConfigurationError for another, else what `view` raises.
        """
        if len(item_format) != 1 or item_format not in TYPED_FORMATS:
            raise ConfigurationError(
                f"{item_format!r} is not the format of an item",
                hint=f"one of {', '.join(TYPED_FORMATS)} (struct module)",
            )
        item_size = memoryview(bytes(8)).cast("B").cast(item_format).itemsize  # type: ignore[call-overload]
        return self.view(gpa, count * item_size).cast("B").cast(item_format)  # type: ignore[call-overload,no-any-return]

    def flush_page(self, gpa: int) -> None:
        """Have the host's page tables, and by them KVM's, forget a page; its content stays. Harmless where there is none."""
        region = self.find(gpa)
        if region is not None:
            region.flush_page(gpa)

    def hva(self, gpa: int, size: int = 1) -> int:
        """The host-virtual address of `gpa`, good for `size` bytes. Raises GuestMemoryError."""
        self._require_open()
        self._check_range(gpa, size)
        region = self.find(gpa)
        if region is None or not region.contains(gpa, size):
            raise GuestMemoryError(gpa, size, hint=self._where())
        return region.hva + gpa - region.gpa

    # -- numbers -------------------------------------------------------------------------------------------------------

    def read_u8(self, gpa: int) -> int:
        """The byte at `gpa`."""
        return self.read(gpa, 1)[0]

    def read_u16(self, gpa: int) -> int:
        """The 2-byte number at `gpa`."""
        return int.from_bytes(self.read(gpa, 2), "little")

    def read_u32(self, gpa: int) -> int:
        """The 4-byte number at `gpa`."""
        return int.from_bytes(self.read(gpa, 4), "little")

    def read_u64(self, gpa: int) -> int:
        """The 8-byte number at `gpa`."""
        return int.from_bytes(self.read(gpa, 8), "little")

    def write_u8(self, gpa: int, value: int) -> None:
        """Store a number of 1 byte; GuestMemoryError if it is negative or does not fit."""
        self._write_number(gpa, value, 1)

    def write_u16(self, gpa: int, value: int) -> None:
        """Store a number of 2 bytes; GuestMemoryError if it is negative or does not fit."""
        self._write_number(gpa, value, 2)

    def write_u32(self, gpa: int, value: int) -> None:
        """Store a number of 4 bytes; GuestMemoryError if it is negative or does not fit."""
        self._write_number(gpa, value, 4)

    def write_u64(self, gpa: int, value: int) -> None:
        """Store a number of 8 bytes; GuestMemoryError if it is negative or does not fit."""
        self._write_number(gpa, value, 8)

    def _write_number(self, gpa: int, value: int, size: int) -> None:
        try:
            data = operator.index(value).to_bytes(size, "little")
        except OverflowError:
            raise GuestMemoryError(gpa, size, f"cannot hold {value:#x} in {size} bytes") from None
        self.write(gpa, data)

    # -- life ----------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether everything has been given back."""
        return self._closed

    def close(self) -> None:
        """Give all regions back; close the VM before. Harmless when repeated.

        Views that are still held keep their bytes until they are gone; everything else raises ClosedError from now on.
        """
        if self._closed:
            return
        self._closed = True
        self._last = None
        _open_memories.discard(self)
        regions, self._regions, self._starts = self._regions, [], []
        for region in regions:
            region.close()

    def __enter__(self) -> GuestMemory:
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GuestMemory: {'closed' if self._closed else self._where()}>"

    # -- checks --------------------------------------------------------------------------------------------------------

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(
                "this guest memory was closed",
                hint="its machine is closed, or this process is a fork of the one that made it",
            )

    def _check_range(self, gpa: int, size: int) -> None:
        if size < 0:
            raise GuestMemoryError(gpa, 0, f"cannot be accessed with a size of {size}")
        if not 0 <= gpa < ADDRESS_SPACE_END:
            raise GuestMemoryError(gpa, size, "is no 64-bit address")
        if gpa + size > ADDRESS_SPACE_END:
            raise GuestMemoryError(gpa, size, "wraps past the end of the address space")

    def _spans(self, gpa: int, size: int, *, writing: bool = False) -> list[tuple[Region, int, int]]:
        """(region, gpa, size) of each piece of a range, all checked before the first is returned."""
        self._require_open()
        self._check_range(gpa, size)
        spans = []
        start, rest = gpa, size
        while rest > 0:
            region = self.find(start)
            if region is None:
                what = "is not guest memory" if start == gpa else f"leaves guest memory at {start:#x}"
                raise GuestMemoryError(gpa, size, what, hint=self._where())
            if writing and region.readonly:
                raise GuestMemoryError(gpa, size, f"lies in read-only memory {region.name}")
            length = min(rest, region.end_gpa - start)
            spans.append((region, start, length))
            start += length
            rest -= length
            self._last = region
        return spans

    def _pieces(self, gpa: int, size: int, *, writing: bool = False) -> list[memoryview]:
        return [
            region.view[start - region.gpa : start - region.gpa + length]
            for region, start, length in self._spans(gpa, size, writing=writing)
        ]

    def _place_for(self, name: str, gpa: int, size: int) -> int:
        """Where in the list a new region belongs; ConfigurationError if it cannot lie there."""
        if gpa % PAGE_SIZE or not 0 <= gpa < PHYSICAL_SPACE_END:
            raise ConfigurationError(
                f"memory {name}: {gpa:#x} cannot be where it starts", hint="a multiple of 4096 from 0 to below 2^52"
            )
        if gpa + size > PHYSICAL_SPACE_END:
            raise ConfigurationError(
                f"memory {name}: {size:#x} bytes at {gpa:#x} reach past 2^52, the end of every x86 processor's memory",
                hint="make it smaller or put it lower",
            )
        position = bisect_right(self._starts, gpa)
        for other in self._regions[max(position - 1, 0) : position + 1]:
            if gpa < other.end_gpa and other.gpa < gpa + size:
                raise ConfigurationError(
                    f"memory {name} at {gpa:#x}..{gpa + size - 1:#x} overlaps {other.name} at "
                    f"{other.gpa:#x}..{other.end_gpa - 1:#x}",
                    hint="remove the other one first, or leave the gap that it needs",
                )
        return position

    def _where(self) -> str:
        """What there is, for error messages."""
        if not self._regions:
            return "there is no memory at all"
        ranges = [f"{region.gpa:#x}..{region.end_gpa - 1:#x}" for region in self._regions[:4]]
        more = f" and {len(self._regions) - 4} more" if len(self._regions) > 4 else ""
        return "memory is at " + ", ".join(ranges) + more


def _close_in_child() -> None:
    # The child shares the pages and has copies of the file descriptors: without this, a stray store would reach the
    # parent's guest, and every child would keep a dead guest's memory alive.
    for memory in list(_open_memories):
        memory.close()


os.register_at_fork(after_in_child=_close_in_child)
