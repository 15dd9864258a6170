"""The one table: basic exit reason -> handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from belljar.exits import ExitReason
from belljar.soft.hypervisor.handlers import (
    cpuid,
    ends,
    instructions,
    memory,
    ports,
    privileged,
    tasks,
)
from belljar.soft.hypervisor.reasons import VMX_INSTRUCTIONS, Reason

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

Handler = Callable[["SoftVcpu"], ExitReason | None]

_BY_REASON: dict[int, Handler] = {
    Reason.IO: ports.access,
    Reason.EPT_VIOLATION: memory.violation,
    Reason.CPUID: cpuid.cpuid,
    Reason.RDMSR: privileged.read_msr,
    Reason.WRMSR: privileged.write_msr,
    Reason.CR_ACCESS: privileged.control_register,
    Reason.INVD: instructions.skip,
    Reason.XSETBV: instructions.undefined,
    Reason.VMCALL: instructions.hypercall,
    **dict.fromkeys(VMX_INSTRUCTIONS, instructions.undefined),
    Reason.TASK_SWITCH: tasks.switch,
    Reason.HLT: ends.halt,
    Reason.PAUSE: ends.spinning,
    Reason.PAUSE_WAITING: ends.waiting,
    Reason.PAUSE_IDLE: ends.idle,
    Reason.TRIPLE_FAULT: ends.triple_fault,
    Reason.BAD_GUEST_STATE: ends.failed_entry,
    Reason.EXTERNAL_INTERRUPT: ends.kicked,
    Reason.INTERRUPT_WINDOW: ends.interrupt_window,
    Reason.NMI_WINDOW: ends.nmi_window,
    Reason.PAUSE_DEBUG: ends.debug,
    Reason.PAUSE_BUDGET: ends.nothing,
    Reason.PAUSE_REQUEST: ends.request,
    Reason.PAUSE_EMULATED: ends.nothing,
}

HANDLERS = {int(reason): handler for reason, handler in _BY_REASON.items()}
"""What is not in it is an exit that no control asks for: an internal error. By plain numbers, which compare faster."""
