"""The walker on tables written by hand from the manual, and on tables that nobody in their right mind would write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.errors import GuestMemoryError
from belljar.x86.address_space import address_space
from belljar.x86.control import Cr0, Cr4, Efer
from belljar.x86.paging import FORMATS, NO_PAGING, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_32BIT, PAGING_PAE
from belljar.x86.state import SpecialRegisters
from belljar.x86.walker import WalkFailure, walk

from .ram import Ram
from .specials import paged

PAGED = [item for item in FORMATS.values() if item is not NO_PAGING]


def ram(entries: dict[int, int], size: int = 8) -> Ram:
    memory = Ram(0x10000)
    for gpa, raw in entries.items():
        memory.write(gpa, raw.to_bytes(size, "little"))
    return memory


def test_four_level_walk_records_every_step():
    # PML4[1] -> PDPT[2] -> PD[3] -> PT[4] -> page 0xABC000
    memory = ram({0x1008: 0x2027, 0x2010: 0x3027, 0x3018: 0x4027, 0x4020: 0xABC067})
    gva = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0x123
    found = walk(paged(PAGING_4LEVEL, 0x1000), gva, memory.read)
    assert found.gpa == 0xABC123
    assert found.page_size == 4096
    assert [(step.level, step.index, step.entry_gpa, step.raw, step.next_gpa) for step in found.steps] == [
        ("PML4", 1, 0x1008, 0x2027, 0x2000),
        ("PDPT", 2, 0x2010, 0x3027, 0x3000),
        ("PD", 3, 0x3018, 0x4027, 0x4000),
        ("PT", 4, 0x4020, 0xABC067, 0xABC000),
    ]
    assert found.steps[0].bits == ("P", "RW", "US", "A")
    assert found.steps[3].bits == ("P", "RW", "US", "A", "D")
    assert found.rights.write
    assert found.rights.user


def test_rights_are_the_and_of_all_levels():
    no_write_above = ram({0x1000: 0x2005, 0x2000: 0x3007, 0x3000: 0x83})
    rights = walk(paged(PAGING_4LEVEL, 0x1000), 0, no_write_above.read).rights
    assert (rights.write, rights.user, rights.execute) == (False, False, True)
    xd_above = ram({0x1000: 1 << 63 | 0x2007, 0x2000: 0x3007, 0x3000: 0x87})
    assert not walk(paged(PAGING_4LEVEL, 0x1000), 0, xd_above.read).rights.execute


def test_xd_without_nxe_is_a_reserved_bit():
    memory = ram({0x1000: 1 << 63 | 0x2007})
    found = walk(paged(PAGING_4LEVEL, 0x1000, nxe=False), 0, memory.read)
    assert found.failure is WalkFailure.RESERVED_BIT
    assert found.steps[-1].reserved == 1 << 63


def test_protection_key_is_told_with_pke():
    memory = ram({0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 5 << 59 | 0x87})
    assert walk(paged(PAGING_4LEVEL, 0x1000, cr4=Cr4.PKE), 0, memory.read).rights.protection_key == 5
    assert walk(paged(PAGING_4LEVEL, 0x1000), 0, memory.read).rights.protection_key is None


def test_global_counts_with_pge_only():
    memory = ram({0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x187})
    assert walk(paged(PAGING_4LEVEL, 0x1000, cr4=Cr4.PGE), 0, memory.read).rights.global_page
    assert not walk(paged(PAGING_4LEVEL, 0x1000), 0, memory.read).rights.global_page


@pytest.mark.parametrize(
    ("entries", "level", "reserved"),
    [
        ({0x1000: 0x2087}, "PML4", 0x80),
        ({0x1000: 0x2007, 0x2000: 0x2087 | 1 << 13}, "PDPT", 1 << 13),
        ({0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x87 | 1 << 20}, "PD", 1 << 20),
        ({0x1000: 0x2007 | 1 << 40}, "PML4", 1 << 40),
    ],
)
def test_reserved_bits_end_the_walk_at_their_level(entries, level, reserved):
    found = walk(paged(PAGING_4LEVEL, 0x1000), 0, ram(entries).read, physical_bits=40)
    assert found.failure is WalkFailure.RESERVED_BIT
    assert (found.steps[-1].level, found.steps[-1].reserved) == (level, reserved)


def test_gigabyte_page_needs_the_feature():
    memory = ram({0x1000: 0x2007, 0x2000: 0x4000_0087})
    special = paged(PAGING_4LEVEL, 0x1000)
    assert walk(special, 0x123456, memory.read).gpa == 0x4012_3456
    refused = walk(special, 0x123456, memory.read, gigabyte_pages=False)
    assert refused.failure is WalkFailure.RESERVED_BIT


def test_bit_8_of_a_pml4e_is_reserved_on_amd_only():
    memory = ram({0x1000: 0x2107, 0x2000: 0x3107, 0x3000: 0x87})
    special = paged(PAGING_4LEVEL, 0x1000)
    assert walk(special, 0, memory.read).ok
    assert walk(special, 0, memory.read, amd=True).steps[-1].level == "PML4"


def test_pae_pdpte_has_no_rights_and_many_reserved_bits():
    memory = ram({0x1000: 0x2001, 0x2000: 0x87, 0x1008: 0x2007})
    special = paged(PAGING_PAE, 0x1000)
    found = walk(special, 0x1234, memory.read)
    assert (found.gpa, found.rights.write, found.rights.user) == (0x1234, True, True)
    assert walk(special, 0x4000_0000, memory.read).steps[-1].reserved == 6


def test_pae_table_needs_only_32_byte_alignment():
    memory = ram({0x1020: 0x2001, 0x2000: 0x83})
    assert walk(paged(PAGING_PAE, 0x1020), 0, memory.read).ok


def test_four_megabyte_page_needs_pse():
    memory = ram({0x1000: 0x0040_2087, 0x1004: 0x83}, 4)
    with_pse = paged(PAGING_32BIT, 0x1000)
    without = paged(PAGING_32BIT, 0x1000)
    without.cr4 = 0
    assert walk(with_pse, 0, memory.read).page_size == 1 << 22
    # Without PSE the bit is ignored, and the entry names a table at 0x402000, which is not memory here.
    assert walk(without, 0, memory.read).failure is WalkFailure.TABLE_UNREADABLE


def test_five_levels_reach_57_bits():
    # PML5[1] -> PML4[0] -> PDPT[0] -> PD[0], a 2M page
    memory = ram({0x1008: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4000: 0x60_0083})
    found = walk(paged(PAGING_5LEVEL, 0x1000), 1 << 48 | 0x1234, memory.read)
    assert found.gpa == 0x60_1234
    assert found.steps[0].level == "PML5"


@pytest.mark.parametrize(
    ("paging", "gva", "failure"),
    [
        (PAGING_4LEVEL, 1 << 47, WalkFailure.NON_CANONICAL),
        (PAGING_4LEVEL, 0xFFFF_7FFF_FFFF_FFFF, WalkFailure.NON_CANONICAL),
        (PAGING_5LEVEL, 1 << 56, WalkFailure.NON_CANONICAL),
        (PAGING_4LEVEL, 1 << 64, WalkFailure.NON_CANONICAL),
        (PAGING_4LEVEL, -1, WalkFailure.NON_CANONICAL),
        (PAGING_PAE, 1 << 32, WalkFailure.TOO_WIDE),
        (PAGING_32BIT, 1 << 32, WalkFailure.TOO_WIDE),
    ],
)
def test_impossible_address_fails_without_a_step(paging, gva, failure):
    found = walk(paged(paging, 0x1000), gva, ram({}).read)
    assert (found.failure, found.steps) == (failure, ())
    assert found.why


def test_without_paging_the_address_stays():
    found = walk(SpecialRegisters(), 0x1234, ram({}).read)
    assert (found.gpa, found.steps, found.paging) == (0x1234, (), NO_PAGING)
    assert walk(SpecialRegisters(), 1 << 32, ram({}).read).failure is WalkFailure.TOO_WIDE


def test_failure_names_the_entry():
    found = walk(paged(PAGING_4LEVEL, 0x1000), 3 << 39, ram({}).read)
    assert found.failure is WalkFailure.NOT_PRESENT
    assert found.why == "PML4E 0x3 at guest-physical 0x1018 is 0x0: the entry is not present"


def test_table_outside_memory_is_an_answer():
    found = walk(paged(PAGING_4LEVEL, 0x7000_0000), 0, ram({}).read)
    assert found.failure is WalkFailure.TABLE_UNREADABLE
    assert "not in guest memory" in found.why


def test_short_read_is_an_answer():
    found = walk(paged(PAGING_4LEVEL, 0x1000), 0, lambda gpa, size: b"\x07")
    assert found.failure is WalkFailure.TABLE_UNREADABLE


WORD = st.integers(0, (1 << 64) - 1)
# Mostly addresses inside the 64 KiB of memory, with flags that let the walk go on.
TEMPTING = st.builds(
    lambda page, flags: page << 12 | flags, st.integers(0, 17), st.sampled_from([1, 3, 7, 0x83, 0x87, 0xE7])
)


@given(
    special=st.builds(
        SpecialRegisters,
        cr0=st.sampled_from([int(Cr0.PE | Cr0.PG), int(Cr0.PE), 0]) | WORD,
        cr3=st.integers(0, 16).map(lambda page: page << 12) | WORD,
        cr4=st.sampled_from([0, int(Cr4.PSE), int(Cr4.PAE), int(Cr4.PAE | Cr4.LA57)]) | WORD,
        efer=st.sampled_from([0, int(Efer.LME | Efer.LMA), int(Efer.LME | Efer.LMA | Efer.NXE)]) | WORD,
    ),
    words=st.lists(TEMPTING | WORD, min_size=1, max_size=64),
    gvas=st.lists(WORD | st.integers(0, 1 << 32), min_size=1, max_size=8),
    physical_bits=st.integers(32, 52),
)
def test_no_tables_upset_the_walker(special, words, gvas, physical_bits):
    memory = Ram(0x10000)
    pattern = b"".join(word.to_bytes(8, "little") for word in words)
    memory.data[:] = (pattern * (0x10000 // len(pattern) + 1))[:0x10000]
    for gva in gvas:
        found = walk(special, gva, memory.read, physical_bits=physical_bits)
        assert len(found.steps) <= len(found.paging.levels)
        assert found.ok == (found.gpa is not None) == (not found.why)
        if found.page_size:
            assert found.gpa % found.page_size == gva % found.page_size
    space = address_space(special, memory.read, physical_bits=physical_bits, max_tables=20, max_ranges=50)
    assert sum(space.tables.values()) <= 20
    assert len(space.mappings) <= 51
    for item in space.mappings[:20]:
        found = walk(special, item.gva, memory.read, physical_bits=physical_bits)
        assert (found.gpa, found.rights, found.page_size) == (item.gpa, item.rights, item.page_size)


def test_table_that_points_to_itself_is_cut_and_says_so():
    memory = Ram(0x2000)
    memory.data[0x1000:] = (0x1007).to_bytes(8, "little") * 512
    space = address_space(paged(PAGING_4LEVEL, 0x1000), memory.read, max_tables=100)
    assert not space.complete
    assert "100 tables" in space.cut


def test_scattered_pages_are_cut_and_say_so():
    memory = Ram(0x5000)
    for gpa, raw in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007)):
        memory.write(gpa, raw.to_bytes(8, "little"))
    for index in range(512):
        memory.write(0x4000 + 8 * index, ((511 - index) << 12 | 7).to_bytes(8, "little"))
    space = address_space(paged(PAGING_4LEVEL, 0x1000), memory.read, max_ranges=10)
    assert len(space.mappings) == 10
    assert "10 ranges" in space.cut


def test_bad_entries_are_listed():
    memory = ram({0x1000: 0x2087, 0x1008: 0x7000_0007})
    space = address_space(paged(PAGING_4LEVEL, 0x1000), memory.read)
    assert [(bad.level, bad.gva, bad.entry_gpa, bad.raw, bad.failure) for bad in space.bad_entries] == [
        ("PML4", 0, 0x1000, 0x2087, WalkFailure.RESERVED_BIT),
        ("PML4", 1 << 39, 0x1008, 0x7000_0007, WalkFailure.TABLE_UNREADABLE),
    ]


@pytest.mark.parametrize("paging", PAGED, ids=lambda item: item.name)
def test_root_outside_memory_is_a_bad_entry(paging):
    def read(gpa, size):
        raise GuestMemoryError(gpa, size)

    space = address_space(paged(paging, 0x1000), read)
    assert [bad.level for bad in space.bad_entries] == ["CR3"]
    assert not space.mappings
