"""Far JMP, CALL, RET and IRET: gates, stack switches, outer levels, virtual-8086 mode (SDM 3A 5.8; 2A CALL, IRET)."""

from __future__ import annotations

import struct

import pytest
from bare_guest import (
    CODE,
    CODE0,
    CODE3,
    CODE16,
    CODE64_3,
    CONFORMING,
    CS,
    DATA0,
    DATA3,
    ES,
    FREE,
    FS,
    IF,
    NT,
    RAX,
    RBX,
    RCX,
    RDX,
    RFLAGS,
    RSI,
    RSP,
    SS,
    STACK,
    STACK0,
    USER_STACK,
    V86_CODE,
    V86_SEGMENT,
    VM,
    LongGuest,
    ProtectedGuest,
    RealGuest,
    descriptor,
    gate,
)  # fmt: skip

TO_USER_32 = """
        6a23        push 0x23
        6800b00000  push 0xb000
        6802020000  push 0x202
        6a1b        push 0x1b
        6800010100  push 0x10100
        cf          iret
        """
TO_USER_64 = """
        6a23        push 0x23
        6800b00000  push 0xb000
        6802020000  push 0x202
        6a2b        push 0x2b
        6800010100  push 0x10100
        48cf        iretq
        """


# -- far jumps and calls


def numeral(value):
    """A number as the disassembler writes it."""
    return f"{value:#x}" if value else "0"


def far_jump(selector, offset=0x10100):
    """JMP selector:offset as a listing."""
    code = b"\xea" + struct.pack("<IH", offset, selector)
    return f"{code.hex()} jmp {numeral(selector)}:{numeral(offset)}"


@pytest.mark.parametrize(
    ("attributes", "selector", "vector"),
    [(0xC09A, FREE, None), (0xC09E, FREE, None), (0xC098, FREE, None), (0xC0FA, FREE, 13), (0xC09A, FREE | 3, 13),
     (0xC09E, FREE | 3, None), (0xC01A, FREE, 11), (0xC092, FREE, 13), (0x0092, 0, 13), (0xC0FE, FREE, 13)],
)  # fmt: skip
def test_rights_that_a_far_jump_needs(attributes, selector, vector):
    with ProtectedGuest() as guest:
        guest.descriptor(FREE, descriptor(0, 0xFFFFF, attributes))
        guest.write(0x10100, b"\xf4")
        end = guest.run(far_jump(selector))
        assert end.vector == vector
        if vector:
            assert (end.error, guest.selector(CS)) == (selector & ~3, CODE0)
        else:
            assert (end.registers[16], guest.selector(CS)) == (0x10101, FREE)


def test_far_jump_beyond_the_limit_happens_not():
    with ProtectedGuest() as guest:
        end = guest.run(far_jump(CODE16))
        assert (end.vector, end.error, end.returns[0], guest.selector(CS)) == (13, 0, CODE, CODE0)


def test_far_call_and_return_of_16_and_32_bits():
    with ProtectedGuest() as guest:
        guest.write(0x5800, struct.pack("<IH", 0x10100, CODE0))
        guest.write(0x10100, bytes.fromhex("89e3 cb"))  # mov ebx, esp; retf
        end = guest.run("""
        ff1d00580000  call far [0x5800]
        f4            hlt
        """)
        assert (end.registers[RBX], end.registers[RSP]) == (STACK - 8, STACK)
        assert (guest.read(STACK - 8, 4), guest.read(STACK - 4, 4)) == (CODE + 6, CODE0)


def gate_guest(cpl, target, kind=12, dpl=3, count=0, offset=0x10100):
    """A guest with a call gate at FREE."""
    guest = ProtectedGuest(cpl)
    guest.descriptor(FREE, gate(target, offset, kind, dpl=dpl, extra=count))
    return guest


def test_call_gate_to_an_inner_level_copies_parameters():
    with gate_guest(3, CODE0, count=2) as guest:
        guest.write(
            0x10100, bytes.fromhex("8b5c2408 8b54240c 89e6 ca0800")
        )  # mov ebx,[esp+8]; mov edx,[esp+12]; mov esi,esp; retf 8
        end = guest.run("""
        6a11            push 0x11
        6a22            push 0x22
        9a000000007300  call 0x73:0
        cd80            int 0x80
        """)
        assert (end.vector, end.registers[RBX], end.registers[RDX], end.registers[RSI]) == (
            0x80,
            0x22,
            0x11,
            STACK0 - 24,
        )
        assert end.frame[3:5] == [USER_STACK, DATA3]


