"""Bare worlds for the soft processor alone, without VMX: flat memory, our own tables, and a HLT behind every vector.

A guest runs until it halts. If it halted in a handler, `Outcome.vector` says which, and `frame` is what the processor pushed.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import dataclass

from belljar.soft.processor._core import HostMemory, Processor
from belljar.x86.disassembly import disassemble_all

SIZE = 0x200000
GDT, IDT, TSS, TSS2, STACK0, STACK, USER_STACK = 0x2000, 0x3000, 0x5000, 0x8000, 0x9000, 0xA000, 0xB000
IST1 = 0xC008
CODE, V86_CODE, HANDLERS, PAGE_TABLES = 0x10000, 0x6000, 0x20000, 0x100000
V86_SEGMENT = 0x100
"""CS of virtual-8086 code: offset V86_CODE - 0x1000."""

CODE0, DATA0, CODE3, DATA3, CODE64_3, CODE32, CODE16, DATA16, CONFORMING = (
    8,
    0x10,
    0x1B,
    0x23,
    0x2B,
    0x30,
    0x38,
    0x40,
    0x48,
)
TSS_SELECTOR, TSS2_SELECTOR, FREE, FREE2, ABSENT_DATA = 0x50, 0x60, 0x70, 0x80, 0x90
"""Selectors; FREE and FREE2 (16 bytes each) are for a test's own descriptors, ABSENT_DATA is a segment that is not present."""

ES, CS, SS, DS, FS, GS, LDTR, TR = range(8)
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
RIP, RFLAGS = 16, 17
TRIPLE_FAULT, HALTED = 2, 0x10004
"""Exit reasons of the processor alone: SDM 3D appendix C, and the pause of a halted processor that nothing can wake."""
WITH_ERROR = {8, 10, 11, 12, 13, 14, 17}
RF, TF, IF, NT, VM = 1 << 16, 1 << 8, 1 << 9, 1 << 14, 1 << 17


def listing(bits: int, gva: int, text: str) -> bytes:
    """The bytes of a listing, one `hex  instruction` a line, after the disassembler confirmed each instruction."""
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    code = bytes.fromhex("".join(line[0] for line in lines))
    shown = [(i.code.hex(), i.text) for i in disassemble_all(code, gva, bits)]
    assert shown == [(line[0], line[1].split(";")[0].strip()) for line in lines], shown
    return code


def descriptor(base: int, limit: int, attributes: int) -> bytes:
    """A segment descriptor (SDM 3A 3.4.5); `attributes` as in the VMCS, `limit` not scaled."""
    return struct.pack(
        "<HHBBBB",
        limit & 0xFFFF,
        base & 0xFFFF,
        base >> 16 & 0xFF,
        attributes & 0xFF,
        limit >> 16 & 0xF | attributes >> 8 & 0xF0,
        base >> 24,
    )


