"""The same for vCPUs that run in turn: time is what they have executed, and idle time is skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from belljar.devices.bus import LockedBus
from belljar.devices.clock import InstructionClock, Timer
from belljar.engine import Vcpu
from belljar.exits import Exit, ExitReason
from belljar.machine.cpu import Cpu
from belljar.machine.own_interrupts import INTERRUPTED, OwnInterrupts, Timekeeper
from belljar.machine.seat import Seat
from belljar.machine.split_seat import SplitSeat

INSTRUCTION_LIMIT = ExitReason.INSTRUCTION_LIMIT


class TurnClock(InstructionClock):
    """One nanosecond an instruction, whichever vCPU executes it; it can be read in the middle of a run.

    The processors' own time-stamp counters show the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: Vcpu | None = None
        self._offset_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since the machine was made."""
        if self._running is None:
            return self._now_ns
        return self._offset_ns + self._running.instructions_retired()

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """As `Clock.call_at`. A run that is going on ends if it could miss this."""
        first_ns = self.next_deadline_ns()
        if self._running is not None and (first_ns is None or deadline_ns < first_ns):
            self._running.kick()
        return super().call_at(deadline_ns, callback)

    def enter(self, vcpu: Vcpu) -> None:
        """A vCPU begins to run."""
        vcpu.clock_ns = self._now_ns
        self._offset_ns = self._now_ns - vcpu.instructions_retired()
        self._running = vcpu

    def leave(self, vcpu: Vcpu, at_least_ns: int) -> None:
        """It has run. Rounds without an instruction count too where they used up a run: `at_least_ns` is the time then."""
        self._now_ns = max(self.now_ns(), at_least_ns)
        self._running = None

    def due_ns(self) -> int | None:
        """The host need not wait for this clock."""
        return None

    def run_due(self) -> int:
        """Run what is due now; how many timers ran."""
        return self.advance(0)

    def pause(self) -> None:
        """It stands still by itself."""

    def resume(self) -> None:
        """It goes on by itself."""


class TurnInterrupts(OwnInterrupts):
    """As `OwnInterrupts`, for an engine that counts instructions and wants no threads: the same in every run."""

    def __init__(self, cpus: Sequence[Cpu], bus: LockedBus) -> None:
        self._time = TurnClock()
        self._left: int | None = None
        super().__init__(cpus, bus)

    def _make_clock(self) -> Timekeeper:
        return self._time

    def run(
        self,
        index: int,
        *,
        deadline_ns: int | None,
        instructions: int | None,
        over: Callable[[], bool],
        observer: Callable[[Exit], None] | None,
        single_exit: bool,
        patient: bool,
    ) -> ExitReason | None:
        """As `OwnInterrupts.run`; `instructions` is for all entries together."""
        self._left = instructions
        return super().run(
            index,
            deadline_ns=deadline_ns,
            instructions=instructions,
            over=over,
            observer=observer,
            single_exit=single_exit,
            patient=patient,
        )

    def _enter(
        self,
        seat: Seat | SplitSeat,
        until_ns: int | None,
        instructions: int | None,
        single_exit: bool,
        observer: Callable[[Exit], None] | None,
    ) -> ExitReason:
        vcpu, clock = seat.cpu.vcpu, self._time
        begin_ns = clock.now_ns()
        first_ns = clock.next_deadline_ns()
        budget = self._left
        if first_ns is not None:
            to_timer = max(first_ns - begin_ns, 1)
            budget = to_timer if budget is None else min(budget, to_timer)
        clock.enter(vcpu)
        used_up = False
        try:
            reason = vcpu.run(
                seat.bus, deadline_ns=until_ns, instructions=budget, single_exit=single_exit, observer=observer
            )
            used_up = reason is INSTRUCTION_LIMIT and budget is not None
        finally:
            clock.leave(vcpu, begin_ns + budget if used_up and budget is not None else begin_ns)
        if self._left is not None:
            self._left -= clock.now_ns() - begin_ns
        if used_up and (self._left is None or self._left > 0):
            return INTERRUPTED  # a timer is due
        return reason

    def rest(self, until_ns: int | None) -> None:
        """Skip to the next timer; where there is none, wait for the host."""
        first_ns = self._time.next_deadline_ns()
        if first_ns is None:
            super().rest(until_ns)
            return
        self.lock.wait(0)  # another thread may have something for the chips
        self._time.advance_to(max(first_ns, self._time.now_ns()))
