"""MSRs of a vCPU as the host reads and writes them, whoever keeps them: the hypervisor, the VMCS, the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.soft.hypervisor.msrs import is_machine_check, is_own, read_msr, write_msr
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu


def read(vcpu: SoftVcpu, index: int) -> int | None:
    """An MSR's value; None if there is no such MSR."""
    if vcpu.has_machine_checks and is_machine_check(index):
        return vcpu.machine_checks.read(index)
    if not is_own(index):
        return read_msr(vcpu.processor, index)
    register = vcpu.interfaces.msrs.get(index)
    return None if register is None else register.read()


def write(vcpu: SoftVcpu, index: int, value: int) -> bool:
    """Set an MSR; False if the number or the value is refused. Setting the counter itself leaves IA32_TSC_ADJUST alone."""
    if vcpu.has_machine_checks and is_machine_check(index):
        return vcpu.machine_checks.write(index, value, host=True)
    if not is_own(index):
        return write_msr(vcpu.processor, index, value)
    if index == Msr.IA32_TIME_STAMP_COUNTER:
        vcpu.tsc.set(value)
        return True
    if index == Msr.IA32_TSC_ADJUST:
        vcpu.tsc.adjust = value
        return True
    register = vcpu.interfaces.msrs.get(index)
    return register is not None and register.write(value)
