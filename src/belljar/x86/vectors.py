"""The exceptions of the architecture: vector, mnemonic, error code, class (SDM 3A 6.3.1, table 6-1, and 6.15)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from belljar.errors import ConfigurationError
from belljar.records import dataclass


class Vector(IntEnum):
    """The vectors that the processor raises by itself; the last three on AMD's only."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    CSO = 9
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    VE = 20
    CP = 21
    HV = 28
    VC = 29
    SX = 30


class Contributes(IntEnum):
    """How an exception counts towards a double fault (SDM 3A table 6-4)."""

    BENIGN = 0
    CONTRIBUTORY = 1
    PAGE_FAULT = 2
    DOUBLE_FAULT = 3


@dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """One exception. `kind` is `fault`, `trap`, `abort`, `interrupt`, or `fault/trap` (#DB is either)."""

    vector: int
    mnemonic: str
    title: str
    kind: str
    error_code: bool = False
    contributes: Contributes = Contributes.BENIGN


_CONTRIBUTORY = Contributes.CONTRIBUTORY

EXCEPTIONS = {
    info.vector: info
    for info in (
        ExceptionInfo(0, "#DE", "divide error", "fault", contributes=_CONTRIBUTORY),
        ExceptionInfo(1, "#DB", "debug", "fault/trap"),
        ExceptionInfo(2, "NMI", "non-maskable interrupt", "interrupt"),
        ExceptionInfo(3, "#BP", "breakpoint", "trap"),
        ExceptionInfo(4, "#OF", "overflow", "trap"),
        ExceptionInfo(5, "#BR", "BOUND range exceeded", "fault"),
        ExceptionInfo(6, "#UD", "invalid opcode", "fault"),
        ExceptionInfo(7, "#NM", "device not available", "fault"),
        ExceptionInfo(8, "#DF", "double fault", "abort", True, Contributes.DOUBLE_FAULT),
        ExceptionInfo(9, "CSO", "coprocessor segment overrun", "fault"),
        ExceptionInfo(10, "#TS", "invalid TSS", "fault", True, _CONTRIBUTORY),
        ExceptionInfo(11, "#NP", "segment not present", "fault", True, _CONTRIBUTORY),
        ExceptionInfo(12, "#SS", "stack-segment fault", "fault", True, _CONTRIBUTORY),
        ExceptionInfo(13, "#GP", "general protection", "fault", True, _CONTRIBUTORY),
        ExceptionInfo(14, "#PF", "page fault", "fault", True, Contributes.PAGE_FAULT),
        ExceptionInfo(16, "#MF", "x87 floating-point error", "fault"),
        ExceptionInfo(17, "#AC", "alignment check", "fault", True),
        ExceptionInfo(18, "#MC", "machine check", "abort"),
        ExceptionInfo(19, "#XM", "SIMD floating-point exception", "fault"),
        ExceptionInfo(20, "#VE", "virtualization exception", "fault", contributes=Contributes.PAGE_FAULT),
        ExceptionInfo(21, "#CP", "control protection", "fault", True, _CONTRIBUTORY),
        # AMD APM 2 8.2.22 to 8.2.24
        ExceptionInfo(28, "#HV", "hypervisor injection", "fault"),
        ExceptionInfo(29, "#VC", "VMM communication", "fault", True, _CONTRIBUTORY),
        ExceptionInfo(30, "#SX", "security exception", "fault", True, _CONTRIBUTORY),
    )
}
"""Every exception by vector. The manual gives vector 9, which nothing raises since the 486, no mnemonic; here it is CSO."""

FIRST_INTERRUPT_VECTOR = 32
"""Vectors below are the processor's own (SDM 3A 6.2)."""


class PageFaultCode(IntFlag):
    """The error code of #PF (SDM 3A 4.7)."""

    P = 1 << 0
    """A protection violation; clear: the page is not present."""
    WR = 1 << 1
    US = 1 << 2
    RSVD = 1 << 3
    ID = 1 << 4
    """An instruction fetch."""
    PK = 1 << 5
    SS = 1 << 6
    """A shadow-stack access."""
    SGX = 1 << 15


