"""What a vCPU of several waits for."""

from __future__ import annotations

from enum import IntEnum


class MpState(IntEnum):
    """The multiprocessing states of x86, with KVM's numbers (api.rst 4.38)."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    """Not the bootstrap processor, and no INIT has come yet: a start-up IPI is not heard."""
    INIT_RECEIVED = 2
    """Waits for a start-up IPI (SDM 3A 9.4.1)."""
    HALTED = 3
    SIPI_RECEIVED = 4
    """Starts with its next entry where the start-up IPI said."""
