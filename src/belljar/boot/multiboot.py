"""What the two multiboot formats share: finding a header, the kernel's own bytes, and room for what it is handed.

A kernel is entered as both specifications say (multiboot 0.6.96 section 3.2, multiboot2 2.0 section 3.3): 32-bit protected
mode without paging, flat segments, interrupts off, a magic number in EAX and the address of the information in EBX.
GDTR and ESP are the kernel's own business; here they are good until it sets its own.

Modules go to page boundaries behind the kernel, or to the first room above 1 MiB or below. The information goes to the first
page from INFORMATION_GPA on that is free; as the specifications say, the kernel's memory map lists all that as available.
"""

from __future__ import annotations

import struct
from bisect import insort
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from belljar.boot import elf
from belljar.boot.acpi import acpi_tables
from belljar.boot.bios_data import bios_data
from belljar.boot.image import Image, ImageSegment, SegmentFlags, checked_image
from belljar.boot.memory_map import AVAILABLE, MemoryRange
from belljar.boot.options import LoadOptions
from belljar.boot.source import Source, open_file
from belljar.errors import ConfigurationError, LoadError

TAKES = frozenset({"command_line", "modules"})

BOOT_LOADER = b"belljar\0"
"""Our name, as kernels are told it."""

MODE = "protected"
BITS = 32

REACH = 1 << 32
"""Kernels are entered in 32-bit code, and every address of the formats has 32 bits."""

PAGE = 4096
"""What modules are aligned to, whether a kernel asks for it or not."""

INFORMATION_GPA = 0x1_0000
"""64 KiB: above what kernels use for the start of other processors, below where most are linked to."""

STRUCTURES_SIZE = 64 << 10
"""Bytes left free at the end of RAM below 4 GiB, where the machine puts the GDT, TSS and stack of the start state."""

READ_WRITE = SegmentFlags.READ | SegmentFlags.WRITE


class Addresses(NamedTuple):
    """Where a flat image goes, as its header says: the four fields of both formats (0: not said)."""

    header_gpa: int
    load_gpa: int
    load_end_gpa: int
    bss_end_gpa: int


class Module(NamedTuple):
    """A module in guest memory, `[start, end)`, and the text that goes with it, zero-terminated."""

    start_gpa: int
    end_gpa: int
    text: bytes


def find_magic(head: bytes, magic: int, alignment: int) -> Iterator[int]:
    """The aligned offsets at which a magic number stands in the first bytes of a file."""
    pattern = magic.to_bytes(4, "little")
    offset = head.find(pattern)
    while offset >= 0:
        if offset % alignment == 0:
            yield offset
        offset = head.find(pattern, offset + 1)


def words(data: bytes, offset: int, count: int) -> tuple[int, ...]:
    """`count` 32-bit numbers at `offset`, which the caller has checked."""
    return struct.unpack_from(f"<{count}I", data, offset)


def damaged(source: Source, what: str, hint: str = "build the kernel again, or say --format elf or raw") -> LoadError:
    """The one line for a header that cannot be followed."""
    return LoadError(f"{source.name}: {what}", hint=hint)


def c_string(text: str, what: str) -> bytes:
    """Text as the guest gets it. Raises ConfigurationError for what a zero-terminated string cannot hold."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ConfigurationError(f"{what} holds characters that are none", hint="write it in UTF-8") from None
    if b"\0" in data:
        raise ConfigurationError(f"{what} holds a null character", hint="it would end there")
    return data + b"\0"


# -- the kernel ----------------------------------------------------------------------------------------------------


def elf_kernel(source: Source, options: LoadOptions, entry_gva: int | None, what: str) -> Image:
    """The program headers' segments; entered at `entry_gva` if the multiboot header says so, else at e_entry."""
    if not elf.recognizes(source):
        raise damaged(source, f"{what} has no load addresses, which only an ELF file can do without")
    entry_gva = entry_gva if options.entry_gva is None else options.entry_gva
    return elf.load(source, LoadOptions(options.load_gpa, entry_gva, options.limit))


