"""The clock of vCPUs that run in turn on an engine that counts instructions."""

from __future__ import annotations

from belljar.devices.clock import InstructionClock
from belljar.engine import Vcpu


class TurnClock(InstructionClock):
    """One nanosecond an instruction, whichever vCPU executes it; it can be read in the middle of a run.

    The processors' own time-stamp counters show the same.
    """

    def __init__(self) -> None:
        super().__init__(earlier=self._earlier)
        self.running: Vcpu | None = None
        """The vCPU that executes instructions now."""

    def now_ns(self) -> int:
        """Nanoseconds since the machine was made."""
        running = self.running
        return self._now_ns if running is None else running.clock_ns

    def _earlier(self) -> None:
        if self.running is not None:
            self.running.kick()  # it could run past what is due first now

    def enter(self, vcpu: Vcpu) -> None:
        """A vCPU begins to run."""
        vcpu.clock_ns = self._now_ns
        self.running = vcpu

    @property
    def entered_ns(self) -> int:
        """When the vCPU that is running began to."""
        return self._now_ns

    def leave(self, vcpu: Vcpu, at_least_ns: int) -> int:
        """It has run; for how long. Rounds without an instruction count, too, if they used up a run: it is `at_least_ns` then."""
        before_ns = self._now_ns
        self._now_ns = max(vcpu.clock_ns, at_least_ns)
        self.running = None
        return self._now_ns - before_ns

    def time_left(self) -> int:
        """For how long nothing is due: 0 or less if something is."""
        return self.timers.first_ns - self._now_ns

    def run_due(self) -> int:
        """Run what is due now; how many timers ran."""
        return self.timers.run_due(self._now_ns)

    def skip(self) -> None:
        """Nobody runs: move on to the first timer, and run what is due."""
        if self.timers.first_ns > self._now_ns:
            self._now_ns = self.timers.first_ns
        self.timers.run_due(self._now_ns)

    def due_ns(self) -> int | None:
        """The host need not wait for this clock."""
        return None

    def pause(self) -> None:
        """It stands still by itself."""

    def resume(self) -> None:
        """It goes on by itself."""
