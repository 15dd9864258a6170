"""System instructions: control registers, descriptor tables, and the privilege each one needs."""

from __future__ import annotations

import struct

import pytest
from bare_guest import (
    CODE,
    CODE64_3,
    GDT,
    IDT,
    PAGE_TABLES,
    RAX,
    RBX,
    RCX,
    LongGuest,
    ProtectedGuest,
)  # fmt: skip

# -- privilege


PRIVILEGED = [
    """
        f4  hlt
        """,
    """
        0f06  clts
        """,
    """
        0f08  invd
        """,
    """
        0f09  wbinvd
        """,
    """
        0f32  rdmsr
        """,
    """
        0f30  wrmsr
        """,
    """
        0f20c0  mov eax, cr0
        """,
    """
        0f22d8  mov cr3, eax
        """,
    """
        0f0110  lgdt [eax]
        """,
    """
        0f0118  lidt [eax]
        """,
    """
        0f00d0  lldt ax
        """,
    """
        0f00d8  ltr ax
        """,
    """
        0f01f0  lmsw ax
        """,
    """
        0f0138  invlpg [eax]
        """,
    """
        fa  cli
        """,
    """
        fb  sti
        """,
    """
        e460  in al, 0x60
        """,
    """
        ef  out dx, eax
        """,
    """
        6e  outsb
        """,
    """
        0f35  sysexit
        """,
]


@pytest.mark.parametrize("text", PRIVILEGED, ids=lambda text: " ".join(text.split()[1:]))
def test_privileged_instructions_fault_at_cpl3(text):
    with ProtectedGuest(3) as guest:
        end = guest.run(text)
        assert (end.vector, end.error, end.returns[0]) == (13, 0, CODE)


@pytest.mark.parametrize(
    "text",
    [
        """
        0f010424  sgdt [esp]
        """,
        """
        0f010c24  sidt [esp]
        """,
        """
        660f00c0  sldt ax
        """,
        """
        660f00c8  str ax
        """,
        """
        660f01e0  smsw ax
        """,
    ],
)
def test_umip_takes_the_rest(text):
    with ProtectedGuest(3) as guest:
        assert guest.run(text + "\ncd80 int 0x80").vector == 0x80
        guest = ProtectedGuest(3)
        guest.cr4(0x800)
        end = guest.run(text)
        assert (end.vector, end.error) == (13, 0)


@pytest.mark.parametrize(
    "text",
    [
        """
        0f01f8  swapgs
        """,
        """
        480f07  o64 sysret
        """,
        """
        440f22c0  mov cr8, rax
        """,
        """
        440f20c0  mov rax, cr8
        """,
    ],
)
def test_user_code_of_64_bits_may_not(text):
    with LongGuest(3) as guest:
        assert (guest.run(text).vector, guest.cpu.exception) == (13, 13)


@pytest.mark.parametrize(
    "text",
    [
        """
        0f01cb  stac
        """,
        """
        0f01ca  clac
        """,
        """
        f3480faec0  rdfsbase rax
        """,
        """
        0f01ee  rdpkru
        """,
        """
        0f01d0  xgetbv
        """,
        """
        0f01c8  monitor
        """,
        """
        0faa  rsm
        """,
    ],
)
def test_what_is_not_enabled_is_undefined(text):
    with LongGuest(3) as guest:
        assert guest.run(text).vector == 6


# -- control registers


@pytest.mark.parametrize(
    ("value", "vector"),
    [(0x11, None), (0x80000010, 13), (0x20000011, 13), (0x60000011, None), (0x1FFAFFC0 | 0x11, None)],
)
def test_cr0_refuses_impossible_combinations(value, vector):
    with ProtectedGuest() as guest:
        guest.cpu.put(RAX, value)
        end = guest.run("""
        0f22c0  mov cr0, eax
        0f20c3  mov ebx, cr0
        f4      hlt
        """)
        assert end.vector == vector
        if vector is None:
            assert end.registers[RBX] == (value & 0xE005003F | 0x10)


def test_long_mode_cannot_be_left_by_one_register():
    for text in (
        """
        0f20c0    mov rax, cr0
        0fbaf01f  btr eax, 0x1f
        0f22c0    mov cr0, rax
        """,
        """
        31c0    xor eax, eax
        0f22e0  mov cr4, rax
        """,
    ):
        with LongGuest() as guest:
            end = guest.run(text)
            assert (end.vector, end.error) == (13, 0)


