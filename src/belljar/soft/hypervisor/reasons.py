"""Why the processor came back: basic exit reasons (SDM 3D appendix C), and the pauses that are no VM exit."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """What `Processor.enter` returns."""

    EXCEPTION_OR_NMI = 0
    EXTERNAL_INTERRUPT = 1
    TRIPLE_FAULT = 2
    INTERRUPT_WINDOW = 7
    NMI_WINDOW = 8
    TASK_SWITCH = 9
    CPUID = 10
    HLT = 12
    INVD = 13
    VMCALL = 18
    VMCLEAR = 19
    VMLAUNCH = 20
    VMPTRLD = 21
    VMPTRST = 22
    VMREAD = 23
    VMRESUME = 24
    VMWRITE = 25
    VMXOFF = 26
    VMXON = 27
    CR_ACCESS = 28
    IO = 30
    RDMSR = 31
    WRMSR = 32
    BAD_GUEST_STATE = 33
    PAUSE = 40
    EPT_VIOLATION = 48
    EPT_MISCONFIG = 49
    INVEPT = 50
    INVVPID = 53
    XSETBV = 55
    PAUSE_BUDGET = 0x10000
    """The budget is used up."""
    PAUSE_EMULATED = 0x10001
    """An instruction, or one iteration of it, was carried out with a device's help."""
    PAUSE_FAILED = 0x10002
    """What stands behind the window raised an exception."""
    PAUSE_IDLE = 0x10004
    """The guest is not active, and nothing that the processor knows of will wake it."""
    PAUSE_WAITING = 0x10008
    """The guest goes round in a loop that nothing but other processors or events can end; qualification 1: it still does."""
    PAUSE_REQUEST = 0x10007
    """Another thread wants something done before the guest goes on."""
    PAUSE_LIMIT = 0x10006
    """The budget of `enter_exactly` is used up, and nothing else happened."""
    PAUSE_DEBUG = 0x10005
    """A breakpoint or watchpoint of the host's."""


VMX_INSTRUCTIONS = (*range(Reason.VMCLEAR, Reason.VMXON + 1), Reason.INVEPT, Reason.INVVPID)
"""All but VMCALL."""
