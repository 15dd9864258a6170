"""Paging formats as data: which levels there are, how an address is cut, what an entry's bits mean (SDM 3A chapter 4).

The walker (`walker.py`) and the table builder (`tables.py`) are written once against these descriptions.
"""

from __future__ import annotations

from enum import IntFlag

from belljar.records import dataclass
from belljar.x86.control import Cr0, Cr4, Efer
from belljar.x86.state import SpecialRegisters

PAGE_SIZE = 4096
"""The smallest page, and the size of a table (SDM 3A 4.2)."""

SIZE_4K = 1 << 12
SIZE_2M = 1 << 21
SIZE_4M = 1 << 22
SIZE_1G = 1 << 30


class EntryBit(IntFlag):
    """The bits that paging-structure entries share (SDM 3A tables 4-4 to 4-20)."""

    P = 1 << 0
    RW = 1 << 1
    US = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    A = 1 << 5
    D = 1 << 6
    PS = 1 << 7
    """Page size, in entries of the upper levels; in the last level this bit is PAT."""
    G = 1 << 8
    PAT_LARGE = 1 << 12
    """PAT, in entries that map a large page."""
    XD = 1 << 63
    """Execute disable; exists in 8-byte entries with EFER.NXE."""


P = int(EntryBit.P)
RW = int(EntryBit.RW)
US = int(EntryBit.US)
PS = int(EntryBit.PS)
G = int(EntryBit.G)
XD = int(EntryBit.XD)
PAT_4K = PS
"""In the last level, bit 7 is PAT."""

PROTECTION_KEY_SHIFT = 59
"""Bits 62:59 of a leaf entry are its protection key with CR4.PKE or CR4.PKS (SDM 3A 4.6.2)."""

MAX_PHYSICAL_BITS = 52
"""The architecture's limit on MAXPHYADDR (SDM 3A 4.1.4)."""

PSE36_PHYSICAL_BITS = 40
"""How far the address bits in a 4-MByte PDE reach at most (SDM 3A 4.3, table 4-4)."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of tables: `shift` is the lowest address bit of its index, `index_bits` the index's width.

    `leaf` says whether an entry maps a page: `never`, `always`, or `ps` (if bit 7 is set and the processor allows it).
    A leaf here maps `1 << shift` bytes.
    """

    name: str
    entry_name: str
    shift: int
    index_bits: int
    leaf: str
    page_size: int
    """How many bytes an entry of this level spans."""
    entries: int
    """How many entries a table of this level has."""


@dataclass(frozen=True, slots=True)
class PagingFormat:
    """A paging mode (SDM 3A 4.1.1): its levels from the root down, an entry's size in bytes, and a linear address's width."""

    name: str
    title: str
    levels: tuple[Level, ...]
    entry_size: int
    gva_bits: int
    root_mask: int
    """The bits of CR3 that are the root table's address."""
    page_sizes: tuple[int, ...]
    """Every page size the format has, smallest first."""

    def canonical(self, gva: int) -> bool:
        """Whether `gva` is an address at all: canonical in the 64-bit formats (SDM 1 3.3.7.1), below 4 GiB in the others."""
        if self.gva_bits == 32:
            return 0 <= gva < 1 << 32
        high = gva >> self.gva_bits - 1
        return high == 0 or high == (1 << 65 - self.gva_bits) - 1


def _level(name: str, entry_name: str, shift: int, index_bits: int, leaf: str) -> Level:
    return Level(name, entry_name, shift, index_bits, leaf, 1 << shift, 1 << index_bits)


_PT = _level("PT", "PTE", 12, 9, "always")
_PD = _level("PD", "PDE", 21, 9, "ps")
_PDPT = _level("PDPT", "PDPTE", 30, 9, "ps")
_PML4 = _level("PML4", "PML4E", 39, 9, "never")
_PML5 = _level("PML5", "PML5E", 48, 9, "never")
_LONG_PAGE_SIZES = (SIZE_4K, SIZE_2M, SIZE_1G)
_LONG_ROOT_MASK = (1 << MAX_PHYSICAL_BITS) - PAGE_SIZE

