"""The run loop: vCPUs on threads or in turn, until something ends the run.

An engine that wants threads gets one for each vCPU; the only vCPU of a machine runs on the caller's. Where the machine
must stand still as soon as one vCPU stops (iterating over exits, stepping, breakpoints), and on an engine that wants no
threads, vCPUs run in turn, a slice each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread, get_native_id

from belljar.engine_data import WAITS, WAITS_STILL
from belljar.exits import Exit, ExitReason
from belljar.machine.cpu import Cpu
from belljar.machine.result import End, RunResult
from belljar.machine.run_state import RunState

TURN_NS = 2_000_000
"""How long a vCPU runs before it is another's turn, on an engine that cannot count instructions."""

WAKE_NS = 1_000_000
"""How long a vCPU that sleeps in the engine is given to wake of what has come already."""

TURN_INSTRUCTIONS = 10_000
"""The same on an engine that can."""

TURN_SPAN_NS = 100_000
"""How far a turn may take the clock of an engine that can: exits cost time, and others' timers wait meanwhile."""

SHORT_TURN = 1_000
"""The same where another vCPU waits; the longer it does, the longer turns are."""

Observer = Callable[[Exit], None]


class TurnLengths:
    """How long turns are, on an engine that counts instructions: short while somebody waits for what others do.

    Where nobody does anything but wait, turns are used up, so that time goes on.
    """

    def __init__(self) -> None:
        self.instructions = TURN_INSTRUCTIONS
        """Of each turn of this round."""
        self._waited = self._still = self._worked = False
        self._out: bool | None = None  # whether all wait, and wait their turns out; None: as the last run left it

    def begin_round(self, cpus: Sequence[Cpu]) -> None:
        """Everybody is to have a turn again."""
        out = self._still and not self._waited and not self._worked
        if self._waited:
            self.instructions = SHORT_TURN
        elif self._still and not out:
            self.instructions = min(2 * self.instructions, TURN_INSTRUCTIONS)
        else:
            self.instructions = TURN_INSTRUCTIONS
        if out is not self._out:
            self._out = out
            for cpu in cpus:
                cpu.vcpu.wait_out(out)
        self._waited = self._still = self._worked = False

    def ran(self, reason: ExitReason | None, gave: int) -> None:
        """A turn is over: why, and how it was given away."""
        self._waited |= gave == WAITS
        self._still |= gave == WAITS_STILL
        self._worked |= reason is not None and gave not in (WAITS, WAITS_STILL)