def gate(selector: int, offset: int, kind: int, *, dpl: int = 0, extra: int = 0, present: bool = True) -> bytes:
    """A gate (SDM 3A 5.8.3, 6.11); `extra` is the parameter count, or the IST number."""
    rights = kind | dpl << 5 | present << 7
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, extra, rights, offset >> 16 & 0xFFFF)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `frame` holds what the handler finds, error code first if the vector has one."""

    reason: int
    vector: int | None
    frame: list[int]
    registers: list[int]

    @property
    def error(self) -> int:
        """The error code."""
        assert self.vector in WITH_ERROR
        return self.frame[0]

    @property
    def returns(self) -> list[int]:
        """The frame without error code: RIP, CS, RFLAGS and what follows."""
        return self.frame[1:] if self.vector in WITH_ERROR else self.frame


class BareGuest:
    """Memory and a processor; subclasses put the tables of a mode there. Close it, or use it in `with`."""

    word = 4
    bits = 32

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE)
        self.anchor = ctypes.c_char.from_buffer(self.memory)
        self.host = HostMemory()
        self.host.add(ctypes.addressof(self.anchor), SIZE)
        self.cpu = Processor(self.host)
        self.cpu.put(RFLAGS, 2)
        for vector in range(256):
            self.write(HANDLERS + 16 * vector, b"\xf4")

    def __enter__(self) -> BareGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self.host.close()
        del self.anchor
        self.memory.close()

    def write(self, gpa: int, data: bytes) -> None:
        """Put bytes into memory."""
        self.memory[gpa : gpa + len(data)] = data
        self.host.written(gpa, len(data))

    def read(self, gpa: int, size: int) -> int:
        """A number out of memory."""
        return int.from_bytes(self.memory[gpa : gpa + size], "little")

    def segments(self, attributes: int, limit: int) -> None:
        """Data segments of base 0."""
        for number in (ES, SS, DS, FS, GS):
            self.cpu.put_segment(number, 0, 0, limit, attributes)

    def selector(self, number: int) -> int:
        """A segment register."""
        return self.cpu.get_segment(number)[0]

    def attributes(self, number: int) -> int:
        """A segment register's attributes."""
        return self.cpu.get_segment(number)[3]

    def stack_top(self) -> int:
        """Linear address of the stack's top."""
        base = self.cpu.get_segment(SS)[1]
        return base + (self.cpu.get(RSP) & (0xFFFFFFFF if self.word > 2 else 0xFFFF))

    def handler_offset(self, vector: int) -> int:
        """Where the IDT leads."""
        return HANDLERS + 16 * vector

    def run(self, text: str = "", *, at: int = CODE, budget: int = 10_000) -> Outcome:
        """Put a listing at `at`, start it there, run to the halt."""
        self.write(at, listing(self.bits, at, text) if text else b"")
        self.cpu.put(RIP, at)
        return self.resume(budget)

    def resume(self, budget: int = 10_000) -> Outcome:
        """Run on from here to a halt or shutdown."""
        assert self.cpu.run(budget) == 3, f"still running at {self.cpu.get(RIP):#x}"
        rip = self.cpu.get(RIP)
        vector, rest = divmod(rip - self.handler_offset(0), 16)
        known = vector if rest == 1 and 0 <= vector < 256 else None
        top, word = self.stack_top(), self.word
        room = max(0, min(12, (SIZE - top) // word))
        frame = [self.read(top + word * i, word) for i in range(room)] if top < SIZE else []
        return Outcome(self.cpu.exit_reason, known, frame, [self.cpu.get(i) for i in range(18)])


class RealGuest(BareGuest):
    """Real mode: IVT at 0, code at CODE (CS base 0x10000), handlers in segment 0x2000."""

    word, bits = 2, 16

    def __init__(self) -> None:
        super().__init__()
        self.cpu.put_control(0x10, 0, 0, 0, 0)
        self.segments(0x93, 0xFFFF)
        self.cpu.put_segment(CS, CODE >> 4, CODE, 0xFFFF, 0x93)
        self.cpu.put_tables(0, 0, 0, 0x3FF)
        self.cpu.put(RSP, STACK)
        for vector in range(256):
            self.write(4 * vector, struct.pack("<HH", 16 * vector, HANDLERS >> 4))

    def handler_offset(self, vector: int) -> int:
        return 16 * vector

    def run(self, text: str = "", *, at: int = 0, budget: int = 10_000) -> Outcome:
        """Put a listing at offset `at` of CS, start it there, run to the halt."""
        self.write(CODE + at, listing(16, at, text) if text else b"")
        self.cpu.put_segment(CS, CODE >> 4, CODE, 0xFFFF, 0x93)
        self.cpu.put(RIP, at)
        return self.resume(budget)


class ProtectedGuest(BareGuest):
    """Flat 32-bit protected mode at CPL 0 or 3, a TSS with a stack for level 0, interrupt gates; 3 and 0x80 are open to CPL 3."""

    def __init__(self, cpl: int = 0) -> None:
        super().__init__()
        self.cpu.put_control(0x11, 0, 0, 0, cpl)
        self.tables()
        code, data = (CODE3, DATA3) if cpl else (CODE0, DATA0)
        for number in (ES, SS, DS, FS, GS):
            self.cpu.put_segment(number, data, 0, 0xFFFFFFFF, 0xC0F3 if cpl else 0xC093)
        self.cpu.put_segment(CS, code, 0, 0xFFFFFFFF, 0xC0FB if cpl else 0xC09B)
        self.cpu.put_segment(LDTR, 0, 0, 0, 0x10000)
        self.cpu.put_segment(TR, TSS_SELECTOR, TSS, 0x167, 0x8B)
        self.cpu.put_tables(GDT, 0xFF, IDT, 0x7FF)
        self.cpu.put(RSP, USER_STACK if cpl else STACK)

    def tables(self) -> None:
        """GDT, TSS and IDT in memory."""
        flat = {
            CODE0: 0xC09A,
            DATA0: 0xC092,
            CODE3 & ~3: 0xC0FA,
            DATA3 & ~3: 0xC0F2,
            CONFORMING: 0xC09E,
            ABSENT_DATA: 0x12,
        }
        for selector, attributes in flat.items():
            self.descriptor(selector, descriptor(0, 0xFFFFF, attributes))
        self.descriptor(CODE16, descriptor(0, 0xFFFF, 0x9A))
        self.descriptor(DATA16, descriptor(0, 0xFFFF, 0x92))
        self.descriptor(TSS_SELECTOR, descriptor(TSS, 0x167, 0x8B))
        self.write(TSS + 4, struct.pack("<II", STACK0, DATA0))
        self.write(TSS + 0x66, struct.pack("<H", 0x168))  # no I/O bitmap
        for vector in range(256):
            self.idt(vector, gate(CODE0, self.handler_offset(vector), 14, dpl=3 if vector in (3, 0x80) else 0))

    def descriptor(self, selector: int, data: bytes) -> None:
        """Put a descriptor into the GDT."""
        self.write(GDT + (selector & ~7), data)

    def idt(self, vector: int, data: bytes) -> None:
        """Put a gate into the IDT."""
        self.write(IDT + 8 * vector, data)

    def cr4(self, value: int) -> None:
        """Set CR4."""
        cr0, _, cr3, _, efer, cpl = self.cpu.get_control()
        self.cpu.put_control(cr0, cr3, value, efer, cpl)


class V86Guest(ProtectedGuest):
    """Virtual-8086 mode in the same protected world: CS V86_SEGMENT, SS 0, DS 0x50."""

    def __init__(self, iopl: int = 0, cr4: int = 0) -> None:
        super().__init__(3)
        self.cr4(cr4)
        selectors = {ES: 0x444, CS: V86_SEGMENT, SS: 0, DS: 0x50, FS: 0x222, GS: 0x111}
        for number, value in selectors.items():
            self.cpu.put_segment(number, value, value << 4, 0xFFFF, 0xF3)
        self.cpu.put(RFLAGS, VM | IF | 2 | iopl << 12)
        self.cpu.put(RSP, 0x7800)

    def run(self, text: str = "", *, at: int = V86_CODE, budget: int = 10_000) -> Outcome:
        """Put a 16-bit listing at linear address `at`, start it, run to the halt."""
        offset = at - (V86_SEGMENT << 4)
        self.write(at, listing(16, offset, text))
        self.cpu.put(RIP, offset)
        return self.resume(budget)


class LongGuest(ProtectedGuest):
    """64-bit mode at CPL 0 or 3; memory is mapped one to one with one 2 MiB page open to users."""

    word, bits = 8, 64

    def __init__(self, cpl: int = 0, cr4: int = 0x20) -> None:
        BareGuest.__init__(self)
        for i, entry in enumerate((PAGE_TABLES + 0x1007, PAGE_TABLES + 0x2007, 0x87)):
            self.write(PAGE_TABLES + 0x1000 * i, struct.pack("<Q", entry))
        self.tables()
        self.cpu.put_control(0x80000011, PAGE_TABLES, cr4, 0xD01, cpl)
        for number in (ES, SS, DS, FS, GS):
            self.cpu.put_segment(number, DATA3 if cpl else DATA0, 0, 0xFFFFFFFF, 0xC0F3 if cpl else 0xC093)
        self.cpu.put_segment(CS, CODE64_3 if cpl else CODE0, 0, 0xFFFFFFFF, 0xA0FB if cpl else 0xA09B)
        self.cpu.put_segment(LDTR, 0, 0, 0, 0x10000)
        self.cpu.put_segment(TR, TSS_SELECTOR, TSS, 0x67, 0x8B)
        self.cpu.put_tables(GDT, 0xFF, IDT, 0xFFF)
        self.cpu.put(RSP, USER_STACK if cpl else STACK)

    def tables(self) -> None:
        super().tables()
        self.descriptor(CODE0, descriptor(0, 0xFFFFF, 0xA09A))
        self.descriptor(CODE64_3, descriptor(0, 0xFFFFF, 0xA0FA))
        self.descriptor(CODE32, descriptor(0, 0xFFFFF, 0xC09A))
        self.descriptor(TSS_SELECTOR, descriptor(TSS, 0x67, 0x8B) + bytes(8))
        self.write(TSS + 4, struct.pack("<Q", STACK0))
        self.write(TSS + 0x24, struct.pack("<Q", IST1))

    def idt(self, vector: int, data: bytes) -> None:
        self.write(IDT + 16 * vector, data + bytes(8))
