"""Guests nobody should have to run: random segments, gates, page tables, control registers, MSRs, and code that uses them.

Nothing here predicts a result. What such a guest may do is crash itself.
"""

from __future__ import annotations

import random
import struct
from dataclasses import replace

from belljar.x86.state import CpuState, Segment

from .worlds import CODE, CODE_SIZE, DATA, GDT, HANDLERS, IDT, PML4, STACK, TSS, World

MSRS = (0x10, 0x1B, 0x3A, 0x8B, 0xFE, 0x174, 0x175, 0x176, 0x179, 0x1A0, 0x1D9, 0x200, 0x277, 0x2FF, 0x480, 0x48B, 0x6E0, 0x800,
        0x802, 0x830, 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102,
        0xC0000103, 0x40000000, 0x4B564D00, 0xFFFFFFFF)  # fmt: skip
SIZE = 0x40000


def _number(rng: random.Random) -> int:
    """An address, a small number, a mask, or noise."""
    places = (
        GDT,
        TSS,
        IDT,
        HANDLERS,
        CODE,
        DATA,
        STACK,
        PML4,
        0,
        SIZE - 1,
        0xFFFF,
        1 << 31,
        (1 << 32) - 1,
        1 << 47,
        (1 << 64) - 1,
    )
    if rng.random() < 0.6:
        return (rng.choice(places) + rng.randrange(-16, 17)) % (1 << 64)
    return rng.getrandbits(rng.choice((4, 8, 16, 32, 64)))


def _descriptor(rng: random.Random) -> bytes:
    """Any of the kinds: mostly present, often flat, all types and privilege levels."""
    base, limit = rng.choice(
        ((0, 0xFFFFF), (0, 0x1F), (TSS, 0x67), (rng.getrandbits(32), rng.getrandbits(20)), (0x10000, 0xFFFF))
    )
    access = rng.getrandbits(8) | (0x80 if rng.random() < 0.85 else 0)
    if rng.random() < 0.15:  # a call, task, interrupt or trap gate
        target = rng.choice((CODE, HANDLERS)) + rng.randrange(0x100)
        selector = rng.randrange(0, 0x100)
        access = 0x80 | rng.choice((4, 5, 6, 7, 12, 14, 15)) | rng.randrange(4) << 5
        return struct.pack("<HHBBH", target & 0xFFFF, selector, rng.getrandbits(5), access, target >> 16)
    return struct.pack(
        "<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, limit >> 16 | rng.getrandbits(4) << 4, base >> 24
    )  # fmt: skip


def _gate(rng: random.Random, long_mode: bool) -> bytes:
    target = HANDLERS + rng.randrange(256) if rng.random() < 0.7 else rng.getrandbits(32)
    selector = rng.choice((8, 0x18, rng.randrange(0x100)))
    access = rng.choice((0x8E, 0x8F, 0xEE, 0x85, 0xE5, 0x86, 0x87, rng.getrandbits(8)))
    first = struct.pack("<HHBBH", target & 0xFFFF, selector, rng.choice((0, 1, 7)), access, target >> 16)
    return first + (struct.pack("<II", rng.choice((0, 0, rng.getrandbits(32))), 0) if long_mode else b"")


