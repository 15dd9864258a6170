"""Exceptions and interrupts from virtual-8086 mode and in IA-32e mode: frames, stacks, IST, VME (SDM 3A 6.14, 3B 21.3)."""

from __future__ import annotations

import struct

import pytest
from bare_guest import (
    CODE,
    CODE0,
    CODE3,
    CODE32,
    CODE64_3,
    CONFORMING,
    CS,
    DATA0,
    DATA3,
    DS,
    ES,
    FS,
    GS,
    IF,
    IST1,
    PAGE_TABLES,
    RAX,
    RBX,
    RFLAGS,
    RIP,
    RSP,
    SS,
    STACK,
    STACK0,
    TRIPLE_FAULT,
    TSS,
    TSS_SELECTOR,
    USER_STACK,
    V86_CODE,
    V86_SEGMENT,
    VM,
    LongGuest,
    V86Guest,
    gate,
)  # fmt: skip

V86_START = V86_CODE - (V86_SEGMENT << 4)


# -- virtual-8086 mode


def test_interrupt_from_virtual_8086_mode_saves_and_nulls_the_data_segments():
    with V86Guest(iopl=3) as guest:
        end = guest.run("""
        cd80  int 0x80
        """)
        assert end.vector == 0x80
        assert end.frame[:9] == [V86_START + 2, V86_SEGMENT, VM | IF | 0x3002, 0x7800, 0, 0x444, 0x50, 0x222, 0x111]
        assert [guest.selector(n) for n in (ES, DS, FS, GS)] == [0] * 4
        assert not end.registers[RFLAGS] & VM


@pytest.mark.parametrize(
    "text",
    [
        """
        cd80  int 0x80
        """,
        """
        fa  cli
        """,
        """
        9c  pushf
        """,
        """
        9d  popf
        """,
        """
        cf  iret
        """,
    ],
)
def test_sensitive_instructions_need_iopl_3(text):
    with V86Guest(iopl=0) as guest:
        end = guest.run(text)
        assert (end.vector, end.error, end.returns[0]) == (13, 0, V86_START)


def test_int3_does_not_look_at_iopl():
    with V86Guest(iopl=0) as guest:
        assert (
            guest.run("""
        cc  int3
        """).vector
            == 3
        )


def test_handler_of_virtual_8086_code_must_run_at_level_0():
    with V86Guest(iopl=3) as guest:
        guest.idt(0x80, gate(CONFORMING, guest.handler_offset(0x80), 14, dpl=3))
        end = guest.run("""
        cd80  int 0x80
        """)
        assert (end.vector, end.error) == (13, CONFORMING)


def redirecting(guest, bit):
    """A TSS with an interrupt redirection bitmap of all `bit`, and an 8086 handler for vector 0x21 that halts."""
    guest.write(TSS + 0x66, struct.pack("<H", 0x88))
    guest.write(TSS + 0x68, (b"\xff" if bit else b"\0") * 32)
    guest.write(4 * 0x21, struct.pack("<HH", 0x5100, V86_SEGMENT))
    guest.write((V86_SEGMENT << 4) + 0x5100, b"\xf4")


def test_vme_redirects_int_to_the_8086_program_with_vif_for_if():
    with V86Guest(iopl=0, cr4=1) as guest:
        redirecting(guest, 0)
        end = guest.run("""
        fb    sti
        cd21  int 0x21
        """)
        # The handler is a HLT, which virtual-8086 mode refuses.
        assert (end.vector, end.returns[0]) == (13, 0x5100)
        assert [guest.read(0x7800 - 6 + 2 * i, 2) for i in range(3)] == [V86_START + 3, V86_SEGMENT, 0x3202]


def test_vme_bitmap_can_send_int_to_the_monitor():
    with V86Guest(iopl=0, cr4=1) as guest:
        redirecting(guest, 1)
        end = guest.run("""
        cd21  int 0x21
        """)
        assert (end.vector, end.error) == (13, 0)


# -- IA-32e mode


def test_long_mode_always_pushes_ss_and_rsp_and_aligns():
    with LongGuest() as guest:
        guest.cpu.put(RSP, STACK - 4)
        end = guest.run("""
        cd40  int 0x40
        """)
        assert (end.vector, end.frame[:5]) == (0x40, [CODE + 2, CODE0, 2, STACK - 4, DATA0])
        assert end.registers[RSP] == STACK - 16 - 40
        assert guest.selector(SS) == DATA0


