"""Asynchronous page faults (MSR_KVM_ASYNC_PF_EN and its fellows, kernel msr.rst): a guest asks to be told of pages to wait for.

None is ever waited for here: whatever the host does with guest memory, an instruction that needs it takes that long. So nothing
is ever sent, as on a host that never swaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.paravirt.cpuid import Feature, offered
from belljar.soft.hypervisor.paravirt.part import ENABLED, Part, Register
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

_BY_INTERRUPT = 1 << 3
_RESERVED = 0x34
"""Of the enabling MSR. Bit 2 is for guests of guests and belongs to a feature that there is not, bit 3 to ASYNC_PF_INT."""

_VECTOR = 0xFF
_ACKNOWLEDGED = 1


class AsyncPageFaults(Part):
    """Three MSRs, of which two are kept."""

    name = "async_page_faults"
    feature = Feature.ASYNC_PF

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        self._interrupts = bool(offered(vcpu) & Feature.ASYNC_PF_INT)
        self._reserved = _RESERVED if self._interrupts else _RESERVED | _BY_INTERRUPT
        self.value = 0
        self.vector = 0

    def msrs(self) -> Mapping[int, Register]:
        """Enabling; where "page ready" comes by interrupt its vector and its acknowledgement."""
        enabling: dict[int, Register] = {Msr.KVM_ASYNC_PF_EN: Register(lambda: self.value, self._write)}
        if not self._interrupts:
            return enabling
        enabling[Msr.KVM_ASYNC_PF_INT] = Register(lambda: self.vector, self._write_vector)
        enabling[Msr.KVM_ASYNC_PF_ACK] = Register(lambda: 0, lambda value: not value & ~_ACKNOWLEDGED)
        return enabling

    def _write(self, value: int) -> bool:
        if value & self._reserved:
            return False
        self.value = value
        return True

    def _write_vector(self, value: int) -> bool:
        if value & ~_VECTOR:
            return False
        self.vector = value
        return True

    def reset(self) -> None:
        """Off."""
        self.value = self.vector = 0

    def decode(self) -> dict[str, Any]:
        """What the guest asked for."""
        return {"value": self.value, "vector": self.vector} if self.value & ENABLED else {}

    def state(self) -> dict[str, Any]:
        """The two MSRs."""
        return {"value": self.value, "vector": self.vector}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.value, self.vector = state["value"], state["vector"]
