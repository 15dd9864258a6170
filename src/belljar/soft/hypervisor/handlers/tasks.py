"""Task switches always exit (SDM 3C 26.2); the processor carries them out on the hypervisor's behalf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.exits import ExitReason
from belljar.soft.hypervisor.events import requeue

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu


def switch(vcpu: SoftVcpu) -> ExitReason | None:
    """Do the CALL, JMP, IRET or event again with the window open, which lets task switches happen."""
    requeue(vcpu.processor)
    return vcpu.carried_out(vcpu.carry_out())
