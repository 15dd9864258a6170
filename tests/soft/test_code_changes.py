"""Code that changes while it runs, and code and data that cross pages: what a decoder that keeps its work must not miss."""

from __future__ import annotations

import random

import pytest
from bare_guest import RBX, RIP, LongGuest

from oracles.cases import Case, Stop
from oracles.on_linux import like_process
from oracles.worlds import CODE, CODE_SIZE, DATA, STACK

PAGE_END = CODE + CODE_SIZE // 2
WORLDS = ("long", "long-user", "compat-user", "protected")


def outcome(world, tested, code, registers=None, memory=None, offset=None):
    """What the engine on trial makes of some bytes."""
    return tested(world).ask(Case(code, registers or {}, 0x202 if "user" in world else 2, memory or {}, offset=offset))


def both(world, tested, on_linux, case):
    """The engine on trial and the real CPU agree; the outcome."""
    got = tested(world).ask(case)
    assert not like_process(case, on_linux(world).ask(case), got), case
    return got


@pytest.mark.parametrize("world", WORLDS)
def test_code_patches_the_very_next_instruction(world, tested):
    # mov byte [rdi], imm8 of the following mov al: C6 07 2A; B0 00; hlt
    got = outcome(world, tested, bytes.fromhex("c6072ab000"), {"rdi": CODE + 4, "rax": 0})
    assert got.stop is Stop.HALT
    assert got.registers[0] == 0x2A


@pytest.mark.parametrize("world", WORLDS)
def test_loop_patches_its_own_body_on_every_turn(world, tested):
    # loop: inc byte [rdi]; add eax, imm8 (the byte patched); dec ecx; jnz loop
    code = bytes.fromhex("fe0783c000" + "ffc9" + "75f7")
    got = outcome(world, tested, code, {"rdi": CODE + 4, "rax": 0, "rcx": 20})
    assert got.registers[0] == sum(range(1, 21))


@pytest.mark.parametrize("world", WORLDS)
def test_code_that_already_ran_is_patched_from_another_page(world, tested):
    # first: mov eax, 1 / ret on page 2; call it, patch it to 2, call it again: both sums add to 3
    function = PAGE_END + 0x10
    main = bytes.fromhex(
        "ffd6" + "89c3" + "c6470102" + "ffd6" + "01d8"
    )  # call rsi; mov ebx, eax; mov byte [rdi+1], 2; call; add
    got = outcome(
        world, tested, main, {"rsi": function, "rdi": function, "rax": 0, "rsp": STACK + 0x800},
        {function: bytes.fromhex("b801000000c3")},
    )  # fmt: skip
    assert got.stop is Stop.HALT
    assert got.registers[0] == 3


@pytest.mark.parametrize("world", WORLDS)
def test_string_store_overwrites_code_ahead_of_itself(world, tested):
    # rep stosb writes 90 (nop) over four inc eax that follow it
    fill = b"\xf3\xaa" + b"\xff\xc0" * 4
    got = outcome(world, tested, fill, {"rdi": CODE + 2, "rcx": 8, "rax": 0x90})
    assert got.stop is Stop.HALT
    assert got.registers[0] == 0x90
    assert got.rip == CODE + 10


@pytest.mark.parametrize("world", WORLDS)
def test_push_overwrites_the_code_that_follows(world, tested):
    # the stack lies in the code: push rcx writes over the inc eax behind it
    size = 8 if world.startswith("long") else 4
    code = b"\x51" + b"\xff\xc0" * 8
    got = outcome(world, tested, code, {"rsp": CODE + 1 + size, "rcx": 0x9090909090909090 >> (64 - 8 * size), "rax": 0})
    assert got.stop is Stop.HALT
    assert got.registers[0] == 8 - size // 2


@pytest.mark.parametrize("split", range(1, 12))
@pytest.mark.parametrize("world", WORLDS)
def test_instruction_across_a_page_boundary(world, split, tested):
    # 12 bytes: lock add dword [rdi + disp32], imm32 with a segment prefix
    code = bytes.fromhex("3ef08187" + "10000000" + "78563412")
    got = outcome(world, tested, code, {"rdi": DATA}, {DATA + 0x10: bytes(4)}, PAGE_END - split)
    assert got.stop is Stop.HALT
    assert got.memory[DATA][0x10:0x14] == bytes.fromhex("78563412")


