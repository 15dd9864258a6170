"""What exits cost a guest in instruction time.

Instructions take a nanosecond each there, and an exit to a real hypervisor takes about as long as a thousand of them. So each
exit that an instruction of the guest's own causes, and that the hypervisor serves, moves the processor's clock on by a fixed
amount as it begins: what serves it reads the time that the guest finds at its next instruction. An instruction with several
accesses to devices, or a repeated one, is charged for each; REP INS for as many items as are asked of the port at once.

What follows from the host's circumstances, or from where a run was told to end, costs nothing, or two runs would differ:
pages of memory mapped when they are first touched, kicks, limits, windows for interrupts, single steps, what is only looked
at. Nor do HLT and loops of PAUSEs, which give time away already.
"""

from __future__ import annotations

from typing import Final

from belljar.soft.hypervisor.reasons import VMX_INSTRUCTIONS, Reason

EXIT_NS: Final = 1_000
"""Nanoseconds for an exit."""

CHARGED: Final = frozenset(
    map(
        int,
        (
            Reason.CPUID,
            Reason.RDMSR,
            Reason.WRMSR,
            Reason.CR_ACCESS,
            Reason.INVD,
            Reason.XSETBV,
            Reason.VMCALL,
            Reason.TASK_SWITCH,
            *VMX_INSTRUCTIONS,
        ),
    )
)
"""Basic exit reasons that are charged when they are served. Accesses of ports and devices are when they are made: IN and OUT
and memory by the processor (`Processor.exit_ns`), INS and OUTS by the window to devices."""
