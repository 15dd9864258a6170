"""A vCPU's time-stamp counter where it follows the host's, on a machine's clock that stands still between runs."""

from __future__ import annotations

import time

from belljar.devices.clock import Clock
from belljar.platform import TimeStampCounter


class HostCounter:
    """What a local APIC's timer needs of it for TSC deadlines (`belljar.devices.lapic_timer.Counter`)."""

    def __init__(self, tsc: TimeStampCounter, clock: Clock) -> None:
        """`tsc` tells times of time.monotonic_ns()."""
        self._tsc = tsc
        self._clock = clock

    def read(self) -> int:
        """The counter now, 64 bits."""
        return self._tsc.read()

    def ns_at(self, value: int) -> int:
        """The clock's time when it first shows `value` or more, if the clock goes on."""
        return self._clock.now_ns() + self._tsc.ns_at(value) - time.monotonic_ns()