NO_PAGING = PagingFormat("none", "no paging", (), 4, 32, 0, ())
"""CR0.PG = 0: a linear address is the physical address."""

PAGING_32BIT = PagingFormat(
    "32-bit",
    "32-bit paging, two levels",
    (_level("PD", "PDE", 22, 10, "ps"), _level("PT", "PTE", 12, 10, "always")),
    4,
    32,
    0xFFFFF000,
    (SIZE_4K, SIZE_4M),
)
"""32-bit paging (SDM 3A 4.3); 4-MByte pages with CR4.PSE."""

PAGING_PAE = PagingFormat(
    "pae",
    "PAE paging, three levels",
    (_level("PDPT", "PDPTE", 30, 2, "never"), _PD, _PT),
    8,
    32,
    0xFFFFFFE0,
    (SIZE_4K, SIZE_2M),
)
"""PAE paging (SDM 3A 4.4): four PDPTEs, without write and user bits of their own."""

PAGING_4LEVEL = PagingFormat(
    "4-level", "4-level paging", (_PML4, _PDPT, _PD, _PT), 8, 48, _LONG_ROOT_MASK, _LONG_PAGE_SIZES
)
"""4-level paging (SDM 3A 4.5)."""

PAGING_5LEVEL = PagingFormat(
    "5-level", "5-level paging", (_PML5, _PML4, _PDPT, _PD, _PT), 8, 57, _LONG_ROOT_MASK, _LONG_PAGE_SIZES
)
"""5-level paging (SDM 3A 4.5)."""

FORMATS = {item.name: item for item in (NO_PAGING, PAGING_32BIT, PAGING_PAE, PAGING_4LEVEL, PAGING_5LEVEL)}
"""Every paging mode by name."""


def format_of(special: SpecialRegisters) -> PagingFormat:
    """The paging mode that the control registers select (SDM 3A 4.1.1)."""
    if not special.cr0 & Cr0.PG or not special.cr0 & Cr0.PE:
        return NO_PAGING
    if not special.cr4 & Cr4.PAE:
        return PAGING_32BIT
    if not special.efer & Efer.LME:
        return PAGING_PAE
    return PAGING_5LEVEL if special.cr4 & Cr4.LA57 else PAGING_4LEVEL


@dataclass(frozen=True, slots=True)
class LevelRules:
    """What one level's entries may be under given control registers; masks over the raw entry."""

    level: Level
    may_map_page: bool
    """Whether bit 7 makes an entry a leaf here (always true in the last level, without looking at the bit)."""
    last: bool
    has_rights: bool
    """False for the PDPTEs of PAE paging, which carry no write, user or execute-disable bit."""
    table_address: int
    page_address: int
    table_reserved: int
    page_reserved: int
    pse36: bool
    """Whether bits 20:13 of a leaf are address bits 39:32."""

    def is_leaf(self, raw: int) -> bool:
        """Whether a present entry maps a page."""
        return self.last or (self.may_map_page and bool(raw & PS))

    def page_gpa(self, raw: int) -> int:
        """The guest-physical address of the page that a leaf maps."""
        gpa = raw & self.page_address
        if self.pse36:
            gpa |= (raw >> 13 & 0xFF) << 32
        return gpa


