"""Task switches by JMP, CALL, IRET and through task gates, between 32-bit and 16-bit TSSs (SDM 3A 7.3)."""

from __future__ import annotations

import struct

import pytest
from bare_guest import (
    CODE,
    CODE0,
    DATA0,
    FREE,
    GDT,
    IF,
    LDTR,
    NT,
    RBX,
    RCX,
    RFLAGS,
    RSP,
    SIZE,
    SS,
    STACK,
    TR,
    TSS,
    TSS2,
    TSS2_SELECTOR,
    TSS_SELECTOR,
    V86_CODE,
    V86_SEGMENT,
    VM,
    LongGuest,
    ProtectedGuest,
    descriptor,
    gate,
)  # fmt: skip

NEW_CODE, NEW_STACK = 0x10200, 0xF000
EPT_VIOLATION = 48
TS = 8
"""CR0.TS (SDM 3A 2.5)."""


def tss32(rip=NEW_CODE, *, flags=2, cs=CODE0, ss=DATA0, ds=DATA0, ldt=0, trap=0):
    """A 32-bit TSS (SDM 3A 7.2.1): EAX to EDI are 1 to 8, but for ESP."""
    registers = struct.pack("<8I", 1, 2, 3, 4, NEW_STACK, 6, 7, 8)
    segments = struct.pack("<6I", ds, cs, ss, ds, ds, ds)
    return bytes(0x20) + struct.pack("<II", rip, flags) + registers + segments + struct.pack("<IHH", ldt, trap, 0x68)


def tss16(ip=0x4000):
    """A 16-bit TSS (SDM 3A 7.6)."""
    words = struct.pack("<10H", ip, 2, 1, 2, 3, 4, NEW_STACK, 6, 7, 8)
    return bytes(0x0E) + words + struct.pack("<5H", DATA0, CODE0, DATA0, DATA0, 0)


def task_guest(image=None, *, kind=0x89, limit=0x67):
    """A guest with a second task at TSS2, a task gate to it at FREE, and HLT as its code."""
    guest = ProtectedGuest()
    guest.write(TSS2, image or tss32())
    guest.descriptor(TSS2_SELECTOR, descriptor(TSS2, limit, kind))
    guest.descriptor(FREE, gate(TSS2_SELECTOR, 0, 5))
    guest.write(NEW_CODE, b"\xf4")
    return guest


def busy(guest, selector):
    """Whether a TSS descriptor is busy."""
    return guest.read(GDT + selector + 5, 1) >> 1 & 1


JUMP = """
        ea000000006000  jmp 0x60:0
        """
CALL = """
        9a000000006000  call 0x60:0
        0f20c1          mov ecx, cr0
        f4              hlt
        """
CALL_GATE = """
        9a000000007000  call 0x70:0
        f4              hlt
        """


def test_jump_saves_the_old_task_and_loads_the_new():
    with task_guest() as guest:
        guest.cpu.put(RBX, 0x11223344)
        guest.cpu.put_segment(LDTR, 0x78, 0, 0, 0x82)
        end = guest.run(JUMP)
        assert end.registers[16] == NEW_CODE + 1
        assert end.registers[:8] == [1, 2, 3, 4, NEW_STACK, 6, 7, 8]
        assert (guest.selector(TR), guest.attributes(TR), guest.selector(LDTR)) == (TSS2_SELECTOR, 0x8B, 0)
        assert guest.read(TSS + 0x20, 4) == CODE + 7
        assert guest.read(TSS + 0x34, 4) == 0x11223344
        assert [guest.read(TSS + at, 4) for at in (0x38, 0x4C, 0x50)] == [STACK, CODE0, DATA0]
        assert (busy(guest, TSS_SELECTOR), busy(guest, TSS2_SELECTOR)) == (0, 1)
        assert guest.cpu.get_control()[0] & TS
        assert not end.registers[RFLAGS] & NT


@pytest.mark.parametrize("text", [CALL, CALL_GATE])
def test_call_nests_and_iret_returns(text):
    with task_guest() as guest:
        guest.write(NEW_CODE, bytes.fromhex("9c 5b cf"))  # pushfd; pop ebx; iretd
        end = guest.run(text)
        assert end.vector is None
        assert (end.registers[RBX], end.registers[RSP], guest.selector(TR)) == (0, STACK, TSS_SELECTOR)
        assert guest.read(TSS2, 2) == TSS_SELECTOR
        assert guest.read(TSS2 + 0x34, 4) & NT  # EBX of the task: flags while it ran
        assert not guest.read(TSS2 + 0x24, 4) & NT
        assert guest.read(TSS2 + 0x20, 4) == NEW_CODE + 3
        assert (busy(guest, TSS_SELECTOR), busy(guest, TSS2_SELECTOR)) == (1, 0)


def test_call_to_a_16_bit_task_and_back():
    with task_guest(tss16(), kind=0x81, limit=0x2B) as guest:
        guest.write(0x4000, bytes.fromhex("89d8 cf"))  # mov eax, ebx; iretd
        end = guest.run(CALL)
        assert end.vector is None
        assert guest.read(TSS2 + 0x12, 2) == 4
        assert guest.read(TSS2 + 0x0E, 2) == 0x4003
        assert end.registers[RCX] & TS


@pytest.mark.parametrize(
    ("kind", "limit", "vector"),
    [(0x8B, 0x67, 13), (0x09, 0x67, 11), (0x89, 0x66, 10), (0x81, 0x2A, 10), (0x82, 0x67, 13)],
)
def test_a_task_that_cannot_be_entered_leaves_everything_alone(kind, limit, vector):
    with task_guest(kind=kind, limit=limit) as guest:
        end = guest.run(JUMP)
        assert (end.vector, end.error, end.returns[0]) == (vector, TSS2_SELECTOR, CODE)
        assert (guest.selector(TR), busy(guest, TSS_SELECTOR)) == (TSS_SELECTOR, 1)


