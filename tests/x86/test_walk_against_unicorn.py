"""The walker against Unicorn's page walk (QEMU's), for the formats that a KVM without 32-bit paging cannot judge."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.x86.control import Cr0, Cr4, Efer
from belljar.x86.state import SpecialRegisters
from belljar.x86.walker import WalkFailure, walk

unicorn = pytest.importorskip("unicorn")
x86 = pytest.importorskip("unicorn.x86_const")

PAGE = 4096
TABLE_PAGES = 14
MEMORY = 2 << 20
# No entry made below leads here, where accessed bits would do harm: none has two of the bits 16 to 20.
CODE_GPA = 0x1F0000
PAE_ROOT_GPA = 0x1E0000
CODE_TABLE_GPA = 0x1D0000
LOAD_BYTE = bytes.fromhex("0f 22 d9  8a 03")  # mov cr3, ecx (which empties the TLB); mov al, [ebx]
INSTRUCTIONS = 2
OUTSIDE = -1
"""Translated, but to an address where there is no memory."""
EFER_MSR = 0xC0000080
PAGE_FAULT = 14
PHYSICAL_BITS = 40
"""Unicorn's MAXPHYADDR."""


class Oracle:
    """A Unicorn processor with 2 MiB of memory that can tell what a linear address reads."""

    def __init__(self, long_mode: bool) -> None:
        mode = unicorn.UC_MODE_64 if long_mode else unicorn.UC_MODE_32
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, mode)
        self.long_mode = long_mode
        self.uc.mem_map(0, MEMORY)
        self.faults: list[int] = []
        self.uc.mem_write(CODE_GPA, LOAD_BYTE)
        self.fresh = self.uc.context_save()
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)

    def _on_exception(self, uc, vector, _) -> None:
        self.faults.append(vector)
        uc.emu_stop()

    def read(self, gpa: int, size: int) -> bytes:
        return bytes(self.uc.mem_read(gpa, size))

    def load(self, special: SpecialRegisters) -> None:
        """Switch to these control registers, as the engine of a machine that starts would."""
        self.uc.context_restore(self.fresh)
        self.uc.reg_write(x86.UC_X86_REG_CR0, int(Cr0.PE | Cr0.ET))
        self.uc.reg_write(x86.UC_X86_REG_MSR, (EFER_MSR, special.efer))
        self.uc.reg_write(x86.UC_X86_REG_CR3, special.cr3)
        self.uc.reg_write(x86.UC_X86_REG_CR4, special.cr4)
        self.uc.reg_write(x86.UC_X86_REG_CR0, special.cr0)
        self.loaded = self.uc.context_save()

    def byte_at(self, gva: int, code_gva: int) -> int | None:
        """What a load from `gva` gives, or None if it faults."""
        self.faults.clear()
        self.uc.context_restore(self.loaded)  # or a second fault would be a double fault
        self.uc.reg_write(x86.UC_X86_REG_RBX if self.long_mode else x86.UC_X86_REG_EBX, gva)
        self.uc.reg_write(x86.UC_X86_REG_ECX, self.uc.reg_read(x86.UC_X86_REG_CR3))
        self.uc.reg_write(x86.UC_X86_REG_EAX, 0)
        try:
            self.uc.emu_start(code_gva, code_gva + len(LOAD_BYTE), count=INSTRUCTIONS)
        except unicorn.UcError as error:
            if error.errno != unicorn.UC_ERR_READ_UNMAPPED:
                raise
            return OUTSIDE
        if self.faults:
            assert self.faults == [PAGE_FAULT]
            return None
        return self.uc.reg_read(x86.UC_X86_REG_EAX) & 0xFF


ORACLES: dict[bool, Oracle] = {}


def oracle(long_mode: bool) -> Oracle:
    if long_mode not in ORACLES:
        ORACLES[long_mode] = Oracle(long_mode)
    return ORACLES[long_mode]


FLAGS = st.sampled_from([1, 3, 7, 0x27, 0x67, 0x83, 0x87, 0xE7, 0])
PAGES = st.integers(0, TABLE_PAGES - 1)
TABLE = st.builds(lambda page, flags: page << 12 | flags, PAGES, FLAGS)
WIDE_NOISE = st.builds(lambda page, bit: page << 12 | 1 | 1 << bit, PAGES, st.integers(5, 63))
NARROW_NOISE = st.builds(lambda page, bit: page << 12 | 1 | 1 << bit, PAGES, st.integers(5, 31))


