"""Everything that an address space maps, as ranges: the map that goes with `walker.walk` for a single address.

Guests own their page tables, and a table that points to itself describes 2^36 pages. So the work is bounded, and a map
that was not finished says so.
"""

from __future__ import annotations

import struct

from belljar.records import dataclass, field
from belljar.x86.paging import (
    MAX_PHYSICAL_BITS,
    NO_PAGING,
    PROTECTION_KEY_SHIFT,
    RW,
    US,
    G,
    LevelRules,
    P,
    PagingFormat,
    format_of,
    rules_for,
)
from belljar.x86.state import SpecialRegisters
from belljar.x86.walker import ALL_RIGHTS, Read, Rights, RightsFold, WalkFailure, read_exactly

DEFAULT_MAX_TABLES = 8192
"""How many tables `address_space` reads before it stops; 8192 last-level tables map 16 GiB in 4-KiB pages."""

DEFAULT_MAX_RANGES = 65536
"""How many ranges, and how many bad entries, `address_space` collects before it stops."""

_PROTECTION_KEY_MASK = 15 << PROTECTION_KEY_SHIFT


@dataclass(frozen=True, slots=True)
class Mapping:
    """`size` bytes at linear `gva` that lead to `gpa`, all with equal rights and pages of `page_size` (None without paging)."""

    gva: int
    gpa: int
    size: int
    rights: Rights
    page_size: int | None

    @property
    def pages(self) -> int:
        """How many pages, or 0 without paging."""
        return self.size // self.page_size if self.page_size else 0


