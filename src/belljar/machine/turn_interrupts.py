"""Interrupt chips of a machine whose vCPUs run in turn: time is what they have executed, and idle time is skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from belljar.breath import breathe
from belljar.devices.bus import Bus
from belljar.devices.clock import NEVER
from belljar.engine import Vcpu
from belljar.engine_data import GAVE_TURN
from belljar.exits import ExitReason
from belljar.machine.cpu import Cpu
from belljar.machine.own_interrupts import HLT, INTERRUPTED, IRQ_WINDOW_OPEN, Lockable, OwnInterrupts, Timekeeper
from belljar.machine.seat import ACTIVE, Seat
from belljar.machine.turn import Turn
from belljar.machine.turn_clock import TurnClock
from belljar.machine.turn_lock import TurnLock
from belljar.machine.wakeups import may_wake

INSTRUCTION_LIMIT: Final = ExitReason.INSTRUCTION_LIMIT

ROUNDS_PER_LOOK: Final = 64
"""Entries between two looks at the host's clock and signals, beside the engine's own in long runs."""


class TurnInterrupts(OwnInterrupts):
    """As `OwnInterrupts`, for an engine that counts instructions and wants no threads: the same in every run."""

    def __init__(self, cpus: Sequence[Cpu], bus: Bus, *, optional: bool = False) -> None:
        self._time = TurnClock()
        self._turns = TurnLock(self._call)
        self._cpus = cpus
        self._attention = False
        self._running: Vcpu | None = None
        self._own_seats = ()
        super().__init__(cpus, bus, optional=optional)

    def _make_clock(self) -> Timekeeper:
        return self._time

    def _make_lock(self, bus: Bus) -> Lockable:
        return self._turns

    def _make_seat(self, cpu: Cpu, bus: Bus) -> Seat:
        lapic, tsc = self.chips.lapics[cpu.index], cpu.vcpu.tsc
        lapic.timer.use_counter(tsc)  # its TSC deadlines are on the guest's counter, wherever that is moved to
        tsc.changed.append(lapic.timer.rearm)
        seat = Seat(cpu, lapic, bus)
        cpu.vcpu.serve_msrs(seat.msrs)
        return seat

    def cpus_changed(self, cpus: Sequence[Cpu]) -> None:
        """As `OwnInterrupts.cpus_changed`."""
        self._cpus = cpus

    def _call(self) -> None:
        for cpu in self._cpus:
            cpu.vcpu.kick()

    def _wake(self, index: int) -> None:
        if index < len(self._own_seats):
            seat = self._own_seats[index]
            seat.stale = True
            running = self._running
            if running is not None and running is seat.cpu.vcpu:
                running.kick()

    def wake_all(self) -> None:
        """As `OwnInterrupts.wake_all`."""
        self._attention = True
        super().wake_all()

    def run(self, index: int, turn: Turn) -> ExitReason | None:
        """As `OwnInterrupts.run`; `instructions` is for all entries together."""
        hooks = self._own_seats[index].hooks
        if hooks is None:
            return self._run(index, turn)
        hooks.turn_begins()
        try:
            return self._run(index, turn)
        finally:
            hooks.turn_ends(self._own_seats[index].activity is not ACTIVE)

    def _run(self, index: int, turn: Turn) -> ExitReason | None:
        seat, clock, turns = self._own_seats[index], self._time, self._turns
        vcpu, timers, left, patient = seat.cpu.vcpu, clock.timers, turn.instructions, turn.patient
        end_ns = NEVER if turn.span_ns is None else clock.time_ns + turn.span_ns
        charged_ns = 0 if left is None else vcpu.exits_ns()
        rounds = 0
        with turns:
            while True:
                if timers.first_ns <= clock.time_ns:
                    clock.run_due()
                if turns.callers or self._attention:
                    self._attend()
                    if turn.over():
                        return INTERRUPTED
                if rounds % ROUNDS_PER_LOOK == 0:
                    breathe()
                    if turn.late():
                        return INTERRUPTED
                rounds += 1
                if (seat.stale or seat.activity is not ACTIVE) and not seat.prepare():
                    if seat.stepping or self.all_asleep():
                        return HLT
                    if not patient:
                        return None
                    self.rest(turn.deadline_ns)
                    continue
                begin_ns = clock.time_ns
                until_ns = timers.first_ns if timers.first_ns < end_ns else end_ns
                budget = until_ns - begin_ns
                if left is not None and left < budget:
                    budget = left
                clock.enter(vcpu)
                self._running = vcpu
                try:
                    reason = vcpu.run(
                        seat.bus,
                        deadline_ns=turn.deadline_ns,
                        instructions=budget if budget < NEVER >> 1 else None,
                        until_ns=until_ns,
                        single_exit=turn.single_exit,
                        observer=turn.observer,
                    )
                finally:
                    clock.leave(vcpu)
                    self._running = None
                if left is not None:
                    before_ns, charged_ns = charged_ns, vcpu.exits_ns()
                    left -= clock.time_ns - begin_ns - (charged_ns - before_ns)
                if reason is HLT:
                    seat.halt()
                    if seat.stepping:
                        return HLT
                    if patient and seat.interruptible and not seat.stale and timers.first_ns != NEVER:
                        clock.skip()
                elif reason is INSTRUCTION_LIMIT:
                    if (left is not None and left <= 0) or clock.time_ns >= end_ns or budget >= NEVER >> 1:
                        return reason
                elif reason is INTERRUPTED:
                    seat.came_back(reason)
                    turn.gave = vcpu.gave_turn()
                    gives = self._gives_turn(seat, turn)
                    if not gives:
                        self._linger(turn)
                    # Who wants the run to be over has called for attention.
                    if gives or (self._attention and turn.over()) or turn.late() or clock.time_ns >= end_ns:
                        return reason
                elif reason is IRQ_WINDOW_OPEN:
                    seat.came_back(reason)
                else:
                    turn.gave = vcpu.gave_turn()
                    if not self._gives_turn(seat, turn):
                        self._linger(turn)
                    return reason

    def _linger(self, turn: Turn) -> None:
        """Let time pass for a loop of PAUSEs that keeps its turn."""
        if turn.gave == GAVE_TURN and not turn.patient:
            self._time.linger()

    def _gives_turn(self, seat: Seat, turn: Turn) -> bool:
        """Whether to end a turn that was given away; one that waits in a loop of PAUSEs keeps it where nobody wants it."""
        if turn.patient or not turn.gave:
            return False
        return turn.gave != GAVE_TURN or any(other is not seat and other.wants_to_run for other in self._own_seats)

    def _attend(self) -> None:
        self._attention = False
        if self._turns.callers:
            self._turns.let_in()

    def all_asleep(self) -> bool:
        """As `OwnInterrupts.all_asleep`. Nothing comes from outside but what was said to be expected."""
        if any(seat.wants_to_run for seat in self.seats):
            return False
        if self._messages_expected and not all(seat.asleep() for seat in self._own_seats):
            return False
        return not may_wake(self.chips, self._own_seats, self._time.timers, self._outside())

    def rest(self, until_ns: int | None) -> None:
        """Skip to the next timer; where there is none, wait for the host."""
        if self._time.timers.first_ns == NEVER:
            super().rest(until_ns)
        else:
            self._time.skip()
