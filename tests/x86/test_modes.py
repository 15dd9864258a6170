"""Every mode's start state: the hidden parts agree with the descriptors in memory, the map covers RAM, nothing overlaps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.errors import ConfigurationError
from belljar.x86 import gdt
from belljar.x86.address_space import address_space
from belljar.x86.control import Cr0, Cr4, Efer
from belljar.x86.descriptors import decode_segment
from belljar.x86.gates import decode_gate
from belljar.x86.modes import MODES, build
from belljar.x86.paging import SIZE_1G, SIZE_2M, SIZE_4K, SIZE_4M, format_of
from belljar.x86.tss import CONSOLE_PORTS, TSS32, TSS64, allowed_ports, decode_tss
from belljar.x86.walker import walk

from .ram import Ram

MIB = 1 << 20
CASES = [
    pytest.param(mode.name, size, cpl, id=f"{mode.name}-{size >> 10}K-cpl{cpl}")
    for mode in MODES.values()
    for size in mode.page_sizes or (0,)
    for cpl in ((0, 3) if mode.privileged else (0,))
]
PROTECTED = [case for case in CASES if case.values[0] != "real"]
PAGED = [case for case in CASES if case.values[1]]


def start(mode, page_size=0, cpl=0, *, size=2 * MIB, **options):
    """A guest's memory and its setup, entry 0x1000 unless told otherwise."""
    memory = Ram(size)
    arguments = {"write": memory.write, "memory_size": size, "top_gpa": size, "entry_gva": 0x1000, **options}
    return memory, build(mode, page_size=page_size or None, cpl=cpl, **arguments)


def descriptor(memory, special, selector):
    """The segment that loading `selector` from the GDT in memory would give."""
    gpa = special.gdt.base_gva + (selector & ~7)
    raw = memory.read(gpa, 8)
    wide = special.efer & Efer.LMA and not raw[5] & 0x10
    assert (selector & ~7) + (16 if wide else 8) <= special.gdt.limit + 1
    return decode_segment(memory.read(gpa, 16 if wide else 8), selector)


@pytest.mark.parametrize(("mode", "page_size", "cpl"), PROTECTED)
def test_hidden_parts_are_what_the_gdt_says(mode, page_size, cpl):
    memory, setup = start(mode, page_size, cpl, cpus=3)
    for state in setup.states:
        special = state.special
        for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr"):
            segment = getattr(special, name)
            assert segment == descriptor(memory, special, segment.selector), name
            if name != "tr":
                assert (segment.dpl, segment.selector & 3) == (cpl, cpl)
        assert special.ldt.unusable


@pytest.mark.parametrize(("mode", "page_size", "cpl"), CASES)
def test_control_registers_select_the_mode(mode, page_size, cpl):
    _, setup = start(mode, page_size, cpl)
    special = setup.states[0].special
    assert format_of(special) is MODES[mode].paging
    assert bool(special.cr0 & Cr0.PE) == (mode != "real")
    assert bool(special.efer & Efer.LMA) == bool(special.efer & Efer.LME) == MODES[mode].long
    width = 64 if special.cs.l and MODES[mode].long else 32 if special.cs.db else 16
    assert width == MODES[mode].bits
    assert setup.page_size == page_size
    assert bool(special.cr4 & Cr4.LA57) == (mode == "la57")


@pytest.mark.parametrize(("mode", "page_size", "cpl"), PAGED)
def test_all_memory_is_mapped_one_to_one(mode, page_size, cpl):
    memory, setup = start(mode, page_size, cpl, size=6 * MIB, top_gpa=6 * MIB, cpus=2)
    special = setup.states[0].special
    space = address_space(special, memory.read)
    assert space.complete
    assert not space.bad_entries
    assert all(item.gva == item.gpa for item in space.mappings)
    assert all(item.page_size in (page_size, SIZE_4K, SIZE_2M) for item in space.mappings)
    covered = 0
    for item in space.mappings:
        if item.gva == covered:
            covered += item.size
    assert covered >= (6 * MIB if page_size == SIZE_4K else 1 << 32)
    assert walk(special, 0xFEE00000, memory.read).gpa == 0xFEE00000
    assert walk(special, 0x1000, memory.read).rights.user == (cpl == 3)


@pytest.mark.parametrize(("mode", "page_size", "cpl"), [case for case in PAGED if case.values[2] == 3])
def test_user_code_reaches_its_stack_but_not_the_structures(mode, page_size, cpl):
    memory, setup = start(mode, page_size, cpl, cpus=2, idt_handlers={14: 0x2000})
    special = setup.states[0].special
    for placed in setup.placements:
        for gva in (placed.gva, placed.gva + placed.size - 1):
            rights = walk(special, gva, memory.read).rights
            assert rights.user == (placed.note == "CPL3"), placed
            assert rights.write
    lowest_kernel = min(item.gpa for item in setup.placements if item.note != "CPL3")
    assert walk(special, (lowest_kernel & -SIZE_4K) - 1, memory.read).rights.user


