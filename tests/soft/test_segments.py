"""Segment loads and the instructions that look at descriptors: every check, vectors and error codes (SDM 3A chapters 3 and 5)."""

from __future__ import annotations

import struct

import pytest
from bare_guest import (
    DATA0,
    DATA3,
    DATA16,
    DS,
    ES,
    FREE,
    FS,
    GDT,
    GS,
    HALTED,
    LDTR,
    RAX,
    RBX,
    RCX,
    RDX,
    RSP,
    SS,
    STACK,
    STACK0,
    TR,
    TSS2_SELECTOR,
    LongGuest,
    ProtectedGuest,
    RealGuest,
    V86Guest,
    descriptor,
)  # fmt: skip


def loads(guest, selector, segment="ds", cpl=0):
    """Load a segment register with a selector: the outcome; halting right behind it is success."""
    guest.cpu.put(RAX, selector)
    return guest.run(LOADS[segment] + "\n f4 hlt" if not cpl else LOADS[segment] + "\n cd80 int 0x80")


LOADS = {
    "ds": "8ed8 mov ds, eax",
    "es": "8ec0 mov es, eax",
    "ss": "8ed0 mov ss, eax",
    "fs": "8ee0 mov fs, eax",
    "gs": "8ee8 mov gs, eax",
}
BYTE_FORMS = {"ds": DS, "es": ES, "ss": SS, "fs": FS, "gs": GS}


# -- loads


@pytest.mark.parametrize("segment", ["ds", "es", "fs", "gs"])
def test_data_load_fills_the_hidden_part_and_marks_the_descriptor_accessed(segment):
    with ProtectedGuest() as guest:
        guest.descriptor(FREE, descriptor(0x12345678, 0xABCDE, 0xC092))
        end = loads(guest, FREE, segment)
        assert (end.reason, end.vector) == (HALTED, None)
        assert guest.cpu.get_segment(BYTE_FORMS[segment]) == (FREE, 0x12345678, 0xABCDEFFF, 0xC093)
        assert guest.read(GDT + FREE + 5, 1) == 0x93


@pytest.mark.parametrize(
    ("attributes", "selector", "cpl", "vector"),
    [
        (0x92, FREE, 0, None),
        (0x90, FREE, 0, None),  # read-only data
        (0x9A, FREE, 0, None),  # readable code
        (0x98, FREE, 0, 13),  # execute-only code
        (0x12, FREE, 0, 11),  # not present
        (0x18, FREE, 0, 13),  # type comes before presence
        (0x92, FREE | 3, 0, 13),  # RPL beyond DPL
        (0xF2, FREE | 3, 0, None),
        (0x92, FREE, 3, 13),
        (0x9E, FREE | 3, 3, None),  # conforming code: whoever asks
        (0x82, FREE, 0, 13),  # a system segment
    ],
)
def test_rights_that_a_data_load_needs(attributes, selector, cpl, vector):
    with ProtectedGuest(cpl) as guest:
        guest.descriptor(FREE, descriptor(0, 0xFFFF, attributes))
        end = loads(guest, selector, cpl=cpl)
        assert end.vector == (vector or (0x80 if cpl else None))
        if vector:
            assert end.error == FREE
            assert guest.selector(DS) == (DATA3 if cpl else DATA0)


@pytest.mark.parametrize(
    ("attributes", "selector", "vector"),
    [
        (0x92, FREE, None),
        (0x90, FREE, 13),
        (0x9A, FREE, 13),
        (0x12, FREE, 12),
        (0xB2, FREE, 13),
        (0x92, FREE | 1, 13),
        (0x96, FREE, None),
    ],
)
def test_rights_that_a_stack_load_needs(attributes, selector, vector):
    with ProtectedGuest() as guest:
        guest.descriptor(FREE, descriptor(0, 0xFFFF, attributes))
        end = loads(guest, selector, "ss")
        assert end.vector == vector
        if vector:
            assert (end.error, guest.selector(SS)) == (FREE, DATA0)


