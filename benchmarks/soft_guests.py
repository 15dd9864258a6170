"""The code that the soft engine and Unicorn are timed on: 64-bit, position fixed, ended by HLT."""

from __future__ import annotations

import random
import struct

LOAD_GPA = 0x100000
DATA_GPA = 0x400000
STACK_TOP = 0x3F0000
MEMORY = 16 << 20

REGISTER_TURNS = 40_000_000
MEMORY_TURNS = 60
FIB = 29
WIDE_TURNS = 600_000
FUNCTIONS, FORKS = 1500, 4
"""Each function forks and joins that often: about 14,000 basic blocks in all."""


def register_loop() -> bytes:
    """Count down: two instructions a turn."""
    return (
        b"\x48\xc7\xc1" + struct.pack("<I", REGISTER_TURNS)  # mov rcx, turns
        + b"\x48\xff\xc9"                                    # again: dec rcx
        + b"\x75\xfb"                                        # jnz again
        + b"\xf4"                                            # hlt
    )  # fmt: skip


def memory_loop() -> bytes:
    """Load, add and store back every quadword of 1 MiB, over and over."""
    return (
        b"\xb9" + struct.pack("<I", MEMORY_TURNS)            # mov ecx, turns
        + b"\xbb" + struct.pack("<I", DATA_GPA)              # outer: mov ebx, data
        + b"\xba" + struct.pack("<I", (1 << 20) // 8)        # mov edx, quadwords
        + b"\x48\x8b\x03"                                    # inner: mov rax, [rbx]
        + b"\x48\x01\xd0"                                    # add rax, rdx
        + b"\x48\x89\x03"                                    # mov [rbx], rax
        + b"\x48\x83\xc3\x08"                                # add rbx, 8
        + b"\xff\xca"                                        # dec edx
        + b"\x75\xef"                                        # jnz inner
        + b"\xff\xc9"                                        # dec ecx
        + b"\x75\xe1"                                        # jnz outer
        + b"\xf4"
    )  # fmt: skip


def calls() -> bytes:
    """Fibonacci by recursion: calls, returns, pushes and pops."""
    function = (
        b"\x83\xff\x02"                                      # fib: cmp edi, 2
        + b"\x7d\x03"                                        # jge more
        + b"\x89\xf8\xc3"                                    # mov eax, edi; ret
        + b"\x57"                                            # more: push rdi
        + b"\xff\xcf"                                        # dec edi
        + b"\xe8" + struct.pack("<i", -16)                   # call fib
        + b"\x5f"                                            # pop rdi
        + b"\x50"                                            # push rax
        + b"\x83\xef\x02"                                    # sub edi, 2
        + b"\xe8" + struct.pack("<i", -26)                   # call fib
        + b"\x5a"                                            # pop rdx
        + b"\x01\xd0\xc3"                                    # add eax, edx; ret
    )  # fmt: skip
    return b"\xbf" + struct.pack("<I", FIB) + b"\xe8\x01\x00\x00\x00" + b"\xf4" + function


def wide() -> bytes:
    """Thousands of small blocks called in random order, as a kernel's are."""
    rng = random.Random(1)
    bodies = []
    for _ in range(FUNCTIONS):
        body = b""
        for _ in range(FORKS):
            then = b"\x81\xc3" + rng.randbytes(4)  # add ebx, imm32
            other = b"\x81\xf3" + rng.randbytes(4)  # xor ebx, imm32
            body += b"\x0f\xba\xe0" + bytes([rng.randrange(32)])  # bt eax, imm8
            body += b"\x73" + bytes([len(then) + 2]) + then + b"\xeb" + bytes([len(other)]) + other
        bodies.append(body + b"\xc3")
    main_size = 64
    table_gva = LOAD_GPA + main_size
    at, table, code = table_gva + 8 * FUNCTIONS, b"", b""
    for body in bodies:
        table += struct.pack("<Q", at + len(code))
        code += body
    main = (
        b"\xb9" + struct.pack("<I", WIDE_TURNS)                              # mov ecx, turns
        + b"\x49\xbc" + struct.pack("<Q", 0x9E3779B97F4A7C15)                # mov r12, seed
        + b"\x49\xbd" + struct.pack("<Q", 6364136223846793005)               # mov r13, multiplier
        + b"\x4d\x0f\xaf\xe5"                                                # again: imul r12, r13
        + b"\x49\xff\xc4"                                                    # inc r12
        + b"\x4c\x89\xe0"                                                    # mov rax, r12
        + b"\x48\xc1\xe8\x20"                                                # shr rax, 32
        + b"\x48\x69\xd0" + struct.pack("<I", FUNCTIONS)                     # imul rdx, rax, functions
        + b"\x48\xc1\xea\x20"                                                # shr rdx, 32
        + b"\xff\x14\xd5" + struct.pack("<I", table_gva)                     # call [table + rdx * 8]
        + b"\xff\xc9"                                                        # dec ecx
    )  # fmt: skip
    back = len(main) - 25 + 2
    main += b"\x75" + struct.pack("<b", -back) + b"\xf4"
    assert len(main) <= main_size
    return main.ljust(main_size, b"\xf4") + table + code


def out_loop(count: int) -> bytes:
    """OUT to port 0x80, `count` times."""
    return b"\xb9" + struct.pack("<I", count) + b"\xe6\x80\xff\xc9\x75\xfa\xf4"