@pytest.mark.parametrize(("mode", "page_size", "cpl"), CASES)
@pytest.mark.parametrize("size", [64 << 10, 2 * MIB])
def test_placements_lie_in_memory_and_apart(mode, page_size, cpl, size):
    handlers = {3: 0x2000} if mode != "real" else {}
    memory, setup = start(mode, page_size, cpl, size=size, cpus=2, idt_handlers=handlers, stack_size=0x800)
    placed = sorted(setup.placements, key=lambda item: item.gpa)
    assert placed[0].gpa >= 0x1000
    assert placed[-1].end_gpa <= size
    assert all(low.end_gpa <= high.gpa for low, high in pairwise(placed))
    used = {index for index, byte in enumerate(memory.data) if byte}
    assert all(any(item.gpa <= index < item.end_gpa for item in placed) for index in used)


@pytest.mark.parametrize(("mode", "page_size", "cpl"), CASES)
def test_each_vcpu_has_its_own_stack(mode, page_size, cpl):
    _, setup = start(mode, page_size, cpl, cpus=3)
    stacks = {item.end_gpa: item for item in setup.placements if item.kind == "stack"}
    tops = [state.registers.rsp for state in setup.states]
    assert len(set(tops)) == 3
    assert all(stacks[top].note == "CPL3" for top in tops) == (cpl == 3)
    assert [bool(state.special.apic_base & 0x100) for state in setup.states] == [True, False, False]


@pytest.mark.parametrize(("mode", "page_size", "cpl"), PROTECTED)
def test_tss_leads_to_a_cpl0_stack_and_opens_the_console_ports(mode, page_size, cpl):
    memory, setup = start(mode, page_size, cpl, cpus=2)
    ends = {item.end_gpa for item in setup.placements if item.kind == "stack" and item.note != "CPL3"}
    for state in setup.states:
        tr = state.special.tr
        raw = memory.read(tr.base, tr.limit + 1)
        assert tr.base & 0xFFF <= 0x1000 - len(raw)
        fields = decode_tss(raw, TSS64 if MODES[mode].long else TSS32)
        assert fields["rsp0" if MODES[mode].long else "esp0"] in ends
        if not MODES[mode].long:
            ss0 = descriptor(memory, state.special, fields["ss0"])
            assert (ss0.dpl, ss0.type & 0xA, ss0.db) == (0, 2, int(MODES[mode].bits == 32))
        assert allowed_ports(raw) == CONSOLE_PORTS
        assert state.registers.rflags == 2


@pytest.mark.parametrize(("mode", "page_size", "cpl"), PROTECTED)
def test_handlers_get_gates_that_lead_to_them(mode, page_size, cpl):
    memory, setup = start(mode, page_size, cpl, idt_handlers={3: 0x2345, 14: 0x3456, 0x80: 0x4567})
    special = setup.states[0].special
    size = 16 if MODES[mode].long else 8
    assert special.idt.limit == size * 0x81 - 1
    for vector, (gva, dpl) in {3: (0x2345, 3), 14: (0x3456, 0), 0x80: (0x4567, 3)}.items():
        gate = decode_gate(memory.read(special.idt.base_gva + vector * size, size))
        assert (gate.offset, gate.dpl, gate.present) == (gva, dpl, 1)
        target = descriptor(memory, special, gate.selector)
        assert (target.dpl, target.l, target.type & 8) == (0, int(MODES[mode].long), 8)
    assert not memory.read(special.idt.base_gva + 4 * size, size).strip(b"\0")


@pytest.mark.parametrize(("mode", "page_size", "cpl"), PROTECTED)
def test_without_handlers_there_is_no_idt(mode, page_size, cpl):
    _, setup = start(mode, page_size, cpl)
    assert setup.states[0].special.idt.limit == 0


def test_real_mode_vectors_are_far_pointers_at_zero():
    memory, setup = start("real", idt_handlers={6: 0x2345, 13: 0x12348})
    assert memory.read(24, 4) == bytes.fromhex("45230000")
    assert memory.read(52, 4) == bytes.fromhex("08003412")
    assert setup.states[0].special.idt.limit == 0xFFFF


@pytest.mark.parametrize(
    ("entry", "segment", "offset"),
    [(0, 0, 0), (0x7C00, 0, 0x7C00), (0xFFFF, 0, 0xFFFF), (0x12345, 0x1234, 5), (0x10FFEF, 0xFFFF, 0xFFFF)],
)
def test_real_mode_entry_as_segment_and_offset(entry, segment, offset):
    _, setup = start("real", entry_gva=entry)
    state = setup.states[0]
    assert (state.special.cs.selector, state.special.cs.base, state.registers.rip) == (segment, segment << 4, offset)


