"""Where belljar's own structures lie in guest memory: a top-down allocator and the list of what it gave out."""

from __future__ import annotations

from belljar.errors import ConfigurationError
from belljar.records import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """A structure in guest memory. `kind` is `page-table`, `gdt`, `idt`, `tss`, `stack`, `code`, ...; `size` in bytes.

    `gva` is its linear address, None where that depends on the guest; `note` says what it is for in a phrase.
    """

    name: str
    kind: str
    gpa: int
    size: int
    gva: int | None = None
    note: str = ""

    @property
    def end_gpa(self) -> int:
        """The first guest-physical address behind it."""
        return self.gpa + self.size


class TopDownAllocator:
    """Gives out guest-physical memory from `top_gpa` downwards, never below `floor_gpa`."""

    __slots__ = ("floor_gpa", "gpa", "top_gpa")

    def __init__(self, top_gpa: int, floor_gpa: int) -> None:
        self.top_gpa = top_gpa
        self.floor_gpa = floor_gpa
        self.gpa = top_gpa
        """The lowest address given out so far."""

    def take(self, size: int, alignment: int) -> int:
        """The address of `size` fresh bytes, a multiple of `alignment` (a power of two). Raises ConfigurationError when full."""
        gpa = self.gpa - size & -alignment
        if gpa < self.floor_gpa:
            raise ConfigurationError(
                f"page tables, descriptor tables and stacks do not fit between guest-physical {self.floor_gpa:#x} "
                f"and {self.top_gpa:#x}",
                hint="give the guest more memory, larger pages, or fewer vCPUs",
            )
        self.gpa = gpa
        return gpa

    def below(self, top_gpa: int) -> TopDownAllocator:
        """An allocator for what is left below `top_gpa`."""
        return TopDownAllocator(min(self.gpa, top_gpa), self.floor_gpa)

    def take_page(self) -> int:
        """The address of a fresh 4-KiB page."""
        return self.take(4096, 4096)
