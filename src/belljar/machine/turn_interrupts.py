"""Interrupt chips of a machine whose vCPUs run in turn: time is what they have executed, and idle time is skipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from belljar.devices.bus import Bus
from belljar.devices.clock import NEVER
from belljar.exits import Exit, ExitReason
from belljar.machine.cpu import Cpu
from belljar.machine.own_interrupts import HLT, INTERRUPTED, IRQ_WINDOW_OPEN, Lockable, OwnInterrupts, Timekeeper
from belljar.machine.seat import ACTIVE, Seat
from belljar.machine.turn_clock import TurnClock
from belljar.machine.turn_lock import TurnLock

INSTRUCTION_LIMIT = ExitReason.INSTRUCTION_LIMIT

ROUNDS_PER_LOOK = 64
"""Entries between two looks at the host's clock, beside the engine's own in long runs."""


class TurnInterrupts(OwnInterrupts):
    """As `OwnInterrupts`, for an engine that counts instructions and wants no threads: the same in every run."""

    def __init__(self, cpus: Sequence[Cpu], bus: Bus, *, optional: bool = False) -> None:
        self._time = TurnClock()
        self._turns = TurnLock(self._call)
        self._cpus = cpus
        self._attention = False
        self._turn_seats: tuple[Seat, ...] = ()
        super().__init__(cpus, bus, optional=optional)
        self._turn_seats = tuple(seat for seat in self.seats if isinstance(seat, Seat))

    def _make_clock(self) -> Timekeeper:
        return self._time

    def _make_lock(self, bus: Bus) -> Lockable:
        return self._turns

    def _make_seat(self, cpu: Cpu, bus: Bus) -> Seat:
        return Seat(cpu, self.chips.lapics[cpu.index], bus)

    def _call(self) -> None:
        for cpu in self._cpus:
            cpu.vcpu.kick()

    def _wake(self, index: int) -> None:
        if index < len(self._turn_seats):
            seat = self._turn_seats[index]
            seat.stale = True
            running = self._time.running
            if running is not None and running is seat.cpu.vcpu:
                running.kick()

    def wake_all(self) -> None:
        """As `OwnInterrupts.wake_all`."""
        self._attention = True
        super().wake_all()

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
        seat, clock, turns = self._turn_seats[index], self._time, self._turns
        left = instructions
        rounds = 0
        with turns:
            while True:
                if clock.time_left() <= 0:
                    clock.run_due()
                if turns.callers or self._attention:
                    self._attend()
                    if over():
                        return INTERRUPTED
                if rounds % ROUNDS_PER_LOOK == 0 and deadline_ns is not None and time.monotonic_ns() >= deadline_ns:
                    return INTERRUPTED
                rounds += 1
                if (seat.stale or seat.activity is not ACTIVE) and not seat.prepare():
                    if self.all_asleep():
                        return HLT
                    if not patient:
                        return None
                    self.rest(deadline_ns)
                    continue
                budget = self._budget(left)
                reason, ran = self._enter_for(budget, seat, deadline_ns, single_exit, observer)
                if left is not None:
                    left -= ran
                if reason is INSTRUCTION_LIMIT and budget is not None and (left is None or left > 0):
                    continue  # a timer is due
                if reason is INTERRUPTED:
                    seat.came_back(reason)
                    if over() or (deadline_ns is not None and time.monotonic_ns() >= deadline_ns):
                        return reason
                elif reason is HLT or reason is IRQ_WINDOW_OPEN:
                    seat.came_back(reason)
                else:
                    return reason

    def _attend(self) -> None:
        self._attention = False
        if self._turns.callers:
            self._turns.let_in()

    def _budget(self, left: int | None) -> int | None:
        to_timer = self._time.time_left()
        if to_timer > NEVER >> 1:
            return left
        return to_timer if left is None or to_timer < left else left

    def _enter_for(
        self,
        budget: int | None,
        seat: Seat,
        deadline_ns: int | None,
        single_exit: bool,
        observer: Callable[[Exit], None] | None,
    ) -> tuple[ExitReason, int]:
        """Enter the guest for so many instructions at most: the reason why it came back, and how long it ran."""
        vcpu, clock = seat.cpu.vcpu, self._time
        clock.enter(vcpu)
        end_ns = 0
        try:
            reason = vcpu.run(
                seat.bus, deadline_ns=deadline_ns, instructions=budget, single_exit=single_exit, observer=observer
            )
            if reason is INSTRUCTION_LIMIT and budget is not None:
                end_ns = clock.entered_ns + budget
        finally:
            ran = clock.leave(vcpu, end_ns)
        return reason, ran

    def rest(self, until_ns: int | None) -> None:
        """Skip to the next timer; where there is none, wait for the host."""
        if self._time.timers.first_ns == NEVER:
            super().rest(until_ns)
        else:
            self._time.skip()