def agree(special: SpecialRegisters, long_mode: bool, gva: int, code_gva: int) -> None:
    judge = oracle(long_mode)
    theirs = judge.byte_at(gva, code_gva)
    ours = walk(special, gva, read_within(judge), physical_bits=PHYSICAL_BITS)
    if ours.failure is WalkFailure.TABLE_UNREADABLE:
        return  # Unicorn reads zeros or stops, as it likes
    if ours.gpa is None:
        assert theirs is None, (hex(gva), ours)
    elif ours.gpa >= MEMORY:
        assert theirs == OUTSIDE, (hex(gva), ours)
    else:
        assert theirs == judge.read(ours.gpa, 1)[0], (hex(gva), ours)


def read_within(judge: Oracle):
    def read(gpa: int, size: int) -> bytes:
        return judge.read(gpa, size) if gpa + size <= MEMORY else b""

    return read


def fill(judge: Oracle, words: list[int], form: str) -> None:
    """Tables that repeat `words`, then memory in which every page and every byte in it looks different."""
    pattern = struct.pack(f"<{len(words)}{form}", *words)
    judge.uc.mem_write(0, (pattern * (TABLE_PAGES * PAGE // len(pattern) + 1))[: TABLE_PAGES * PAGE])


@settings(deadline=None, max_examples=60)
@given(
    words=st.lists(TABLE | TABLE | NARROW_NOISE, min_size=3, max_size=61),
    gvas=st.lists(st.integers(0, 0xFFBFFFFF), min_size=4, max_size=12),
    root=PAGES,
    pse=st.booleans(),
)
def test_32_bit_walk_agrees(words, gvas, root, pse):
    judge = oracle(False)
    fill(judge, words, "I")
    # The last directory entry keeps the code mapped: through a table, since without PSE there are no 4M pages.
    judge.uc.mem_write(root * PAGE + 0xFFC, struct.pack("<I", CODE_TABLE_GPA | 3))
    judge.uc.mem_write(CODE_TABLE_GPA, struct.pack("<I", CODE_GPA | 3))
    special = SpecialRegisters(
        cr0=int(Cr0.PE | Cr0.PG | Cr0.ET), cr3=root * PAGE, cr4=int(Cr4.PSE) if pse else 0, efer=0
    )
    judge.load(special)
    for gva in gvas:
        agree(special, False, gva, 0xFFC00000)


@settings(deadline=None, max_examples=60)
@given(
    words=st.lists(TABLE | TABLE | WIDE_NOISE, min_size=3, max_size=61),
    top=st.lists(PAGES, min_size=3, max_size=3),
    gvas=st.lists(st.integers(0, 0xBFFFFFFF), min_size=4, max_size=12),
    nxe=st.booleans(),
)
def test_pae_walk_agrees(words, top, gvas, nxe):
    judge = oracle(False)
    fill(judge, words, "Q")
    directory = struct.pack("<4Q", *(page << 12 | 1 for page in top), CODE_TABLE_GPA | 1)
    judge.uc.mem_write(PAE_ROOT_GPA, directory)
    judge.uc.mem_write(CODE_TABLE_GPA, struct.pack("<Q", 0x83))
    special = SpecialRegisters(
        cr0=int(Cr0.PE | Cr0.PG | Cr0.ET), cr3=PAE_ROOT_GPA, cr4=int(Cr4.PAE), efer=int(Efer.NXE) if nxe else 0
    )
    judge.load(special)
    for gva in gvas:
        agree(special, False, gva, 0xC0000000 + CODE_GPA)


@pytest.mark.parametrize("levels", [4, 5])
@settings(deadline=None, max_examples=60)
@given(
    words=st.lists(TABLE | TABLE | TABLE | WIDE_NOISE, min_size=3, max_size=61),
    gvas=st.lists(st.integers(0, (1 << 47) - 1) | st.integers(0, (1 << 56) - 1), min_size=4, max_size=12),
    root=PAGES,
    nxe=st.booleans(),
)
def test_long_mode_walk_agrees(levels, words, gvas, root, nxe):
    judge = oracle(True)
    fill(judge, words, "Q")
    # The root's last entry leads to a table whose last entry leads to itself, level after level, and to a 2M page in the end.
    judge.uc.mem_write(root * PAGE + 0xFF8, struct.pack("<Q", CODE_TABLE_GPA | 3))
    judge.uc.mem_write(CODE_TABLE_GPA + 0xFF8, struct.pack("<Q", CODE_TABLE_GPA | 3))
    judge.uc.mem_write(CODE_TABLE_GPA, struct.pack("<Q", 0x83))
    special = SpecialRegisters(
        cr0=int(Cr0.PE | Cr0.PG | Cr0.ET),
        cr3=root * PAGE,
        cr4=int(Cr4.PAE | Cr4.LA57 if levels == 5 else Cr4.PAE),
        efer=int(Efer.LME | Efer.LMA) | (int(Efer.NXE) if nxe else 0),
    )
    judge.load(special)
    for gva in gvas:
        if gva < 1 << 9 * levels + 11:
            agree(special, True, gva, 0xFFFF_FFFF_C000_0000 + CODE_GPA)
