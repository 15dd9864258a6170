"""Machine-check architecture: registers, and what becomes of an error (SDM 3B chapter 16)."""

from __future__ import annotations

from enum import Enum, IntFlag
from typing import NamedTuple

from belljar.errors import ConfigurationError

BANK_COUNT = 0xFF
"""IA32_MCG_CAP: how many banks there are."""

ALL_ONES = (1 << 64) - 1


class McgCap(IntFlag):
    """IA32_MCG_CAP (SDM 3B 16.3.1.1)."""

    CTL_P = 1 << 8
    """IA32_MCG_CTL is there."""
    CMCI_P = 1 << 10
    """Corrected errors can interrupt: IA32_MCi_CTL2 are there."""
    SER_P = 1 << 24
    """Software error recovery."""


class McgStatus(IntFlag):
    """IA32_MCG_STATUS (SDM 3B 16.3.1.2)."""

    RIPV = 1 << 0
    EIPV = 1 << 1
    MCIP = 1 << 2
    """A machine check is being served: another shuts the processor down."""


class MciStatus(IntFlag):
    """IA32_MCi_STATUS (SDM 3B 16.3.2.2)."""

    AR = 1 << 55
    S = 1 << 56
    PCC = 1 << 57
    ADDRV = 1 << 58
    MISCV = 1 << 59
    EN = 1 << 60
    UC = 1 << 61
    OVER = 1 << 62
    VAL = 1 << 63


class MciCtl2(IntFlag):
    """IA32_MCi_CTL2 (SDM 3B 16.3.2.5)."""

    THRESHOLD = 0x7FFF
    CMCI_EN = 1 << 30


class Consequence(Enum):
    """What becomes of an error."""

    IGNORED = "ignored"
    """Uncorrected, and reporting such is switched off."""
    RECORDED = "recorded"
    """It stands in its bank."""
    INTERRUPT = "interrupt"
    """The same, and the local APIC's CMCI is raised."""
    EXCEPTION = "exception"
    """The same as RECORDED, and #MC."""
    SHUTDOWN = "shutdown"
    """#MC would come while one is served, or while CR4.MCE is clear."""


class Setting(NamedTuple):
    """The registers that decide: IA32_MCG_CAP, IA32_MCG_STATUS and IA32_MCG_CTL; the bank's CTL and CTL2; CR4.MCE."""

    mcg_cap: int
    mcg_status: int
    mcg_ctl: int
    ctl: int
    ctl2: int
    enabled: bool


def check_error(banks: int, bank: int, status: int, mcg_status: int, address: int, misc: int) -> None:
    """Raise ConfigurationError for what cannot be an error of this processor."""
    if not 0 <= bank < banks:
        raise ConfigurationError(f"there is no machine-check bank {bank}", hint=f"banks 0 to {banks - 1}")
    for name, value in (("status", status), ("mcg_status", mcg_status), ("address", address), ("misc", misc)):
        if not 0 <= value < 1 << 64:
            raise ConfigurationError(f"a machine check's {name} has 64 bits, not {value:#x}")
    if not status & MciStatus.VAL:
        raise ConfigurationError(f"the machine check's status {status:#x} is not valid", hint="set bit 63")


def consequence(setting: Setting, status: int, mcg_status: int) -> Consequence:
    """What becomes of an error with these registers (SDM 3B 16.3.2, 16.5, 16.6.3; as KVM_X86_SET_MCE has it)."""
    if not status & MciStatus.UC:
        return Consequence.RECORDED
    if not mcg_status and not status & (MciStatus.PCC | MciStatus.S | MciStatus.AR):  # UCNA: no action required
        told = setting.mcg_cap & McgCap.CMCI_P and setting.ctl2 & MciCtl2.CMCI_EN
        return Consequence.INTERRUPT if told else Consequence.RECORDED
    if (setting.mcg_cap & McgCap.CTL_P and setting.mcg_ctl != ALL_ONES) or setting.ctl != ALL_ONES:
        return Consequence.IGNORED
    if setting.mcg_status & McgStatus.MCIP or not setting.enabled:
        return Consequence.SHUTDOWN
    return Consequence.EXCEPTION