@dataclass(frozen=True, slots=True)
class BadEntry:
    """A present entry that no walk gets through: a reserved bit is set, or the table it names is not in guest memory.

    `gva` is the first linear address that meets it, `raw` its value.
    """

    level: str
    gva: int
    entry_gpa: int
    raw: int
    failure: WalkFailure


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """All mappings in the order of their addresses.

    `tables` counts the tables read at each level, root first (a table met twice counts twice); `table_gpas` says where they
    lie, each once, and gives the address of the first entry that led there (0 for the root). `cut` is empty if this is
    everything; else it says in words why the rest is missing.
    """

    paging: PagingFormat
    mappings: tuple[Mapping, ...]
    bad_entries: tuple[BadEntry, ...]
    tables: dict[str, int]
    cut: str = ""
    table_gpas: dict[str, dict[int, int]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not self.cut


class _Cut(Exception):
    """A bound was reached; the argument says which."""


@dataclass(slots=True)
class _Collector:
    """The state of one traversal."""

    paging: PagingFormat
    rules: tuple[LevelRules, ...]
    fold: RightsFold
    read: Read
    max_tables: int
    max_ranges: int
    mappings: list[Mapping] = field(default_factory=list)
    bad: list[BadEntry] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    seen: list[dict[int, int]] = field(default_factory=list)
    """Where the tables of each level lie, in the order of their visit, and which entry led there first."""
    key_mask: int = 0
    """The bits of a folded entry that must be equal in one range."""
    start: int = 0
    end: int = 0
    gpa_end: int = 0
    key: int = -1
    page_size: int = 0

    def table(self, depth: int, table_gpa: int, gva: int, allowed: int, found_in: tuple[int, int]) -> None:
        """Visit one table that covers linear addresses from `gva`; `found_in` is the address and value of the entry above."""
        if sum(self.counts) >= self.max_tables:
            raise _Cut(f"stopped after {self.max_tables} tables")
        rule, entry_size = self.rules[depth], self.paging.entry_size
        level = rule.level
        data = read_exactly(self.read, table_gpa, level.entries * entry_size)
        if data is None:
            above = self.rules[depth - 1].level.name if depth else "CR3"
            self.note_bad(BadEntry(above, gva, *found_in, WalkFailure.TABLE_UNREADABLE))
            return
        self.counts[depth] += 1
        self.seen[depth].setdefault(table_gpa, found_in[0])
        entries = struct.unpack(f"<{level.entries}{'Q' if entry_size == 8 else 'I'}", data)
        sign_bit = 1 << self.paging.gva_bits - 1 if not depth and self.paging.gva_bits > 32 else 0
        for index, raw in enumerate(entries):
            if not raw & P:
                continue
            entry_gva = gva + (index << level.shift)
            if entry_gva & sign_bit:
                entry_gva |= (1 << 64) - sign_bit
            leaf = rule.is_leaf(raw)
            if raw & (rule.page_reserved if leaf else rule.table_reserved):
                failure = WalkFailure.RESERVED_BIT
                self.note_bad(BadEntry(level.name, entry_gva, table_gpa + index * entry_size, raw, failure))
            elif leaf:
                folded = self.fold.combine(allowed, rule, raw) | raw & (G | _PROTECTION_KEY_MASK)
                self.page(entry_gva, rule.page_gpa(raw), level.page_size, folded & self.key_mask)
            else:
                below = self.fold.combine(allowed, rule, raw)
                entry = (table_gpa + index * entry_size, raw)
                self.table(depth + 1, raw & rule.table_address, entry_gva, below, entry)

    def page(self, gva: int, gpa: int, size: int, key: int) -> None:
        """One more page: longer the range that goes on, or begin another."""
        if gva == self.end and gpa == self.gpa_end and key == self.key and size == self.page_size:
            self.end += size
            self.gpa_end += size
            return
        self.flush()
        if len(self.mappings) >= self.max_ranges:
            raise _Cut(f"stopped after {self.max_ranges} ranges")
        self.start, self.end, self.gpa_end, self.key, self.page_size = gva, gva + size, gpa + size, key, size

    def flush(self) -> None:
        """End the range that goes on."""
        if self.key >= 0:
            size = self.end - self.start
            rights = self.fold.rights(self.key, self.key)
            self.mappings.append(Mapping(self.start, self.gpa_end - size, size, rights, self.page_size))
            self.key = -1

    def note_bad(self, entry: BadEntry) -> None:
        """Remember a bad entry."""
        if len(self.bad) >= self.max_ranges:
            raise _Cut(f"stopped after {self.max_ranges} entries that lead nowhere")
        self.bad.append(entry)


def address_space(
    special: SpecialRegisters,
    read: Read,
    *,
    physical_bits: int = MAX_PHYSICAL_BITS,
    gigabyte_pages: bool = True,
    pse36: bool = True,
    amd: bool = False,
    max_tables: int = DEFAULT_MAX_TABLES,
    max_ranges: int = DEFAULT_MAX_RANGES,
) -> AddressSpace:
    """Every mapping of the address space that these control registers select, neighbours of equal rights joined.

    Arguments as in `walker.walk`. Reads whole tables: one that lies partly outside guest memory is a bad entry. Stops at
    `max_tables` tables or `max_ranges` ranges, and then says so in the result's `cut`. Raises only what `read` raises
    beside GuestMemoryError.
    """
    paging = format_of(special)
    if paging is NO_PAGING:
        return AddressSpace(paging, (Mapping(0, 0, 1 << 32, ALL_RIGHTS, None),), (), {})
    rules = rules_for(paging, special, physical_bits=physical_bits, gigabyte_pages=gigabyte_pages, pse36=pse36, amd=amd)
    fold = RightsFold(special, rules)
    collector = _Collector(paging, rules, fold, read, max_tables, max_ranges, counts=[0] * len(rules))
    collector.key_mask = fold.significant
    collector.seen = [{} for _ in rules]
    cut = ""
    try:
        collector.table(0, special.cr3 & paging.root_mask, 0, RW | US, (0, special.cr3))
    except _Cut as reached:
        cut = str(reached)
    collector.flush()
    tables = {rule.level.name: count for rule, count in zip(rules, collector.counts, strict=True)}
    where = {rule.level.name: seen for rule, seen in zip(rules, collector.seen, strict=True)}
    return AddressSpace(paging, tuple(collector.mappings), tuple(collector.bad), tables, cut, where)
