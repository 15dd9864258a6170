"""ELF executables for i386 and x86-64, as linkers write them (System V gABI 4.1, chapters 4 and 5).

A segment goes to its p_paddr. A bare guest starts with memory mapped one to one, so an entry that is a virtual address
(e_entry within p_vaddr) is turned into the physical one; Linux's vmlinux, whose e_entry is physical already, is entered
as it says. Files whose p_paddr are all zero (some linkers leave it out) go to p_vaddr.

ET_DYN files without an interpreter (static PIE) go to `load_gpa`, by default 1 MiB if they are linked to address 0;
nothing is relocated, because such a program's own start code does that.
"""

from __future__ import annotations

from typing import Any

from belljar.boot.image import ADDRESS_SPACE_END, Image, ImageSegment, SegmentFlags, checked_image
from belljar.boot.options import LoadOptions
from belljar.boot.source import Source
from belljar.errors import BelljarError, ConfigurationError, LoadError
from belljar.records import dataclass

NAME = "elf"

TAKES: frozenset[str] = frozenset()

MAGIC = b"\x7fELF"

DEFAULT_PIE_GPA = 0x10_0000
"""Where a position-independent file linked to 0 goes: above the first MiB, which on a PC is full of holes."""

MAX_PROGRAM_HEADERS_SIZE = 0x10000
"""Bytes of program headers, at most, as in Linux (fs/binfmt_elf.c, load_elf_phdrs)."""

_CLASS, _DATA, _VERSION = 4, 5, 6
"""Offsets in e_ident: EI_CLASS, EI_DATA, EI_VERSION."""

_IDENT_SIZE = 16

_CLASS_BITS = {1: 32, 2: 64}
"""ELFCLASS32 and ELFCLASS64."""

_LITTLE_ENDIAN = 1
"""ELFDATA2LSB."""

_MACHINE = {32: "EM_386", 64: "EM_X86_64"}
_MODE = {32: "protected", 64: "long"}

_REFUSED_TYPES = {
    "ET_NONE": ("no file type", "it is damaged, build it again"),
    "ET_REL": ("a relocatable object, not a program", "link it first: ld -Ttext=0x1000 -o guest.elf FILE"),
    "ET_CORE": ("a core dump, not a program", "give the program that dumped it"),
}


def recognizes(source: Source) -> bool:
    """The magic number, or a file so short that it ends within it."""
    return source.head(len(MAGIC)) == MAGIC[: source.size]


def load(source: Source, options: LoadOptions) -> Image:
    """The PT_LOAD segments of an executable; LoadError for anything else, damaged or cut short."""
    try:
        return _File(source).image(options)
    except BelljarError:
        raise
    # pyelftools was not written for hostile files: construct, struct, enum lookups and its own assertions raise
    # whatever they please. Whatever it is, to the user it is one thing.
    except Exception as error:
        detail = " ".join(str(error).split())[:80]
        raise LoadError(
            f"{source.name}: this ELF file cannot be understood ({type(error).__name__}: {detail})",
            hint="it is damaged; `readelf -hl` shows how far it makes sense",
        ) from None


