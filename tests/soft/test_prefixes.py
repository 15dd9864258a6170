"""Every combination of prefixes up to fifteen bytes, against the real CPU: meaning, order, redundancy, the length limit."""

from __future__ import annotations

import itertools
import random

import pytest

from oracles.cases import Case
from oracles.exam import examine
from oracles.on_linux import like_process
from oracles.operands import corner
from oracles.worlds import CODE, DATA, STACK

LEGACY = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3)
REX = tuple(range(0x40, 0x50))
BODIES = {
    "add [rdi], eax": "0107", "add eax, [rdi]": "0307", "mov al, imm8": "b05a", "mov eax, imm32": "b878563412", "inc r/m": "ff07",
    "xchg [rdi], ecx": "870f", "movsb": "a4", "stosd": "ab", "cmpsb": "a6", "scasd": "af", "lodsd": "ad", "nop": "90",
    "push rax": "50",
    "pop rcx": "59", "push imm8": "6a80", "imul": "6b4f0810", "movzx": "0fb607", "bsf": "0fbc07", "bsr": "0fbd0f",
    "popcnt": "0fb807", "bswap": "0fc8", "cmpxchg": "0fb10f", "xadd": "0fc10f", "setc": "0f9207", "jmp short": "eb03",
    "lea": "8d4f10", "shl": "d3e0", "test": "a900000080", "cwde": "98", "cdq": "99", "bts": "0fab07", "movbe": "0f38f007",
    "crc32 or movbe": "0f38f107", "andn": "c4e270f207", "ret": "c3", "leave": "c9", "multi-byte nop": "0f1f4000", "xlat": "d7",
}  # fmt: skip
UNDEFINED = {
    "6b4f0810": 0xD4,
    "0fbc07": 0x8D5,
    "0fbd0f": 0x8D5,
    "d3e0": 0x811,
    "0fab07": 0x894,
    "a900000080": 0x10,
    "c4e270f207": 0x14,
}
"""Flags that some bodies leave undefined, with whatever prefixes (SDM 2A-2B)."""
LENGTHS = 15
"""An instruction longer than this is #GP (SDM 2A 2.3.11)."""


def one(prefixes, body, rng, bits):
    """A case with valid pointers, wherever the prefixes let them point."""
    width = 64 if bits == 64 else 32
    registers = {name: corner(rng, width) for name in ("rax", "rdx", "rbp")}
    registers |= {
        "rbx": DATA + 0x400,
        "rcx": rng.randrange(4),
        "rsi": DATA + 0x200,
        "rdi": DATA + 0x600,
        "rsp": STACK + 0x800,
    }
    registers["rbp"] = STACK + 0x900
    flags = 0x202 | rng.getrandbits(12) & 0x8D5
    memory = {STACK + 0x800: (CODE + 0x123).to_bytes(8, "little"), STACK + 0x900: (CODE + 0x123).to_bytes(8, "little")}
    memory[STACK + 0x908] = memory[STACK + 0x800]
    return Case(
        bytes(prefixes) + bytes.fromhex(body),
        registers,
        flags,
        memory,
        note="prefixes",
        undefined_flags=UNDEFINED.get(body, 0),
    )


def combinations(bits, rng, count):
    """All pairs and many longer rows of prefixes, each with every body or some of them."""
    rex = (*REX, None) if bits == 64 else (None,)
    for pair in itertools.product((None, *LEGACY), repeat=2):
        for body in rng.sample(sorted(BODIES.values()), 6):
            yield [prefix for prefix in (*pair, rng.choice(rex)) if prefix is not None], body
    for _ in range(count):
        row = [rng.choice(LEGACY) for _ in range(rng.randrange(15))]
        if bits == 64 and rng.random() < 0.5:
            row.insert(rng.randrange(len(row) + 1), rng.choice(REX))
        yield row, rng.choice(sorted(BODIES.values()))


def vendor_specific(case, bits):
    """66 before a near branch in 64-bit code: AMD's CPUs take it for 16 bits, Intel's (and belljar) ignore it."""
    return bits == 64 and 0x66 in case.code[:-1] and case.code[-1] == 0xC3


def like_process_or_first_fault(case, expected, got):
    """Too long and no instruction at all: which of the two faults comes is the CPU's choice (SDM 3A table 6-2)."""
    undefined = b"\x0f\x38" in case.code or b"\xc4\xe2" in case.code
    if len(case.code) > LENGTHS and undefined and {expected.vector, got.vector} == {6, 13}:
        return []
    return like_process(case, expected, got)


def run(world, bits, tested, on_linux, count, seed):
    """Put all combinations to both."""
    rng = random.Random(f"prefixes {seed}")
    cases = (one(row, body, rng, bits) for row, body in combinations(bits, rng, count))
    same = (case for case in cases if not vendor_specific(case, bits))
    exam = examine(same, on_linux(world), tested(world), like_process_or_first_fault)
    exam.verdict(pytest.skip)


@pytest.mark.parametrize(("world", "bits"), [("long-user", 64), ("compat-user", 32), ("compat16-user", 16)])
def test_prefix_combinations_mean_what_they_mean_to_the_real_cpu(world, bits, tested, on_linux):
    run(world, bits, tested, on_linux, 2500, 0)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize(("world", "bits"), [("long-user", 64), ("compat-user", 32), ("compat16-user", 16)])
def test_many_prefix_combinations(world, bits, seed, tested, on_linux):
    run(world, bits, tested, on_linux, 100_000, seed)


@pytest.mark.parametrize("body", ["90", "40", "0107", "0fb607", "b878563412"])
@pytest.mark.parametrize("length", range(1, 18))
@pytest.mark.parametrize("world", ["long-user", "compat-user"])
def test_instruction_of_more_than_fifteen_bytes_is_a_fault(world, length, body, tested, on_linux):
    code = b"\x3e" * max(0, length - len(body) // 2) + bytes.fromhex(body)
    case = Case(code, {"rdi": DATA}, 0x202, undefined_flags=0x8D5)
    got = tested(world).ask(case)
    if len(code) > LENGTHS:
        assert (got.vector, got.error, got.rip) == (13, 0, CODE)
    exam = examine([case], on_linux(world), tested(world), like_process)
    exam.verdict(pytest.skip)
