"""Flags that the manual leaves undefined after an instruction (SDM 2A-2B, "Flags Affected" of each page)."""

from __future__ import annotations

from .forms import Form

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
ALL = CF | PF | AF | ZF | SF | OF

UNDEFINED = {
    "AAA": OF | SF | ZF | PF,
    "AAS": OF | SF | ZF | PF,
    "AAD": OF | AF | CF,
    "AAM": OF | AF | CF,
    "DAA": OF,
    "DAS": OF,
    "AND": AF,
    "OR": AF,
    "XOR": AF,
    "TEST": AF,
    "MUL": SF | ZF | AF | PF,
    "IMUL": SF | ZF | AF | PF,
    "DIV": ALL,
    "IDIV": ALL,
    "BSF": CF | OF | SF | AF | PF,
    "BSR": CF | OF | SF | AF | PF,
    "BT": OF | SF | AF | PF,
    "BTS": OF | SF | AF | PF,
    "BTR": OF | SF | AF | PF,
    "BTC": OF | SF | AF | PF,
    "ANDN": AF | PF,
    "BEXTR": AF | SF | PF,
    "BLSI": AF | PF,
    "BLSMSK": AF | PF,
    "BLSR": AF | PF,
    "BZHI": AF | PF,
    "LZCNT": OF | SF | PF | AF,
    "TZCNT": OF | SF | PF | AF,
}
"""By mnemonic, for every operand value."""

SHIFTS = {"SHL": AF, "SAL": AF, "SHR": AF, "SAR": AF, "SHLD": AF, "SHRD": AF}
"""AF is undefined for a non-zero count; OF for a count other than 1; CF for SHL and SHR beyond the size (not SAR)."""
ROTATES = frozenset({"ROL", "ROR", "RCL", "RCR"})
"""OF is undefined for a masked count other than 1; the others are defined or untouched."""


def undefined_flags(form: Form, size: int, count: int) -> int:
    """The flags to ignore after `form` on `size`-bit operands; `count` is the unmasked count of a shift or rotate."""
    name = form.mnemonic
    if name in UNDEFINED:
        return UNDEFINED[name]
    masked = count & (63 if size == 64 else 31)
    if name in ROTATES:
        return OF if masked > 1 else 0
    if name not in SHIFTS or masked == 0:
        return 0
    undefined = SHIFTS[name] | (OF if masked != 1 else 0)
    if name in ("SHLD", "SHRD"):
        return ALL if masked > size else undefined
    if name != "SAR" and masked >= size:
        undefined |= CF
    return undefined
