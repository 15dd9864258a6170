"""MSR_KVM_POLL_CONTROL: whether the host may poll before it lets a halted vCPU sleep; nothing polls here (kernel msr.rst)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.paravirt.cpuid import Feature
from belljar.soft.hypervisor.paravirt.part import ENABLED, Part, Register
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu


class PollControl(Part):
    """One bit, which is kept."""

    name = "poll_control"
    feature = Feature.POLL_CONTROL

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        self.value = ENABLED

    def msrs(self) -> Mapping[int, Register]:
        """One."""
        return {Msr.KVM_POLL_CONTROL: Register(lambda: self.value, self._write)}

    def _write(self, value: int) -> bool:
        if value & ~ENABLED:
            return False
        self.value = value
        return True

    def state(self) -> dict[str, Any]:
        """The bit."""
        return {"value": self.value}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.value = state["value"]
