"""Debug registers and traps: breakpoints on code, data and ports, single steps, RF, GD, INT1 (SDM 3B chapter 18)."""

from __future__ import annotations

import pytest
from bare_guest import CODE, DATA0, RBX, RCX, RDI, RF, RFLAGS, RIP, RSP, STACK, TF, LongGuest, ProtectedGuest, RealGuest

B0, B1, B2, BD, BS = 1, 2, 4, 1 << 13, 1 << 14
DR6_FIXED, DR7_FIXED = 0xFFFF0FF0, 0x400
EXECUTE, WRITE, IO, ACCESS = range(4)
GENERAL_DETECT = 1 << 13


def armed(guest, number, address, kind, size=1):
    """Arm a breakpoint globally (SDM 3B 18.2.4)."""
    length = {1: 0, 2: 1, 8: 2, 4: 3}[size]
    guest.cpu.set_debug_register(number, address)
    guest.cpu.set_debug_register(7, DR7_FIXED | 2 << 2 * number | (kind | length << 2) << 16 + 4 * number)
    guest.cpu.put(RIP, CODE)


def status(guest):
    """DR6 without the bits that are always set."""
    return guest.cpu.get_debug_register(6) & ~DR6_FIXED


def test_code_breakpoint_stops_before_the_instruction_and_keeps_rf_clear():
    with ProtectedGuest() as guest:
        armed(guest, 0, CODE + 1, EXECUTE)
        end = guest.run("""
        90  nop
        43  inc ebx
        f4  hlt
        """)
        assert (end.vector, end.frame[0], end.registers[RBX], status(guest)) == (1, CODE + 1, 0, B0)
        assert not end.frame[2] & RF


def test_rf_lets_the_instruction_run_once():
    with ProtectedGuest() as guest:
        armed(guest, 0, CODE + 1, EXECUTE)
        guest.write(
            guest.handler_offset(1), bytes.fromhex("43 804c240a01 cf")
        )  # inc ebx; or byte [esp+10], 1 (RF); iretd
        end = guest.run(
            """
        90  nop
        41  inc ecx
        f4  hlt
        """,
            budget=100,
        )
        assert (end.vector, end.registers[RBX]) == (None, 1)


@pytest.mark.parametrize(
    ("kind", "size", "at", "text", "hit"),
    [
        (
            WRITE,
            4,
            0x5800,
            """
        a203580000  mov [0x5803], al
        90          nop
        f4          hlt
        """,
            True,
        ),
        (
            WRITE,
            4,
            0x5802,
            """
        a200580000  mov [0x5800], al
        90          nop
        f4          hlt
        """,
            True,
        ),
        (
            WRITE,
            4,
            0x5800,
            """
        a3fd570000  mov [0x57fd], eax
        90          nop
        f4          hlt
        """,
            True,
        ),
        (
            WRITE,
            4,
            0x5800,
            """
        a3fc570000  mov [0x57fc], eax
        90          nop
        f4          hlt
        """,
            False,
        ),
        (
            WRITE,
            1,
            0x5800,
            """
        a000580000  mov al, [0x5800]
        90          nop
        f4          hlt
        """,
            False,
        ),
        (
            ACCESS,
            1,
            0x5800,
            """
        a000580000  mov al, [0x5800]
        90          nop
        f4          hlt
        """,
            True,
        ),
        (
            ACCESS,
            2,
            0x5800,
            """
        a201580000  mov [0x5801], al
        90          nop
        f4          hlt
        """,
            True,
        ),
        (
            EXECUTE,
            1,
            0x5800,
            """
        a000580000  mov al, [0x5800]
        90          nop
        f4          hlt
        """,
            False,
        ),
    ],
)
def test_data_breakpoints_trap_after_the_access(kind, size, at, text, hit):
    with ProtectedGuest() as guest:
        armed(guest, 1, at, kind, size)
        end = guest.run(text)
        if hit:
            assert (end.vector, status(guest)) == (1, B1)
            assert end.frame[0] == CODE + len(bytes.fromhex(text.split()[0]))
        else:
            assert end.vector is None


