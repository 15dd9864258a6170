"""The page walk: from a linear address to a guest-physical one, every step recorded (SDM 3A 4.3 to 4.6).

Written for looking, not for speed: it reads tables through any `read(gpa, size) -> bytes` and never trusts them. Whatever
the tables hold, the answer is a `Walk`; one that fails says why and at which step.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from belljar.errors import GuestMemoryError
from belljar.records import dataclass, field
from belljar.x86.control import Cr4, Efer
from belljar.x86.paging import (
    MAX_PHYSICAL_BITS,
    NO_PAGING,
    PROTECTION_KEY_SHIFT,
    RW,
    US,
    XD,
    G,
    LevelRules,
    P,
    PagingFormat,
    entry_bit_names,
    format_of,
    rules_for,
)
from belljar.x86.state import SpecialRegisters

Read = Callable[[int, int], bytes]
"""`read(gpa, size)`: exactly `size` bytes of guest-physical memory, or GuestMemoryError."""


class WalkFailure(Enum):
    """Why a walk has no result; the value is the reason in words."""

    NOT_PRESENT = "the entry is not present"
    RESERVED_BIT = "the entry has a reserved bit set"
    NON_CANONICAL = "the address is not canonical"
    TOO_WIDE = "the address does not fit 32 bits"
    TABLE_UNREADABLE = "the table is not in guest memory"


@dataclass(frozen=True, slots=True)
class Rights:
    """What the tables allow on a page: the AND over all levels (SDM 3A 4.6.1); CR0.WP, SMEP and SMAP are not applied.

    `global_page` counts with CR4.PGE only; `protection_key` is None unless CR4.PKE or CR4.PKS is set.
    """

    write: bool
    user: bool
    execute: bool
    global_page: bool = False
    protection_key: int | None = None

    def __str__(self) -> str:
        text = (
            "r"
            + ("w" if self.write else "-")
            + ("x" if self.execute else "-")
            + (" user" if self.user else " supervisor")
        )
        if self.global_page:
            text += " global"
        return text if self.protection_key is None else f"{text} key {self.protection_key}"


ALL_RIGHTS = Rights(write=True, user=True, execute=True)
"""The rights without paging."""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry that the walk looked at.

    `raw` is None if the entry could not be read. `bits` are the names of its set bits. `next_gpa` is the table or page it
    leads to; `page_size` its size in bytes if it maps a page. `reserved` holds the reserved bits that were set.
    """

    level: str
    entry_name: str
    table_gpa: int
    index: int
    entry_gpa: int
    entry_size: int
    raw: int | None
    bits: tuple[str, ...] = ()
    next_gpa: int | None = None
    page_size: int | None = None
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Walk:
    """The walk of one address: its steps from the root, then either `gpa`, `page_size` and `rights`, or `failure`.

    Without paging there are no steps, `gpa` is `gva`, and `page_size` is None. A failed walk's last step, if it has any,
    is the one that failed.
    """

    gva: int
    paging: PagingFormat
    steps: tuple[Step, ...] = ()
    gpa: int | None = None
    page_size: int | None = None
    rights: Rights | None = None
    failure: WalkFailure | None = None

    @property
    def ok(self) -> bool:
        """Whether the address is mapped."""
        return self.failure is None

    @property
    def why(self) -> str:
        """The reason of a failed walk in one phrase with the place; empty for one that succeeded."""
        if self.failure is None:
            return ""
        if not self.steps:
            return self.failure.value
        step = self.steps[-1]
        where = f"{step.entry_name} {step.index:#x} at guest-physical {step.entry_gpa:#x}"
        if self.failure is WalkFailure.TABLE_UNREADABLE:
            return f"{where}: {self.failure.value}"
        extra = f", reserved bits {step.reserved:#x}" if step.reserved else ""
        return f"{where} is {step.raw:#x}: {self.failure.value}{extra}"


