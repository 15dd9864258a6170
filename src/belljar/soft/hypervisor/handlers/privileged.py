"""MSRs and control registers: the few accesses that the controls leave to the hypervisor are those that must fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.soft.hypervisor.events import inject
from belljar.x86.vectors import Vector

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu


def unknown_msr(vcpu: SoftVcpu) -> None:
    """An MSR outside the ranges of the MSR bitmap: there is none (SDM 3C 25.6.9)."""
    inject(vcpu.processor, Vector.GP, 0)


def control_register(vcpu: SoftVcpu) -> None:
    """An attempt to set CR4.VMXE, the one bit that the guest does not own: #GP(0), for guests have no VMX."""
    inject(vcpu.processor, Vector.GP, 0)
