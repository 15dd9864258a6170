"""Exceptions and interrupts delivered through IVT and IDT: vectors, error codes, saved RIP, flags, stacks (SDM 3A chapter 6)."""

from __future__ import annotations

import struct

import pytest
from bare_guest import (
    ABSENT_DATA,
    CODE,
    CODE0,
    CODE3,
    CONFORMING,
    CS,
    DATA0,
    DATA3,
    FREE,
    IDT,
    IF,
    NT,
    RBX,
    RF,
    RFLAGS,
    RSP,
    SS,
    STACK,
    STACK0,
    TRIPLE_FAULT,
    TSS,
    USER_STACK,
    LongGuest,
    ProtectedGuest,
    RealGuest,
    gate,
    listing,
)  # fmt: skip


def absent(guest, vector):
    """Take a handler's gate away."""
    guest.idt(vector, gate(CODE0, guest.handler_offset(vector), 14, present=False))


# -- real mode


def test_real_mode_int_pushes_flags_cs_ip_and_clears_if():
    with RealGuest() as guest:
        guest.cpu.put(RFLAGS, IF | 2)
        end = guest.run("""
        cd21  int 0x21
        """)
        assert (end.vector, end.frame[:3]) == (0x21, [2, CODE >> 4, IF | 2])
        assert not guest.cpu.get(RFLAGS) & IF


def test_real_mode_fault_saves_the_faulting_ip_and_pushes_no_error_code():
    with RealGuest() as guest:
        end = guest.run("""
        31c9  xor cx, cx
        f7f1  div cx
        """)
        assert end.vector == 0
        assert end.frame[:2] == [2, CODE >> 4]
        end = guest.run("""
        beffff  mov si, 0xffff
        8b04    mov ax, [si]
        """)
        assert end.vector == 13
        assert end.frame[:2] == [3, CODE >> 4]


def test_real_mode_vector_beyond_the_table_is_a_general_protection_fault():
    with RealGuest() as guest:
        guest.cpu.put_tables(0, 0, 0, 14 * 4 - 1)
        end = guest.run("""
        cd21  int 0x21
        """)
        assert (end.vector, end.frame[0]) == (13, 0)


def test_real_mode_without_a_usable_table_shuts_down():
    with RealGuest() as guest:
        guest.cpu.put_tables(0, 0, 0, 3)
        assert (
            guest.run("""
        cd21  int 0x21
        """).reason
            == TRIPLE_FAULT
        )


def test_real_mode_stack_that_is_too_small_is_no_place_for_a_handler():
    with RealGuest() as guest:
        guest.cpu.put(RSP, 1)
        assert (
            guest.run("""
        cd21  int 0x21
        """).reason
            == TRIPLE_FAULT
        )


# -- protected mode


def test_software_interrupt_returns_behind_itself():
    with ProtectedGuest() as guest:
        end = guest.run("""
        cd81  int 0x81
        """)
        assert (end.vector, end.frame[:3]) == (0x81, [CODE + 2, CODE0, 2])
        assert end.registers[RSP] == STACK - 12


@pytest.mark.parametrize(
    ("text", "vector", "error", "at"),
    [
        ("""
        0f0b  ud2
        """, 6, None, 0),
        ("""
        31c9  xor ecx, ecx
        f7f1  div ecx
        """, 0, None, 2),
        ("""
        b834120000  mov eax, 0x1234
        8ed8        mov ds, eax
        """, 13, 0x1234, 5),
        ("""
        b837120000  mov eax, 0x1237
        8ec0        mov es, eax
        """, 13, 0x1234, 5),
        ("""
        b890000000  mov eax, 0x90
        8ed8        mov ds, eax
        """, 11, ABSENT_DATA, 5),
        ("""
        b890000000  mov eax, 0x90
        8ed0        mov ss, eax
        """, 12, ABSENT_DATA, 5),
        ("""
        31c0  xor eax, eax
        8ed0  mov ss, eax
        """, 13, 0, 2),
        ("""
        31c0  xor eax, eax
        8ed8  mov ds, eax
        8b18  mov ebx, [eax]
        """, 13, 0, 4),
        ("""
        cc  int3
        """, 3, None, None),
    ],
)  # fmt: skip
def test_faults_name_their_cause_and_set_rf(text, vector, error, at):
    with ProtectedGuest() as guest:
        end = guest.run(text)
        assert end.vector == vector
        assert end.returns[1] == CODE0
        if error is not None:
            assert end.error == error
        if at is not None:
            assert end.returns[0] == CODE + at
            assert end.returns[2] & RF


