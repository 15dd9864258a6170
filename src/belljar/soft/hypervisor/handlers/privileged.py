"""MSRs and control registers: the few accesses that the controls leave to the hypervisor are those that must fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.exits import ExitReason, ReadMsr, WriteMsr
from belljar.soft.hypervisor.answers import KVM_MSR_EXIT_REASON_UNKNOWN, RAX, RCX, RDX
from belljar.soft.hypervisor.events import inject
from belljar.x86.vectors import Vector

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu


def read_msr(vcpu: SoftVcpu) -> ExitReason | None:
    """RDMSR outside the ranges of the MSR bitmap, or with its bit set: there is no such MSR (SDM 3C 25.6.9)."""
    if not vcpu.exits_on_msrs:
        inject(vcpu.processor, Vector.GP, 0)
        return None
    msr = vcpu.processor.get_gpr(RCX) & 0xFFFF_FFFF
    return vcpu.wait_for_answer(ReadMsr(vcpu.index, msr, KVM_MSR_EXIT_REASON_UNKNOWN))


def write_msr(vcpu: SoftVcpu) -> ExitReason | None:
    """The same for WRMSR."""
    if not vcpu.exits_on_msrs:
        inject(vcpu.processor, Vector.GP, 0)
        return None
    low, msr, high = (vcpu.processor.get_gpr(register) & 0xFFFF_FFFF for register in (RAX, RCX, RDX))
    return vcpu.wait_for_answer(WriteMsr(vcpu.index, msr, high << 32 | low, KVM_MSR_EXIT_REASON_UNKNOWN))


def control_register(vcpu: SoftVcpu) -> None:
    """An attempt to set CR4.VMXE, the one bit that the guest does not own: #GP(0), for guests have no VMX."""
    inject(vcpu.processor, Vector.GP, 0)
