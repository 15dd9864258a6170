"""Multiboot2 kernels (Multiboot2 Specification 2.0), the format of GRUB's `multiboot2`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from belljar.boot.acpi import RSDP_OLD_SIZE, RSDP_SIZE
from belljar.boot.image import Image, ImageSegment, checked_image
from belljar.boot.memory_map import MemoryRange, lower_and_upper_kib, memory_map
from belljar.boot.multiboot import (
    BITS,
    BOOT_LOADER,
    MODE,
    REACH,
    TAKES,
    Addresses,
    Module,
    Room,
    c_string,
    damaged,
    elf_kernel,
    entered,
    find_magic,
    firmware_tables,
    flat_kernel,
    place_information,
    place_modules,
    require_reach,
    words,
)
from belljar.boot.options import LoadOptions
from belljar.boot.source import Source
from belljar.errors import ConfigurationError, LoadError

__all__ = ["NAME", "TAKES", "load", "recognizes"]

NAME = "multiboot2"

MAGIC = 0xE85250D6
SEARCH_SIZE = 32768
ALIGNMENT = 8
"""Section 3.1: the header lies wholly in the first 32768 bytes, on a multiple of eight."""

ENTRY_MAGIC = 0x36D76289
"""What EAX holds at the entry (section 3.3)."""

_FIXED_SIZE = 16
_I386, _MIPS = 0, 4
"""Architectures (section 3.1.2)."""

_END, _REQUEST, _ADDRESS, _ENTRY, _CONSOLE, _FRAMEBUFFER = range(6)
_RELOCATABLE = 10
"""Types of header tags (sections 3.1.3 to 3.1.13).

Of those between, 6 asks for modules on page boundaries, where they always are; 7, 8 and 9 mean nothing without EFI.
"""

_SIZES = {_ADDRESS: 24, _ENTRY: 12, _CONSOLE: 12, _FRAMEBUFFER: 20, _RELOCATABLE: 24}
"""Bytes of the tags whose content matters here."""

_OPTIONAL = 1
"""Bit 0 of a tag's flags: it may be ignored by who cannot do it."""

_CONSOLE_REQUIRED = 1

_ELF_SECTIONS = 9
_LAST_KNOWN_REQUEST = 21
"""Types of information that the specification defines; of these only ELF sections exist here and are not passed on."""

_INFO_COMMAND_LINE, _INFO_LOADER_NAME, _INFO_MODULE, _INFO_MEMORY = 1, 2, 3, 4
_INFO_MEMORY_MAP, _INFO_OLD_RSDP, _INFO_NEW_RSDP, _INFO_LOAD_BASE = 6, 14, 15, 21
"""Types of information tags (section 3.4)."""

_MAP_ENTRY = struct.Struct("<QQII")

_LOWEST_GPA = 0x1000
"""Where a kernel that asks for the lowest place goes at the least: behind the vector table of real mode."""

_PREFER_LOWEST, _PREFER_HIGHEST = 1, 2


class _Header(NamedTuple):
    offset: int
    architecture: int
    length: int
    checksum: int

    @property
    def sound(self) -> bool:
        """Whether the checksum is right (multiboot 2.0, 3.1.2)."""
        return (MAGIC + self.architecture + self.length + self.checksum) & 0xFFFFFFFF == 0

    def __str__(self) -> str:
        return f"the multiboot2 header at offset {self.offset:#x}"


class _Tags(NamedTuple):
    """What the tags ask for, as far as it decides anything."""

    addresses: Addresses | None
    entry_gva: int | None
    relocation: tuple[int, ...] | None
    """min_addr, max_addr, align, preference."""


def recognizes(source: Source) -> bool:
    """A header whose checksum is right, or that looks like one in everything else."""
    return _find(source) is not None


def load(source: Source, options: LoadOptions) -> Image:
    """Kernel, modules and information tags. Raises LoadError for every header that cannot be followed."""
    header = _find(source)
    if header is None:
        raise damaged(
            source, f"there is no multiboot2 header in its first {SEARCH_SIZE} bytes", "is it a multiboot 2 kernel?"
        )
    tags = _tags(source, header)
    ranges = memory_map(options.ram)
    kernel = _kernel(source, options, header, tags)
    load_base = None
    if tags.relocation is not None:
        kernel = _relocated(kernel, tags.relocation, options, Room(ranges, ()))
        load_base = kernel.segments[0].gpa
    require_reach(kernel)
    room = Room(ranges, kernel.segments)
    cargo = place_modules(kernel, options, room)
    command_line = c_string(options.whole_line, "the command line")
    tables = firmware_tables(kernel, options)
    rsdp = tables[0].data[:RSDP_SIZE] if tables else b""
    information = _information(ranges, cargo.modules, command_line, load_base, rsdp)
    gpa = place_information(kernel, room, len(information))
    return entered(kernel, options, NAME, cargo, information, gpa, ENTRY_MAGIC)


