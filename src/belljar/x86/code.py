"""Where the next instruction lies, how wide it is, and whether it is a HLT."""

from __future__ import annotations

from belljar.x86.state import SpecialRegisters

CR0_PE = 1
"""Protection enable (SDM 3A 2.5)."""

EFER_LMA = 0x400
"""Long mode active (SDM 3A 2.2.1)."""

HLT = 0xF4
"""The opcode (SDM 2A, HLT)."""

PREFIXES = frozenset(b"\x66\x67\x26\x2e\x36\x3e\x64\x65\xf2\xf3")
"""Legacy prefixes that HLT ignores; LOCK makes it #UD (SDM 2A 2.1.1)."""


def linear_pc(special: SpecialRegisters, rip: int) -> int:
    """The linear address of RIP: with CS's base and 32 bits wide outside 64-bit mode."""
    if special.cs.l and special.efer & EFER_LMA:
        return rip
    return (special.cs.base + rip) & 0xFFFFFFFF


def code_bits(special: SpecialRegisters) -> int:
    """The default operand and address size of code: 16, 32 or 64."""
    if special.cs.l and special.efer & EFER_LMA:
        return 64
    return 32 if special.cs.db and special.cr0 & CR0_PE else 16


def halt_length(code: bytes, bits: int) -> int:
    """How long the HLT at the beginning of `code` is, with its prefixes; 0 if there is none."""
    for position, byte in enumerate(code):
        if byte == HLT:
            return position + 1
        if byte not in PREFIXES and not (bits == 64 and 0x40 <= byte <= 0x4F):
            break
    return 0
