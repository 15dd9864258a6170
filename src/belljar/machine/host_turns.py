"""Interrupt chips of a machine whose vCPUs run in turn, in the host's time: `--clock host`."""

from __future__ import annotations

from belljar.devices.bus import Bus
from belljar.devices.clock import MONOTONIC_NS
from belljar.exits import ExitReason
from belljar.machine.cpu import Cpu
from belljar.machine.own_interrupts import (
    HLT,
    INTERRUPTED,
    IRQ_WINDOW_OPEN,
    OwnInterrupts,
    Timekeeper,
    TimekeepersClock,
)
from belljar.machine.seat import ACTIVE
from belljar.machine.turn import Turn
from belljar.machine.turn_interrupts import TurnInterrupts


class HostTurns(TurnInterrupts):
    """As `TurnInterrupts`, but timers and time-stamp counters follow the host's clock, and who idles waits for it."""

    def _make_clock(self) -> Timekeeper:
        self._host = TimekeepersClock(earlier=self._earlier)
        return self._host

    def _earlier(self) -> None:
        if self._running is not None:
            self._running.kick()  # it was to run until what was due first

    def add_cpu(self, cpu: Cpu, bus: Bus, *, running: bool) -> None:
        """As `OwnInterrupts.add_cpu`."""
        super().add_cpu(cpu, bus, running=running)
        if running:
            cpu.vcpu.follow_host_clock(self._host.offset_ns)
        else:
            cpu.vcpu.clock_ns = self._host.now_ns()

    def begin(self, *, again: bool) -> None:
        """As `OwnInterrupts.begin`."""
        super().begin(again=again)
        for cpu in self._cpus:
            cpu.vcpu.follow_host_clock(self._host.offset_ns)

    def end(self) -> None:
        """As `OwnInterrupts.end`."""
        super().end()
        for cpu in self._cpus:
            cpu.vcpu.follow_host_clock(None)
            cpu.vcpu.clock_ns = self._host.now_ns()  # which stands still

    def _run(self, index: int, turn: Turn) -> ExitReason | None:
        seat, clock, turns, left = self._own_seats[index], self._host, self._turns, turn.instructions
        vcpu, patient, rested, before = seat.cpu.vcpu, turn.patient, False, 0
        with turns:
            if turn.over():
                return INTERRUPTED
            while True:
                now_ns = MONOTONIC_NS()
                clock.run_due_at(now_ns)
                if turns.callers or self._attention:
                    self._attend()
                    if turn.over():
                        return INTERRUPTED
                if turn.late_at(now_ns):
                    return INTERRUPTED
                if seat.stale or seat.activity is not ACTIVE:
                    dozes = not seat.stale and self.dozes(seat, patient, rested)
                    if dozes or not seat.prepare():
                        if not dozes and (seat.stepping or self.all_asleep()):
                            return HLT
                        if not patient:
                            return None
                        self.rest(self._until(0, turn.deadline_ns))
                        rested = True
                        continue
                rested = False
                self._running = vcpu
                if left is not None:
                    before = vcpu.instructions_retired()
                try:
                    reason = vcpu.run(
                        seat.bus,
                        deadline_ns=self._until(0, turn.deadline_ns),
                        instructions=left,
                        single_exit=turn.single_exit,
                        observer=turn.observer,
                    )
                finally:
                    self._running = None
                if left is not None:
                    left -= vcpu.instructions_retired() - before
                if reason is HLT:
                    seat.halt()
                    if seat.stepping:
                        return HLT
                elif reason is IRQ_WINDOW_OPEN or reason is INTERRUPTED:
                    seat.came_back(reason)
                    if turn.over():
                        return INTERRUPTED
                    turn.gave = vcpu.gave_turn()
                    if self._gives_turn(seat, turn):
                        return reason
                else:
                    return reason

    def rest(self, until_ns: int | None) -> None:
        """Wait for the next timer, a wake-up or the time limit."""
        self._turns.wait_until(until_ns)

    def all_asleep(self) -> bool:
        """As `OwnInterrupts.all_asleep`."""
        return OwnInterrupts.all_asleep(self)
