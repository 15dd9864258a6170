"""x87's instructions on a processor that has no x87."""

from __future__ import annotations

import pytest

from belljar.machine import Machine

START = 0x1000
HANDLER = START + 0x80

INVALID_OPCODE, DEVICE_NOT_AVAILABLE = 6, 7


def vector_of(code: str, cr0: int) -> int:
    """The vector of the exception that an instruction raises in real mode with these bits of CR0, 0 for none."""
    setup = "".join(
        f"c706{4 * vector:02x}00{HANDLER + 8 * vector & 0xFF:02x}{HANDLER >> 8:02x} c706{4 * vector + 2:02x}000000"  # IVT
        for vector in (INVALID_OPCODE, DEVICE_NOT_AVAILABLE)
    )
    setup += f"0f20c0 6683c8{cr0:02x} 0f22c0 31db"  # mov eax, cr0; or eax, ...; mov cr0, eax; xor bx, bx
    program = bytearray(bytes.fromhex(setup + code + "f4")).ljust(HANDLER - START, b"\xf4")
    for vector in range(8):
        program += bytes([0xBB, vector, 0, 0xF4]).ljust(8, b"\xf4")  # mov bx, vector; hlt
    with Machine(bytes(program), engine="soft", mode="real", load_gpa=START) as machine:
        machine.run(timeout=10)
        return machine.cpu["rbx"] & 0xFFFF


def test_detection_finds_that_there_is_none() -> None:
    code = bytes.fromhex(
        "dbe3 d93e0050 dd3e0250 b83412 dfe0 f4"
    )  # fninit; fnstcw [5000]; fnstsw [5002]; mov ax; fnstsw ax
    with Machine(code, engine="soft", mode="real") as machine:
        machine.run(timeout=10)
        assert machine.memory.read(0x5000, 4) == b"\xff\xff\xff\xff"
        assert machine.cpu["rax"] & 0xFFFF == 0xFFFF
        assert machine.cpu.rip == 0x1000 + len(code)


@pytest.mark.parametrize("code", ["dbe3", "d93e0050", "dfe0", "d9e8", "d800", "de4020", "dd3f", "dbe2"])
@pytest.mark.parametrize("cr0", [4, 8, 12])
def test_emulated_or_switched_state_is_asked_for(code: str, cr0: int) -> None:
    assert vector_of(code, cr0) == DEVICE_NOT_AVAILABLE


@pytest.mark.parametrize("code", ["d9e8", "d800", "de4020", "dbe2", "dfe1", "d938"[:2] + "30"])
def test_everything_else_is_not_there(code: str) -> None:
    assert vector_of(code, 0) == INVALID_OPCODE


def test_wait_asks_only_where_it_is_monitored() -> None:
    assert [vector_of("9b", cr0) for cr0 in (0, 2, 4, 8, 10)] == [0, 0, 0, 0, DEVICE_NOT_AVAILABLE]


def test_lock_is_for_none_of_them() -> None:
    assert vector_of("f0d93e0050", 0) == INVALID_OPCODE
