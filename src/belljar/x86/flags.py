"""RFLAGS (SDM 1 3.4.3)."""

from __future__ import annotations

from enum import IntFlag


class Rflags(IntFlag):
    """The bits of RFLAGS by the manual's names (SDM 1 figure 3-8). IOPL is two bits; see `iopl`."""

    CF = 1 << 0
    FIXED = 1 << 1
    """Always one."""
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    IOPL0 = 1 << 12
    """The low bit of the I/O privilege level."""
    IOPL1 = 1 << 13
    """The high bit of the I/O privilege level."""
    NT = 1 << 14
    RF = 1 << 16
    VM = 1 << 17
    AC = 1 << 18
    VIF = 1 << 19
    VIP = 1 << 20
    ID = 1 << 21


IOPL_SHIFT = 12
"""Where the two bits of IOPL begin (SDM 1 3.4.3.3)."""

RFLAGS_RESET = 0x2
"""RFLAGS after reset: only the bit that is always one (SDM 3A table 9-1)."""

STATUS_FLAGS = Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF
"""The flags that arithmetic sets (SDM 1 3.4.3.1)."""


def iopl(rflags: int) -> int:
    """The I/O privilege level, 0 to 3."""
    return rflags >> IOPL_SHIFT & 3


def describe_rflags(rflags: int) -> str:
    """The set flags by name as tables show them, for example `ZF PF IOPL=3`; the bit that is always one is left out."""
    hidden = Rflags.FIXED | Rflags.IOPL0 | Rflags.IOPL1
    names = [flag.name or "" for flag in Rflags if rflags & flag and not flag & hidden]
    if iopl(rflags):
        names.append(f"IOPL={iopl(rflags)}")
    return " ".join(names)
