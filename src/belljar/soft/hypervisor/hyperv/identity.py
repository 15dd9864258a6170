"""Which virtual processor this is, how long it ran, and resetting the machine (TLFS 7.8, 7.9; 2.6)."""

from __future__ import annotations

from collections.abc import Mapping

from belljar.soft.hypervisor.hyperv.part import UNIT_NS, HypervPart
from belljar.soft.hypervisor.paravirt.part import Register, refuse
from belljar.x86.msr import Msr

RESET = 1


class Identity(HypervPart):
    """HV_X64_MSR_VP_INDEX, HV_X64_MSR_VP_RUNTIME, HV_X64_MSR_RESET."""

    name = "hyperv_identity"

    def msrs(self) -> Mapping[int, Register]:
        """Three."""
        return {
            Msr.HV_VP_INDEX: Register(lambda: self.vcpu.index, refuse),
            Msr.HV_VP_RUNTIME: Register(
                lambda: (self.vcpu.processor.spent + self.vcpu.processor.exits_ns) // UNIT_NS, refuse
            ),
            Msr.HV_RESET: Register(lambda: 0, self._reset),
        }

    def _reset(self, value: int) -> bool:
        if value & RESET:
            self.platform.reset(self.vcpu.index)
        return True
