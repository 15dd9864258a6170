"""What a sample guest is: a listing, and how it wants to be started."""

from __future__ import annotations

from collections.abc import Mapping

from belljar.boot.image import Image, ImageSegment
from belljar.records import dataclass, field
from belljar.x86.modes import MODES

LOAD_GPA = 0x1000
"""Where every sample lies and starts, so that guest-physical 0x400 is free for what the greetings leave there."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a listing: `code` in hexadecimal, `text` as the disassembler writes it, and `why` it is there.

    Data is a line whose text starts with `db`. `label` names the line's address for readers.
    """

    code: str
    text: str
    why: str = ""
    label: str = ""

    @property
    def bytes(self) -> bytes:
        """The machine code."""
        return bytes.fromhex(self.code)

    @property
    def is_data(self) -> bool:
        """Whether these bytes are not instructions."""
        return self.text.startswith("db ")


def addressed(listing: tuple[Line, ...]) -> list[tuple[int, Line]]:
    """Every line of a listing with its guest-virtual address."""
    gva, lines = LOAD_GPA, []
    for line in listing:
        lines.append((gva, line))
        gva += len(line.bytes)
    return lines


def gva_of(listing: tuple[Line, ...], label: str) -> int:
    """The guest-virtual address of the line labelled `label`, which there must be."""
    return next(gva for gva, line in addressed(listing) if line.label == label)


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample guest. `registers[i]` are vCPU i's start registers by name; `idt_handlers` maps vectors to handlers' gva.

    `mode`, `page_size` (bytes, None for the mode's own) and `cpl` are what the host sets up before the first instruction.
    """

    name: str
    summary: str
    mode: str
    listing: tuple[Line, ...]
    cpus: int = 1
    cpl: int = 0
    page_size: int | None = None
    registers: tuple[Mapping[str, int], ...] = ()
    idt_handlers: Mapping[int, int] = field(default_factory=dict)
    needs_chips: bool = False
    """Whether it counts on interrupt chips."""

    @property
    def load_gpa(self) -> int:
        """Where it lies in guest-physical memory."""
        return LOAD_GPA

    @property
    def entry_gva(self) -> int:
        """Where it starts: at its first byte."""
        return LOAD_GPA

    @property
    def bits(self) -> int:
        """The size of its code, 16, 32 or 64."""
        return MODES[self.mode].bits

    @property
    def code(self) -> bytes:
        """All bytes of the listing."""
        return b"".join(line.bytes for line in self.listing)

    def addressed(self) -> list[tuple[int, Line]]:
        """Every line with its guest-virtual address."""
        return addressed(self.listing)

    def image(self) -> Image:
        """It as a loader would give it."""
        code = self.code
        segment = ImageSegment(self.load_gpa, code, len(code))
        return Image(self.name, "sample", (segment,), self.entry_gva, self.bits, self.mode)