def test_iret_to_a_task_that_is_not_busy_is_an_invalid_tss():
    with task_guest() as guest:
        guest.write(TSS, struct.pack("<H", TSS2_SELECTOR))
        guest.cpu.put(RFLAGS, NT | 2)
        end = guest.run("""
        cf  iret
        """)
        assert (end.vector, end.error, end.returns[0]) == (10, TSS2_SELECTOR, CODE)


def test_exception_through_a_task_gate_finds_its_error_code_on_the_new_stack():
    with task_guest() as guest:
        guest.idt(13, gate(TSS2_SELECTOR, 0, 5))
        end = guest.run("""
        b834120000  mov eax, 0x1234
        8ed8        mov ds, eax
        """)
        assert (end.registers[16], end.registers[RSP]) == (NEW_CODE + 1, NEW_STACK - 4)
        assert end.frame[0] == 0x1234
        assert end.registers[RFLAGS] & NT
        assert guest.read(TSS + 0x20, 4) == CODE + 5
        assert guest.read(TSS + 0x24, 4) & 1 << 16  # RF


def test_double_fault_task_saves_a_machine_whose_stack_is_gone():
    with task_guest() as guest:
        guest.idt(8, gate(TSS2_SELECTOR, 0, 5))
        guest.cpu.put(RSP, 2)
        guest.cpu.put_segment(SS, DATA0, 0, 0xFFFF, 0xC093)
        end = guest.run("""
        50  push eax
        """)
        assert (end.registers[16], end.frame[0], guest.read(TSS + 0x20, 4)) == (NEW_CODE + 1, 0, CODE)


@pytest.mark.parametrize(
    ("fields", "vector", "error"),
    [
        ({"ds": 0x1238}, 10, 0x1238),
        ({"ds": CODE0 | 3}, 10, CODE0),
        ({"ds": 0x90}, 11, 0x90),
        ({"ldt": DATA0}, 10, DATA0),
        ({"ldt": 0x7C}, 10, 0x7C),
    ],
)
def test_bad_selectors_of_a_new_task_fault_in_the_new_task(fields, vector, error):
    with task_guest(tss32(**fields)) as guest:
        guest.descriptor(0x80, descriptor(0x8800, 0x67, 0x89))
        guest.write(0x8800, tss32(0x10300))
        guest.idt(vector, gate(0x80, 0, 5))
        guest.write(0x10300, b"\xf4")
        end = guest.run(JUMP)
        assert (end.registers[16], end.frame[0]) == (0x10301, error)
        assert guest.read(TSS2 + 0x20, 4) == NEW_CODE
        assert guest.read(0x8800, 2) == TSS2_SELECTOR


@pytest.mark.parametrize("text", [JUMP, CALL])
def test_vm_exit_in_the_middle_of_a_switch_takes_it_back(text):
    with task_guest(tss32(ds=4, ldt=0x80)) as guest:
        guest.descriptor(0x80, descriptor(SIZE, 0xFF, 0x82))  # an LDT where no memory is: loading DS exits
        guest.cpu.put(RBX, 0x77)
        end = guest.run(text)
        assert (end.reason, end.registers[16], end.registers[RBX]) == (EPT_VIOLATION, CODE, 0x77)
        assert (guest.selector(TR), guest.selector(LDTR), end.registers[RSP]) == (TSS_SELECTOR, 0, STACK)
        assert (busy(guest, TSS_SELECTOR), busy(guest, TSS2_SELECTOR)) == (1, 0)
        guest.descriptor(0x80, descriptor(0x8800, 0xFF, 0x82))
        guest.write(0x8800, descriptor(0, 0xFFFF, 0x92))
        end = guest.run(text)
        assert (end.registers[16], guest.selector(TR)) == (NEW_CODE + 1, TSS2_SELECTOR)


def test_trap_bit_stops_the_new_task_before_its_first_instruction():
    with task_guest(tss32(trap=1)) as guest:
        end = guest.run(JUMP)
        assert (end.vector, end.frame[0]) == (1, NEW_CODE)
        assert guest.cpu.get_debug_register(6) & 1 << 15


def test_switch_ends_local_breakpoints_only():
    with task_guest() as guest:
        guest.cpu.set_debug_register(7, 0x7FF)
        guest.run(JUMP)
        assert guest.cpu.get_debug_register(7) & 0x3FF == 0x2AA


def test_task_of_virtual_8086_mode():
    image = tss32(V86_CODE - 0x1000, flags=VM | IF | 0x3002, cs=V86_SEGMENT, ss=0, ds=0x50)
    with task_guest(image) as guest:
        guest.write(TSS2 + 4, struct.pack("<II", 0x9000, DATA0))
        guest.write(V86_CODE, bytes.fromhex("8cd9 cd80"))  # mov cx, ds; int 0x80
        end = guest.run(JUMP)
        assert (end.vector, end.registers[RCX]) == (0x80, 0x50)
        assert end.frame[1:3] == [V86_SEGMENT, VM | IF | 0x3002]


def test_long_mode_has_no_task_switches():
    with LongGuest() as guest:
        guest.descriptor(FREE, descriptor(TSS2, 0x67, 0x89) + bytes(8))
        guest.write(0x5800, struct.pack("<IH", 0, FREE))
        end = guest.run("""
        ff2c2500580000  jmp dword far [0x5800]
        """)
        assert (end.vector, end.error) == (13, FREE)