@pytest.mark.parametrize(
    ("target", "dpl", "cpl", "vector", "error"),
    [(CODE0, 0, 3, 13, FREE), (0, 3, 3, 13, 0), (DATA0, 3, 3, 13, DATA0), (0x1238, 3, 3, 13, 0x1238),
     (CODE3, 3, 0, 13, CODE3 & ~3)],
)  # fmt: skip
def test_call_gate_refuses_what_the_levels_forbid(target, dpl, cpl, vector, error):
    with gate_guest(cpl, target, dpl=dpl) as guest:
        end = guest.run("""
        9a000000007000  call 0x70:0
        """)
        assert (end.vector, end.error, end.returns[0]) == (vector, error, CODE)


def test_jump_through_a_gate_keeps_the_level():
    with gate_guest(3, CODE0) as guest:
        end = guest.run(far_jump(FREE | 3, 0))
        assert (end.vector, end.error) == (13, CODE0)
    with gate_guest(3, CONFORMING) as guest:
        guest.write(0x10100, bytes.fromhex("cd80"))
        end = guest.run(far_jump(FREE | 3, 0))
        assert (end.vector, end.frame[1]) == (0x80, CONFORMING | 3)


def test_conforming_code_keeps_the_callers_level():
    with ProtectedGuest(3) as guest:
        guest.write(0x10100, bytes.fromhex("cd80"))
        end = guest.run(far_jump(CONFORMING))
        assert (end.vector, end.frame[1]) == (0x80, CONFORMING | 3)


def test_64_bit_call_gate_pushes_eight_bytes_each_and_nulls_ss():
    with LongGuest(3) as guest:
        guest.descriptor(FREE, gate(CODE0, 0x10100, 12, dpl=3) + bytes(8))
        guest.write(0x5800, struct.pack("<IH", 0, FREE | 3))
        guest.write(0x10100, b"\xf4")
        end = guest.run("""
        ff1c2500580000  call dword far [0x5800]
        """)
        assert (end.registers[16], end.registers[RSP], guest.selector(SS)) == (0x10101, STACK0 - 32, 0)
        assert end.frame[:4] == [CODE + 7, CODE64_3, USER_STACK, DATA3]


def test_64_bit_call_gate_with_a_bad_upper_half():
    with LongGuest(3) as guest:
        guest.descriptor(FREE, gate(CODE0, 0x10100, 12, dpl=3) + bytes.fromhex("0000000000010000"))
        guest.write(0x5800, struct.pack("<IH", 0, FREE | 3))
        end = guest.run("""
        ff1c2500580000  call dword far [0x5800]
        """)
        assert (end.vector, end.error) == (13, FREE)


# -- returns


def test_return_to_user_code_nulls_what_it_may_not_use():
    with ProtectedGuest() as guest:
        guest.write(0x10100, bytes.fromhex("8cd8 8cc3 8ce1 cd80"))  # mov eax, ds; mov ebx, es; mov ecx, fs; int 0x80
        guest.cpu.put_segment(FS, DATA3, 0, 0xFFFFFFFF, 0xC0F3)
        guest.cpu.put_segment(ES, CONFORMING, 0, 0xFFFFFFFF, 0xC09F)
        end = guest.run(TO_USER_32)
        assert [end.registers[n] for n in (RAX, RBX, RCX)] == [0, CONFORMING, DATA3]
        assert end.frame[:5] == [0x10108, CODE3, IF | 2, USER_STACK, DATA3]


@pytest.mark.parametrize(
    ("ss", "cs", "vector", "error"),
    [(0, CODE3, 13, 0), (DATA0, CODE3, 13, DATA0), (DATA3 & ~3, CODE3, 13, DATA3 & ~3), (CODE3, CODE3, 13, CODE3 & ~3),
     (DATA3, 0, 13, 0), (DATA3, CODE0 | 3, 13, CODE0), (DATA3, DATA3, 13, DATA3 & ~3), (DATA3, 0x1238, 13, 0x1238)],
)  # fmt: skip
def test_iret_checks_the_outer_frame_before_anything_changes(ss, cs, vector, error):
    with ProtectedGuest() as guest:
        guest.write(STACK - 20, struct.pack("<5I", 0x10100, cs, 0x3202, USER_STACK, ss))
        guest.cpu.put(RSP, STACK - 20)
        end = guest.run("""
        cf  iret
        """)
        assert (end.vector, end.error, end.returns[:2]) == (vector, error, [CODE, CODE0])
        assert end.registers[RSP] == STACK - 20 - 16


def test_iret_at_user_level_keeps_iopl_and_if():
    with ProtectedGuest(3) as guest:
        guest.cpu.put(RFLAGS, IF | 2)
        guest.write(0x10100, bytes.fromhex("cd80"))
        end = guest.run("""
        6801302400  push 0x243001
        6a1b        push 0x1b
        6800010100  push 0x10100
        cf          iret
        """)
        assert end.vector == 0x80
        assert end.frame[2] == 0x240203


