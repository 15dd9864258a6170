"""EPT violations: memory touched for the first time, or a device's (SDM 3C table 28-7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.exits import ExitReason
from belljar.soft.hypervisor.events import requeue

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

ACCESS = 7


def violation(vcpu: SoftVcpu) -> ExitReason | None:
    """Map the page if a slot has it; else the access is a device's, and the instruction is carried out on the bus.

    A fetch from where no memory is finds all ones, which are no instruction: KVM gives up there, a processor does not.
    """
    processor = vcpu.processor
    wanted = processor.exit_qualification & ACCESS
    requeue(processor)
    if vcpu.mmu.resolve(processor.exit_gpa, wanted):
        return None
    return vcpu.carried_out(vcpu.carry_out())