def _page_entry(rng: random.Random, size: int) -> bytes:
    frame = rng.choice((rng.randrange(SIZE >> 12), rng.getrandbits(20), rng.getrandbits(40), PML4 >> 12)) << 12
    entry = frame | rng.getrandbits(12) | (1 if rng.random() < 0.8 else 0)
    if rng.random() < 0.2:
        entry |= rng.getrandbits(12) << 52
    return (entry & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def memory(world: World, rng: random.Random) -> bytes:
    """The world's memory with tables and code spoilt; some runs keep some of them, so that they get further."""
    image = bytearray(world.memory.ljust(SIZE, b"\xf4"))
    if rng.random() < 0.7:
        for at in range(GDT + 8, GDT + 0x100, 8):
            if rng.random() < 0.6:
                image[at : at + 8] = _descriptor(rng)
    if rng.random() < 0.5:
        step = 16 if world.long_mode else 8
        for vector in range(256):
            if rng.random() < 0.5:
                image[IDT + vector * step : IDT + (vector + 1) * step] = _gate(rng, world.long_mode)
    if world.long_mode and rng.random() < 0.6:
        for _ in range(rng.randrange(1, 24)):
            at = PML4 + rng.randrange(4) * 0x1000 + rng.randrange(64) * 8
            image[at : at + 8] = _page_entry(rng, 8)
    if rng.random() < 0.5:
        image[HANDLERS : HANDLERS + 256] = program(world, rng, 256)
    code = world.bases["cs"] + CODE
    image[code : code + CODE_SIZE // 2] = program(world, rng, CODE_SIZE // 2)
    return bytes(image)


def program(world: World, rng: random.Random, size: int) -> bytes:
    """System instructions with operands that matter, ordinary ones, and noise."""
    code = bytearray()
    while len(code) < size:
        code += _piece(world.bits, rng)
    return bytes(code[:size])


def _load(bits: int, rng: random.Random, register: int) -> bytes:
    """MOV register, immediate, in the code size's own width."""
    value = _number(rng)
    if bits == 64:
        return bytes([0x48, 0xB8 | register]) + value.to_bytes(8, "little")
    return bytes([0xB8 | register]) + (value & ((1 << bits) - 1)).to_bytes(bits // 8, "little")


def _piece(bits: int, rng: random.Random) -> bytes:
    modrm = bytes([rng.getrandbits(8)])
    pointer = rng.randrange(DATA, DATA + 0x1000).to_bytes(4, "little")
    direct = b"\x06" + pointer[:2] if bits == 16 else b"\x04\x25" + pointer if bits == 64 else b"\x05" + pointer
    table = bytes([direct[0] | rng.randrange(8) << 3]) + direct[1:]
    width = 2 if bits == 16 else 4
    far = _number(rng).to_bytes(8, "little")[:width] + rng.randrange(0x100).to_bytes(2, "little")
    pieces = (
        lambda: _load(bits, rng, 0) + b"\x0f\x22" + bytes([0xC0 | rng.choice((0, 2, 3, 4, 8 & 7)) << 3]),  # mov cr, eax
        lambda: b"\x0f\x20" + bytes([0xC0 | rng.randrange(8) << 3]) + b"\x0f\xba\xf0" + bytes([rng.randrange(32)]),
        lambda: b"\x0f\x20\xc0\x0f\xba\xf8" + bytes([rng.choice((0, 16, 18, 31, 5, 3))]) + b"\x0f\x22\xc0",  # btc cr0
        lambda: b"\x0f\x20\xe0\x0f\xba\xf8" + bytes([rng.randrange(26)]) + b"\x0f\x22\xe0",  # btc cr4
        lambda: _mov_ecx(bits, rng.choice(MSRS)) + _load(bits, rng, 0) + b"\x31\xd2\x0f\x30",  # wrmsr
        lambda: _mov_ecx(bits, rng.choice(MSRS)) + b"\x0f\x32",
        lambda: b"\x0f\x01" + table,  # sgdt, sidt, lgdt, lidt, smsw, lmsw, invlpg
        lambda: b"\x0f\x00" + modrm,  # sldt, str, lldt, ltr, verr, verw
        lambda: b"\x0f\x01" + modrm,
        lambda: b"\xb8" + rng.randrange(0x100).to_bytes(width, "little") + b"\x8e" + bytes([0xC0 | rng.randrange(6) << 3]),
        lambda: b"\xb8" + rng.randrange(0x100).to_bytes(width, "little") + b"\x0f\x00" + bytes([0xC0 | rng.randrange(6) << 3]),
        lambda: (b"\x9a" if rng.random() < 0.5 else b"\xea") + far if bits != 64 else b"\xff" + bytes([0x2C, 0x25]) + pointer,
        lambda: b"\xcd" + bytes([rng.getrandbits(8)]),
        lambda: rng.choice((b"\xcc", b"\xce", b"\xf1", b"\xcf", b"\x48\xcf", b"\xcb", b"\xca\x08\x00", b"\xc3", b"\xc9")),
        lambda: b"\x68" + rng.randrange(0x100).to_bytes(width, "little") + b"\x68" + _near(rng, width) + b"\xcb",  # retf
        lambda: b"".join(b"\x68" + part.to_bytes(width, "little") for part in (0x10, STACK, 2, 8, CODE)) + b"\xcf",  # iret
        lambda: b"\x68" + rng.getrandbits(8 * width - 1).to_bytes(width, "little") + b"\x9d",  # popf: TF, NT, IF, VM...
        lambda: rng.choice((b"\xfa", b"\xfb", b"\xf4", b"\xfc", b"\xfd", b"\x0f\x06", b"\x0f\x08", b"\x0f\x09")),
        lambda: rng.choice((b"\x0f\x05", b"\x0f\x07", b"\x48\x0f\x07", b"\x0f\x34", b"\x0f\x35", b"\x0f\x01\xf8", b"\x0f\xaa")),
        lambda: b"\x0f\x23" + bytes([0xC0 | rng.randrange(8) << 3]),  # mov dr
        lambda: rng.choice((b"\xe4", b"\xe5", b"\xe6", b"\xe7")) + modrm,
        lambda: rng.choice((b"\xec", b"\xed", b"\xee", b"\xef", b"\xf3\x6c", b"\xf3\x6e")),
        lambda: rng.choice((b"\x0f\xa2", b"\x0f\x31", b"\x0f\x01\xf9")),
        lambda: _load(bits, rng, rng.randrange(8)),
        lambda: rng.choice((b"\xf3\xa4", b"\xf3\xab", b"\xf2\xae", b"\xf3\xa6")),
        lambda: bytes([0x70 | rng.randrange(16), rng.getrandbits(8)]),
        lambda: b"\x66" + modrm,
        lambda: rng.randbytes(rng.randrange(1, 8)),
        lambda: b"\x0f\x01" + bytes([rng.choice((0xC1, 0xC2, 0xC3, 0xC4, 0xD0, 0xD1, 0xD4, 0xCA, 0xCB, 0xEE, 0xEF))]),
        lambda: b"\x66\x0f\x38" + bytes([rng.choice((0x80, 0x81, 0x82))]) + table,  # invept, invvpid, invpcid
        lambda: b"\x0f" + bytes([rng.choice((0x78, 0x79, 0xC7))]) + modrm,  # vmread, vmwrite, vmptrld and friends
    )  # fmt: skip
    return rng.choice(pieces)()


def _mov_ecx(bits: int, value: int) -> bytes:
    return (b"\x66" if bits == 16 else b"") + b"\xb9" + value.to_bytes(4, "little")


def _near(rng: random.Random, width: int) -> bytes:
    return (CODE + rng.randrange(CODE_SIZE)).to_bytes(width, "little")


def state(world: World, rng: random.Random) -> CpuState:
    """The world's own start state, or one with parts turned to noise, which an engine may refuse with an error."""
    start = world.state
    registers = replace(
        start.registers, **{name: _number(rng) for name in ("rax", "rcx", "rdx", "rbx", "rsi", "rdi", "rbp")}
    )
    if rng.random() < 0.5:
        return CpuState(registers, start.special)
    special = start.special
    for _ in range(rng.randrange(1, 4)):
        kind = rng.randrange(4)
        if kind == 0:
            name = rng.choice(("cr0", "cr2", "cr3", "cr4", "cr8", "efer"))
            special = replace(
                special, **{name: getattr(special, name) ^ 1 << rng.randrange(64 if rng.random() < 0.2 else 32)}
            )
        elif kind == 1:
            name = rng.choice(("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldt"))
            special = replace(special, **{name: _segment(rng, getattr(special, name))})
        elif kind == 2:
            registers = replace(registers, rflags=rng.getrandbits(22) | 2)
        else:
            registers = replace(registers, **{rng.choice(("rip", "rsp")): _number(rng)})
    return CpuState(registers, special)


def _segment(rng: random.Random, segment: Segment) -> Segment:
    field = rng.choice(("base", "limit", "type", "s", "dpl", "present", "l", "db", "g", "unusable", "selector"))
    values = {"base": rng.getrandbits(32), "limit": rng.getrandbits(32), "type": rng.getrandbits(4), "dpl": rng.getrandbits(2),
              "selector": rng.getrandbits(16)}  # fmt: skip
    return replace(segment, **{field: values.get(field, rng.getrandbits(1))})
