"""Telling a HLT by its bytes."""

from __future__ import annotations

HLT = 0xF4
"""The opcode (SDM 2A, HLT)."""

PREFIXES = frozenset(b"\x66\x67\x26\x2e\x36\x3e\x64\x65\xf2\xf3")
"""Legacy prefixes that HLT ignores; LOCK makes it #UD (SDM 2A 2.1.1)."""


def halt_length(code: bytes, bits: int) -> int:
    """How long the HLT at the beginning of `code` is, with its prefixes; 0 if there is none."""
    for position, byte in enumerate(code):
        if byte == HLT:
            return position + 1
        if byte not in PREFIXES and not (bits == 64 and 0x40 <= byte <= 0x4F):
            break
    return 0
