"""System calls, flags and ports: SYSCALL, SYSENTER, SWAPGS, POPF, STI with VME and PVI, the I/O bitmap."""

from __future__ import annotations

import struct

import pytest
from bare_guest import (
    CODE,
    CODE0,
    CODE64_3,
    CS,
    DATA3,
    IF,
    NT,
    PAGE_TABLES,
    RAX,
    RBX,
    RCX,
    RDX,
    RFLAGS,
    RIP,
    RSI,
    RSP,
    SS,
    STACK,
    TF,
    TSS,
    LongGuest,
    ProtectedGuest,
    V86Guest,
)  # fmt: skip
from guest_msrs import FMASK, KERNEL_GS_BASE, LSTAR, STAR, rdmsr, wrmsr

R11 = 11
SYSCALL_TARGET, USER_TARGET = 0x10100, 0x10200
AC, IOPL3, VIF, VIP = 1 << 18, 0x3000, 1 << 19, 1 << 20


# -- system calls


def system_call_guest(cpl):
    """A 64-bit guest whose system calls go to SYSCALL_TARGET, with HLT there."""
    guest = LongGuest()
    for index, value in (
        (STAR, 0x1B << 48 | 8 << 32),
        (LSTAR, SYSCALL_TARGET),
        (FMASK, IF | NT),
        (0x174, 8),
        (0x175, 0x9800),
        (0x176, SYSCALL_TARGET),
    ):
        wrmsr(guest, index, value)
    guest.write(SYSCALL_TARGET, b"\xf4")
    if cpl:
        guest.cpu.put_control(0x80000011, PAGE_TABLES, 0x20, 0xD01, 3)
        guest.cpu.put_segment(CS, CODE64_3, 0, 0xFFFFFFFF, 0xA0FB)
        guest.cpu.put_segment(SS, DATA3, 0, 0xFFFFFFFF, 0xC0F3)
    return guest


def test_syscall_saves_rip_and_flags_and_masks():
    with system_call_guest(3) as guest:
        guest.cpu.put(RFLAGS, IF | AC | 2)
        end = guest.run("""
        0f05  syscall
        """)
        assert (end.registers[RIP], end.registers[RCX], end.registers[R11]) == (
            SYSCALL_TARGET + 1,
            CODE + 2,
            IF | AC | 2,
        )
        assert end.registers[RFLAGS] == AC | 2
        assert guest.cpu.get_segment(CS) == (8, 0, 0xFFFFFFFF, 0xA09B)
        assert guest.cpu.get_segment(SS) == (16, 0, 0xFFFFFFFF, 0xC093)
        assert end.registers[RSP] == STACK


@pytest.mark.parametrize(
    ("text", "cs", "attributes"),
    [
        (
            """
        480f07  o64 sysret
        """,
            0x2B,
            0xA0FB,
        ),
        (
            """
        0f07  sysret
        """,
            0x1B,
            0xC0FB,
        ),
    ],
)
def test_sysret_enters_user_code_of_64_or_32_bits(text, cs, attributes):
    with system_call_guest(0) as guest:
        guest.cpu.put(RCX, USER_TARGET)
        guest.cpu.put(R11, (1 << 64) - 1 & ~TF)
        guest.write(USER_TARGET, bytes.fromhex("cd80"))
        end = guest.run(text)
        assert (end.vector, end.frame[:2]) == (0x80, [USER_TARGET + 2, cs])
        assert end.frame[2] == 0x3C7ED7
        assert end.frame[4] == 0x23


def test_sysret_to_an_address_that_is_not_canonical_faults_at_level_0():
    with system_call_guest(0) as guest:
        guest.cpu.put(RCX, 1 << 47)
        end = guest.run("""
        480f07  o64 sysret
        """)
        assert (end.vector, end.error, end.returns[:2]) == (13, 0, [CODE, CODE0])


def test_syscall_is_for_64_bit_code_with_sce():
    with ProtectedGuest() as guest:
        assert (
            guest.run("""
        0f05  syscall
        """).vector
            == 6
        )
    with LongGuest() as guest:
        guest.cpu.put_control(0x80000011, PAGE_TABLES, 0x20, 0xD00, 0)
        assert (
            guest.run("""
        0f05  syscall
        """).vector
            == 6
        )


def test_sysenter_goes_to_its_target_and_sysexit_returns():
    with system_call_guest(3) as guest:
        guest.cpu.put(RFLAGS, IF | 2)
        guest.write(
            SYSCALL_TARGET, bytes.fromhex("488d0d00040000 488d15f2000000 480f35")
        )  # lea rcx, ...; lea rdx, ...; sysexitq
        guest.write(USER_TARGET, bytes.fromhex("cd80"))
        end = guest.run("""
        0f34  sysenter
        """)
        assert (end.vector, end.frame[:2]) == (0x80, [USER_TARGET + 2, 0x2B])
        assert (end.frame[2] & IF, end.frame[3], end.frame[4]) == (0, SYSCALL_TARGET + 7 + 0x400, 0x33)


def test_sysenter_without_a_segment_is_refused():
    with ProtectedGuest() as guest:
        assert (
            guest.run("""
        0f34  sysenter
        """).error
            == 0
        )


