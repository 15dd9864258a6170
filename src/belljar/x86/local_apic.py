"""The registers of a local APIC: indices (offset / 16, MSR number - 0x800), bits, masks (SDM 3A table 11-1, 11-6)."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

LAPIC_GPA: Final = 0xFEE0_0000
LAPIC_SIZE: Final = 0x1000
X2APIC_MSR: Final = 0x800
X2APIC_MSR_COUNT: Final = 0x100

VERSION: Final = 0x14
"""An integrated APIC (SDM 3A 11.4.8)."""
VERSION_EOI_SUPPRESSION: Final = 1 << 24

BASE_BSP: Final = 1 << 8
BASE_X2APIC: Final = 1 << 10
BASE_ENABLED: Final = 1 << 11
BASE_RESERVED: Final = 0x2FF
"""Bits 7 to 0 and 9 of IA32_APIC_BASE (SDM 3A figure 11-5, 11-26)."""


class Reg(IntEnum):
    """Register indices."""

    ID = 0x02
    VERSION = 0x03
    TPR = 0x08
    APR = 0x09
    PPR = 0x0A
    EOI = 0x0B
    LDR = 0x0D
    DFR = 0x0E
    SVR = 0x0F
    ISR = 0x10
    TMR = 0x18
    IRR = 0x20
    ESR = 0x28
    LVT_CMCI = 0x2F
    ICR = 0x30
    ICR_HIGH = 0x31
    LVT_TIMER = 0x32
    LVT_THERMAL = 0x33
    LVT_PERF = 0x34
    LVT_LINT0 = 0x35
    LVT_LINT1 = 0x36
    LVT_ERROR = 0x37
    INITIAL_COUNT = 0x38
    CURRENT_COUNT = 0x39
    DIVIDE = 0x3E
    SELF_IPI = 0x3F


VECTOR_MASK: Final = 0xFF
MODE_SHIFT: Final = 8
MODE_MASK: Final = 7

LVT_LEVEL: Final = 1 << 15
LVT_MASKED: Final = 1 << 16
LVT_REMOTE_IRR: Final = 1 << 14
LVT_TIMER_MODE_SHIFT: Final = 17
_LVT_BASE: Final = VECTOR_MASK | LVT_MASKED
_LVT_MODE: Final = MODE_MASK << MODE_SHIFT
_LVT_PIN: Final = 1 << 13 | LVT_LEVEL

LVT_WRITABLE: Final = {
    Reg.LVT_TIMER: _LVT_BASE | 3 << LVT_TIMER_MODE_SHIFT,
    Reg.LVT_THERMAL: _LVT_BASE | _LVT_MODE,
    Reg.LVT_PERF: _LVT_BASE | _LVT_MODE,
    Reg.LVT_LINT0: _LVT_BASE | _LVT_MODE | _LVT_PIN,
    Reg.LVT_LINT1: _LVT_BASE | _LVT_MODE | _LVT_PIN,
    Reg.LVT_ERROR: _LVT_BASE,
    Reg.LVT_CMCI: _LVT_BASE | _LVT_MODE,
}
"""The bits of each local vector table entry that a guest sets (SDM 3A figure 11-8); 12 and 14 are the APIC's own."""

LVT_NAMES: Final = {
    Reg.LVT_TIMER: "lapic timer",
    Reg.LVT_THERMAL: "lapic thermal",
    Reg.LVT_PERF: "lapic perf",
    Reg.LVT_LINT0: "lint0",
    Reg.LVT_LINT1: "lint1",
    Reg.LVT_ERROR: "lapic error",
    Reg.LVT_CMCI: "lapic cmci",
}
"""What reports call the sources."""

SVR_ENABLED: Final = 1 << 8
SVR_SUPPRESS_EOI: Final = 1 << 12
SVR_WRITABLE: Final = 0x3FF

ICR_LOGICAL: Final = 1 << 11
ICR_ASSERT: Final = 1 << 14
ICR_LEVEL: Final = 1 << 15
ICR_SHORTHAND_SHIFT: Final = 18
ICR_WRITABLE: Final = 0xCCFFF
X2APIC_ICR_RESERVED: Final = 0xFFF3_2000
"""Bits 31 to 20, 17, 16 and 13 (SDM 3A figure 11-28)."""

SHORTHAND_NONE: Final = 0
SHORTHAND_SELF: Final = 1
SHORTHAND_ALL: Final = 2
SHORTHAND_OTHERS: Final = 3
SHORTHANDS: Final = ("", "itself", "all", "all others")

DFR_WRITABLE: Final = 0xF000_0000
DFR_FLAT: Final = 0xFFFF_FFFF
DFR_CLUSTER: Final = 0x0FFF_FFFF
XAPIC_ID_SHIFT: Final = 24

DIVIDE_WRITABLE: Final = 0xB


class Esr(IntFlag):
    """Error status register (SDM 3A figure 11-9)."""

    REDIRECTABLE_IPI = 1 << 4
    SEND_ILLEGAL_VECTOR = 1 << 5
    RECEIVE_ILLEGAL_VECTOR = 1 << 6
    ILLEGAL_REGISTER = 1 << 7


X2APIC_WRITABLE: dict[int, int] = {
    Reg.TPR: 0xFF,
    Reg.EOI: 0,
    Reg.SVR: SVR_WRITABLE,
    Reg.ESR: 0,
    Reg.INITIAL_COUNT: 0xFFFF_FFFF,
    Reg.DIVIDE: DIVIDE_WRITABLE,
    Reg.SELF_IPI: VECTOR_MASK,
    **{int(register): mask for register, mask in LVT_WRITABLE.items()},
}
"""What WRMSR may set in each register; anything else is #GP(0) (SDM 3A 11.12.1.3). ICR is apart, and has 64 bits."""

READABLE: Final = frozenset(
    {
        Reg.ID, Reg.VERSION, Reg.TPR, Reg.PPR, Reg.LDR, Reg.SVR, Reg.ESR, Reg.ICR,
        Reg.INITIAL_COUNT, Reg.CURRENT_COUNT, Reg.DIVIDE, *range(Reg.ISR, Reg.ESR),
    }
)  # fmt: skip
"""Registers beside the local vector table that can be read in either mode."""

XAPIC_ONLY: Final = frozenset({Reg.APR, Reg.DFR, Reg.ICR_HIGH})
"""Those that are only in memory."""
