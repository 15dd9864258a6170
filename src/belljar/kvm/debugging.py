"""Breakpoints and watchpoints as debug registers (SDM 3B 18.2)."""

from __future__ import annotations

from belljar.engine_data import DebugControl
from belljar.errors import ConfigurationError, FeatureUnsupported
from belljar.kvm.abi.flags import (
    KVM_GUESTDBG_BLOCKIRQ,
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP,
    KVM_GUESTDBG_USE_HW_BP,
)

DEBUG_REGISTERS = 4
DR7_FIXED = 1 << 10
"""Reads as 1 always (SDM 3B 18.2.4)."""

ON_EXECUTION, ON_WRITE, ON_ACCESS = 0b00, 0b01, 0b11
"""The R/W field of DR7."""

LENGTHS = {1: 0b00, 2: 0b01, 4: 0b11, 8: 0b10}
"""The LEN field of DR7 by size in bytes."""


def debug_registers(control: DebugControl, known: int = 0) -> tuple[int, tuple[int, ...]]:
    """The flags of KVM_SET_GUEST_DEBUG and DR0 to DR7. `known`: what KVM_CAP_SET_GUEST_DEBUG2 says.

    Raises FeatureUnsupported past four, ConfigurationError for a bad size.
    """
    points = [(gva, ON_EXECUTION, 0) for gva in control.breakpoints_gva]
    for watchpoint in control.watchpoints:
        if watchpoint.size not in LENGTHS or watchpoint.gva % watchpoint.size:
            raise ConfigurationError(
                f"a watchpoint covers 1, 2, 4 or 8 aligned bytes, not {watchpoint.size} at {watchpoint.gva:#x}"
            )
        kind = ON_ACCESS if watchpoint.on_read else ON_WRITE
        points.append((watchpoint.gva, kind, LENGTHS[watchpoint.size]))
    if len(points) > DEBUG_REGISTERS:
        raise FeatureUnsupported(
            f"{len(points)} breakpoints and watchpoints: a processor has {DEBUG_REGISTERS} debug registers",
            hint="`--engine soft` has as many as you like",
        )
    registers = [0] * 8
    dr7 = DR7_FIXED
    for number, (gva, kind, length) in enumerate(points):
        registers[number] = gva & (1 << 64) - 1
        dr7 |= 1 << 2 * number | (kind | length << 2) << (16 + 4 * number)
    registers[7] = dr7
    flags = KVM_GUESTDBG_ENABLE if control.active else 0
    if control.single_step:
        flags |= KVM_GUESTDBG_SINGLESTEP | known & KVM_GUESTDBG_BLOCKIRQ
    if points:
        flags |= KVM_GUESTDBG_USE_HW_BP
    return flags, tuple(registers)