def test_iret_to_virtual_8086_mode_and_back():
    with ProtectedGuest() as guest:
        guest.write(V86_CODE, bytes.fromhex("8cd8 cd80"))  # mov ax, ds; int 0x80
        frame = [V86_CODE - 0x1000, V86_SEGMENT, VM | IF | 0x3002, 0x7800, 0, 0x444, 0x50, 0x222, 0x111]
        guest.write(STACK - 36, struct.pack("<9I", *frame))
        guest.cpu.put(RSP, STACK - 36)
        end = guest.run("""
        cf  iret
        """)
        assert (end.vector, end.registers[RAX]) == (0x80, 0x50)
        assert end.frame[:9] == [frame[0] + 4, *frame[1:]]


def test_iret_leaves_the_upper_half_of_esp_for_a_16_bit_stack():
    with ProtectedGuest() as guest:
        guest.descriptor(FREE, descriptor(0, 0xFFFF, 0xF2))
        guest.write(STACK - 20, struct.pack("<5I", 0x10100, CODE3, 2, 0x11227000, FREE | 3))
        guest.write(0x10100, bytes.fromhex("89e0 cd80"))  # mov eax, esp; int 0x80
        guest.cpu.put(RSP, STACK - 20)
        assert (
            guest.run("""
        cf  iret
        """).registers[RAX]
            == 0x7000
        )


@pytest.mark.parametrize(("cs", "bits"), [(CODE64_3, 64), (CODE3, 32)])
def test_iretq_goes_to_64_bit_and_compatibility_code(cs, bits):
    with LongGuest() as guest:
        guest.write(0x10100, bytes.fromhex("cd80"))
        end = guest.run(
            TO_USER_64
            if bits == 64
            else """
        6a23        push 0x23
        6800b00000  push 0xb000
        6802020000  push 0x202
        6a1b        push 0x1b
        6800010100  push 0x10100
        48cf        iretq
        """
        )
        assert (end.vector, end.frame[:5]) == (0x80, [0x10102, cs, IF | 2, USER_STACK, DATA3])


def test_iretq_pops_the_stack_even_at_the_same_level():
    with LongGuest() as guest:
        guest.write(0x10100, b"\xf4")
        end = guest.run("""
        6a00        push 0
        6800980000  push 0x9800
        6a02        push 2
        6a08        push 8
        6800010100  push 0x10100
        48cf        iretq
        """)
        assert (end.registers[16], end.registers[RSP], guest.selector(SS)) == (0x10101, 0x9800, 0)


def test_iret_with_nt_in_long_mode_is_refused():
    with LongGuest() as guest:
        guest.cpu.put(RFLAGS, NT | 2)
        end = guest.run("""
        48cf  iretq
        """)
        assert (end.vector, end.error, end.returns[0]) == (13, 0, CODE)


def test_null_ss_is_for_64_bit_code_below_level_3():
    with LongGuest() as guest:
        assert (
            guest.run("""
        31c0  xor eax, eax
        8ed0  mov ss, eax
        f4    hlt
        """).vector
            is None
        )
    with LongGuest(3) as guest:
        assert (
            guest.run("""
        b803000000  mov eax, 3
        8ed0        mov ss, eax
        """).error
            == 0
        )


def test_far_return_with_parameters_to_an_outer_level():
    with ProtectedGuest() as guest:
        guest.write(0x10100, bytes.fromhex("cd80"))
        guest.write(STACK - 24, struct.pack("<6I", 0x10100, CODE3, 1, 2, USER_STACK, DATA3))
        guest.cpu.put(RSP, STACK - 24)
        end = guest.run("""
        ca0800  retf 8
        """)
        assert (end.vector, end.frame[3]) == (0x80, USER_STACK + 8)


def test_far_return_inward_is_refused():
    with ProtectedGuest(3) as guest:
        end = guest.run("""
        6a08        push 8
        6800010100  push 0x10100
        cb          retf
        """)
        assert (end.vector, end.error) == (13, CODE0)


def test_far_call_beyond_the_limit_leaves_the_stack_alone():
    with RealGuest() as guest:
        guest.write(0x5800, struct.pack("<IH", 0x10000, 0))
        guest.write(STACK - 8, b"\xaa" * 8)
        end = guest.run("""
        31c0        xor ax, ax
        8ed8        mov ds, ax
        66ff1e0058  call dword far [0x5800]
        """)
        assert end.vector == 13
        assert guest.read(STACK - 8, 2) == 0xAAAA
    with ProtectedGuest() as guest:
        guest.write(STACK - 8, b"\xaa" * 8)
        end = guest.run("""
        9a000001003800  call 0x38:0x10000
        """)
        assert (end.vector, end.error, end.returns[0]) == (13, 0, CODE)