@dataclass(slots=True)
class RightsFold:
    """Rights while they are gathered level by level from raw entries."""

    special: SpecialRegisters
    rules: tuple[LevelRules, ...]
    _nxe: bool = field(init=False)
    _keys: bool = field(init=False)
    _globals: bool = field(init=False)

    def __post_init__(self) -> None:
        long_mode = len(self.rules) >= 4
        self._nxe = bool(self.special.efer & Efer.NXE)
        self._keys = long_mode and bool(self.special.cr4 & (Cr4.PKE | Cr4.PKS))
        self._globals = bool(self.special.cr4 & Cr4.PGE)

    @property
    def protection_keys(self) -> bool:
        """Whether leaf entries carry a protection key."""
        return self._keys

    @property
    def significant(self) -> int:
        """The bits of a folded entry that `rights` looks at under these control registers."""
        bits = RW | US | (XD if self._nxe else 0) | (G if self._globals else 0)
        return bits | (15 << PROTECTION_KEY_SHIFT if self._keys else 0)

    def combine(self, allowed: int, rules: LevelRules, raw: int) -> int:
        """`allowed` (RW, US, and XD for "may not execute") after one more entry."""
        if not rules.has_rights:
            return allowed
        return (allowed & raw & (RW | US)) | ((allowed | raw) & XD)

    def rights(self, allowed: int, leaf: int) -> Rights:
        """The final rights of a page whose leaf entry is `leaf`."""
        return Rights(
            write=bool(allowed & RW),
            user=bool(allowed & US),
            execute=not (self._nxe and allowed & XD),
            global_page=self._globals and bool(leaf & G),
            protection_key=leaf >> PROTECTION_KEY_SHIFT & 15 if self._keys else None,
        )


def read_exactly(read: Read, gpa: int, size: int) -> bytes | None:
    """`size` bytes at `gpa`, or None if they are not guest memory or `read` gives fewer."""
    try:
        data = read(gpa, size)
    except GuestMemoryError:
        return None
    return data if len(data) == size else None


def walk(
    special: SpecialRegisters,
    gva: int,
    read: Read,
    *,
    physical_bits: int = MAX_PHYSICAL_BITS,
    gigabyte_pages: bool = True,
    pse36: bool = True,
    amd: bool = False,
) -> Walk:
    """Translate the linear address `gva` as the processor would with these control registers, recording every entry.

    `physical_bits` is MAXPHYADDR (32 to 52), which decides the reserved bits; `gigabyte_pages` and `pse36` are the CPUID
    features of those names, and `amd` is for that vendor's reserved bits. Only `read` may raise, and of what it raises
    GuestMemoryError is an answer too. The entries of a PAE PDPT are read from memory, though a processor keeps them from
    the last load of CR3 (SDM 3A 4.4.1).
    """
    paging = format_of(special)
    if not paging.canonical(gva):
        return Walk(gva, paging, failure=WalkFailure.TOO_WIDE if paging.gva_bits == 32 else WalkFailure.NON_CANONICAL)
    if paging is NO_PAGING:
        return Walk(gva, paging, gpa=gva, rights=ALL_RIGHTS)
    rules = rules_for(paging, special, physical_bits=physical_bits, gigabyte_pages=gigabyte_pages, pse36=pse36, amd=amd)
    fold = RightsFold(special, rules)
    steps: list[Step] = []
    table_gpa = special.cr3 & paging.root_mask
    allowed = RW | US
    for rule in rules:
        step, failure = _step(rule, paging.entry_size, table_gpa, gva, read, fold.protection_keys)
        steps.append(step)
        if failure is not None or step.raw is None or step.next_gpa is None:
            return Walk(gva, paging, tuple(steps), failure=failure)
        allowed = fold.combine(allowed, rule, step.raw)
        if step.page_size is not None:
            gpa = step.next_gpa | gva & step.page_size - 1
            return Walk(gva, paging, tuple(steps), gpa, step.page_size, fold.rights(allowed, step.raw))
        table_gpa = step.next_gpa
    raise AssertionError("the last level's entries are always leaves")


def _step(
    rule: LevelRules, entry_size: int, table_gpa: int, gva: int, read: Read, keys: bool
) -> tuple[Step, WalkFailure | None]:
    """Look at one entry: what it says, and why the walk must end there if it must."""
    level = rule.level
    index = gva >> level.shift & level.entries - 1
    entry_gpa = table_gpa + index * entry_size
    data = read_exactly(read, entry_gpa, entry_size)
    if data is None:
        step = Step(level.name, level.entry_name, table_gpa, index, entry_gpa, entry_size, None)
        return step, WalkFailure.TABLE_UNREADABLE
    raw = int.from_bytes(data, "little")
    bits = entry_bit_names(rule, raw, protection_keys=keys)
    failure = None
    next_gpa = page_size = None
    reserved = 0
    if not raw & P:
        failure = WalkFailure.NOT_PRESENT
    elif rule.is_leaf(raw):
        reserved = raw & rule.page_reserved
        next_gpa, page_size = rule.page_gpa(raw), level.page_size
    else:
        reserved = raw & rule.table_reserved
        next_gpa = raw & rule.table_address
    if reserved:
        failure, next_gpa, page_size = WalkFailure.RESERVED_BIT, None, None
    step = Step(
        level.name, level.entry_name, table_gpa, index, entry_gpa, entry_size, raw, bits, next_gpa, page_size, reserved
    )
    return step, failure
