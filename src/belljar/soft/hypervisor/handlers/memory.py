"""EPT violations: memory touched for the first time, or a device's (SDM 3C table 28-7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from belljar.exits import ExitReason
from belljar.soft.hypervisor.events import block_nmis, requeue
from belljar.soft.hypervisor.reasons import Reason

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

ACCESS: Final = 7
PAGE_MASK: Final = -4096
DONE: Final = int(Reason.PAUSE_BUDGET)
EMULATED: Final = int(Reason.PAUSE_EMULATED)
"""The instruction, or an iteration of it, was carried out."""
NMI_UNBLOCKED: Final = 1 << 12
"""IRET ended NMI blocking, and then did not get to its end (SDM 3C 28.2.3)."""


def violation(vcpu: SoftVcpu) -> ExitReason | None:
    """Map the page if a slot has it; else the access is a device's, and the instruction is carried out on the bus.

    A fetch from where no memory is finds all ones, which are no instruction: KVM gives up there, a processor does not.
    """
    processor, mmu = vcpu.processor, vcpu.mmu
    qualification = processor.exit_qualification
    if processor.interrupted_delivery:
        requeue(processor)
    elif qualification & NMI_UNBLOCKED:
        block_nmis(processor)
    gpa = processor.exit_gpa
    if gpa & PAGE_MASK == mmu.device_page.gpa or mmu.is_device(gpa):
        reason = vcpu.carry_out(gpa & PAGE_MASK)
    elif mmu.resolve(gpa, qualification & ACCESS):
        return None
    else:
        reason = vcpu.carry_out()
    if vcpu.reporting or (reason != DONE and reason != EMULATED):
        return vcpu.carried_out(reason)
    return None
