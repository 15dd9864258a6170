"""A local APIC's MSRs: IA32_APIC_BASE, IA32_TSC_DEADLINE, the x2APIC registers 0x800 to 0x8FF (SDM 3A 11.4.4, 11.12).

None from a read and False from a write mean #GP(0).
"""

from __future__ import annotations

from typing import Final

from belljar.devices.lapic import Lapic
from belljar.x86.local_apic import (
    BASE_ENABLED,
    BASE_RESERVED,
    BASE_X2APIC,
    SVR_SUPPRESS_EOI,
    VERSION_EOI_SUPPRESSION,
    X2APIC_ICR_RESERVED,
    X2APIC_MSR,
    X2APIC_MSR_COUNT,
    X2APIC_WRITABLE,
    Reg,
)
from belljar.x86.msr import Msr

X2APIC_MSRS: Final = range(X2APIC_MSR, X2APIC_MSR + X2APIC_MSR_COUNT)

APIC_BASE: Final = int(Msr.IA32_APIC_BASE)
TSC_DEADLINE: Final = int(Msr.IA32_TSC_DEADLINE)
ICR: Final = int(Reg.ICR)
SVR: Final = int(Reg.SVR)
SELF_IPI: Final = int(Reg.SELF_IPI)
"""By plain numbers, which compare faster."""

COVERED: Final = frozenset((*X2APIC_MSRS, int(Msr.IA32_APIC_BASE), int(Msr.IA32_TSC_DEADLINE)))


class LapicMsrs:
    """The MSR face of a local APIC. `physical_bits` is the width of a physical address on this processor."""

    def __init__(
        self, lapic: Lapic, *, physical_bits: int = 46, x2apic: bool = True, tsc_deadline: bool = True
    ) -> None:
        self.lapic = lapic
        self._base_reserved = BASE_RESERVED | -(1 << physical_bits) & (1 << 64) - 1 | (0 if x2apic else BASE_X2APIC)
        self._tsc_deadline = tsc_deadline
        self.served = COVERED - {int(Msr.IA32_APIC_BASE)}
        """Those that are nobody's business but the local APIC's."""

    @staticmethod
    def covers(msr: int) -> bool:
        """Whether an MSR is a local APIC's."""
        return msr in COVERED

    def read_msr(self, msr: int) -> int | None:
        """RDMSR."""
        lapic = self.lapic
        if msr == APIC_BASE:
            return lapic.base
        if msr == TSC_DEADLINE:
            return lapic.timer.read_deadline() if self._tsc_deadline else None
        index = msr - X2APIC_MSR
        if not 0 <= index < X2APIC_MSR_COUNT or not lapic.x2apic:
            return None
        return lapic.icr.value if index == ICR else lapic.read(index)

    def write_msr(self, msr: int, value: int) -> bool:
        """WRMSR of 64 bits."""
        lapic = self.lapic
        if msr == APIC_BASE:
            return self._write_base(value)
        if msr == TSC_DEADLINE:
            if self._tsc_deadline:
                lapic.timer.write_deadline(value)
            return self._tsc_deadline
        index = msr - X2APIC_MSR
        if not 0 <= index < X2APIC_MSR_COUNT or not lapic.x2apic:
            return False
        if index == ICR:
            if value & X2APIC_ICR_RESERVED:
                return False
            lapic.icr.write(value)
            return True
        writable = X2APIC_WRITABLE.get(index)
        if index == SVR and (lapic.read(Reg.VERSION) or 0) & VERSION_EOI_SUPPRESSION:
            writable = (writable or 0) | SVR_SUPPRESS_EOI
        if writable is None or value & ~writable:
            return False
        if index == SELF_IPI:
            lapic.icr.interrupt_itself(value)
            return True
        return lapic.write(index, value)

    def _write_base(self, value: int) -> bool:
        """Which changes of mode are allowed says SDM 3A figure 11-27: x2APIC only from xAPIC, and out of it only to off."""
        before = self.lapic.base
        x2apic, enabled = value & BASE_X2APIC, value & BASE_ENABLED
        if value & self._base_reserved or (x2apic and not enabled):
            return False
        if before & BASE_X2APIC and enabled and not x2apic:
            return False
        if x2apic and not before & BASE_ENABLED:
            return False
        self.lapic.set_base(value)
        return True
