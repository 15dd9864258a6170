"""Building page tables: mappings in, tables out through `write(gpa, data)` (SDM 3A chapter 4).

The builder keeps its tables in host memory until `write_to`, so that it never reads guest memory and writes each table
once. Whole runs of entries are made at a time; building a small guest's tables costs a few microseconds.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import lru_cache

from belljar.errors import ConfigurationError
from belljar.x86.paging import (
    MAX_PHYSICAL_BITS,
    PAGING_32BIT,
    PAGING_PAE,
    PS,
    PSE36_PHYSICAL_BITS,
    RW,
    SIZE_4M,
    US,
    XD,
    G,
    Level,
    P,
    PagingFormat,
    size_name,
)

Write = Callable[[int, bytes | bytearray], object]
"""`write(gpa, data)`: store bytes in guest-physical memory."""

_TABLE_FLAGS = P | RW | US  # a table's entry allows everything; the leaf decides
_ARRAY_TYPES = {4: "I", 8: "Q"}


@lru_cache(maxsize=64)
def _run(first: int, step: int, count: int, entry_size: int) -> bytes:
    """`count` entries `first`, `first + step`, ... as table bytes; at most one table (4 KiB) each, so the cache stays small."""
    return array(_ARRAY_TYPES[entry_size], range(first, first + step * count, step)).tobytes()


class Table:
    """One table: its level, where it lies, the first linear address it covers, its bytes, and the tables below by index."""

    __slots__ = ("children", "data", "gpa", "gva", "level")

    def __init__(self, level: Level, gpa: int, gva: int, data: bytearray) -> None:
        self.level = level
        self.gpa = gpa
        self.gva = gva
        self.data = data
        self.children: dict[int, Table] = {}


class PageTableBuilder:
    """Page tables of one address space in the given format.

    `allocate()` returns the guest-physical address of a fresh 4-KiB page for each table, the root first. Nothing is
    written before `write_to`.
    """

    def __init__(self, paging: PagingFormat, allocate: Callable[[], int]) -> None:
        if not paging.levels:
            raise ConfigurationError("no paging has no tables to build")
        self.paging = paging
        self._allocate = allocate
        self._tables: dict[int, Table] = {}
        self.root_gpa = self._new_table(0, 0).gpa

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table in the order of allocation."""
        return tuple(self._tables.values())

    def map(
        self,
        gva: int,
        gpa: int,
        size: int,
        page_size: int,
        *,
        write: bool = True,
        user: bool = False,
        execute: bool = True,
        global_page: bool = False,
    ) -> None:
        """Map `size` bytes at linear `gva` to `gpa` with pages of `page_size`, replacing what was mapped there.

        All four numbers are multiples of `page_size`. A larger page that is overlapped in part is split into smaller
        ones of the same rights. Raises ConfigurationError for a page size or an address that the format does not have,
        for misalignment, and where a large page would have to replace a table of smaller ones, or a 4M page above 4 GiB to
        be split; of the last two, part of the range may then be mapped. `execute=False` sets XD, which needs an 8-byte
        format and EFER.NXE.
        """
        self._check(gva, gpa, size, page_size, execute)
        flags = P | (RW if write else 0) | (US if user else 0) | (G if global_page else 0) | (0 if execute else XD)
        if size:
            self._fill(0, self._tables[self.root_gpa], gva, gva + size, gpa, page_size, flags)

    def unmap(self, gva: int, size: int, page_size: int) -> None:
        """Make `size` bytes at linear `gva` not present, splitting larger pages; alignment and errors as in `map`."""
        self._check(gva, 0, size, page_size, True)
        if size:
            self._fill(0, self._tables[self.root_gpa], gva, gva + size, 0, page_size, 0)

    def write_to(self, write: Write) -> None:
        """Store every table in guest memory."""
        for table in self._tables.values():
            write(table.gpa, table.data)

    def _check(self, gva: int, gpa: int, size: int, page_size: int, execute: bool) -> None:
        paging = self.paging
        if page_size not in paging.page_sizes:
            sizes = ", ".join(size_name(item) for item in paging.page_sizes)
            raise ConfigurationError(
                f"{paging.title} has no pages of {size_name(page_size)}", hint=f"its page sizes are {sizes}"
            )
        if (gva | gpa | size) & page_size - 1 or min(gva, gpa, size) < 0:
            raise ConfigurationError(
                f"mapping {gva:#x} to {gpa:#x}, {size:#x} bytes, is not aligned to {size_name(page_size)} pages"
            )
        if not execute and paging.entry_size != 8:
            raise ConfigurationError(f"{paging.title} has no execute-disable bit")
        last = gva + max(size, 1) - 1
        if not (paging.canonical(gva) and paging.canonical(last) and gva >> 63 == last >> 63):
            raise ConfigurationError(f"linear addresses {gva:#x} to {last:#x} do not all exist in {paging.title}")
        if gpa + size > 1 << self._physical_bits(page_size):
            raise ConfigurationError(f"{gpa + size - 1:#x} is beyond what {paging.title} can map to")

    def _physical_bits(self, page_size: int) -> int:
        if self.paging is PAGING_32BIT:
            return PSE36_PHYSICAL_BITS if page_size == SIZE_4M else 32
        return MAX_PHYSICAL_BITS

    def _new_table(self, depth: int, gva: int) -> Table:
        level = self.paging.levels[depth]
        table = Table(level, self._allocate(), gva, bytearray(level.entries * self.paging.entry_size))
        self._tables[table.gpa] = table
        return table

    def _fill(self, depth: int, table: Table, gva: int, end: int, gpa: int, page_size: int, flags: int) -> None:
        """Make the entries for `gva` to `end` in one table and, where pages are smaller, in those below it."""
        span = table.level.page_size
        if span == page_size:
            self._fill_leaves(table, gva, (end - gva) // span, gpa, flags)
            return
        below = depth + 1
        leaves_below = self.paging.levels[below].page_size == page_size
        while gva < end:
            stop = (gva & -span) + span
            if stop > end:
                stop = end
            child = self._child(depth, table, gva, create=flags != 0, keep=stop - gva != span)
            if child is None:
                pass  # nothing is mapped there, and nothing shall be
            elif leaves_below:
                self._fill_leaves(child, gva, (stop - gva) // page_size, gpa, flags)
            else:
                self._fill(below, child, gva, stop, gpa, page_size, flags)
            gpa += stop - gva
            gva = stop

    def _fill_leaves(self, table: Table, gva: int, count: int, gpa: int, flags: int) -> None:
        level, entry_size = table.level, self.paging.entry_size
        first = gva >> level.shift & level.entries - 1
        start, stop = first * entry_size, (first + count) * entry_size
        if table.children and any(first <= index < first + count for index in table.children):
            raise ConfigurationError(
                f"a {size_name(level.page_size)} page at {gva:#x} would replace a table of smaller pages",
                hint="map larger pages first",
            )
        if not flags:
            table.data[start:stop] = bytes(stop - start)
            return
        if level.leaf == "ps":
            flags |= PS
        if entry_size == 4 and gpa + count * level.page_size > 1 << 32:
            entries = (_pse36_entry(gpa + index * level.page_size, flags) for index in range(count))
            table.data[start:stop] = array(_ARRAY_TYPES[4], entries).tobytes()
        else:
            table.data[start:stop] = _run(gpa | flags, level.page_size, count, entry_size)

    def _child(self, depth: int, table: Table, gva: int, *, create: bool, keep: bool) -> Table | None:
        """The table below the entry for `gva`; made if there is none and `create`, or if a page must be split.

        A page that the caller maps over completely (`keep` False) need not be split into entries first.
        """
        level, size = table.level, self.paging.entry_size
        index = gva >> level.shift & level.entries - 1
        existing = table.children.get(index)
        if existing is not None:
            return existing
        raw = int.from_bytes(table.data[index * size : index * size + size], "little")
        if not raw & P and not create:
            return None
        split = self._split(raw, level, depth) if raw & P and keep else None
        child = table.children[index] = self._new_table(depth + 1, gva & -level.page_size)
        if split is not None:
            child.data[:] = split
        flags = P if self.paging is PAGING_PAE and depth == 0 else _TABLE_FLAGS  # a PAE PDPTE's RW and US are reserved
        table.data[index * size : index * size + size] = (child.gpa | flags).to_bytes(size, "little")
        return child

    def _split(self, raw: int, level: Level, depth: int) -> bytes:
        """The entries, one level below, that map what the large page `raw` of `level` maps."""
        gpa = raw & -level.page_size & (1 << MAX_PHYSICAL_BITS) - 1
        if self.paging is PAGING_32BIT:
            gpa = raw & 0xFFC00000 | (raw >> 13 & 0xFF) << 32
            if gpa >> 32:
                raise ConfigurationError(f"a 4M page at guest-physical {gpa:#x} cannot be split: 4K pages end at 4 GiB")
        below = self.paging.levels[depth + 1]
        flags = raw & (P | RW | US | G | XD) | (PS if below.leaf == "ps" else 0)
        return _run(gpa | flags, below.page_size, below.entries, self.paging.entry_size)


def _pse36_entry(gpa: int, flags: int) -> int:
    """A 4-MByte PDE whose page may lie above 4 GiB: address bits 39:32 go to bits 20:13 (SDM 3A table 4-4)."""
    return gpa & 0xFFC00000 | (gpa >> 32 & 0xFF) << 13 | flags