class Runner(RunState):
    """Runs the vCPUs of one machine."""

    def run(
        self, *, timeout: float | None, instructions: int | None, observer: Observer | None, in_turn: bool
    ) -> RunResult:
        """Run to an end. Exceptions of devices and observers, and KeyboardInterrupt, stop all vCPUs and propagate."""
        started_ns = self._begin(timeout)
        self._budget = instructions
        try:
            going_on = True
            while going_on:
                active = [cpu for cpu in self._cpus if not cpu.halted]
                if len(active) > 1 and self._engine.threaded and not in_turn:
                    self._run_threads(active, observer)
                else:
                    for _ in self._turns(active, observer, instructions, single_exit=False):
                        pass
                going_on = self._make_changes()
        finally:
            self._stand_still()
        return self._conclude(started_ns)

    def run_one(self, cpu: Cpu) -> RunResult:
        """Run one vCPU alone, for a step. One that has halted, and that nothing wakes, is not waited for."""
        halted = cpu.halted
        started_ns = self._begin(None)
        self._budget = None
        if halted:  # and others are not: a step goes on behind its HLT all the same
            cpu.leave_halt()
        if self._own is not None:
            self._own.step_on(cpu.index)
        try:
            going_on = True
            while going_on:
                if cpu.vcpu.sleeps:
                    if cpu.vcpu.asleep():  # which the engine told once, and does not again
                        self.finish(End.HALT, f"vCPU {cpu.index} sleeps until another wakes it", cpu=cpu)
                    elif cpu.vcpu.mp_state.name == "HALTED":
                        self._deadline_ns = time.monotonic_ns() + WAKE_NS
                for _ in self._turns([cpu], None, None, single_exit=False):
                    pass
                going_on = self._make_changes()
        finally:
            self._stand_still()
        result = self._conclude(started_ns)
        return self.settle_halt(cpu) if result.end is End.TIMEOUT else result

    def exits(self, *, timeout: float | None) -> Iterator[Exit]:
        """Run, vCPUs in turn, and give every exit after its device has served it; the machine stands still meanwhile."""
        started_ns = self._begin(timeout)
        self._budget = None
        try:
            going_on = True
            while going_on:
                yield from self._turns([cpu for cpu in self._cpus if not cpu.halted], None, None, single_exit=True)
                going_on = self._make_changes()
        finally:
            self._stand_still()
        self._conclude(started_ns)

    # -- each on a thread -------------------------------------------------------------------------------------------

    def _run_threads(self, active: Sequence[Cpu], observer: Observer | None) -> None:
        ended = [Event() for _ in active]
        threads = [
            Thread(
                target=self._thread, args=(cpu, active, observer, event), name=f"belljar-vcpu{cpu.index}", daemon=True
            )
            for cpu, event in zip(active, ended, strict=True)
        ]
        from belljar.machine.threads import start  # imports signal, which a machine of one vCPU need not wait for

        try:
            start(threads)
            # Not join(): interrupted, it takes the thread for ended (cpython issue 45274's mend, in 3.10 to 3.12).
            for event in ended:
                event.wait()
        except BaseException as interruption:
            with self._lock:
                self._failure = interruption
                self._lock.notify_all()
            self._kick_all()
        for thread, event in zip(threads, ended, strict=True):
            if thread.ident is not None:
                event.wait()
                thread.join()

    def _thread(self, cpu: Cpu, active: Sequence[Cpu], observer: Observer | None, ended: Event) -> None:
        try:
            self._take([cpu])
            while self.result is None and self._failure is None and not cpu.halted and not self._changes:
                reason = self._enter(cpu, observer)
                if reason.answerable:
                    self._serve(cpu, observer)
                self._settle(cpu, reason, active)
                if self._census.going_on and self._census.take_part(cpu, self._over, self._deadline_ns):
                    self._all_asleep(cpu)
        except BaseException as failure:
            with self._lock:
                self._failure = self._failure or failure
                self._lock.notify_all()
            self._kick_all()
        finally:
            self._leave([cpu])
            ended.set()

    def _enter(self, cpu: Cpu, observer: Observer | None) -> ExitReason:
        """Run a vCPU on its own thread."""
        if self._own is None:
            return cpu.vcpu.run(self._bus, deadline_ns=self._deadline_ns, observer=observer)
        turn = self._own.turn(lambda: self._over() or self._census.going_on, observer)
        turn.deadline_ns = self._deadline_ns
        reason = self._own.run(cpu.index, turn)
        assert reason is not None
        return reason

    # -- in turn ----------------------------------------------------------------------------------------------------

    def _turns(
        self, active: Sequence[Cpu], observer: Observer | None, instructions: int | None, *, single_exit: bool
    ) -> Iterator[Exit]:
        """Run vCPUs in turn; yields exits if `single_exit`, else nothing."""
        self._take(active)
        try:
            yield from self._turn_after_turn(active, observer, instructions, single_exit)
        finally:
            self._leave(active)

    def _turn_after_turn(
        self, active: Sequence[Cpu], observer: Observer | None, instructions: int | None, single_exit: bool
    ) -> Iterator[Exit]:
        if not active:
            return  # all sleep, and nobody is left to wake them
        alone = len(active) == 1
        sleeps = active[0].vcpu.sleeps and not alone
        patient = alone and len(self._cpus) == 1
        own = self._own
        turn = None if own is None else own.turn(self._over, observer, single_exit=single_exit, patient=patient)
        lengths = TurnLengths()
        while self.result is None and not self._changes:
            ran = self._own is None
            lengths.begin_round(active)
            for cpu in self._round(active):
                if cpu.halted or self.result is not None or self._changes:
                    continue
                if sleeps and self._sleeps_on(cpu, active):
                    continue
                slice_ns, slice_instructions = self._slice(alone, self._budget, lengths.instructions)
                before = cpu.vcpu.instructions_retired() if self._budget is not None else 0
                reason: ExitReason | None
                if own is not None and turn is not None:
                    turn.deadline_ns, turn.instructions, turn.gave = slice_ns, slice_instructions, 0
                    turn.span_ns = None if alone else TURN_SPAN_NS
                    reason = own.run(cpu.index, turn)
                    ran |= reason is not None
                    lengths.ran(reason, turn.gave)
                else:
                    reason = cpu.vcpu.run(
                        self._bus,
                        deadline_ns=slice_ns,
                        instructions=slice_instructions,
                        single_exit=single_exit,
                        observer=observer,
                    )
                if self._budget is not None:
                    self._budget -= cpu.vcpu.instructions_retired() - before
                if reason is not None:
                    yield from self._settle_turn(cpu, reason, active, observer, single_exit)
                if self._budget is not None and self._budget <= 0:
                    self.finish(End.INSTRUCTION_LIMIT, f"{instructions} instructions were executed", cpu=cpu)

            if not ran and self.result is None and not self._changes and self._own is not None:
                if len(active) < len(self._cpus):  # a step of one vCPU: nobody comes to wake it
                    cpu = active[0]
                    self.finish(End.HALT, f"vCPU {cpu.index} sleeps until another wakes it", cpu=cpu)
                    return
                self._own.rest_in_turn(self._deadline_ns)

    def _round(self, active: Sequence[Cpu]) -> Iterator[Cpu]:
        """Everybody's turn, one after the other; those in between that a vCPU gives its turn to, while there are not too many."""
        own = self._own
        for cpu in active:
            yield cpu
            if own is None or own.favoured is None:
                continue
            for _ in active:
                favoured, own.favoured = own.favoured, None
                yield from (other for other in active if other.index == favoured)
            own.favoured = None

    def _settle_turn(
        self, cpu: Cpu, reason: ExitReason, active: Sequence[Cpu], observer: Observer | None, single_exit: bool
    ) -> Iterator[Exit]:
        if reason.answerable:
            self._serve(cpu, observer)
        if single_exit and reason not in (ExitReason.INTERRUPTED, ExitReason.INSTRUCTION_LIMIT):
            exit = cpu.vcpu.last_exit()
            self._yielding = True
            try:
                yield exit
            finally:
                with self._lock:
                    self._yielding = False
            if cpu not in self._cpus:
                return  # removed meanwhile
        self._settle(cpu, reason, active)

    def _slice(self, alone: bool, budget: int | None, length: int) -> tuple[int | None, int | None]:
        """The time and the number of instructions until the next vCPU's turn."""
        if alone:
            return self._deadline_ns, budget
        if self._engine.threaded:
            end_ns = time.monotonic_ns() + TURN_NS
            return (end_ns if self._deadline_ns is None else min(end_ns, self._deadline_ns)), budget
        return self._deadline_ns, length if budget is None else min(length, budget)

    # -- both -------------------------------------------------------------------------------------------------------

    def _take(self, cpus: Sequence[Cpu]) -> None:
        """This thread begins to run these vCPUs."""
        thread = get_native_id()
        for cpu in cpus:
            self.threads[cpu.index] = thread
        if self.pins is not None:
            self.pins.bind_this_thread()

    def _leave(self, cpus: Sequence[Cpu]) -> None:
        for cpu in cpus:
            self.threads.pop(cpu.index, None)
        if self.pins is not None:
            self.pins.release_this_thread()

    def _serve(self, cpu: Cpu, observer: Observer | None) -> None:
        """Answer an MSR access or a hypercall, and show it."""
        exit = cpu.vcpu.last_exit()
        cpu.vcpu.answer(self._answer(exit))
        if observer is not None:
            observer(exit)