def test_null_selector_loads_and_faults_only_when_used():
    with ProtectedGuest() as guest:
        end = guest.run("""
        66b80300        mov ax, 3
        8ec0            mov es, eax
        8cc3            mov ebx, es
        268b0d00000000  mov ecx, [es:0]
        f4              hlt
        """)
        assert (end.vector, end.error, end.registers[RBX]) == (13, 0, 3)


def test_ldt_selectors_need_an_ldt():
    with ProtectedGuest() as guest:
        assert loads(guest, 4).error == 4
        guest.descriptor(FREE, descriptor(0x7000, 0x0F, 0x82))
        guest.write(0x7008, descriptor(0x5000, 0xFF, 0x92))
        end = guest.run("""
        66b87000  mov ax, 0x70
        0f00d0    lldt ax
        66b80c00  mov ax, 0xc
        8ec0      mov es, eax
        f4        hlt
        """)
        assert (end.vector, guest.cpu.get_segment(ES)) == (None, (0xC, 0x5000, 0xFF, 0x93))
        assert guest.selector(LDTR) == FREE
        assert loads(guest, 0x14).error == 0x14


def test_pop_ss_uses_the_old_stack_width_and_holds_back_traps():
    with ProtectedGuest() as guest:
        end = guest.run("""
        6a40  push 0x40
        17    pop ss
        f4    hlt
        """)
        assert end.registers[RSP] == STACK
        assert guest.cpu.get_segment(SS)[:3] == (DATA16, 0, 0xFFFF)


def test_push_of_a_selector_writes_16_bits_of_32():
    with ProtectedGuest() as guest:
        guest.write(STACK - 4, b"\xaa" * 4)
        end = guest.run("""
        1e  push ds
        f4  hlt
        """)
        assert (guest.read(STACK - 4, 4), end.registers[RSP]) == (0xAAAA0000 | DATA0, STACK - 4)


def test_les_loads_both_or_nothing():
    with ProtectedGuest() as guest:
        guest.write(0x5800, struct.pack("<IH", 0x11223344, DATA3))
        end = guest.run("""
        c41d00580000  les ebx, [0x5800]
        f4            hlt
        """)
        assert (end.registers[RBX], guest.selector(ES)) == (0x11223344, DATA3)
        guest.write(0x5800, struct.pack("<IH", 0x55667788, 0x1234))
        end = guest.run("""
        c41d00580000  les ebx, [0x5800]
        f4            hlt
        """)
        assert (end.vector, end.error, end.registers[RBX], guest.selector(ES)) == (13, 0x1234, 0x11223344, DATA3)


def test_unreal_mode_keeps_its_limit():
    with RealGuest() as guest:
        guest.cpu.put_segment(DS, 0, 0, 0xFFFFFFFF, 0xC093)
        guest.write(0x150010, b"\x2a")
        end = guest.run("""
        31c0          xor ax, ax
        8ed8          mov ds, ax
        66bb10001500  mov ebx, 0x150010
        67668b03      mov eax, [ebx]
        f4            hlt
        """)
        assert (end.vector, end.registers[RAX]) == (None, 0x2A)
        assert guest.cpu.get_segment(DS)[2] == 0xFFFFFFFF


def test_virtual_8086_loads_are_paragraphs():
    with V86Guest(iopl=3) as guest:
        guest.run("""
        b83412  mov ax, 0x1234
        8ed0    mov ss, ax
        cd80    int 0x80
        """)
        assert guest.read(STACK0 - 20, 4) == 0x1234


# -- looking at descriptors