def test_a_guest_enters_long_mode_by_itself():
    with ProtectedGuest() as guest:
        for i, entry in enumerate((PAGE_TABLES + 0x1007, PAGE_TABLES + 0x2007, 0x87)):
            guest.write(PAGE_TABLES + 0x1000 * i, struct.pack("<Q", entry))
        guest.write(GDT + CODE64_3 - 3, bytes.fromhex("ffff0000009aaf00"))
        guest.write(0x10100, bytes.fromhex("48 b8 0000000001000000 f4"))  # mov rax, 0x100000000; hlt
        end = guest.run("""
        b800001000      mov eax, 0x100000
        0f22d8          mov cr3, eax
        b820000000      mov eax, 0x20
        0f22e0          mov cr4, eax
        b9800000c0      mov ecx, 0xc0000080
        b800010000      mov eax, 0x100
        31d2            xor edx, edx
        0f30            wrmsr
        0f20c0          mov eax, cr0
        0fbae81f        bts eax, 0x1f
        0f22c0          mov cr0, eax
        0f32            rdmsr
        89c3            mov ebx, eax
        ea000101002800  jmp 0x28:0x10100
        """)
        assert (end.vector, end.registers[RAX], end.registers[RBX]) == (None, 1 << 32, 0x500)


def test_cr4_refuses_what_does_not_exist():
    with LongGuest() as guest:
        for bit in (0x8000, 0x800000, 1 << 30, 1 << 40, 0x1000):
            guest.cpu.put(RAX, 0x20 | bit)
            assert (
                guest.run("""
        0f22e0  mov cr4, rax
        """).error
                == 0
            )


def test_pcide_needs_a_clean_cr3():
    with LongGuest() as guest:
        guest.cpu.put(RAX, 0x20020)
        assert (
            guest.run("""
        0f22e0  mov cr4, rax
        f4      hlt
        """).vector
            is None
        )
    with LongGuest() as guest:
        guest.cpu.put_control(0x80000011, PAGE_TABLES | 8, 0x20, 0xD01, 0)
        guest.cpu.put(RAX, 0x20020)
        assert (
            guest.run("""
        0f22e0  mov cr4, rax
        f4      hlt
        """).vector
            == 13
        )


def test_lmsw_sets_pe_and_cannot_clear_it():
    with ProtectedGuest() as guest:
        end = guest.run("""
        b80e000000  mov eax, 0xe
        0f01f0      lmsw ax
        0f01e3      smsw ebx
        0f06        clts
        0f20c1      mov ecx, cr0
        f4          hlt
        """)
        assert (end.registers[RBX], end.registers[RCX]) == (0x1F, 0x17)


def test_cr8_holds_four_bits():
    with LongGuest() as guest:
        end = guest.run("""
        b80f000000  mov eax, 0xf
        440f22c0    mov cr8, rax
        440f20c3    mov rbx, cr8
        b810000000  mov eax, 0x10
        440f22c0    mov cr8, rax
        """)
        assert (end.vector, end.error, end.registers[RBX]) == (13, 0, 15)


@pytest.mark.parametrize(
    "text",
    [
        """
        0f20c8  (bad)
        """,
        """
        0f22e8  (bad)
        """,
        """
        0f20f8  (bad)
        """,
    ],
)
def test_control_registers_that_do_not_exist(text):
    with ProtectedGuest() as guest:
        assert guest.run(text).vector == 6


# -- descriptor tables


def test_tables_are_stored_and_loaded():
    with ProtectedGuest() as guest:
        end = guest.run("""
        0f010500580000  sgdt [0x5800]
        0f010d08580000  sidt [0x5808]
        0f011d00580000  lidt [0x5800]
        0f010d10580000  sidt [0x5810]
        f4              hlt
        """)
        assert end.vector is None
        assert struct.unpack("<HI", bytes(guest.memory[0x5800:0x5806])) == (0xFF, GDT)
        assert struct.unpack("<HI", bytes(guest.memory[0x5808:0x580E])) == (0x7FF, IDT)
        assert guest.memory[0x5810:0x5816] == guest.memory[0x5800:0x5806]


def test_16_bit_lgdt_takes_24_bits_of_base():
    with ProtectedGuest() as guest:
        guest.write(0x5800, struct.pack("<HI", 0x7F, 0xAB002000))
        guest.run("""
        660f011500580000  o16 lgdt [0x5800]
        0f010510580000    sgdt [0x5810]
        f4                hlt
        """)
        assert struct.unpack("<HI", bytes(guest.memory[0x5810:0x5816])) == (0x7F, 0x2000)


def test_table_that_is_not_canonical_is_refused():
    with LongGuest() as guest:
        guest.write(0x5800, struct.pack("<HQ", 0xFF, 1 << 56))
        end = guest.run("""
        0f01142500580000  lgdt [0x5800]
        """)
        assert (end.vector, end.error) == (13, 0)