def rules_for(
    paging: PagingFormat,
    special: SpecialRegisters,
    *,
    physical_bits: int = MAX_PHYSICAL_BITS,
    gigabyte_pages: bool = True,
    pse36: bool = True,
    amd: bool = False,
) -> tuple[LevelRules, ...]:
    """The rules of every level, root first (SDM 3A 4.3 to 4.5).

    CR4.PSE and EFER.NXE decide, and what CPUID tells: `physical_bits` (MAXPHYADDR), `gigabyte_pages`, `pse36`; and whether
    it is `amd`, whose PML4Es and PML5Es reserve bit 8, which Intel's ignore (AMD APM 2 5.3.3).
    """
    if paging is PAGING_32BIT:
        return _rules_32bit(paging, bool(special.cr4 & Cr4.PSE), physical_bits, pse36)
    return tuple(
        _rules_64bit_entries(paging, level, physical_bits, bool(special.efer & Efer.NXE), gigabyte_pages, amd)
        for level in paging.levels
    )


def _rules_32bit(paging: PagingFormat, pse: bool, physical_bits: int, pse36: bool) -> tuple[LevelRules, ...]:
    directory, table = paging.levels
    extra_bits = max(min(physical_bits, PSE36_PHYSICAL_BITS) - 32, 0) if pse36 else 0
    # Bits 20:13 hold as many address bits as the processor has above 32; the rest, and bit 21, are reserved (table 4-4).
    reserved = _bits(13 + extra_bits, 21)
    return (
        LevelRules(directory, pse, False, True, 0xFFFFF000, 0xFFC00000, 0, reserved, pse),
        LevelRules(table, True, True, True, 0, 0xFFFFF000, 0, 0, False),
    )


def _rules_64bit_entries(
    paging: PagingFormat, level: Level, physical_bits: int, nxe: bool, gigabyte_pages: bool, amd: bool
) -> LevelRules:
    address = (1 << physical_bits) - PAGE_SIZE
    page_address = address & -level.page_size
    beyond = _bits(physical_bits, 51)
    if paging is PAGING_PAE:
        beyond |= _bits(52, 62)  # ignored in the long formats, reserved here (tables 4-9 to 4-11)
    if level.leaf == "never" and paging is PAGING_PAE:
        reserved = _bits(physical_bits, 63) | _bits(5, 8) | RW | US  # table 4-8
        return LevelRules(level, False, False, False, address, 0, reserved, 0, False)
    if not nxe:
        beyond |= XD
    last = level.leaf == "always"
    may_map_page = level.leaf == "ps" and (level.page_size < SIZE_1G or gigabyte_pages)
    table_reserved = beyond if may_map_page or last else beyond | PS
    if amd and level.leaf == "never":
        table_reserved |= G
    page_reserved = beyond if last else beyond | _bits(13, level.shift - 1)
    return LevelRules(
        level, may_map_page or last, last, True, address, page_address, table_reserved, page_reserved, False
    )


def _bits(low: int, high: int) -> int:
    """A mask of bits `low` to `high`, both included; nothing if `high` is below `low`."""
    return (1 << high + 1) - (1 << low) if high >= low else 0


_COMMON_NAMES = ((P, "P"), (RW, "RW"), (US, "US"), (1 << 3, "PWT"), (1 << 4, "PCD"), (1 << 5, "A"))


def entry_bit_names(rules: LevelRules, raw: int, *, protection_keys: bool = False) -> tuple[str, ...]:
    """The set bits of a raw entry by the manual's names, lowest first; empty for an entry that is not present."""
    if not raw & P:
        return ()
    names = [name for bit, name in _COMMON_NAMES if raw & bit and (rules.has_rights or bit not in (RW, US))]
    if rules.is_leaf(raw):
        if raw & EntryBit.D:
            names.append("D")
        if not rules.last:
            names.append("PS")
        if raw & G:
            names.append("G")
        if raw & (PAT_4K if rules.last else int(EntryBit.PAT_LARGE)):
            names.append("PAT")
        if protection_keys:
            names.append(f"PK={raw >> PROTECTION_KEY_SHIFT & 15}")
    if raw & XD:
        names.append("XD")
    return tuple(names)


def size_name(size: int) -> str:
    """A size in bytes as people write page sizes: `4K`, `2M`, `1G`, or plain bytes when it is no whole number of KiB."""
    for unit, letter in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)
