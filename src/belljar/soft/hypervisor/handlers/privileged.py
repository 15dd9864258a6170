"""MSRs and control registers: the few accesses that the controls leave to the hypervisor are those that must fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from belljar.exits import ExitReason, ReadMsr, WriteMsr
from belljar.soft.hypervisor.answers import KVM_MSR_EXIT_REASON_UNKNOWN, finish
from belljar.soft.hypervisor.events import inject
from belljar.soft.hypervisor.handlers.ends import behind
from belljar.soft.hypervisor.msrs import is_machine_check, is_own
from belljar.soft.processor.fields import Field
from belljar.x86.vectors import Vector

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

CR_NUMBER: Final = 15
"""Exit qualification for control-register accesses (SDM 3C table 28-3)."""

CR8: Final = 8
CR8_MAX: Final = 15
RSP: Final = 4

READ: Final = ExitReason.RDMSR
RDMSR: Final = int(ExitReason.RDMSR)
WRMSR: Final = int(ExitReason.WRMSR)


def read_msr(vcpu: SoftVcpu) -> ExitReason | None:
    """RDMSR outside the ranges of the MSR bitmap, or with its bit set (SDM 3C 25.6.9): the hypervisor's own, or none."""
    msr = vcpu.processor.msr_accessed()
    device = vcpu.msr_device
    if device is not None and msr in device.served and not vcpu.reporting:
        vcpu.log.counts[RDMSR] += 1
        finish(vcpu.processor, READ, device.read_msr(msr))
        return None
    if is_machine_check(msr) and vcpu.has_machine_checks:
        finish(vcpu.processor, ExitReason.RDMSR, vcpu.machine_checks.read(msr))
        return None
    register = vcpu.interfaces.msrs.get(msr) if is_own(msr) else None
    if register is not None:
        finish(vcpu.processor, ExitReason.RDMSR, register.read())
        return None
    if msr not in vcpu.exiting_msrs:
        inject(vcpu.processor, Vector.GP, 0)
        return None
    return vcpu.wait_for_answer(ReadMsr(vcpu.index, msr, KVM_MSR_EXIT_REASON_UNKNOWN))


def write_msr(vcpu: SoftVcpu) -> ExitReason | None:
    """The same for WRMSR."""
    msr, value = vcpu.processor.msr_accessed(), vcpu.processor.msr_written()
    device = vcpu.msr_device
    if device is not None and msr in device.served and not vcpu.reporting:
        vcpu.log.counts[WRMSR] += 1
        if device.write_msr(msr, value):
            vcpu.processor.skip_instruction()
        else:
            inject(vcpu.processor, Vector.GP, 0)
        return None
    if is_machine_check(msr) and vcpu.has_machine_checks:
        finish(vcpu.processor, ExitReason.WRMSR, 0 if vcpu.machine_checks.write(msr, value) else None)
        return None
    own = vcpu.interfaces.msrs.get(msr) if is_own(msr) else None
    if own is not None:
        finish(vcpu.processor, ExitReason.WRMSR, 0 if own.write(value) else None)
        return None
    if msr not in vcpu.exiting_msrs:
        inject(vcpu.processor, Vector.GP, 0)
        return None
    return vcpu.wait_for_answer(WriteMsr(vcpu.index, msr, value, KVM_MSR_EXIT_REASON_UNKNOWN))


def control_register(vcpu: SoftVcpu) -> ExitReason | None:
    """CR8, where there are interrupts that it may hold back: the run ends behind it.

    Else an attempt to set CR4.VMXE, the one bit that the guest does not own: #GP(0), for guests have no VMX.
    """
    processor = vcpu.processor
    qualification = processor.exit_qualification
    if qualification & CR_NUMBER != CR8:
        inject(processor, Vector.GP, 0)
        return None
    register = qualification >> 8 & 15
    value = processor.vmread(Field.GUEST_RSP) if register == RSP else processor.get_gpr(register)
    if value > CR8_MAX:
        inject(processor, Vector.GP, 0)
        return None
    processor.cr8 = value
    vcpu.cr8_written = True
    processor.skip_instruction()
    return behind(vcpu)
