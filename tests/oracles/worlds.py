"""Guest memory and start state for each CPU mode, laid out so that every oracle can run the same case.

Every world uses the same offsets for code, data and stack, all below 64 KiB, so that 16-bit addressing reaches them in
every mode; only segment bases differ. Every vector has a handler of one HLT whose address tells the vector. Nothing
here uses belljar's own mode setup: an oracle must not share its mistakes.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from belljar.x86.state import CpuState, DescriptorTable, Registers, Segment, SpecialRegisters

from .cases import PAGE

GDT, TSS, IDT, HANDLERS = 0x1000, 0x1800, 0x2000, 0x3000
KERNEL_STACK_TOP = 0x6000
SUPERVISOR_PAGE, GUARD_PAGE = 0x6000, 0x7000
CODE, CODE_SIZE = 0x8000, 0x2000
DATA, DATA_SIZE = 0xB000, 0x2000
READ_ONLY = 0xD000
STACK, STACK_SIZE = 0xE000, 0x1000
PML4 = 0x10000
TABLES_END = 0x14000
FLAT_SIZE, REAL_SIZE = 0x20000, 0x40000

KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA = 0x08, 0x10, 0x18, 0x20
FS_DATA, GS_DATA, ES_DATA, TSS_SELECTOR = 0x28, 0x30, 0x38, 0xF0

ODD_DESCRIPTORS = {
    0x48: 0x00CF13000000FFFF,  # data, not present
    0x50: 0x00CF91000000FFFF,  # data, read-only
    0x58: 0x00409700000007FF,  # data, expand-down, valid above 0x7FF
    0x60: 0x00CF99000000FFFF,  # code, execute-only
    0x68: 0x00CF9F000000FFFF,  # code, conforming
    0x70: 0x0000820018000067,  # LDT
    0x78: 0x0000890018000067,  # 32-bit TSS, available
    0x80: 0x00008B0018000067,  # 32-bit TSS, busy
    0x88: 0x00008C0000188200,  # 32-bit call gate to USER_CODE:0x8200
    0x90: 0x000093000000FFFF,  # data, 16-bit, 64 KiB
    0x98: 0x00CFF3000000FFFF,  # data, DPL 3
    0xA0: 0x00CFFB000000FFFF,  # code, DPL 3
    0xA8: 0x0000800000000000,  # system, reserved type
    0xB0: 0x0000840000188100,  # 16-bit call gate to USER_CODE:0x8100
    0xB8: 0x0000850000780000,  # task gate to the available TSS
    0xC0: 0x00009B000000FFFF,  # code, 16-bit, 64 KiB
}
"""Descriptors that no case starts with, to load, to look at and to be refused."""

CR0_PE, CR0_ET, CR0_NE, CR0_WP, CR0_AM, CR0_PG = 1, 1 << 4, 1 << 5, 1 << 16, 1 << 18, 1 << 31
CR4_PAE, CR4_FSGSBASE = 1 << 5, 1 << 16
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = 1, 1 << 8, 1 << 10, 1 << 11
PTE_P, PTE_W, PTE_U, PTE_A, PTE_D, PTE_NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 63

VECTORS_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
"""SDM 3A table 6-1."""
FILLER = 0xF4
"""HLT: at CPL 0 it ends the case, at CPL 3 it is #GP(0) with RIP at it."""


@dataclass(frozen=True)
class World:
    """One CPU mode: `bits` is the default operand and address size of its code, `memory` its whole RAM before any case."""

    name: str
    bits: int
    cpl: int
    state: CpuState
    memory: bytes
    windows: tuple[tuple[int, int], ...]
    """Linear start and size of everything a case may change."""
    long_mode: bool = False
    bases: dict[str, int] = field(default_factory=dict)

    def linear(self, segment: str, offset: int) -> int:
        """The linear address of an offset that lies within the segment's limit."""
        return self.bases[segment] + offset


def _background(size: int) -> bytearray:
    """Reproducible noise, so that a load from a wrong address is seen."""
    return bytearray(random.Random("belljar").randbytes(size))