def test_data_breakpoint_sees_implicit_stack_writes():
    with ProtectedGuest() as guest:
        armed(guest, 2, STACK - 4, WRITE, 4)
        end = guest.run("""
        50  push eax
        90  nop
        f4  hlt
        """)
        assert (end.vector, end.frame[0], status(guest)) == (1, CODE + 1, B2)


def test_port_breakpoint_needs_cr4_de():
    text = """
        e460  in al, 0x60
        90    nop
        f4    hlt
        """
    with ProtectedGuest() as guest:
        armed(guest, 0, 0x60, IO)
        assert guest.run(text).vector is None
        guest.cr4(8)
        end = guest.run(text)
        assert (end.vector, end.frame[0], status(guest)) == (1, CODE + 2, B0)


def test_code_breakpoint_on_a_repeated_instruction_fires_once():
    with ProtectedGuest() as guest:
        armed(guest, 0, CODE, EXECUTE)
        guest.write(
            guest.handler_offset(1), bytes.fromhex("43 804c240a01 cf")
        )  # inc ebx; or byte [esp+10], 1 (RF); iretd
        guest.cpu.put(RCX, 5)
        guest.cpu.put(RDI, 0x5800)
        end = guest.run(
            """
        f3aa  rep stosb
        f4    hlt
        """,
            budget=100,
        )
        assert (end.vector, end.registers[RBX], end.registers[RCX]) == (None, 1, 0)


def test_single_step_stops_between_repetitions_with_rf_set():
    with ProtectedGuest() as guest:
        guest.cpu.put(RCX, 5)
        guest.cpu.put(RDI, 0x5800)
        guest.cpu.put(RFLAGS, TF | 2)
        end = guest.run("""
        f3aa  rep stosb
        f4    hlt
        """)
        assert (end.vector, end.frame[0], end.registers[RCX]) == (1, CODE, 4)
        assert end.frame[2] & RF


@pytest.mark.parametrize("Guest", [RealGuest, ProtectedGuest, LongGuest])
def test_single_step_traps_after_every_instruction(Guest):
    with Guest() as guest:
        guest.cpu.put(RFLAGS, TF | 2)
        end = guest.run(bytes_of_nops(guest))
        assert (end.vector, end.frame[0], status(guest)) == (1, (0 if guest.word == 2 else CODE) + 1, BS)
        assert end.frame[2] & TF
        assert not end.registers[RFLAGS] & TF


def bytes_of_nops(guest):
    """NOP, NOP, HLT."""
    return "90 nop\n90 nop\nf4 hlt"


def test_popf_that_sets_tf_traps_one_instruction_later():
    with ProtectedGuest() as guest:
        end = guest.run("""
        6802010000  push 0x102
        9d          popf
        90          nop
        f4          hlt
        """)
        assert (end.vector, end.frame[0]) == (1, CODE + 7)


def test_mov_ss_holds_a_trap_back():
    with ProtectedGuest() as guest:
        guest.cpu.put(0, DATA0)
        guest.cpu.put(RFLAGS, TF | 2)
        end = guest.run("""
        8ed0  mov ss, eax
        90    nop
        90    nop
        f4    hlt
        """)
        assert (end.vector, end.frame[0]) == (1, CODE + 3)


def test_software_interrupt_under_tf_does_not_trap_in_the_handler():
    with ProtectedGuest() as guest:
        guest.cpu.put(RFLAGS, TF | 2)
        end = guest.run("""
        cd40  int 0x40
        """)
        assert (end.vector, end.frame[2]) == (0x40, TF | 2)


def test_fault_comes_instead_of_the_trap():
    with ProtectedGuest() as guest:
        guest.cpu.put(RFLAGS, TF | 2)
        end = guest.run("""
        0f0b  ud2
        """)
        assert (end.vector, end.frame[0], status(guest)) == (6, CODE, 0)


def test_int1_goes_through_vector_1_without_touching_dr6():
    with ProtectedGuest(3) as guest:
        end = guest.run("""
        f1  int1
        """)
        assert (end.vector, end.frame[0], status(guest)) == (1, CODE + 1, 0)