def test_into_traps_only_on_overflow():
    with ProtectedGuest() as guest:
        end = guest.run("""
        ce    into
        b07f  mov al, 0x7f
        0401  add al, 1
        ce    into
        """)
        assert (end.vector, end.frame[0]) == (4, CODE + 6)
        assert not end.frame[2] & RF


def test_interrupt_gate_clears_if_and_trap_gate_does_not():
    with ProtectedGuest() as guest:
        guest.idt(0x41, gate(CODE0, guest.handler_offset(0x41), 15))
        guest.cpu.put(RFLAGS, IF | NT | 2)
        end = guest.run("""
        cd41  int 0x41
        """)
        assert (end.vector, end.frame[2]) == (0x41, IF | NT | 2)
        assert end.registers[RFLAGS] & (IF | NT) == IF
        guest.cpu.put(RFLAGS, IF | 2)
        end = guest.run("""
        cd40  int 0x40
        """)
        assert not end.registers[RFLAGS] & IF


def test_16_bit_gate_pushes_words():
    with ProtectedGuest() as guest:
        guest.idt(0x40, gate(CODE0, 0x4000, 6))
        guest.write(0x4000, b"\xf4")
        end = guest.run(
            """
        cd40  int 0x40
        """,
            at=CODE,
        )
        assert end.registers[16] == 0x4001
        assert end.registers[RSP] == STACK - 6
        assert [guest.read(STACK - 6 + 2 * i, 2) for i in range(3)] == [(CODE + 2) & 0xFFFF, CODE0, 2]


def test_interrupt_from_user_code_switches_to_the_stack_of_the_tss():
    with ProtectedGuest(cpl=3) as guest:
        end = guest.run("""
        cd80  int 0x80
        """)
        assert (end.vector, end.frame[:5]) == (0x80, [CODE + 2, CODE3, 2, USER_STACK, DATA3])
        assert end.registers[RSP] == STACK0 - 20
        assert (guest.selector(SS), guest.selector(CS), guest.cpu.get_control()[5]) == (DATA0, CODE0, 0)


def test_user_may_not_use_a_gate_of_level_0():
    with ProtectedGuest(cpl=3) as guest:
        end = guest.run("""
        cd81  int 0x81
        """)
        assert (end.vector, end.error, end.returns[0]) == (13, 0x81 << 3 | 2, CODE)


def test_gate_that_is_not_present_names_its_vector():
    with ProtectedGuest() as guest:
        absent(guest, 0x33)
        end = guest.run("""
        cd33  int 0x33
        """)
        assert (end.vector, end.error, end.returns[0]) == (11, 0x33 << 3 | 2, CODE)


def test_vector_beyond_the_idt_names_itself():
    with ProtectedGuest() as guest:
        guest.cpu.put_tables(0x2000, 0xFF, IDT, 0x7E)
        end = guest.run("""
        cd40  int 0x40
        """)
        assert (end.vector, end.error) == (13, 0x40 << 3 | 2)


@pytest.mark.parametrize("kind", [0, 1, 2, 4, 8, 9, 12, 13, 16, 31])
def test_idt_entry_of_another_kind_is_refused(kind):
    with ProtectedGuest() as guest:
        guest.idt(0x40, gate(CODE0, guest.handler_offset(0x40), kind))
        end = guest.run("""
        cd40  int 0x40
        """)
        assert (end.vector, end.error) == (13, 0x40 << 3 | 2)