def test_protected16_entry_above_64k_moves_the_code_segment():
    memory, setup = start("protected16", entry_gva=0x34567, idt_handlers={6: 0x35000})
    state = setup.states[0]
    assert (state.special.cs.base, state.special.cs.limit, state.registers.rip) == (0x30000, 0xFFFF, 0x4567)
    gate = decode_gate(memory.read(state.special.idt.base_gva + 48, 8))
    assert descriptor(memory, state.special, gate.selector).base + gate.offset == 0x35000


def test_star_finds_its_segments():
    memory, setup = start("long")
    special = setup.states[0].special
    kernel, user = gdt.STAR >> 32 & 0xFFFF, gdt.STAR >> 48
    wanted = {kernel: (0, 8, 1), kernel + 8: (0, 0, 0), user: (3, 8, 0), user + 8: (3, 0, 0), user + 16: (3, 8, 1)}
    for selector, (dpl, code, l_bit) in wanted.items():
        segment = descriptor(memory, special, selector)
        assert (segment.dpl, segment.type & 8, segment.l) == (dpl, code, l_bit)


def test_memory_above_4_gib_is_mapped():
    memory = Ram(4 * MIB)
    setup = build("long", write=memory.write, memory_size=6 << 30, top_gpa=4 * MIB, entry_gva=0x1000)
    special = setup.states[0].special
    assert walk(special, (6 << 30) - 1, memory.read).gpa == (6 << 30) - 1
    assert not walk(special, 6 << 30, memory.read).ok


def test_stack_where_the_guest_wants_it():
    _, setup = start("long", stack_top_gva=0x9000, stack_size=0x1000, cpus=2)
    assert [state.registers.rsp for state in setup.states] == [0x9000, 0x8000]


@pytest.mark.parametrize(
    ("mode", "options", "words"),
    [
        ("unreal", {}, "no mode"),
        ("real", {"cpl": 3}, "no privilege"),
        ("long", {"cpl": 1}, "CPL 0 or 3"),
        ("real", {"page_size": SIZE_4K}, "no pages of 4K"),
        ("paged", {"page_size": SIZE_2M}, "no pages of 2M"),
        ("pae", {"page_size": SIZE_4M}, "no pages of 4M"),
        ("pae", {"page_size": SIZE_1G}, "no pages of 1G"),
        ("real", {"entry_gva": 0x10FFF0}, "cannot be at"),
        ("protected", {"entry_gva": 1 << 32}, "cannot be at"),
        ("compat", {"entry_gva": 1 << 32}, "cannot be at"),
        ("long", {"entry_gva": 1 << 47}, "cannot be at"),
        ("long", {"entry_gva": -1}, "cannot be at"),
        ("long", {"cpus": 0}, "vCPUs"),
        ("long", {"cpus": 5000}, "vCPUs"),
        ("long", {"top_gpa": 4 * MIB}, "low memory"),
        ("long", {"top_gpa": 0}, "low memory"),
        ("long", {"stack_size": 0}, "stack"),
        ("long", {"stack_size": 100}, "stack"),
        ("long", {"stack_size": 2 * MIB}, "do not fit"),
        ("long", {"top_gpa": 0x4000}, "do not fit"),
        ("long", {"idt_handlers": {256: 0}}, "no vector"),
        ("long", {"idt_handlers": {3: 1 << 47}}, "cannot be at"),
        ("protected16", {"idt_handlers": {3: 0x20000}}, "not in the entry's 64 KiB"),
        ("real", {"stack_top_gva": 0x10000}, "cannot end"),
        ("long", {"stack_top_gva": 8}, "cannot end"),
    ],
)
def test_impossible_requests_are_refused(mode, options, words):
    with pytest.raises(ConfigurationError, match=words):
        start(mode, **options)


@given(
    mode=st.sampled_from(sorted(MODES)),
    page_size=st.sampled_from([None, SIZE_4K, SIZE_2M, SIZE_4M, SIZE_1G]),
    cpl=st.sampled_from([0, 3]),
    cpus=st.integers(1, 20),
    size=st.integers(1, 600).map(lambda pages: pages << 12),
    entry=st.integers(0, 1 << 64) | st.integers(0, 1 << 20),
    handlers=st.dictionaries(st.integers(0, 255), st.integers(0, 1 << 20), max_size=4),
)
def test_any_request_gives_a_setup_or_a_configuration_error(mode, page_size, cpl, cpus, size, entry, handlers):
    memory = Ram(size)
    try:
        setup = build(
            mode, write=memory.write, memory_size=size, top_gpa=size, entry_gva=entry, page_size=page_size, cpl=cpl,
            cpus=cpus, idt_handlers=handlers,
        )  # fmt: skip
    except ConfigurationError:
        return
    assert len(setup.states) == cpus
    special = setup.states[-1].special
    assert walk(special, setup.states[-1].registers.rsp - 2, memory.read).ok