def flat_kernel(
    source: Source, options: LoadOptions, header_offset: int, addresses: Addresses, entry_gva: int, format: str
) -> Image:
    """One segment, loaded where the header's address fields say (0.6.96 section 3.1.3, 2.0 section 3.1.5)."""
    header_gpa, load_gpa, load_end_gpa, bss_end_gpa = addresses
    if options.load_gpa is not None:
        raise ConfigurationError(
            f"{source.name}: its header says where it lies, so that it cannot be loaded at {options.load_gpa:#x}",
            hint="leave --load away",
        )
    if load_gpa > header_gpa:
        raise damaged(source, f"the header's load_addr {load_gpa:#x} is above its header_addr {header_gpa:#x}")
    start = header_offset - (header_gpa - load_gpa)
    if start < 0:
        raise damaged(
            source,
            f"the header at offset {header_offset:#x} says that loading starts {header_gpa - load_gpa:#x} bytes before it, "
            "which is before the file",
        )
    if load_end_gpa and load_end_gpa < load_gpa:
        raise damaged(source, f"the header's load_end_addr {load_end_gpa:#x} is below its load_addr {load_gpa:#x}")
    size = load_end_gpa - load_gpa if load_end_gpa else source.size - start
    if start + size > source.size:
        raise damaged(
            source,
            f"the header says to load {size:#x} bytes from offset {start:#x}, the file ends at {source.size:#x}",
            "it is truncated: copy or build it again",
        )
    end_gpa = load_gpa + size
    if bss_end_gpa and bss_end_gpa < end_gpa:
        raise damaged(source, f"the header's bss_end_addr {bss_end_gpa:#x} is below the end of its data {end_gpa:#x}")
    if end_gpa > REACH:
        raise damaged(source, f"its {size:#x} bytes at {load_gpa:#x} wrap past the end of 32-bit addresses")
    if size > options.limit:
        raise damaged(
            source,
            f"its {size:#x} bytes are more than the {options.limit:#x} that there is room for",
            "give the machine more --memory",
        )
    segment = ImageSegment(load_gpa, source.read(start, size), max(end_gpa, bss_end_gpa) - load_gpa)
    entry_gva, entry_from = (
        (entry_gva, "the header's entry_addr") if options.entry_gva is None else (options.entry_gva, "the entry")
    )
    return checked_image(source.name, format, (segment,), entry_gva, bits=BITS, mode=MODE, entry_from=entry_from)


def require_reach(image: Image) -> None:
    """LoadError for a kernel that 32-bit code could not reach."""
    for segment in image.segments:
        if segment.end_gpa > REACH:
            raise LoadError(
                f"{image.name}: its bytes at {segment} lie above 4 GiB, where a multiboot kernel cannot start",
                hint="link it lower, or set the p_paddr of its program headers",
            )


# -- what it is handed ---------------------------------------------------------------------------------------------


class Room:
    """Finds free memory below 4 GiB: the available ranges of a map without what `taken` segments, none overlapping, occupy."""

    def __init__(self, ranges: Sequence[MemoryRange], taken: Sequence[ImageSegment]) -> None:
        self._taken = sorted((segment.gpa, segment.end_gpa) for segment in taken)
        self._ranges = [
            (entry.gpa, min(entry.gpa + entry.size, REACH))
            for entry in ranges
            if entry.type == AVAILABLE and entry.gpa < REACH
        ]
        if self._ranges:
            gpa, end = self._ranges[-1]
            self._ranges[-1] = (gpa, max(gpa, end - STRUCTURES_SIZE))

    def take(self, size: int, floor_gpa: int, alignment: int = PAGE, ceiling_gpa: int = REACH) -> int | None:
        """The lowest aligned address from `floor_gpa` on with `size` free bytes that end by `ceiling_gpa`; they are taken."""
        return self._settle(self._lowest(size, floor_gpa, alignment, ceiling_gpa), size)

    def take_highest(self, size: int, floor_gpa: int, alignment: int, ceiling_gpa: int) -> int | None:
        """As `take`, but the highest."""
        for start, end in reversed(self._ranges):
            place = (min(end, ceiling_gpa) - size) // alignment * alignment
            for low, high in reversed(self._taken):
                if low < place + max(size, 1) and place < high:
                    place = (low - size) // alignment * alignment
            if place >= max(start, floor_gpa):
                return self._settle(place, size)
        return None

    def _lowest(self, size: int, floor_gpa: int, alignment: int, ceiling_gpa: int) -> int | None:
        for start, end in self._ranges:
            place = _up(max(start, floor_gpa), alignment)
            for low, high in self._taken:
                if low < place + max(size, 1) and place < high:
                    place = _up(high, alignment)
            if place + size <= min(end, ceiling_gpa):
                return place
        return None

    def _settle(self, gpa: int | None, size: int) -> int | None:
        if gpa is not None:
            insort(self._taken, (gpa, gpa + size))
        return gpa


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