@pytest.mark.parametrize("split", range(1, 6))
def test_second_half_of_an_instruction_is_patched(split, tested):
    # an instruction that crosses pages runs, its second page is written, it runs again
    target = PAGE_END - split
    instruction = bytes.fromhex("b811111111c3")  # mov eax, 11111111h; ret
    main = bytes.fromhex(
        "ffd6" + "89c3" + "c6470422" + "ffd6"
    )  # call rsi; mov ebx, eax; mov byte [rdi+4], 22h; call rsi
    got = outcome("long", tested, main, {"rsi": target, "rdi": target, "rsp": STACK + 0x800}, {target: instruction})
    assert got.registers[3] == 0x11111111
    assert got.registers[0] == 0x22111111


@pytest.mark.parametrize("world", ["long-user", "compat-user"])
def test_fetch_that_runs_into_an_absent_page_faults_there(world, tested, on_linux):
    end = CODE + CODE_SIZE
    case = Case(bytes.fromhex("b811"), {}, 0x202, {}, offset=end - 2)
    got = both(world, tested, on_linux, case)
    assert (got.vector, got.cr2, got.rip) == (14, end, end - 2)


@pytest.mark.parametrize("world", ["long-user", "compat-user"])
def test_store_across_into_an_absent_page_changes_nothing(world, tested, on_linux):
    end = 0xD000 - 2  # the page behind the data window is read-only
    case = Case(bytes.fromhex("8907"), {"rdi": end, "rax": 0x12345678}, 0x202)
    got = both(world, tested, on_linux, case)
    assert (got.vector, got.error & 7, got.cr2) == (14, 7, 0xD000)
    assert not got.memory


FUNCTION_SIZE = 5
FUNCTIONS = 0x20000


@pytest.mark.parametrize("seed", range(6))
def test_functions_patched_at_random_give_what_memory_says_at_each_call(seed):
    """Functions side by side and across a page's end; stores of every size put new numbers, and the same code, over them."""
    rng = random.Random(seed)
    starts, at = [], FUNCTIONS
    while at < FUNCTIONS + 0x1100:
        starts.append(at)
        at += FUNCTION_SIZE + rng.choice((0, 0, 0, 3, 40, 90))
    memory = bytearray(0x1200)
    for start in starts:
        at = start - FUNCTIONS
        memory[at : at + FUNCTION_SIZE] = bytes(
            [0xB0, rng.randrange(256), 0x00, 0xC3, 0xC3]
        )  # mov al, n; add bl, al; ret
    program, expected, image = bytearray(b"\x31\xdb"), 0, bytes(memory)  # xor ebx, ebx
    for _ in range(400):
        if rng.random() < 0.5:
            start = rng.choice(starts[-3:] if rng.random() < 0.2 else starts)
            program += b"\xbe" + start.to_bytes(4, "little") + b"\xff\xd6"  # mov esi, start; call rsi
            expected += memory[start - FUNCTIONS + 1]
            continue
        size = rng.choice((1, 2, 4, 8))
        number = rng.choice(starts) - FUNCTIONS + 1
        at = max(0, number - rng.randrange(size))
        memory[number] = rng.randrange(256)
        value = bytes(memory[at : at + size]).ljust(8, b"\0")
        program += b"\x48\xba" + value + b"\xbf" + (FUNCTIONS + at).to_bytes(4, "little")  # mov rdx, value; mov edi, at
        program += {1: b"\x88\x17", 2: b"\x66\x89\x17", 4: b"\x89\x17", 8: b"\x48\x89\x17"}[size]  # mov [rdi], rdx
    with LongGuest() as guest:
        guest.write(FUNCTIONS, image)
        guest.write(0x40000, bytes(program) + b"\xf4")
        guest.cpu.put(RIP, 0x40000)
        end = guest.resume()
        assert end.vector is None
        assert end.registers[RBX] & 0xFF == expected & 0xFF
