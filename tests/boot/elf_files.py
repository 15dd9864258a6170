"""ELF files made by hand, so that a test can make each field wrong by itself (System V gABI 4.1, chapters 4 and 5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
EM_386, EM_ARM, EM_X86_64 = 3, 40, 62
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
EHDR_SIZE = {32: 52, 64: 64}
PHDR_SIZE = {32: 32, 64: 56}
SHDR_SIZE = {32: 40, 64: 64}


@dataclass
class Program:
    """A program header; `data` lies at `offset` in the file unless the test says another."""

    vaddr: int = 0x1000
    data: bytes = b"\xf4"
    paddr: int | None = None
    type: int = PT_LOAD
    flags: int = 5
    filesz: int | None = None
    memsz: int | None = None
    offset: int | None = None
    align: int = 1

    def pack(self, bits: int, offset: int) -> bytes:
        """The header's bytes."""
        offset = offset if self.offset is None else self.offset
        paddr = self.vaddr if self.paddr is None else self.paddr
        filesz = len(self.data) if self.filesz is None else self.filesz
        memsz = filesz if self.memsz is None else self.memsz
        if bits == 64:
            return struct.pack("<IIQQQQQQ", self.type, self.flags, offset, self.vaddr, paddr, filesz, memsz, self.align)
        return struct.pack("<IIIIIIII", self.type, offset, self.vaddr, paddr, filesz, memsz, self.flags, self.align)


@dataclass
class Elf:
    """A whole file: header, program headers, data, two section headers."""

    programs: list[Program] = field(default_factory=lambda: [Program()])
    bits: int = 64
    entry: int = 0x1000
    type: int = ET_EXEC
    machine: int | None = None
    ident: bytes | None = None
    version: int = 1
    phoff: int | None = None
    phentsize: int | None = None
    phnum: int | None = None
    shoff: int | None = None
    shnum: int = 2

    def pack(self) -> bytes:
        """The file's bytes."""
        bits = self.bits
        ident = self.ident or b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
        machine = {32: EM_386, 64: EM_X86_64}[bits] if self.machine is None else self.machine
        phoff = EHDR_SIZE[bits] if self.phoff is None else self.phoff
        offset = EHDR_SIZE[bits] + PHDR_SIZE[bits] * len(self.programs)
        headers, contents = b"", b""
        for program in self.programs:
            headers += program.pack(bits, offset + len(contents))
            contents += program.data
        shoff = offset + len(contents) if self.shoff is None else self.shoff
        header = ident + struct.pack(
            "<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH",
            self.type,
            machine,
            self.version,
            self.entry,
            phoff,
            shoff,
            0,
            EHDR_SIZE[bits],
            PHDR_SIZE[bits] if self.phentsize is None else self.phentsize,
            len(self.programs) if self.phnum is None else self.phnum,
            SHDR_SIZE[bits],
            self.shnum,
            1,
        )
        sections = bytes(SHDR_SIZE[bits] * self.shnum) if self.shoff is None else b""
        return header + headers + contents + sections
