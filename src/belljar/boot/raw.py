"""Raw code: the file is what the processor executes, from its first byte on."""

from __future__ import annotations

from belljar.boot.image import Image, ImageSegment, checked_image
from belljar.boot.options import LoadOptions
from belljar.boot.source import Source
from belljar.errors import LoadError

NAME = "raw"

TAKES: frozenset[str] = frozenset()

DEFAULT_LOAD_GPA = 0x1000
"""Above the real-mode interrupt table and the BIOS data area (guest-physical 0 to 0x4FF), within the first 64 KiB."""


def recognizes(source: Source) -> bool:
    """Anything can be raw code; the registry asks every other loader before."""
    return True


def load(source: Source, options: LoadOptions) -> Image:
    """One segment at `load_gpa` (0x1000), entered at its start unless `entry_gva` says where. Suggests real mode."""
    if source.size > options.limit:
        raise LoadError(
            f"{source.name}: its {source.size:#x} bytes are more than the {options.limit:#x} that raw code may have",
            hint="is this a guest? give the machine more --memory, or an ELF file, which says what to load",
        )
    load_gpa = DEFAULT_LOAD_GPA if options.load_gpa is None else options.load_gpa
    segment = ImageSegment(load_gpa, source.read(0, source.size), source.size)
    entry_gva = load_gpa if options.entry_gva is None else options.entry_gva
    return checked_image(source.name, NAME, (segment,), entry_gva, bits=16, mode="real", entry_from="the entry")
