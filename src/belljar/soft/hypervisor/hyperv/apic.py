"""The local APIC's most used registers as MSRs, and the page by which an end of interrupt needs no exit (TLFS 10.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.hyperv.part import PAGE, PAGE_MASK, HypervPart
from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.hypervisor.paravirt.eoi import PvEoi
from belljar.soft.hypervisor.paravirt.part import ENABLED, Register
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.platform import LocalApic
    from belljar.soft.hypervisor.vcpu import SoftVcpu

LOW32 = 0xFFFF_FFFF


class ApicAccess(HypervPart):
    """HV_X64_MSR_EOI, _ICR, _TPR, _VP_ASSIST_PAGE; the first word of the page is PV EOI's, if that is there."""

    name = "hyperv_apic"

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        self.assist_page = 0

    def msrs(self) -> Mapping[int, Register]:
        """Four; EOI cannot be read."""
        return {
            Msr.HV_EOI: Register(lambda: None, self._write_eoi),
            Msr.HV_ICR: Register(lambda: self._lapic.read_icr(), self._write_icr),
            Msr.HV_TPR: Register(lambda: self._lapic.read_tpr(), self._write_tpr),
            Msr.HV_VP_ASSIST_PAGE: Register(lambda: self.assist_page, self._write_assist_page),
        }

    @property
    def _lapic(self) -> LocalApic:
        return self.platform.local_apic(self.vcpu.index)

    def _write_eoi(self, value: int) -> bool:
        self._lapic.end_of_interrupt()
        return True

    def _write_icr(self, value: int) -> bool:
        self._lapic.write_icr(value)
        return True

    def _write_tpr(self, value: int) -> bool:
        self._lapic.write_tpr(value & LOW32)
        return True

    def _write_assist_page(self, value: int) -> bool:
        gpa = value & PAGE_MASK
        if value & ENABLED and not memory.write(self.vcpu.mmu, gpa, bytes(PAGE)):
            return False
        pv_eoi = self.vcpu.interfaces.parts.get(PvEoi.name)
        if isinstance(pv_eoi, PvEoi):
            pv_eoi.use(gpa if value & ENABLED else None)
        self.assist_page = value
        return True

    def reset(self) -> None:
        """The page is forgotten, as PV EOI is."""
        self.assist_page = 0

    def state(self) -> dict[str, Any]:
        """The page's MSR; what it is used for is PV EOI's state."""
        return {"assist_page": self.assist_page}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.assist_page = state["assist_page"]