def test_long_mode_inner_stack_has_a_null_ss():
    with LongGuest(cpl=3) as guest:
        end = guest.run("""
        cd80  int 0x80
        """)
        assert (end.vector, end.frame[:5]) == (0x80, [CODE + 2, CODE64_3, 2, USER_STACK, DATA3])
        assert (guest.selector(SS), end.registers[RSP]) == (0, STACK0 - 40)


@pytest.mark.parametrize("cpl", [0, 3])
def test_ist_is_used_at_every_level(cpl):
    with LongGuest(cpl=cpl) as guest:
        guest.idt(6, gate(CODE0, guest.handler_offset(6), 14, extra=1))
        end = guest.run("""
        0f0b  ud2
        """)
        assert (end.vector, end.registers[RSP]) == (6, (IST1 & ~15) - 40)


def test_long_mode_refuses_16_bit_gates_and_32_bit_handlers():
    with LongGuest() as guest:
        guest.idt(0x40, gate(CODE0, 0x4000, 6))
        end = guest.run("""
        cd40  int 0x40
        """)
        assert (end.vector, end.error) == (13, 0x40 << 3 | 2)
        guest.idt(0x40, gate(CODE32, guest.handler_offset(0x40), 14))
        end = guest.run("""
        cd40  int 0x40
        """)
        assert (end.vector, end.error) == (13, CODE32)


@pytest.mark.parametrize(
    ("text", "vector"),
    [
        (
            """
        48b80000000000000080  mov rax, 0x8000000000000000
        488b18                mov rbx, [rax]
        """,
            13,
        ),
        (
            """
        48bd0000000000000080  mov rbp, 0x8000000000000000
        488b5d00              mov rbx, [rbp]
        """,
            12,
        ),
    ],
)
def test_addresses_that_are_not_canonical(text, vector):
    with LongGuest() as guest:
        end = guest.run(text)
        assert (end.vector, end.error, end.returns[0]) == (vector, 0, CODE + 10)


@pytest.mark.parametrize("base", [-(1 << 47), -(1 << 47) + 0x1000, -(1 << 46)])
def test_with_a_segment_base_the_linear_address_must_be_canonical_and_the_offset_need_not(base):
    with LongGuest() as guest:
        guest.write(0xD000, b"\x12\x34")
        guest.cpu.wrmsr(0xC0000101, base % (1 << 64))
        guest.cpu.put(RBX, 0xD000 - base)
        end = guest.run("""
        65668b03  mov ax, [gs:rbx]
        f4        hlt
        """)
        assert (end.vector, end.registers[RAX]) == (None, 0x3412)
        guest.cpu.put(RBX, (1 << 47) - base)
        assert guest.run("65668b03 mov ax, [gs:rbx]").vector == 13


def test_code_that_runs_off_the_end_of_canonical_addresses_faults_behind_it():
    with LongGuest() as guest:
        for gpa, entry in (
            (PAGE_TABLES + 255 * 8, 0x110007),
            (0x110000 + 511 * 8, 0x111007),
            (0x111000 + 511 * 8, 0x87),
        ):
            guest.write(gpa, struct.pack("<Q", entry))
        guest.write(0x1FFFFF, b"\x90")  # nop
        guest.cpu.put(RIP, (1 << 47) - 1)
        end = guest.resume()
        assert (end.vector, end.error, end.returns[0]) == (13, 0, 1 << 47)


def test_compatibility_code_is_interrupted_into_64_bit_code():
    with LongGuest(cpl=3) as guest:
        guest.cpu.put_segment(CS, CODE3, 0, 0xFFFFFFFF, 0xC0FB)
        guest.bits = 32
        end = guest.run("""
        cd80  int 0x80
        """)
        assert (end.vector, end.frame[:5]) == (0x80, [CODE + 2, CODE3, 2, USER_STACK, DATA3])


def test_inner_stack_beyond_the_tss_limit_is_an_invalid_tss_twice_and_then_the_end():
    with LongGuest(cpl=3) as guest:
        guest.cpu.put_segment(7, TSS_SELECTOR, TSS, 0xA, 0x8B)
        assert (
            guest.run("""
        cd80  int 0x80
        """).reason
            == TRIPLE_FAULT
        )