@pytest.mark.parametrize(
    ("attributes", "lar", "lsl"),
    [(0x92, True, True), (0x9A, True, True), (0x89, True, True), (0x8B, True, True), (0x81, True, True), (0x82, True, True),
     (0x84, True, False), (0x8C, True, False), (0x85, True, False), (0x86, False, False),
     (0x8E, False, False), (0x80, False, False)],
)  # fmt: skip
def test_lar_and_lsl_know_their_types(attributes, lar, lsl):
    with ProtectedGuest() as guest:
        guest.descriptor(FREE, descriptor(0, 0x12345, attributes | 0x8000))
        end = guest.run("""
        b870000000  mov eax, 0x70
        0f02d8      lar ebx, eax
        0f94c1      sete cl
        0f03d0      lsl edx, eax
        0f94c5      sete ch
        f4          hlt
        """)
        assert end.registers[RCX] == lar | lsl << 8
        if lar:
            assert end.registers[RBX] == attributes << 8 | 0x810000
        if lsl:
            assert end.registers[RDX] == 0x12345FFF


def test_long_mode_lar_refuses_16_bit_system_types():
    with LongGuest() as guest:
        guest.descriptor(FREE, descriptor(0, 0x67, 0x81))
        end = guest.run("""
        b870000000  mov eax, 0x70
        0f02d8      lar ebx, eax
        0f94c1      sete cl
        b850000000  mov eax, 0x50
        0f03d0      lsl edx, eax
        0f94c5      sete ch
        f4          hlt
        """)
        assert (end.registers[RCX], end.registers[RDX]) == (0x100, 0x67)


def test_verr_and_verw_say_what_may_be_read_and_written():
    with ProtectedGuest(cpl=3) as guest:
        end = guest.run("""
        b823000000  mov eax, 0x23
        0f00e0      verr ax
        0f94c3      sete bl
        0f00e8      verw ax
        0f94c7      sete bh
        b81b000000  mov eax, 0x1b
        0f00e0      verr ax
        0f94c1      sete cl
        0f00e8      verw ax
        0f94c5      sete ch
        b810000000  mov eax, 0x10
        0f00e0      verr ax
        0f94c2      sete dl
        cd80        int 0x80
        """)
        assert [end.registers[n] for n in (RBX, RCX)] == [0x101, 0x001]
        assert end.registers[RDX] & 0xFF == 0


def test_arpl_raises_the_rpl():
    with ProtectedGuest() as guest:
        end = guest.run("""
        b830120000  mov eax, 0x1230
        b903000000  mov ecx, 3
        63c8        arpl ax, cx
        0f94c3      sete bl
        63c8        arpl ax, cx
        0f94c7      sete bh
        f4          hlt
        """)
        assert (end.registers[RAX], end.registers[RBX]) == (0x1233, 0x001)


@pytest.mark.parametrize(
    "text",
    [
        """
        0f02c3  lar ax, bx
        """,
        """
        0f03c3  lsl ax, bx
        """,
        """
        0f00e0  verr ax
        """,
        """
        0f00c0  sldt ax
        """,
        """
        0f00c8  str ax
        """,
        """
        0f00d0  lldt ax
        """,
        """
        0f00d8  ltr ax
        """,
        """
        63d8  arpl ax, bx
        """,
    ],
)
def test_real_mode_has_no_selectors(text):
    with RealGuest() as guest:
        assert guest.run(text).vector == 6


def test_ltr_marks_the_task_busy_and_takes_no_busy_one():
    with ProtectedGuest() as guest:
        guest.descriptor(TSS2_SELECTOR, descriptor(0x8000, 0x67, 0x89))
        end = guest.run("""
        b860000000  mov eax, 0x60
        0f00d8      ltr ax
        0f00cb      str ebx
        0f00d8      ltr ax
        f4          hlt
        """)
        assert (end.vector, end.error, end.registers[RBX]) == (13, TSS2_SELECTOR, TSS2_SELECTOR)
        assert guest.cpu.get_segment(TR) == (TSS2_SELECTOR, 0x8000, 0x67, 0x8B)
        assert guest.read(GDT + TSS2_SELECTOR + 5, 1) == 0x8B