@dataclass(frozen=True, slots=True)
class _Program:
    """A program header; the fields have ELF's names without their `p_`. `where` names it in errors."""

    where: str
    type: object
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class _Stream:
    """The little of a binary stream that pyelftools needs, over a source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._offset = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """As `io.IOBase.seek`."""
        self._offset = offset + (0, self._offset, self._source.size)[whence]
        return self._offset

    def tell(self) -> int:
        """As `io.IOBase.tell`."""
        return self._offset

    def read(self, size: int = -1) -> bytes:
        """As `io.RawIOBase.read`; nothing behind the end."""
        left = max(self._source.size - self._offset, 0)
        data = self._source.read(self._offset, left if size < 0 else min(size, left))
        self._offset += len(data)
        return data


class _File:
    """An ELF file's headers, each field checked before it is used."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.bits = self._check_ident()
        # pyelftools takes 30 ms to import, and most guests are no ELF files. Its ELFFile would go on to read section
        # names, which a guest does not need and a hostile file makes fail first; its structures are all that is wanted.
        from elftools.common.utils import struct_parse
        from elftools.elf.structs import ELFStructs

        self._struct_parse: Any = struct_parse
        self._stream: Any = _Stream(source)
        self._structs = ELFStructs(little_endian=True, elfclass=self.bits)
        self._structs.create_basic_structs()
        size = self._structs.Elf_Ehdr.sizeof()
        if source.size < size:
            raise self._truncated("the ELF header", 0, size)
        self.header: Any = self._parse(self._structs.Elf_Ehdr, 0)
        self._check_header()
        self._structs.create_advanced_structs(self.header.e_type, self.header.e_machine)
        self.program_headers = self._read_program_headers()
        self._check_section_headers()

    def _parse(self, layout: Any, offset: int) -> Any:
        """The structure at an offset of the file, which has it whole."""
        return self._struct_parse(layout, self._stream, offset)

    # -- checks ----------------------------------------------------------------------------------------------------

    def _error(self, what: str, hint: str = "it is damaged, build it again") -> LoadError:
        return LoadError(f"{self.source.name}: {what}", hint=hint)

    def _truncated(self, what: str, offset: int, size: int) -> LoadError:
        end = offset + size
        return self._error(
            f"this ELF file is truncated: {what} at offset {offset:#x} ends at {end:#x}, the file at {self.source.size:#x}",
            "copy or build it again",
        )

    def _check_ident(self) -> int:
        """The class in bits."""
        ident = self.source.head(_IDENT_SIZE)
        if len(ident) < _IDENT_SIZE:
            raise self._truncated("e_ident", 0, _IDENT_SIZE)
        if ident[: len(MAGIC)] != MAGIC:
            raise self._error("it does not start with ELF's magic number", "leave the format to be found out")
        if ident[_CLASS] not in _CLASS_BITS:
            raise self._error(f"e_ident[EI_CLASS] at offset {_CLASS:#x} is {ident[_CLASS]}, neither 32 nor 64-bit")
        if ident[_DATA] != _LITTLE_ENDIAN:
            what = "big-endian" if ident[_DATA] == 2 else "no byte order"
            raise self._error(
                f"e_ident[EI_DATA] at offset {_DATA:#x} is {ident[_DATA]}, {what}; x86 is little-endian",
                "build it for i386 or x86-64",
            )
        if ident[_VERSION] != 1:
            raise self._error(f"e_ident[EI_VERSION] at offset {_VERSION:#x} is {ident[_VERSION]}, not 1")
        return _CLASS_BITS[ident[_CLASS]]

    def _check_header(self) -> None:
        header, wanted = self.header, _MACHINE[self.bits]
        if header.e_machine != wanted:
            raise self._error(
                f"e_machine at offset 0x12 is {_name(header.e_machine)}; a {self.bits}-bit guest must be {wanted}",
                "build it for i386 (ELF32) or x86-64 (ELF64)",
            )
        if header.e_type not in ("ET_EXEC", "ET_DYN"):
            what, hint = _REFUSED_TYPES.get(header.e_type, ("no kind of program", "it is damaged, build it again"))
            raise self._error(f"e_type at offset 0x10 is {_name(header.e_type)}, {what}", hint)
        if header.e_version != "EV_CURRENT":
            raise self._error(f"e_version at offset 0x14 is {_name(header.e_version)}, not 1")

    def _read_program_headers(self) -> list[_Program]:
        header, layout = self.header, self._structs.Elf_Phdr
        if header.e_phnum == 0 or header.e_phoff == 0:
            raise self._error("it has no program headers, so nothing to load", "link it as an executable")
        if header.e_phentsize != layout.sizeof():
            raise self._error(f"e_phentsize is {header.e_phentsize}, not {layout.sizeof()} as in ELF{self.bits}")
        size = header.e_phnum * layout.sizeof()
        if size > MAX_PROGRAM_HEADERS_SIZE:
            raise self._error(f"e_phnum is {header.e_phnum}, more program headers than any program has")
        if header.e_phoff + size > self.source.size:
            raise self._truncated(f"the table of {header.e_phnum} program headers", header.e_phoff, size)
        programs = []
        for number in range(header.e_phnum):
            offset = header.e_phoff + number * layout.sizeof()
            fields = dict(self._parse(layout, offset))
            values = {name.removeprefix("p_"): value for name, value in fields.items()}
            programs.append(_Program(f"program header {number} at offset {offset:#x}", **values))
        return programs

    def _check_section_headers(self) -> None:
        # Not needed to run, but they come last in what linkers write: their absence is how a cut-off tail shows.
        header = self.header
        if header.e_shoff == 0:
            return
        size = max(header.e_shnum, 1) * self._structs.Elf_Shdr.sizeof()
        if header.e_shoff + size > self.source.size:
            raise self._truncated(f"the table of {header.e_shnum} section headers", header.e_shoff, size)

    # -- segments --------------------------------------------------------------------------------------------------

    def image(self, options: LoadOptions) -> Image:
        """Everything put together."""
        if any(program.type == "PT_INTERP" for program in self.program_headers):
            raise self._error(
                "it is dynamically linked and needs an interpreter, which a bare guest has not", "link it -static"
            )
        programs = [program for program in self.program_headers if program.type == "PT_LOAD"]
        for program in programs:
            self._check_load(program)
        programs = [program for program in programs if program.memsz]
        if not programs:
            raise self._error("it has no PT_LOAD segment with anything in it", "link it as an executable")
        self._check_total(programs, options.limit)
        moved = self._displacement(programs, options)
        use_vaddr = self.header.e_type == "ET_DYN" or not any(program.paddr for program in programs)
        segments = [
            ImageSegment(
                (program.vaddr if use_vaddr else program.paddr) + moved,
                self.source.read(program.offset, program.filesz),
                program.memsz,
                SegmentFlags(program.flags & 7),
            )
            for program in programs
        ]
        entry_gva, entry_from = self._entry(programs, segments, moved), "e_entry"
        if options.entry_gva is not None:
            entry_gva, entry_from = options.entry_gva, "the entry"
        return checked_image(
            self.source.name, NAME, segments, entry_gva, bits=self.bits, mode=_MODE[self.bits], entry_from=entry_from
        )

    def _check_load(self, program: _Program) -> None:
        if program.filesz > program.memsz:
            raise self._error(f"{program.where}: p_filesz {program.filesz:#x} is more than p_memsz {program.memsz:#x}")
        if program.offset + program.filesz > self.source.size:
            raise self._truncated(f"the segment of {program.where}", program.offset, program.filesz)
        for field, address in (("p_paddr", program.paddr), ("p_vaddr", program.vaddr)):
            if address + program.memsz > 1 << self.bits:
                raise self._error(
                    f"{program.where}: p_memsz {program.memsz:#x} at {field} {address:#x} wraps past the end of "
                    f"{self.bits}-bit addresses"
                )

    def _check_total(self, programs: list[_Program], limit: int) -> None:
        loaded = sum(program.filesz for program in programs)
        if loaded > limit:
            raise self._error(
                f"its segments bring {loaded:#x} bytes, more than the {limit:#x} that there is room for",
                "give the machine more --memory",
            )

    def _displacement(self, programs: list[_Program], options: LoadOptions) -> int:
        """How far everything moves from where it was linked to; 0 for ET_EXEC."""
        if self.header.e_type == "ET_EXEC":
            if options.load_gpa is not None:
                raise ConfigurationError(
                    f"{self.source.name}: it is linked to fixed addresses and cannot be loaded at {options.load_gpa:#x}",
                    hint="leave --load away, or link it -static-pie",
                )
            return 0
        align = max(program.align for program in programs) or 1
        if align & (align - 1):
            raise self._error(f"a segment's p_align {align:#x} is not a power of two")
        lowest = min(program.vaddr for program in programs) & -align
        base = options.load_gpa
        if base is None:
            base = lowest or max(DEFAULT_PIE_GPA, align)
        if base % align:
            raise self._error(
                f"it must be loaded at a multiple of its alignment {align:#x}, not at {base:#x}",
                "choose another --load address",
            )
        highest = max(program.vaddr + program.memsz for program in programs)
        if highest - lowest + base > ADDRESS_SPACE_END:
            raise self._error(f"loaded at {base:#x} its addresses wrap past 2^64", "choose a lower --load address")
        return base - lowest

    def _entry(self, programs: list[_Program], segments: list[ImageSegment], moved: int) -> int:
        """e_entry as an address in memory mapped one to one."""
        entry: int = self.header.e_entry
        for program, segment in zip(programs, segments, strict=True):
            if program.vaddr <= entry < program.vaddr + program.memsz:
                return entry - program.vaddr + segment.gpa
        return entry + moved


def _name(value: object) -> str:
    """An enumerated field for an error: pyelftools gives a name, or the number if there is none."""
    return value if isinstance(value, str) else f"{value:#x}" if isinstance(value, int) else str(value)
