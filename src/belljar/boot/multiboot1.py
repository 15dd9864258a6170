"""Multiboot kernels (Multiboot Specification 0.6.96), the format of GRUB's `multiboot` and of QEMU's `-kernel`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from belljar.boot.image import Image
from belljar.boot.memory_map import MemoryRange, lower_and_upper_kib, memory_map
from belljar.boot.multiboot import (
    BOOT_LOADER,
    TAKES,
    Addresses,
    Module,
    Room,
    c_string,
    damaged,
    elf_kernel,
    entered,
    find_magic,
    flat_kernel,
    place_information,
    place_modules,
    require_reach,
    words,
)
from belljar.boot.options import LoadOptions
from belljar.boot.source import Source

__all__ = ["NAME", "TAKES", "load", "recognizes"]

NAME = "multiboot1"

MAGIC = 0x1BADB002
SEARCH_SIZE = 8192
ALIGNMENT = 4
"""Section 3.1: the header lies wholly in the first 8192 bytes, on a multiple of four."""

ENTRY_MAGIC = 0x2BADB002
"""What EAX holds at the entry (section 3.2)."""

_PAGE_ALIGN = 1 << 0
_MEMORY_INFO = 1 << 1
_VIDEO_MODE = 1 << 2
_ADDRESSES = 1 << 16
_REQUIREMENTS = 0xFFFF
"""Flags of the header (section 3.1.2); a loader must refuse any of the low 16 that it cannot meet."""

_INFO_MEMORY = 1 << 0
_INFO_COMMAND_LINE = 1 << 2
_INFO_MODULES = 1 << 3
_INFO_MEMORY_MAP = 1 << 6
_INFO_LOADER_NAME = 1 << 9
"""Flags of the information: which of its fields are valid (section 3.3)."""

_INFO_SIZE = 120
"""From `flags` to the framebuffer's colour fields, padded to a multiple of eight."""

_MAP_ENTRY = struct.Struct("<IQQI")
_MODULE_ENTRY = struct.Struct("<IIII")


class _Header(NamedTuple):
    offset: int
    flags: int
    checksum: int

    @property
    def sound(self) -> bool:
        """Whether the checksum is right (multiboot 0.6.96, 3.1.2)."""
        return (MAGIC + self.flags + self.checksum) & 0xFFFFFFFF == 0


def recognizes(source: Source) -> bool:
    """A header whose checksum is right, or that looks like one in everything else."""
    return _find(source) is not None


def load(source: Source, options: LoadOptions) -> Image:
    """Kernel, modules and information structure. Raises LoadError for every header that cannot be followed."""
    header = _find(source)
    if header is None:
        raise damaged(
            source, f"there is no multiboot header in its first {SEARCH_SIZE} bytes", "is it a multiboot 1 kernel?"
        )
    _check(source, header)
    kernel = _kernel(source, options, header)
    require_reach(kernel)
    ranges = memory_map(options.ram)
    room = Room(ranges, kernel.segments)
    cargo = place_modules(kernel, options, room)
    command_line = c_string(options.whole_line, "the command line")
    size = len(_information(0, ranges, cargo.modules, command_line))
    gpa = place_information(kernel, room, size)
    information = _information(gpa, ranges, cargo.modules, command_line)
    return entered(kernel, options, NAME, cargo, information, gpa, ENTRY_MAGIC)


def _find(source: Source) -> _Header | None:
    """The first header whose checksum is right, else the first that is plausible but for it."""
    head = source.head(SEARCH_SIZE)
    plausible = None
    for offset in find_magic(head, MAGIC, ALIGNMENT):
        if offset + 12 > len(head):
            break
        header = _Header(offset, *words(head, offset + 4, 2))
        if header.sound:
            return header
        # The magic number alone also stands in programs that look for it; defined flags behind it make a header.
        known = _PAGE_ALIGN | _MEMORY_INFO | _VIDEO_MODE | _ADDRESSES
        if plausible is None and not header.flags & ~known:
            plausible = header
    return plausible


def _check(source: Source, header: _Header) -> None:
    if not header.sound:
        wanted = -(MAGIC + header.flags) & 0xFFFFFFFF
        raise damaged(
            source,
            f"the multiboot header at offset {header.offset:#x} has the checksum {header.checksum:#x}, "
            f"which should be {wanted:#x}",
        )
    if header.flags & _VIDEO_MODE:
        raise damaged(
            source,
            f"the multiboot header at offset {header.offset:#x} requires a video mode (bit 2 of its flags), "
            "and this machine has no display",
            "clear that bit: the kernel's console is port 0xE9 or 0x3F8",
        )
    unknown = header.flags & _REQUIREMENTS & ~(_PAGE_ALIGN | _MEMORY_INFO)
    if unknown:
        raise damaged(
            source,
            f"the multiboot header at offset {header.offset:#x} requires what multiboot 0.6.96 does not know, "
            f"flags {unknown:#x}",
            "clear those bits of its flags",
        )


def _kernel(source: Source, options: LoadOptions, header: _Header) -> Image:
    if not header.flags & _ADDRESSES:
        return elf_kernel(source, options, None, f"the multiboot header at offset {header.offset:#x}")
    head = source.head(SEARCH_SIZE)
    if header.offset + 32 > len(head):
        raise damaged(
            source,
            f"the multiboot header at offset {header.offset:#x} ends at {header.offset + 32:#x}, after "
            f"{'the first 8192 bytes' if len(head) == SEARCH_SIZE else 'the file'}",
        )
    *fields, entry_gva = words(head, header.offset + 12, 5)
    return flat_kernel(source, options, header.offset, Addresses(*fields), entry_gva, NAME)


def _information(gpa: int, ranges: Sequence[MemoryRange], modules: Sequence[Module], command_line: bytes) -> bytes:
    """The structure of section 3.3 at `gpa`, followed by everything that it points to."""
    data = bytearray(_INFO_SIZE)

    def append(more: bytes) -> int:
        """Put more behind what is there, at a multiple of 4: where it lies."""
        where = gpa + len(data)
        data.extend(more)
        data.extend(bytes(-len(data) % 4))
        return where

    # An entry's first field is the size of the rest of it.
    entries = b"".join(_MAP_ENTRY.pack(_MAP_ENTRY.size - 4, *entry) for entry in ranges)
    map_gpa = append(entries)
    texts = [append(module.text) for module in modules]
    list_gpa = append(
        b"".join(
            _MODULE_ENTRY.pack(module.start_gpa, module.end_gpa, text, 0)
            for module, text in zip(modules, texts, strict=True)
        )
    )
    command_line_gpa = append(command_line)
    loader_gpa = append(BOOT_LOADER)
    flags = _INFO_MEMORY | _INFO_COMMAND_LINE | _INFO_MODULES | _INFO_MEMORY_MAP | _INFO_LOADER_NAME
    struct.pack_into("<3I", data, 0, flags, *lower_and_upper_kib(ranges))
    struct.pack_into("<3I", data, 16, command_line_gpa, len(modules), list_gpa if modules else 0)
    struct.pack_into("<2I", data, 44, len(entries), map_gpa)
    struct.pack_into("<I", data, 64, loader_gpa)
    return bytes(data)