class Cargo(NamedTuple):
    """Modules that have found their place, as segments and as the kernel is told about them."""

    segments: tuple[ImageSegment, ...]
    modules: tuple[Module, ...]


def place_modules(kernel: Image, options: LoadOptions, room: Room) -> Cargo:
    """Read every module and find a place for it. Raises LoadError if there is none, or the file is unusable."""
    left = options.limit - sum(len(segment.data) for segment in kernel.segments)
    behind = max(segment.end_gpa for segment in kernel.segments)
    segments, modules = [], []
    for path, text in options.modules:
        with open_file(path) as file:
            if file.size > left:
                raise LoadError(
                    f"module {file.name}: its {file.size:#x} bytes are more than the {max(left, 0):#x} that are left "
                    "beside the kernel",
                    hint="give the machine more --memory",
                )
            data = file.read(0, file.size)
            name = file.name
        left -= len(data)
        gpa = _first(room, len(data), (behind, 1 << 20, PAGE))
        if gpa is None:
            raise LoadError(
                f"module {name}: there is no room for its {len(data):#x} bytes in guest memory",
                hint="give the machine more --memory",
            )
        if data:
            segments.append(ImageSegment(gpa, data, len(data), READ_WRITE, f"module {name}"))
        modules.append(Module(gpa, gpa + len(data), c_string(text, f"the text of module {name}")))
    return Cargo(tuple(segments), tuple(modules))


def place_information(kernel: Image, room: Room, size: int) -> int:
    """Where `size` bytes of boot information go; LoadError if there is no room."""
    gpa = _first(room, size, (INFORMATION_GPA, PAGE))
    if gpa is None:
        raise LoadError(
            f"{kernel.name}: there is no room for {size:#x} bytes of multiboot information in guest memory",
            hint="give the machine more --memory",
        )
    return gpa


def _first(room: Room, size: int, floors: tuple[int, ...]) -> int | None:
    for floor in floors:
        gpa = room.take(size, floor)
        if gpa is not None:
            return gpa
    return None


def firmware_tables(kernel: Image, options: LoadOptions) -> tuple[ImageSegment, ...]:
    """The ACPI tables, whose first bytes are the RSDP; none if nobody tells of the hardware, or there is no room for them."""
    return () if options.acpi is None else acpi_tables(options.acpi(), options.ram, kernel.segments)


def entered(
    kernel: Image, options: LoadOptions, format: str, cargo: Cargo, information: bytes, gpa: int, magic: int
) -> Image:
    """The whole guest: kernel, modules, information, BIOS data, ACPI tables, and the two registers that it starts with."""
    bios = bios_data(options.ram, kernel.segments)
    tables = firmware_tables(kernel, options)
    info = ImageSegment(gpa, information, len(information), READ_WRITE, "multiboot information")
    segments = sorted((*bios, *tables, *kernel.segments, *cargo.segments, info), key=lambda segment: segment.gpa)
    registers = {"rax": magic, "rbx": gpa}
    return Image(kernel.name, format, tuple(segments), kernel.entry_gva, BITS, MODE, registers, strict=True)