def _descriptor(segment: Segment) -> bytes:
    """A code, data or 32-bit system descriptor (SDM 3A 3.4.5)."""
    limit = segment.limit >> 12 if segment.g else segment.limit
    access = segment.type | segment.s << 4 | segment.dpl << 5 | segment.present << 7
    high = (limit >> 16) | segment.avl << 4 | segment.l << 5 | segment.db << 6 | segment.g << 7
    base = segment.base
    return struct.pack("<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, high, base >> 24 & 0xFF)


def _segment(selector: int, *, code: bool, base: int, limit: int, dpl: int, bits: int) -> Segment:
    """A flat or bounded code (execute/read, accessed) or data (read/write, accessed) segment."""
    return Segment(
        selector=selector | dpl, base=base, limit=limit, type=11 if code else 3, s=1, dpl=dpl, present=1,
        l=int(code and bits == 64), db=int(bits == 32 or (bits == 64 and not code)), g=int(limit > 0xFFFFF),
    )  # fmt: skip


def _gate(vector: int, long_mode: bool) -> bytes:
    """An interrupt gate to the vector's HLT; in long mode on the first interrupt stack (SDM 3A 6.11, 6.14.1)."""
    target = HANDLERS + vector
    access = 0xEE if vector in (3, 4) else 0x8E
    if long_mode:
        return struct.pack("<HHBBHII", target, KERNEL_CODE, 1, access, 0, 0, 0)
    return struct.pack("<HHBBH", target, KERNEL_CODE, 0, access, 0)


def _tss(long_mode: bool) -> bytes:
    """A task-state segment that holds the ring 0 stack and no I/O bitmap (SDM 3A 7.2.1, 7.7)."""
    if long_mode:
        stacks = struct.pack("<I3QQ7Q", 0, *(KERNEL_STACK_TOP,) * 3, 0, *(KERNEL_STACK_TOP,) * 7)
        return stacks.ljust(102, b"\0") + struct.pack("<H", 104)
    return struct.pack("<III", 0, KERNEL_STACK_TOP, KERNEL_DATA).ljust(102, b"\0") + struct.pack("<H", 104)


def _page_tables(memory: bytearray) -> None:
    """Four levels that map the low 64 KiB page by page (SDM 3A 4.5)."""
    upper = PTE_P | PTE_W | PTE_U | PTE_A
    for level in range(3):
        table = PML4 + level * PAGE
        memory[table : table + PAGE] = struct.pack("<Q", table + PAGE | upper).ljust(PAGE, b"\0")
    entries = [0] * 512
    present = PTE_P | PTE_A | PTE_D
    for gpa in (*range(GDT, GUARD_PAGE, PAGE), *range(PML4, TABLES_END, PAGE)):
        entries[gpa >> 12] = gpa | present | PTE_W
    for gpa in range(CODE, CODE + CODE_SIZE, PAGE):
        entries[gpa >> 12] = gpa | present | PTE_W | PTE_U
    for gpa in (*range(DATA, DATA + DATA_SIZE, PAGE), *range(STACK, STACK + STACK_SIZE, PAGE)):
        entries[gpa >> 12] = gpa | present | PTE_W | PTE_U | PTE_NX
    entries[READ_ONLY >> 12] = READ_ONLY | present | PTE_U | PTE_NX
    table = PML4 + 3 * PAGE
    memory[table : table + PAGE] = struct.pack("<512Q", *entries)


def _special(segments: dict[str, Segment], long_mode: bool, *, protected: bool) -> SpecialRegisters:
    special = SpecialRegisters(**segments)
    special.ldt = Segment(selector=0, base=0, limit=0xFFFF, type=2, s=0, present=0, unusable=1)
    special.tr = Segment(selector=TSS_SELECTOR, base=TSS, limit=0x67, type=11, s=0, present=1)
    special.gdt, special.idt = DescriptorTable(GDT, 0xFF), DescriptorTable(IDT, 0xFFF if long_mode else 0x7FF)
    special.cr0 = CR0_PE | CR0_ET | CR0_NE
    if long_mode:
        special.cr0 |= CR0_PG | CR0_WP | CR0_AM
        special.cr3, special.cr4 = PML4, CR4_PAE | CR4_FSGSBASE
        special.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE
    if not protected:
        special.cr0 = CR0_ET
        special.idt = DescriptorTable(0, 0x3FF)
        special.tr = Segment(selector=0, base=0, limit=0xFFFF, type=11, s=0, present=1)
    return special


def _registers(cpl: int) -> Registers:
    return Registers(rip=CODE, rsp=STACK + 0x800, rflags=0x202 if cpl else 2)


def _protected_world(name: str, bits: int, cpl: int, *, long_mode: bool, bases: dict[str, int], size: int) -> World:
    """A world with descriptors. `bits` 16 or 32 without `long_mode` is legacy protected mode without paging."""
    memory = _background(size)
    limit = 0xFFFFFFFF if long_mode else (0xFFFF if bits == 16 else size - 1)
    kernel_bits = 64 if long_mode else 32
    selectors = {"cs": USER_CODE, "ss": USER_DATA, "ds": USER_DATA, "es": ES_DATA, "fs": FS_DATA, "gs": GS_DATA}
    segments = {
        register: _segment(selector, code=register == "cs", base=bases[register], limit=limit, dpl=cpl, bits=bits)
        for register, selector in selectors.items()
    }
    if bases["ds"] != bases["ss"]:
        segments["ss"] = _segment(0x40, code=False, base=bases["ss"], limit=limit, dpl=cpl, bits=bits)
    kernel = [
        _segment(KERNEL_CODE, code=True, base=0, limit=0xFFFFFFFF, dpl=0, bits=kernel_bits),
        _segment(KERNEL_DATA, code=False, base=0, limit=0xFFFFFFFF, dpl=0, bits=32),
    ]
    gdt = bytearray(0x100)
    for segment in (*kernel, *segments.values()):
        at = segment.selector & ~7
        gdt[at : at + 8] = _descriptor(segment)
    for selector, raw in ODD_DESCRIPTORS.items():
        gdt[selector : selector + 8] = struct.pack("<Q", raw)
    special = _special(segments, long_mode, protected=True)
    gdt[TSS_SELECTOR : TSS_SELECTOR + 8] = _descriptor(special.tr)
    gdt[TSS_SELECTOR + 8 : TSS_SELECTOR + 16] = bytes(8)
    memory[GDT : GDT + 0x100] = gdt
    tss = _tss(long_mode)
    memory[TSS : TSS + len(tss)] = tss
    idt = b"".join(_gate(vector, long_mode) for vector in range(256))
    memory[IDT : IDT + len(idt)] = idt
    memory[HANDLERS : HANDLERS + 256] = bytes([FILLER]) * 256
    if long_mode:
        _page_tables(memory)
    windows = [(bases["cs"] + CODE, CODE_SIZE), (bases["ds"] + DATA, DATA_SIZE), (bases["ss"] + STACK, STACK_SIZE)]
    memory[windows[0][0] : windows[0][0] + CODE_SIZE] = bytes([FILLER]) * CODE_SIZE
    if long_mode and cpl == 0:
        windows.insert(1, (SUPERVISOR_PAGE, PAGE))
    if not long_mode:
        windows.insert(1, (READ_ONLY, PAGE))
    if bits == 16 and not long_mode:
        windows = [(0x10000, size - 0x10000)]
        memory[0x10000:0x20000] = bytes([FILLER]) * 0x10000
    state = CpuState(_registers(cpl), special)
    return World(name, bits, cpl, state, bytes(memory), tuple(windows), long_mode, bases)


def _real_world() -> World:
    memory = _background(REAL_SIZE)
    bases = dict(SPREAD)
    segments = {
        name: Segment(selector=base >> 4, base=base, type=11 if name == "cs" else 3) for name, base in bases.items()
    }
    memory[0:0x400] = b"".join(struct.pack("<HH", HANDLERS + vector, 0) for vector in range(256))
    memory[HANDLERS : HANDLERS + 256] = bytes([FILLER]) * 256
    memory[bases["cs"] : bases["cs"] + 0x10000] = bytes([FILLER]) * 0x10000
    state = CpuState(_registers(0), _special(segments, False, protected=False))
    return World("real", 16, 0, state, bytes(memory), ((0x10000, REAL_SIZE - 0x10000),), False, bases)


FLAT = {"cs": 0, "ss": 0, "ds": 0, "es": 0, "fs": 0x1000, "gs": 0x2000}
SPREAD = {"cs": 0x10000, "ss": 0x30000, "ds": 0x20000, "es": 0x22000, "fs": 0x28000, "gs": 0x29000}
"""Segment bases of the 16-bit worlds: everything that 16 bits reach from them is RAM of its own."""


def world(name: str) -> World:
    """The world called `name`: real, protected16, protected, long, long-user, compat-user, compat16-user."""
    if name == "real":
        return _real_world()
    if name == "protected16":
        return _protected_world(name, 16, 0, long_mode=False, bases=SPREAD, size=REAL_SIZE)
    bits, cpl, long_mode = {
        "protected": (32, 0, False),
        "long": (64, 0, True),
        "long-user": (64, 3, True),
        "compat-user": (32, 3, True),
        "compat16-user": (16, 3, True),
    }[name]
    return _protected_world(name, bits, cpl, long_mode=long_mode, bases=FLAT, size=FLAT_SIZE)


WORLDS = ("real", "protected16", "protected", "long", "long-user", "compat-user", "compat16-user")