class SelectorErrorCode(IntFlag):
    """The low bits of the error codes of #TS, #NP, #SS, #GP; the selector's index lies above (SDM 3A 6.13)."""

    EXT = 1 << 0
    IDT = 1 << 1
    TI = 1 << 2


def vector_name(vector: int) -> str:
    """A vector as people write it: `#PF`, `NMI`, `vector 32`."""
    info = EXCEPTIONS.get(vector)
    return info.mnemonic if info else f"vector {vector}"


def describe_page_fault(code: int) -> str:
    """A page fault's error code in words: `user write to a present page`."""
    who = "user" if code & PageFaultCode.US else "supervisor"
    what = "fetch from" if code & PageFaultCode.ID else "write to" if code & PageFaultCode.WR else "read from"
    page = "a present page" if code & PageFaultCode.P else "a page that is not present"
    extra = [
        words
        for bit, words in (
            (PageFaultCode.RSVD, "a reserved bit was set"),
            (PageFaultCode.PK, "the protection key forbids it"),
            (PageFaultCode.SS, "a shadow-stack access"),
            (PageFaultCode.SGX, "SGX forbids it"),
        )
        if code & bit
    ]
    return ", ".join([f"{who} {what} {page}", *extra])


def describe_selector_error(code: int) -> str:
    """The error code of #TS, #NP, #SS or #GP in words: `GDT selector 0x18`, `IDT vector 14, external`; empty for 0."""
    if not code:
        return ""
    if code & SelectorErrorCode.IDT:
        text = f"IDT vector {code >> 3 & 0xFF}"
    else:
        text = f"{'LDT' if code & SelectorErrorCode.TI else 'GDT'} selector {code & 0xFFF8:#x}"
    return text + ", external" if code & SelectorErrorCode.EXT else text


def double_fault_follows(first: int, second: int) -> bool:
    """Whether exception `second` while delivering `first` is a double fault; else both are handled in turn (SDM 3A table 6-5)."""
    one, other = _class_of(first), _class_of(second)
    if one is Contributes.CONTRIBUTORY:
        return other is Contributes.CONTRIBUTORY
    return one is Contributes.PAGE_FAULT and other in (Contributes.CONTRIBUTORY, Contributes.PAGE_FAULT)


def triple_fault_follows(first: int, second: int) -> bool:
    """Whether exception `second` while delivering `first` shuts the processor down (SDM 3A 6.15, interrupt 8)."""
    contributory = (Contributes.CONTRIBUTORY, Contributes.PAGE_FAULT)
    return _class_of(first) is Contributes.DOUBLE_FAULT and _class_of(second) in contributory


def _class_of(vector: int) -> Contributes:
    info = EXCEPTIONS.get(vector)
    return info.contributes if info else Contributes.BENIGN


EXCEPTION_VECTORS = 32
"""Vectors from here on are interrupts (SDM 3A 6.2)."""

MAX_ERROR_CODE = 0xFFFF
"""VM entry takes no more (SDM 3C 27.2.1.3)."""

DB_PAYLOAD = 0xE00F
"""What #DB may set in DR6: B0 to B3, BD, BS, BT (SDM 3B 18.2.3)."""


def check_exception(vector: int, error_code: int | None, payload: int | None) -> None:
    """Raise ConfigurationError for what no processor would deliver as an exception."""
    if not 0 <= vector < EXCEPTION_VECTORS or vector == Vector.NMI:
        raise ConfigurationError(
            f"{vector_name(vector)} is not an exception", hint="vectors 0 to 31 but 2, which is NMI"
        )
    name = vector_name(vector)
    info = EXCEPTIONS.get(vector)
    if error_code is None and info is not None and info.error_code:
        raise ConfigurationError(f"{name} has an error code")
    if error_code is not None and (info is None or not info.error_code):
        raise ConfigurationError(f"{name} has no error code")
    if error_code is not None and not 0 <= error_code <= MAX_ERROR_CODE:
        raise ConfigurationError(f"the error code {error_code:#x} does not fit 16 bits")
    if payload is None:
        return
    if vector == Vector.DB and not payload & ~DB_PAYLOAD:
        return
    if vector != Vector.PF or not 0 <= payload < 1 << 64:
        raise ConfigurationError(
            f"{name} comes with no payload {payload:#x}", hint="#PF: the address; #DB: bits of DR6 within 0xe00f"
        )