# -- the header ----------------------------------------------------------------------------------------------------


def _find(source: Source) -> _Header | None:
    """The first header whose checksum is right, else the first that is plausible but for it."""
    head = source.head(SEARCH_SIZE)
    plausible = None
    for offset in find_magic(head, MAGIC, ALIGNMENT):
        if offset + _FIXED_SIZE > len(head):
            break
        header = _Header(offset, *words(head, offset + 4, 3))
        if header.sound:
            return header
        # The magic number alone also stands in programs that look for it; a length that can be makes a header.
        fits = _FIXED_SIZE <= header.length <= SEARCH_SIZE
        if plausible is None and header.architecture in (_I386, _MIPS) and fits:
            plausible = header
    return plausible


def _tags(source: Source, header: _Header) -> _Tags:
    """Check the header and go through its tags."""
    if not header.sound:
        wanted = -(MAGIC + header.architecture + header.length) & 0xFFFFFFFF
        raise damaged(source, f"{header} has the checksum {header.checksum:#x}, which should be {wanted:#x}")
    if header.architecture != _I386:
        kind = "MIPS" if header.architecture == _MIPS else f"unknown architecture {header.architecture}"
        raise damaged(source, f"{header} is for {kind}, not for i386", "build it for x86")
    head = source.head(SEARCH_SIZE)
    end = header.offset + header.length
    if header.length < _FIXED_SIZE or end > len(head):
        limit = "the first 32768 bytes" if len(head) == SEARCH_SIZE else "the file"
        raise damaged(source, f"{header} has the length {header.length:#x}, which does not fit {limit}")
    found: dict[int, tuple[int, ...]] = {}
    offset = header.offset + _FIXED_SIZE
    while True:
        if offset + 8 > end:
            raise damaged(source, f"{header} has no end tag before its end at {end:#x}")
        kind, flags, size = struct.unpack_from("<HHI", head, offset)
        where = f"{header}: its tag of type {kind} at offset {offset:#x}"
        if size < 8 or offset + size > end:
            raise damaged(source, f"{where} has the size {size:#x}, which does not fit the header")
        if kind == _END:
            break
        content = words(head, offset + 8, (size - 8) // 4)
        _check_tag(source, where, kind, flags, size, content)
        if kind in (_ADDRESS, _ENTRY, _RELOCATABLE):
            if kind in found:
                raise damaged(source, f"{where} is there twice")
            found[kind] = content
        offset += (size + 7) & -8
    addresses = Addresses(*found[_ADDRESS][:4]) if _ADDRESS in found else None
    entry_gva = found[_ENTRY][0] if _ENTRY in found else None
    return _Tags(addresses, entry_gva, found.get(_RELOCATABLE))


def _check_tag(source: Source, where: str, kind: int, flags: int, size: int, content: tuple[int, ...]) -> None:
    """LoadError for a tag that is malformed, or that asks for what cannot be had and may not be ignored."""
    if size < _SIZES.get(kind, 8):
        raise damaged(source, f"{where} has {size} bytes, it should have {_SIZES[kind]}")
    if kind == _RELOCATABLE and (content[2] & (content[2] - 1) or content[3] > _PREFER_HIGHEST):
        raise damaged(source, f"{where} has the alignment {content[2]:#x} and the preference {content[3]}")
    if flags & _OPTIONAL:
        return
    no_display = "and this machine has no display"
    if kind == _CONSOLE and content[0] & _CONSOLE_REQUIRED:
        raise damaged(source, f"{where} requires a console, {no_display}", "clear bit 0 of its console_flags")
    if kind == _FRAMEBUFFER:
        raise damaged(
            source, f"{where} requires a framebuffer, {no_display}", "make it optional: set bit 0 of its flags"
        )
    if kind == _REQUEST:
        refused = [item for item in content if item == _ELF_SECTIONS or item > _LAST_KNOWN_REQUEST]
        if refused:
            raise damaged(
                source,
                f"{where} requires information of type {refused[0]}, which belljar does not give",
                "make it optional: set bit 0 of its flags",
            )
    if kind > _RELOCATABLE:
        raise damaged(
            source,
            f"{where} is required, and multiboot2 2.0 has no such tag",
            "make it optional: set bit 0 of its flags",
        )


# -- the kernel ----------------------------------------------------------------------------------------------------


def _kernel(source: Source, options: LoadOptions, header: _Header, tags: _Tags) -> Image:
    # A relocatable kernel is moved afterwards, --load included; until then it lies where it was linked.
    if tags.relocation is not None:
        options = LoadOptions(limit=options.limit)
    if tags.addresses is None:
        return elf_kernel(source, options, tags.entry_gva, str(header))
    if tags.entry_gva is None:
        raise damaged(source, f"{header} has an address tag but no entry address tag")
    addresses = tags.addresses
    if addresses.load_gpa == REACH - 1:  # -1: from the beginning of the file
        if addresses.header_gpa < header.offset:
            raise damaged(
                source, f"{header} says that it lies at {addresses.header_gpa:#x}, so that the file would begin below 0"
            )
        addresses = addresses._replace(load_gpa=addresses.header_gpa - header.offset)
    return flat_kernel(source, options, header.offset, addresses, tags.entry_gva, NAME)


def _relocated(kernel: Image, relocation: tuple[int, ...], options: LoadOptions, room: Room) -> Image:
    """The kernel where its relocatable header tag lets it be (section 3.1.13): where it is linked to if nothing is preferred."""
    low, high, alignment, preference = relocation
    alignment = alignment or 1
    linked = kernel.segments[0].gpa
    size = max(segment.end_gpa for segment in kernel.segments) - linked
    if size > REACH:
        raise LoadError(f"{kernel.name}: it spans {size:#x} bytes of memory", hint="link its segments closer together")
    ceiling = min(high, REACH)
    base: int | None
    if options.load_gpa is not None:
        base = options.load_gpa
        if base % alignment or not low <= base <= ceiling - size:
            raise ConfigurationError(
                f"{kernel.name}: it may be loaded between {low:#x} and {ceiling:#x} at multiples of {alignment:#x}, "
                f"not at {base:#x}",
                hint="choose another --load address, or leave it away",
            )
    elif preference == _PREFER_HIGHEST:
        base = room.take_highest(size, max(low, _LOWEST_GPA), alignment, ceiling)
    elif preference != _PREFER_LOWEST and linked % alignment == 0 and low <= linked <= ceiling - size:
        base = linked
    else:
        base = room.take(size, max(low, _LOWEST_GPA), alignment, ceiling)
    if base is None:
        raise LoadError(
            f"{kernel.name}: its {size:#x} bytes do not fit between {low:#x} and {ceiling:#x} in guest memory",
            hint="give the machine more --memory",
        )
    moved = base - linked
    segments = [
        ImageSegment(segment.gpa + moved, segment.data, segment.memory_size, segment.flags)
        for segment in kernel.segments
    ]
    entry_gva = kernel.entry_gva + moved if options.entry_gva is None else options.entry_gva
    return checked_image(kernel.name, NAME, segments, entry_gva, bits=BITS, mode=MODE, entry_from="the entry")


# -- the information -----------------------------------------------------------------------------------------------


def _information(
    ranges: Sequence[MemoryRange], modules: Sequence[Module], command_line: bytes, load_base: int | None, rsdp: bytes
) -> bytes:
    """The tags of section 3.4; nothing in them depends on where they lie."""
    entries = b"".join(_MAP_ENTRY.pack(*entry, 0) for entry in ranges)
    tags = [
        _tag(_INFO_COMMAND_LINE, command_line),
        _tag(_INFO_LOADER_NAME, BOOT_LOADER),
        *(_tag(_INFO_MODULE, struct.pack("<2I", module.start_gpa, module.end_gpa) + module.text) for module in modules),
        _tag(_INFO_MEMORY, struct.pack("<2I", *lower_and_upper_kib(ranges))),
        _tag(_INFO_MEMORY_MAP, struct.pack("<2I", _MAP_ENTRY.size, 0) + entries),
    ]
    if rsdp:
        tags += [_tag(_INFO_OLD_RSDP, rsdp[:RSDP_OLD_SIZE]), _tag(_INFO_NEW_RSDP, rsdp)]
    if load_base is not None:
        tags.append(_tag(_INFO_LOAD_BASE, struct.pack("<I", load_base)))
    tags.append(_tag(_END, b""))
    content = b"".join(tags)
    return struct.pack("<2I", 8 + len(content), 0) + content


def _tag(kind: int, content: bytes) -> bytes:
    """A tag, padded so that the next one starts at a multiple of eight."""
    size = 8 + len(content)
    return struct.pack("<2I", kind, size) + content + bytes(-size % 8)
