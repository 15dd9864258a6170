"""The VMCS of a vCPU as KVM would set it up: controls, bitmaps, and a host state that passes the checks (SDM 3C 25, 27.2)."""

from __future__ import annotations

from enum import IntFlag

from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field


class Pin(IntFlag):
    """Pin-based controls (SDM 3C table 25-5)."""

    DEFAULT = 0x16
    EXTERNAL_INTERRUPT = 1 << 0
    NMI = 1 << 3
    VIRTUAL_NMIS = 1 << 5


class Primary(IntFlag):
    """Primary processor-based controls (SDM 3C table 25-6)."""

    DEFAULT = 0x04006172
    INTERRUPT_WINDOW = 1 << 2
    TSC_OFFSET = 1 << 3
    HLT = 1 << 7
    CR8_LOAD = 1 << 19
    NMI_WINDOW = 1 << 22
    UNCONDITIONAL_IO = 1 << 24
    MONITOR_TRAP = 1 << 27
    MSR_BITMAPS = 1 << 28
    SECONDARY = 1 << 31


class Secondary(IntFlag):
    """Secondary processor-based controls (SDM 3C table 25-7)."""

    EPT = 1 << 1
    RDTSCP = 1 << 3
    VPID = 1 << 5
    UNRESTRICTED_GUEST = 1 << 7
    PAUSE_LOOP = 1 << 10
    INVPCID = 1 << 12
    TSC_SCALING = 1 << 25


class ExitControl(IntFlag):
    """VM-exit controls (SDM 3C table 25-14)."""

    DEFAULT = 0x00036DFB
    SAVE_DEBUG = 1 << 2
    HOST_64 = 1 << 9
    SAVE_PAT = 1 << 18
    LOAD_PAT = 1 << 19
    SAVE_EFER = 1 << 20
    LOAD_EFER = 1 << 21


class EntryControl(IntFlag):
    """VM-entry controls (SDM 3C table 25-16)."""

    DEFAULT = 0x000011FB
    LOAD_DEBUG = 1 << 2
    GUEST_64 = 1 << 9
    LOAD_PAT = 1 << 14
    LOAD_EFER = 1 << 15


ENTRY_CONTROLS = EntryControl.DEFAULT | EntryControl.LOAD_DEBUG | EntryControl.LOAD_PAT | EntryControl.LOAD_EFER

PAUSE_GAP, PAUSE_WINDOW = 64, 512
"""Instructions: PAUSEs that are further apart are no loop, and how long a loop may go on before it is another vCPU's turn."""

CR4_VMXE = 1 << 13
"""Fixed to 1 in VMX operation (SDM 3C 24.8); the guest sees 0."""

PHYSICAL_BITS = 46
"""MAXPHYADDR of the soft processor: physical addresses have no more bits (SDM 3A 4.1.4)."""

EFER_LMA = 1 << 10
RIGHTS_L = 1 << 13
"""A segment's L in VMCS access rights (SDM 3C table 25-2): 64-bit code."""

TSC_FRACTION_BITS = 48
"""Behind the point of the TSC multiplier (SDM 3C 25.6.5)."""

NO_LINK = (1 << 64) - 1
"""The VMCS link pointer without VMCS shadowing (SDM 3C 25.4.2)."""

PAT_RESET = 0x0007040600070406
"""SDM 3A table 12-12."""

DR7_RESET = 0x400
"""SDM 3A table 10-1."""

HOST_CR0 = 0x80000021  # PG, NE, PE
HOST_CR4 = 0x2020  # PAE, VMXE
HOST_EFER = 0xD00  # NXE, LMA, LME
HOST_SELECTOR = 8


def set_up(processor: Processor, eptp: int, msr_bitmap_hpa: int) -> None:
    """Write all controls of the current VMCS. MSRs that the processor has are the guest's: the bitmap is all zeros."""
    write = processor.vmwrite
    write(Field.PIN_CONTROLS, Pin.DEFAULT | Pin.EXTERNAL_INTERRUPT | Pin.NMI | Pin.VIRTUAL_NMIS)
    write(
        Field.PRIMARY_CONTROLS,
        Primary.DEFAULT
        | Primary.HLT
        | Primary.TSC_OFFSET
        | Primary.UNCONDITIONAL_IO
        | Primary.MSR_BITMAPS
        | Primary.SECONDARY,
    )
    write(
        Field.SECONDARY_CONTROLS,
        Secondary.EPT | Secondary.RDTSCP | Secondary.VPID | Secondary.UNRESTRICTED_GUEST | Secondary.INVPCID,
    )
    write(
        Field.EXIT_CONTROLS,
        ExitControl.DEFAULT
        | ExitControl.SAVE_DEBUG
        | ExitControl.HOST_64
        | ExitControl.SAVE_PAT
        | ExitControl.LOAD_PAT
        | ExitControl.SAVE_EFER
        | ExitControl.LOAD_EFER,
    )
    write(Field.ENTRY_CONTROLS, ENTRY_CONTROLS)
    write(Field.VPID, 1)
    write(Field.EPT_POINTER, eptp)
    write(Field.MSR_BITMAP, msr_bitmap_hpa)
    write(Field.CR4_MASK, CR4_VMXE)
    write(Field.VMCS_LINK_POINTER, NO_LINK)
    write(Field.GUEST_PAT, PAT_RESET)
    write(Field.GUEST_DR7, DR7_RESET)
    _set_up_host(processor)


def _set_up_host(processor: Processor) -> None:
    write = processor.vmwrite
    write(Field.HOST_CR0, HOST_CR0)
    write(Field.HOST_CR4, HOST_CR4)
    write(Field.HOST_EFER, HOST_EFER)
    write(Field.HOST_PAT, PAT_RESET)
    write(Field.HOST_CS_SELECTOR, HOST_SELECTOR)
    write(Field.HOST_TR_SELECTOR, HOST_SELECTOR)


def give_turns(processor: Processor) -> None:
    """Have loops of PAUSEs exit: there are other vCPUs, and one of them is waited for."""
    secondary = processor.vmread(Field.SECONDARY_CONTROLS)
    processor.vmwrite(Field.SECONDARY_CONTROLS, secondary | Secondary.PAUSE_LOOP)
    processor.vmwrite(Field.PLE_GAP, PAUSE_GAP)
    processor.vmwrite(Field.PLE_WINDOW, PAUSE_WINDOW)
