"""Multiboot headers made by hand, so that a test can make each field wrong by itself."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

MAGIC1, MAGIC2 = 0x1BADB002, 0xE85250D6
ADDRESSES = 1 << 16
BASE = 0x10_0000


@dataclass
class Flat1:
    """A multiboot 1 image with address fields: `before`, the header, `code`."""

    flags: int = ADDRESSES
    checksum: int | None = None
    before: bytes = b""
    header: int | None = None
    load: int = BASE
    load_end: int = 0
    bss_end: int = 0
    entry: int | None = None
    code: bytes = b"\xf4" * 16
    magic: int = MAGIC1

    def pack(self) -> bytes:
        """The file's bytes."""
        header = self.load + len(self.before) if self.header is None else self.header
        entry = header + 32 if self.entry is None else self.entry
        checksum = -(self.magic + self.flags) if self.checksum is None else self.checksum
        fields = (self.magic, self.flags, checksum, header, self.load, self.load_end, self.bss_end, entry)
        return self.before + struct.pack("<8I", *(value & 0xFFFFFFFF for value in fields)) + self.code


def tag(kind: int, *words: int, flags: int = 0, size: int | None = None) -> bytes:
    """A header tag of 32-bit words, padded."""
    content = struct.pack(f"<{len(words)}I", *words)
    whole = struct.pack("<HHI", kind, flags, 8 + len(content) if size is None else size) + content
    return whole + bytes(-len(whole) % 8)


END = tag(0)


@dataclass
class Flat2:
    """A multiboot 2 image; `tags` between the header and its end tag, which by default place and enter it."""

    tags: list[bytes] = field(default_factory=lambda: [tag(2, BASE, BASE, 0, 0), tag(3, BASE + 0x100)])
    end: bytes = END
    architecture: int = 0
    length: int | None = None
    checksum: int | None = None
    before: bytes = b""
    size: int = 0x200

    def pack(self) -> bytes:
        """The file's bytes: `hlt` after the header up to `size`."""
        content = b"".join(self.tags) + self.end
        length = 16 + len(content) if self.length is None else self.length
        checksum = -(MAGIC2 + self.architecture + length) if self.checksum is None else self.checksum
        words = (MAGIC2, self.architecture, length, checksum)
        whole = self.before + struct.pack("<4I", *(value & 0xFFFFFFFF for value in words)) + content
        return whole.ljust(self.size, b"\xf4")