@pytest.mark.parametrize(
    ("text", "times"),
    [("f1 int1", 1), ("cd01 int 1", 2), ("90 nop", 1)],
)
def test_a_data_breakpoint_of_mov_ss_waits_for_the_next_instruction_and_is_lost_in_int1(text, times):
    """INT n comes through the IDT by itself, and the breakpoint before its handler's first instruction."""
    with ProtectedGuest() as guest:
        guest.write(0xD000, DATA0.to_bytes(4, "little"))
        armed(guest, 1, 0xD000, ACCESS, 4)
        guest.write(guest.handler_offset(1), bytes.fromhex("47 cf"))  # inc edi; iretd
        guest.cpu.put(RBX, 0xD000)
        end = guest.run(f"""
        8e13  mov ss, [ebx]
        {text}
        f4    hlt
        """)
        assert (end.vector, end.registers[RDI]) == (None, times)


def test_int1_behind_mov_ss_is_no_single_step():
    with ProtectedGuest() as guest:
        guest.cpu.put(0, DATA0)
        guest.cpu.put(RFLAGS, TF | 2)
        end = guest.run("""
        8ed0  mov ss, eax
        f1    int1
        f4    hlt
        """)
        assert (end.vector, end.frame[0], status(guest)) == (1, CODE + 3, 0)


def test_general_detect_behind_mov_ss_comes_at_once_and_without_the_step():
    with ProtectedGuest() as guest:
        guest.cpu.put(0, DATA0)
        guest.cpu.put(RFLAGS, TF | 2)
        guest.cpu.set_debug_register(7, DR7_FIXED | GENERAL_DETECT)
        end = guest.run("""
        8ed0    mov ss, eax
        0f23f3  mov dr6, ebx
        f4      hlt
        """)
        assert (end.vector, end.frame[0], status(guest)) == (1, CODE + 2, BD)


def test_single_step_traps_behind_sti():
    with ProtectedGuest() as guest:
        guest.cpu.put(RFLAGS, TF | 2)
        end = guest.run("""
        fb  sti
        90  nop
        f4  hlt
        """)
        assert (end.vector, end.frame[0], status(guest)) == (1, CODE + 1, BS)


def test_general_detect_guards_the_debug_registers_once():
    with ProtectedGuest() as guest:
        guest.cpu.set_debug_register(7, DR7_FIXED | GENERAL_DETECT)
        end = guest.run("""
        0f21c3  mov ebx, dr0
        """)
        assert (end.vector, end.frame[0], status(guest)) == (1, CODE, BD)
        assert guest.cpu.get_debug_register(7) == DR7_FIXED


def test_dr4_and_dr5_are_aliases_unless_de():
    text = """
        0f21e3  mov ebx, dr4
        f4      hlt
        """
    with ProtectedGuest() as guest:
        guest.cpu.set_debug_register(6, DR6_FIXED | 3)
        assert guest.run(text).registers[RBX] == DR6_FIXED | 3
        guest.cr4(8)
        assert guest.run(text).vector == 6


def test_reserved_bits_of_dr6_and_dr7_keep_their_values():
    with ProtectedGuest() as guest:
        guest.run("""
        31c0    xor eax, eax
        0f23f0  mov dr6, eax
        0f23f8  mov dr7, eax
        f4      hlt
        """)
        assert [guest.cpu.get_debug_register(n) for n in (6, 7)] == [DR6_FIXED, DR7_FIXED]
    with LongGuest() as guest:
        end = guest.run("""
        b801000000  mov eax, 1
        48c1e020    shl rax, 0x20
        0f23f8      mov dr7, rax
        """)
        assert (end.vector, end.error, end.returns[0]) == (13, 0, CODE + 9)


def test_user_code_may_not_touch_debug_registers():
    with ProtectedGuest(3) as guest:
        end = guest.run("""
        0f21f8  mov eax, dr7
        """)
        assert (end.vector, end.error) == (13, 0)
        assert guest.cpu.get(RSP) < STACK
