"""The control registers CR0, CR3, CR4, XCR0 and the EFER MSR, bit by bit (SDM 3A 2.5, 2.6, 2.2.1)."""

from __future__ import annotations

from enum import IntFlag


class Cr0(IntFlag):
    """CR0 (SDM 3A 2.5)."""

    PE = 1 << 0
    MP = 1 << 1
    EM = 1 << 2
    TS = 1 << 3
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    NW = 1 << 29
    CD = 1 << 30
    PG = 1 << 31


class Cr3(IntFlag):
    """The bits of CR3 beside the table's address (SDM 3A 2.5, tables 4-3, 4-7, 4-12).

    With CR4.PCIDE the low twelve bits are the PCID instead.
    """

    PWT = 1 << 3
    PCD = 1 << 4
    LAM_U57 = 1 << 61
    LAM_U48 = 1 << 62
    PCID_NO_FLUSH = 1 << 63
    """In the operand of MOV to CR3 with CR4.PCIDE: keep the TLB (SDM 3A 4.10.4.1). Never stored."""


class Cr4(IntFlag):
    """CR4 (SDM 3A 2.5)."""

    VME = 1 << 0
    PVI = 1 << 1
    TSD = 1 << 2
    DE = 1 << 3
    PSE = 1 << 4
    PAE = 1 << 5
    MCE = 1 << 6
    PGE = 1 << 7
    PCE = 1 << 8
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    LA57 = 1 << 12
    VMXE = 1 << 13
    SMXE = 1 << 14
    FSGSBASE = 1 << 16
    PCIDE = 1 << 17
    OSXSAVE = 1 << 18
    KL = 1 << 19
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22
    CET = 1 << 23
    PKS = 1 << 24
    UINTR = 1 << 25
    LAM_SUP = 1 << 28


class Efer(IntFlag):
    """IA32_EFER (SDM 3A 2.2.1; the bits from SVME on: AMD APM 2 3.1.7)."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11
    SVME = 1 << 12
    LMSLE = 1 << 13
    FFXSR = 1 << 14
    TCE = 1 << 15
    AUTOIBRS = 1 << 21


class Xcr0(IntFlag):
    """XCR0: the state components that XSAVE manages (SDM 1 13.1)."""

    X87 = 1 << 0
    SSE = 1 << 1
    AVX = 1 << 2
    BNDREGS = 1 << 3
    BNDCSR = 1 << 4
    OPMASK = 1 << 5
    ZMM_HI256 = 1 << 6
    HI16_ZMM = 1 << 7
    PKRU = 1 << 9
    TILECFG = 1 << 17
    TILEDATA = 1 << 18


CR0_RESET = int(Cr0.CD | Cr0.NW | Cr0.ET)
"""CR0 after reset, 60000010H (SDM 3A table 9-1)."""


def describe_bits(flags: type[IntFlag], value: int) -> str:
    """The set bits of a register by name, lowest first, for example `PE ET PG`; bits without a name as `bit 9`."""
    named = {int(flag): flag.name or "" for flag in flags}
    bits = (1 << position for position in range(value.bit_length()) if value >> position & 1)
    return " ".join(named.get(bit) or f"bit {bit.bit_length() - 1}" for bit in bits)
