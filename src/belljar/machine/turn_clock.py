"""The clock of vCPUs that run in turn on an engine that counts instructions."""

from __future__ import annotations

from typing import Final

from belljar.devices.clock import InstructionClock
from belljar.engine import Vcpu

PAUSES_NS: Final = 10_000
"""What the PAUSEs of a loop that comes back for them take on real processors: some 70 of 140 cycles each (Intel's optimization
manual, PAUSE latency in Skylake client microarchitecture)."""


class TurnClock(InstructionClock):
    """One nanosecond an instruction, whichever vCPU executes it, and what exits cost; it can be read in the middle of a run.

    The processors' own time-stamp counters show the same.
    """

    def __init__(self) -> None:
        super().__init__(earlier=self._earlier)
        self.running: Vcpu | None = None
        """The vCPU that executes instructions now."""
        self._last: Vcpu | None = None  # whose counter shows the time
        self._skipped = False  # nobody's does

    def now_ns(self) -> int:
        """Nanoseconds since the machine was made."""
        running = self.running
        return self.time_ns if running is None else running.clock_ns

    def _earlier(self) -> None:
        if self.running is not None:
            self.running.kick()  # it could run past what is due first now

    def enter(self, vcpu: Vcpu) -> None:
        """A vCPU begins to run."""
        if vcpu is not self._last or self._skipped:
            vcpu.clock_ns = self.time_ns
            self._last, self._skipped = vcpu, False
        self.running = vcpu

    def leave(self, vcpu: Vcpu) -> None:
        """It has run."""
        self.time_ns = vcpu.clock_ns
        self.running = None

    def run_due(self) -> int:
        """Run what is due now; how many timers ran."""
        return self.timers.run_due(self.time_ns)

    def run_due_at(self, host_ns: int) -> None:
        """The host's time does not matter."""
        self.timers.run_due(self.time_ns)

    def skip(self) -> None:
        """Nobody runs: move on to the first timer, and run what is due."""
        if self.timers.first_ns > self.time_ns:
            self.time_ns = self.timers.first_ns
            self._skipped = True
        self.timers.run_due(self.time_ns)

    def linger(self) -> None:
        """The only vCPU with anything to run for waits in a loop of PAUSEs: they take their time, to the first timer at most."""
        until_ns = min(self.timers.first_ns, self.time_ns + PAUSES_NS)
        if until_ns > self.time_ns:
            self.time_ns = until_ns
            self._skipped = True

    def due_ns(self) -> int | None:
        """The host need not wait for this clock."""
        return None

    def pause(self) -> None:
        """It stands still by itself."""

    def resume(self) -> None:
        """It goes on by itself."""