def test_swapgs_and_base_instructions():
    with LongGuest(cr4=0x10020) as guest:
        wrmsr(guest, KERNEL_GS_BASE, 0x1234)
        guest.cpu.put(RSI, 0x7FFF00000000)
        end = guest.run("""
        f3480faede  wrgsbase rsi
        0f01f8      swapgs
        f3480faec8  rdgsbase rax
        f30faed0    wrfsbase eax
        f3480faec3  rdfsbase rbx
        f4          hlt
        """)
        assert (end.registers[RAX], end.registers[RBX]) == (0x1234, 0x1234)
        assert rdmsr(guest, KERNEL_GS_BASE) == 0x7FFF00000000
        guest.cpu.put(RSI, 1 << 63)
        assert (
            guest.run("""
        f3480faed6  wrfsbase rsi
        """).error
            == 0
        )


# -- flags


@pytest.mark.parametrize(
    ("cpl", "iopl", "changed"),
    [(0, 0, 0x244CD5 | IF | IOPL3), (3, 0, 0x244CD5), (3, 3, 0x244CD5 | IF)],
)
def test_popf_changes_what_the_level_allows(cpl, iopl, changed):
    with ProtectedGuest(cpl) as guest:
        guest.cpu.put(RFLAGS, 2 | iopl << 12)
        guest.cpu.put(RAX, 0xFFFFFFFF & ~TF)
        end = guest.run("""
        50    push eax
        9d    popf
        9c    pushf
        5b    pop ebx
        cd80  int 0x80
        """)
        assert end.registers[RBX] == (changed & ~(IOPL3 if cpl else 0)) | 2 | iopl << 12


def test_sti_delays_interrupts_by_one_instruction_and_cli_does_not():
    with ProtectedGuest() as guest:
        end = guest.run("""
        fb  sti
        9c  pushf
        5b  pop ebx
        fa  cli
        9c  pushf
        59  pop ecx
        f4  hlt
        """)
        assert (end.registers[RBX] & IF, end.registers[RCX] & IF) == (IF, 0)


def test_pvi_gives_users_a_virtual_interrupt_flag():
    with ProtectedGuest(3) as guest:
        guest.cr4(2)
        end = guest.run("""
        fb    sti
        cd80  int 0x80
        """)
        assert (end.vector, end.frame[2] & (IF | VIF)) == (0x80, VIF)
        guest = ProtectedGuest(3)
        guest.cr4(2)
        guest.cpu.put(RFLAGS, VIP | 2)
        assert (
            guest.run("""
        fb  sti
        """).error
            == 0
        )


def test_vme_popf_moves_if_to_vif():
    with V86Guest(cr4=1) as guest:
        end = guest.run("""
        680202  push 0x202
        9d      popf
        9c      pushf
        5b      pop bx
        cc      int3
        """)
        assert end.registers[RBX] == 0x3202
        assert end.frame[2] & (VIF | IF) == VIF | IF


# -- ports


@pytest.mark.parametrize(
    ("bits", "text", "allowed"),
    [
        (
            0,
            """
        e417  in al, 0x17
        cd80  int 0x80
        """,
            True,
        ),
        (
            1 << 0x17,
            """
        e417  in al, 0x17
        cd80  int 0x80
        """,
            False,
        ),
        (
            1 << 0x18,
            """
        e417  in al, 0x17
        cd80  int 0x80
        """,
            True,
        ),
        (
            1 << 0x18,
            """
        66e517  in ax, 0x17
        cd80    int 0x80
        """,
            False,
        ),
        (
            1 << 0x1A,
            """
        e717  out 0x17, eax
        cd80  int 0x80
        """,
            False,
        ),
        (
            0,
            """
        66baf807  mov dx, 0x7f8
        ec        in al, dx
        cd80      int 0x80
        """,
            False,
        ),  # the map has no byte behind
        (
            0,
            """
        66baf007  mov dx, 0x7f0
        ec        in al, dx
        cd80      int 0x80
        """,
            True,
        ),
    ],
)
def test_io_bitmap_decides_for_users(bits, text, allowed):
    with ProtectedGuest(3) as guest:
        guest.write(TSS + 0x66, struct.pack("<H", 0x68))
        guest.write(TSS + 0x68, bits.to_bytes(0x100, "little"))
        end = guest.run(text)
        assert end.vector == (0x80 if allowed else 13)


def test_virtual_8086_mode_asks_the_bitmap_whatever_the_iopl():
    with V86Guest(iopl=3) as guest:
        assert (
            guest.run("""
        e460  in al, 0x60
        """).error
            == 0
        )


def test_open_ports_read_all_ones():
    with ProtectedGuest() as guest:
        guest.write(0x5800, b"\0" * 8)
        guest.cpu.put(RDX, 0x60)
        end = guest.run("""
        bf00580000  mov edi, 0x5800
        b903000000  mov ecx, 3
        f36c        rep insb
        ed          in eax, dx
        f4          hlt
        """)
        assert (guest.read(0x5800, 4), end.registers[RAX], end.registers[RCX]) == (0xFFFFFF, 0xFFFFFFFF, 0)


@pytest.mark.parametrize(
    "text",
    [
        """
        f36c  rep insb
        """,
        """
        f36f  rep outsd
        """,
    ],
)
def test_permission_is_asked_even_for_no_items(text):
    with ProtectedGuest(3) as guest:
        guest.cpu.put(RCX, 0)
        assert guest.run(text).error == 0
    with ProtectedGuest() as guest:
        guest.cpu.put(RCX, 0)
        assert guest.run(text + "\nf4 hlt").vector is None
