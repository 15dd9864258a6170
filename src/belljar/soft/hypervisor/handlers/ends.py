"""What ends a run, or is nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from belljar.engine_data import GAVE_TURN, WAITS, WAITS_STILL
from belljar.exits import Debug, ExitReason, FailEntry, IrqWindowOpen, Shutdown
from belljar.soft.hypervisor.events import Kind, inject, inject_nmi
from belljar.soft.hypervisor.vcpu_events import INTERRUPT_WINDOW, NMI_WINDOW

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

ENTRY_FAILED_ON_GUEST_STATE: Final = 0x80000021
"""Exit reason 33 with bit 31 (SDM 3C 27.8)."""

DB: Final = 1
DR6_RESET: Final = 0xFFFF0FF0
DR7_RESET: Final = 0x400
DR6_BS: Final = 1 << 14
DEBUG_REGISTERS: Final = 4


def nothing(vcpu: SoftVcpu) -> None:
    """A pause: the run loop looks at its limits."""


def halt(vcpu: SoftVcpu) -> ExitReason | None:
    """HLT: the run ends behind it, unless its own single-step trap ends the halt."""
    if vcpu.processor.take_halt():
        return None
    return vcpu.end_halted()


def behind(vcpu: SoftVcpu) -> ExitReason | None:
    """The run ends behind an instruction that was carried out; where the host steps, the step is what ends it."""
    return None if vcpu.debug.single_step else vcpu.end(vcpu.interrupted)


def spinning(vcpu: SoftVcpu) -> ExitReason | None:
    """A loop of PAUSEs: this vCPU waits for another, whose turn it may be now."""
    vcpu.processor.skip_instruction()
    vcpu.gives_turn = GAVE_TURN
    return behind(vcpu)


def waiting(vcpu: SoftVcpu) -> ExitReason | None:
    """A loop that nothing but another vCPU or an event will end."""
    vcpu.gives_turn = WAITS_STILL if vcpu.processor.exit_qualification else WAITS
    return behind(vcpu)


def idle(vcpu: SoftVcpu) -> ExitReason:
    """The guest is in the HLT state already."""
    return vcpu.end(vcpu.halted)


def request(vcpu: SoftVcpu) -> None:
    """Another thread wants something done."""
    vcpu.requests.serve()


def triple_fault(vcpu: SoftVcpu) -> ExitReason:
    """Shutdown."""
    return vcpu.end(Shutdown(vcpu.index))


def failed_entry(vcpu: SoftVcpu) -> ExitReason:
    """The guest state does not pass the checks of VM entry."""
    return vcpu.end(FailEntry(vcpu.index, ENTRY_FAILED_ON_GUEST_STATE))


def kicked(vcpu: SoftVcpu) -> ExitReason:
    """Somebody wants this run to end."""
    return vcpu.end(vcpu.interrupted)


def interrupt_window(vcpu: SoftVcpu) -> ExitReason:
    """The guest can take an interrupt now; asking once is answered once. One that was put off comes first."""
    vcpu.want(INTERRUPT_WINDOW, False)
    if vcpu.put_off is not None:
        vector, vcpu.put_off = vcpu.put_off, None
        inject(vcpu.processor, vector, kind=Kind.EXTERNAL_INTERRUPT)
        return vcpu.end(vcpu.interrupted)  # whose chips may want the window again
    return vcpu.end(IrqWindowOpen(vcpu.index))


def nmi_window(vcpu: SoftVcpu) -> None:
    """The guest can take an NMI now, and one waits for it."""
    vcpu.nmis -= 1
    if not vcpu.nmis:
        vcpu.want(NMI_WINDOW, False)
    inject_nmi(vcpu.processor)


def debug(vcpu: SoftVcpu) -> ExitReason:
    """A breakpoint, or a watchpoint by its position. The first four get their bits in DR6, as from debug registers."""
    position = vcpu.processor.exit_qualification
    pc_gva = vcpu.pc_gva()
    if position:
        number = len(vcpu.debug.breakpoints_gva) + position - 1
    else:
        number = vcpu.debug.breakpoints_gva.index(pc_gva)
    hit = 1 << number if number < DEBUG_REGISTERS else 0
    return vcpu.end(Debug(vcpu.index, DB, pc_gva, DR6_RESET | hit, DR7_RESET))


def stepped(vcpu: SoftVcpu) -> ExitReason:
    """One instruction was executed, as asked for."""
    return vcpu.end(Debug(vcpu.index, DB, vcpu.pc_gva(), DR6_RESET | DR6_BS, DR7_RESET))