@pytest.mark.parametrize(
    ("selector", "vector", "error"),
    [(0, 13, 0), (0x1238, 13, 0x1238), (DATA0, 13, DATA0), (ABSENT_DATA, 13, ABSENT_DATA), (FREE, 11, FREE)],
)
def test_handler_in_a_bad_code_segment(selector, vector, error):
    with ProtectedGuest() as guest:
        guest.descriptor(FREE, bytes.fromhex("ffff0000001acf00"))  # code, not present
        guest.idt(0x40, gate(selector, guest.handler_offset(0x40), 14))
        end = guest.run("""
        cd40  int 0x40
        """)
        assert (end.vector, end.error) == (vector, error)


def test_fault_while_delivering_a_hardware_exception_says_external():
    with ProtectedGuest() as guest:
        absent(guest, 6)
        end = guest.run("""
        0f0b  ud2
        """)
        assert (end.vector, end.error, end.returns[0]) == (11, 6 << 3 | 2 | 1, CODE)


@pytest.mark.parametrize("ss", [0, 0x1238, DATA3, CODE0])
def test_bad_inner_stack_segment_is_an_invalid_tss(ss):
    with ProtectedGuest(cpl=3) as guest:
        guest.write(TSS + 8, struct.pack("<H", ss))
        guest.idt(10, gate(CONFORMING, guest.handler_offset(10), 14))
        guest.idt(13, gate(CONFORMING, guest.handler_offset(13), 14))
        guest.write(guest.handler_offset(10), b"\xeb\xfe")  # jmp $: at CPL 3, where HLT is refused
        guest.write(
            CODE,
            listing(
                32,
                CODE,
                """
        cd80  int 0x80
        """,
            ),
        )
        guest.cpu.put(16, CODE)
        assert guest.cpu.run(10) == 5
        assert guest.cpu.get(16) == guest.handler_offset(10)
        assert guest.read(guest.cpu.get(RSP), 4) == ss & ~3
        assert guest.cpu.get(RSP) == USER_STACK - 16


# -- double and triple faults


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (
            """
        b834120000  mov eax, 0x1234
        8ed8        mov ds, eax
        """,
            13,
        ),
        (
            """
        31c9  xor ecx, ecx
        f7f1  div ecx
        """,
            0,
        ),
    ],
)
def test_contributory_fault_in_a_contributory_fault_is_a_double_fault(text, first):
    with ProtectedGuest() as guest:
        absent(guest, first)
        end = guest.run(text)
        assert (end.vector, end.error, end.returns[1]) == (8, 0, CODE0)


def test_double_fault_that_cannot_be_delivered_shuts_down():
    with ProtectedGuest() as guest:
        absent(guest, 13)
        absent(guest, 8)
        end = guest.run("""
        b834120000  mov eax, 0x1234
        8ed8        mov ds, eax
        """)
        assert end.reason == TRIPLE_FAULT
        assert end.registers[16] == CODE + 5


def test_software_interrupt_13_is_benign():
    with ProtectedGuest() as guest:
        absent(guest, 13)
        guest.cpu.put_tables(0x2000, 0xFF, IDT, 0x7FF)
        end = guest.run("""
        cd0d  int 0xd
        """)
        assert (end.vector, end.error) == (11, 13 << 3 | 2)


def test_page_fault_while_delivering_a_page_fault_is_a_double_fault():
    with LongGuest() as guest:
        guest.cpu.put(RBX, 0x40000000)
        guest.idt(14, gate(CODE0, guest.handler_offset(14), 14, extra=1))
        guest.write(TSS + 0x24, struct.pack("<Q", 0x50000000))
        end = guest.run("""
        8b03  mov eax, [rbx]
        """)
        assert (end.vector, end.error, end.returns[0]) == (8, 0, CODE)
        assert guest.cpu.get_control()[1] == 0x50000000 - 8
