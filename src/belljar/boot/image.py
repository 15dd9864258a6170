"""What every loader makes of a file: pieces of guest memory, and where execution starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntFlag
from itertools import pairwise

from belljar.errors import LoadError
from belljar.memory import GuestMemory
from belljar.records import dataclass, field

ADDRESS_SPACE_END = 1 << 64
"""Where addresses wrap."""


class SegmentFlags(IntFlag):
    """What a segment is for, as its file says; the bits of ELF's p_flags (System V gABI 4.1, chapter 5)."""

    EXECUTE = 1
    WRITE = 2
    READ = 4


RWX = SegmentFlags.READ | SegmentFlags.WRITE | SegmentFlags.EXECUTE


@dataclass(frozen=True, slots=True)
class ImageSegment:
    """`data` goes to guest-physical `gpa`; zeros follow it up to `memory_size` bytes in all.

    `name` is for what a loader adds to the guest's own code: a module, information for the kernel.
    """

    gpa: int
    data: bytes
    memory_size: int
    flags: SegmentFlags = RWX
    name: str = ""

    @property
    def end_gpa(self) -> int:
        """The first guest-physical address after it, zeros included."""
        return self.gpa + self.memory_size

    def __str__(self) -> str:
        return f"{self.gpa:#x}..{self.end_gpa - 1:#x}"


@dataclass(frozen=True, slots=True)
class Image:
    """A guest ready to be put into memory.

    `segments` are in the order of their addresses and do not overlap. `entry_gva` is where execution starts: bare guests
    start with memory mapped one to one, so that it lies in a segment. `bits` (16, 32, 64) is the code's size and `mode`
    the name of the CPU mode that it suggests (`belljar.x86.modes`); a user may choose another, unless the format is
    `strict` about it: it is then entered in `mode`, at CPL0, on one vCPU. `registers` are what the format hands over in
    registers, by name.
    """

    name: str
    format: str
    segments: tuple[ImageSegment, ...]
    entry_gva: int
    bits: int
    mode: str
    registers: Mapping[str, int] = field(default_factory=dict)
    strict: bool = False

    @property
    def size(self) -> int:
        """Bytes of guest memory that it takes, without the gaps between segments."""
        return sum(segment.memory_size for segment in self.segments)

    def find(self, gpa: int) -> ImageSegment | None:
        """The segment that holds a guest-physical address."""
        return next((segment for segment in self.segments if segment.gpa <= gpa < segment.end_gpa), None)

    def place(self, memory: GuestMemory) -> None:
        """Copy it into guest memory. Raises LoadError before the first byte if a part of it would not be there."""
        for segment in self.segments:
            if not memory.contains(segment.gpa, segment.memory_size):
                there = ", ".join(f"{region.gpa:#x}..{region.end_gpa - 1:#x}" for region in memory.regions) or "nowhere"
                raise LoadError(
                    f"{self.name}: its {segment.memory_size:#x} bytes at {segment} do not fit, guest memory is {there}",
                    hint="give the machine more --memory, or another --load address where the format allows one",
                )
        for segment in self.segments:
            filled = len(segment.data)
            memory.write(segment.gpa, segment.data, force=True)
            memory.zero(segment.gpa + filled, segment.memory_size - filled, force=True)


def checked_image(
    name: str, format: str, segments: Iterable[ImageSegment], entry_gva: int, *, bits: int, mode: str, entry_from: str
) -> Image:
    """An image whose segments neither wrap nor overlap and hold its entry; anything else raises LoadError.

    `entry_from` says in an error where the entry address was found.
    """
    ordered = sorted(segments, key=lambda segment: (segment.gpa, segment.end_gpa))
    for segment in ordered:
        if segment.end_gpa > ADDRESS_SPACE_END:
            raise LoadError(
                f"{name}: its {segment.memory_size:#x} bytes at {segment.gpa:#x} wrap past the end of the address space",
                hint="choose a lower --load address"
                if format == "raw"
                else "its addresses are damaged, build it again",
            )
    for before, after in pairwise(ordered):
        if after.gpa < before.end_gpa:
            raise LoadError(
                f"{name}: its segments at {before} and {after} overlap in guest-physical memory",
                hint="the program headers' p_paddr and p_memsz must not; look at its linker script",
            )
    image = Image(name, format, tuple(ordered), entry_gva, bits, mode)
    if image.find(entry_gva) is None:
        ranges = ", ".join(str(segment) for segment in ordered[:4]) + (", ..." if len(ordered) > 4 else "")
        raise LoadError(
            f"{name}: {entry_from} {entry_gva:#x} lies outside of what is loaded, {ranges}",
            hint="execution must start in the guest's own bytes; --entry sets where",
        )
    return image
