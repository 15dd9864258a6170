"""The run loop: vCPUs on threads or in turn, until something ends the run.

An engine that wants threads gets one for each vCPU; the only vCPU of a machine runs on the caller's. Where the machine
must stand still as soon as one vCPU stops (iterating over exits, stepping, breakpoints), and on an engine that wants no
threads, vCPUs run in turn, a slice each.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Condition, Event, Thread, get_native_id
from typing import TYPE_CHECKING

from belljar.errors import EngineError
from belljar.exits import Exit, ExitReason, SystemEvent
from belljar.machine.census import Census
from belljar.machine.cpu import Cpu
from belljar.machine.result import STATUS, End, RunResult

TURN_NS = 2_000_000
"""How long a vCPU runs before it is another's turn, on an engine that cannot count instructions."""

TURN_INSTRUCTIONS = 10_000
"""The same on an engine that can."""

KVM_SYSTEM_EVENT_SHUTDOWN, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_CRASH = 1, 2, 3
"""api.rst 5, KVM_EXIT_SYSTEM_EVENT."""

if TYPE_CHECKING:
    from belljar.engine import Bus, Engine
    from belljar.machine.own_interrupts import OwnInterrupts
    from belljar.machine.pins import Pins
    from belljar.wishes import Wish

Observer = Callable[[Exit], None]


class Runner:
    """Runs the vCPUs of one machine.

    `describe` turns an exit that ends a run badly into a sentence; `answer` says what an MSR access or hypercall gets.
    """

    def __init__(
        self,
        engine: Engine,
        cpus: Sequence[Cpu],
        bus: Bus,
        describe: Callable[[Exit], str],
        answer: Callable[[Exit], int | None],
        own: OwnInterrupts | None = None,
    ) -> None:
        self._engine = engine
        self._cpus = cpus
        self._bus = bus
        self._describe = describe
        self._answer = answer
        self._own = own
        self.pins: Pins | None = None
        self.threads: dict[int, int] = {}
        """By vCPU that is run now: its thread's native id."""
        self._lock = Condition()
        self._census = Census(cpus, self._lock)
        self._deadline_ns: int | None = None
        self._failure: BaseException | None = None
        self.result: RunResult | None = None
        self._stop_requested = False
        self.running = False
        """Whether a run goes on."""
        self._yielding = False
        self._changing = False
        self._changes: deque[Wish] = deque()
        self._budget: int | None = None

    @property
    def ending(self) -> bool:
        """Whether the current run should be over: it has an end, was told to stop, or is past its time limit."""
        if self.result is not None or self._stop_requested or self._failure is not None:
            return True
        return self._deadline_ns is not None and time.monotonic_ns() >= self._deadline_ns

    def finish(self, end: End, message: str, *, status: int | None = None, cpu: Cpu | None = None,
               exit: Exit | None = None) -> None:  # fmt: skip
        """End the run; the first end counts. From any thread, and from a device in the middle of an access."""
        with self._lock:
            if self.result is None:
                chosen = STATUS[end] if status is None else status
                self.result = RunResult(end, chosen, message, None if cpu is None else cpu.index, exit)
            self._lock.notify_all()
        self._kick_all()

    def stop(self) -> None:
        """End the run that is going on, or else the next one, with End.STOPPED. From any thread."""
        with self._lock:
            self._stop_requested = True
            self._lock.notify_all()
        self._kick_all()

    def _kick_all(self) -> None:
        for cpu in self._cpus:
            cpu.vcpu.kick()
        if self._own is not None:
            self._own.wake_all()

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
        """Run one vCPU alone, without a time limit: for a step."""
        started_ns = self._begin(None)
        self._budget = None
        if cpu.halted:  # and others are not: a step goes on behind its HLT all the same
            cpu.halted = cpu.asleep = False
            cpu.vcpu.leave_halt()
        if self._own is not None:
            self._own.step_on(cpu.index)
        try:
            going_on = True
            while going_on:
                if cpu.vcpu.sleeps and cpu.vcpu.asleep():  # which the engine told once, and does not again
                    self.finish(End.HALT, f"vCPU {cpu.index} sleeps until another wakes it", cpu=cpu)
                for _ in self._turns([cpu], None, None, single_exit=False):
                    pass
                going_on = self._make_changes()
        finally:
            self._stand_still()
        return self._conclude(started_ns)

    def settle_halt(self, cpu: Cpu) -> RunResult:
        """Count a vCPU as halted after the fact; the result says so, and the next run continues behind the HLT."""
        cpu.halted = True
        self.result = RunResult(End.HALT, STATUS[End.HALT], "the guest halted", cpu.index)
        return self.result

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

    # -- changes while it runs -------------------------------------------------------------------------------------

    def change(self, action: Callable[[], None]) -> None:
        """Have `action` done while no vCPU runs, wait for that, and let them go on. What it raises is raised here.

        From any thread but those that run vCPUs: EngineError there.
        """
        from belljar.wishes import Wish  # few machines change

        with self._lock:
            if self._may_change_at_once():
                action()
                return
            if get_native_id() in self.threads.values():
                raise EngineError(
                    "the machine's vCPUs cannot be changed by what one of them executes",
                    hint="Machine.defer does it as soon as none runs",
                )
            wish = Wish(action)
            self._changes.append(wish)
        self._kick_all()
        wish.wait()

    def defer(self, action: Callable[[], object]) -> None:
        """Have `action` done as soon as no vCPU runs, without waiting for that. From any thread.

        What it raises then ends the run, and is raised there.
        """
        from belljar.wishes import Wish  # as above

        def act() -> None:
            """As for a device that raises."""
            try:
                action()
            except BaseException as failure:
                self._failure = self._failure or failure

        with self._lock:
            if self._may_change_at_once():
                action()
                return
            self._changes.append(Wish(act))
        self._kick_all()

    def _may_change_at_once(self) -> bool:
        """Whether no vCPU runs. Under the lock, by which none will begin to."""
        if self._yielding:
            from belljar.wishes import Wish  # as above

            self._changes.append(Wish(lambda: None))  # whose turn it is has to be found out again
        return self._yielding or self._changing or not self.running

    def _make_changes(self) -> bool:
        """Between two stretches of a run: do what was asked for; whether there was something, and the run goes on."""
        with self._lock:
            if self.result is not None or self._failure is not None or not self._changes:
                return False
            if not self._grant_changes():
                return False
        self._census.cancel()
        sleeps = self._cpus[0].vcpu.sleeps
        for cpu in self._cpus if sleeps else ():
            cpu.asleep = cpu.vcpu.asleep()
        # Where the local APICs are the machine's own, they find it out themselves.
        if (self._own is None or sleeps) and all(cpu.asleep if sleeps else cpu.halted for cpu in self._cpus):
            self._all_asleep(self._cpus[0])
        return self.result is None

    def _stand_still(self) -> None:
        """The run is over: what was asked for meanwhile is done, from now on at once."""
        with self._lock:
            self.running = False
            self._grant_changes()

    def _grant_changes(self) -> bool:
        """Whether the run may go on after that."""
        self._changing = True
        try:
            while self._changes:
                self._changes.popleft().grant()
        finally:
            self._changing = False
        return self._failure is None

    def use(self, cpus: Sequence[Cpu]) -> None:
        """The machine's vCPUs are these from now on; while none runs."""
        self._cpus = cpus
        self._census = Census(cpus, self._lock)

    def _begin(self, timeout: float | None) -> int:
        now = time.monotonic_ns()
        with self._lock:
            self.running = True
        self._deadline_ns = None if timeout is None else now + int(timeout * 1e9)
        self.result = None
        self._failure = None
        self._census.cancel()
        if self._own is not None:
            self._own.begin(again=all(cpu.halted for cpu in self._cpus))
        if all(cpu.halted for cpu in self._cpus):
            for cpu in self._cpus:
                cpu.halted = cpu.asleep = False  # running on after the end of everything continues behind the HLT
                cpu.vcpu.leave_halt()
        for cpu in self._cpus:
            if cpu.vcpu.sleeps:  # it goes on sleeping in the engine, which tells nobody again that it does
                cpu.halted, cpu.asleep = False, cpu.vcpu.asleep()
        if all(cpu.asleep for cpu in self._cpus):
            self._all_asleep(self._cpus[0])
        elif self._own is not None or self._cpus[0].vcpu.sleeps:
            for cpu in self._cpus:
                cpu.halted = False  # the chips know who sleeps
        return now

    def _conclude(self, started_ns: int) -> RunResult:
        self._stop_requested = False
        self._deadline_ns = None
        if self._own is not None:
            self._own.end()
        if self._failure is not None:
            raise self._failure
        assert self.result is not None
        ended = self.result
        self.result = RunResult(
            ended.end, ended.status, ended.message, ended.vcpu, ended.exit, time.monotonic_ns() - started_ns
        )
        return self.result

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
        while self.result is None and not self._changes:
            ran = self._own is None
            for cpu in self._round(active):
                if cpu.halted or self.result is not None or self._changes:
                    continue
                if sleeps and self._sleeps_on(cpu, active):
                    continue
                slice_ns, slice_instructions = self._slice(alone, self._budget)
                before = cpu.vcpu.instructions_retired() if self._budget is not None else 0
                reason: ExitReason | None
                if own is not None and turn is not None:
                    turn.deadline_ns, turn.instructions = slice_ns, slice_instructions
                    reason = own.run(cpu.index, turn)
                    ran |= reason is not None
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

    def _slice(self, alone: bool, budget: int | None) -> tuple[int | None, int | None]:
        """The time and the number of instructions until the next vCPU's turn."""
        if alone:
            return self._deadline_ns, budget
        if self._engine.threaded:
            end_ns = time.monotonic_ns() + TURN_NS
            return (end_ns if self._deadline_ns is None else min(end_ns, self._deadline_ns)), budget
        return self._deadline_ns, TURN_INSTRUCTIONS if budget is None else min(TURN_INSTRUCTIONS, budget)

    def _enter(self, cpu: Cpu, observer: Observer | None) -> ExitReason:
        """Run a vCPU on its own thread."""
        if self._own is None:
            return cpu.vcpu.run(self._bus, deadline_ns=self._deadline_ns, observer=observer)
        turn = self._own.turn(lambda: self._over() or self._census.going_on, observer)
        turn.deadline_ns = self._deadline_ns
        reason = self._own.run(cpu.index, turn)
        assert reason is not None
        return reason

    def _serve(self, cpu: Cpu, observer: Observer | None) -> None:
        """Answer an MSR access or a hypercall, and show it."""
        exit = cpu.vcpu.last_exit()
        cpu.vcpu.answer(self._answer(exit))
        if observer is not None:
            observer(exit)

    def _settle(self, cpu: Cpu, reason: ExitReason, active: Sequence[Cpu]) -> None:
        """What a returned reason means for the run: an end, a halted vCPU, or nothing."""
        if reason in (ExitReason.IO, ExitReason.MMIO) or reason.answerable:
            return
        if reason is ExitReason.HLT:
            self._halt(cpu, active)
        elif reason is ExitReason.INTERRUPTED:
            self._interrupted(cpu)
        elif reason in (ExitReason.SHUTDOWN, ExitReason.FAIL_ENTRY):
            self._finish_badly(End.CRASH, cpu)
        elif reason is ExitReason.DEBUG:
            self.finish(End.DEBUG, "stopped for the debugger", cpu=cpu, exit=cpu.vcpu.last_exit())
        elif reason is ExitReason.SYSTEM_EVENT:
            self._system_event(cpu)
        elif reason is not ExitReason.INSTRUCTION_LIMIT:
            self._finish_badly(End.GAVE_UP, cpu)

    def _over(self) -> bool:
        return self.result is not None or self._failure is not None or self._stop_requested or bool(self._changes)

    def _sleeps_on(self, cpu: Cpu, active: Sequence[Cpu]) -> bool:
        """In turn, nobody runs meanwhile: whether it is not this one's turn because it sleeps; the end if all do."""
        if not cpu.vcpu.asleep():
            return False
        if all(other.vcpu.asleep() for other in active):
            self._all_asleep(cpu)
        return True

    def _all_asleep(self, cpu: Cpu) -> None:
        for each in self._cpus:
            each.halted = True
        self.finish(End.HALT, "the guest halted", cpu=cpu)

    def _fell_asleep(self, cpu: Cpu, active: Sequence[Cpu]) -> None:
        """A vCPU that sleeps inside the engine: the run is over if all do, at one and the same time."""
        if len(active) == 1:
            if all(each.vcpu.asleep() for each in self._cpus):
                self._all_asleep(cpu)
            elif len(self._cpus) > 1 and cpu.vcpu.asleep():
                self.finish(End.HALT, f"vCPU {cpu.index} sleeps until another wakes it", cpu=cpu)
            return
        cpu.asleep = True
        if all(other.asleep for other in active) and self._census.begin():
            for other in active:
                if other is not cpu:
                    other.vcpu.kick()

    def _halt(self, cpu: Cpu, active: Sequence[Cpu]) -> None:
        if cpu.vcpu.sleeps:
            self._fell_asleep(cpu, active)
            return
        if self._own is not None:
            self._all_asleep(cpu)
            return
        cpu.halted = True
        with self._lock:
            last = all(other.halted for other in active)
        if last:
            self.finish(End.HALT, "the guest halted", cpu=cpu)

    def _interrupted(self, cpu: Cpu) -> None:
        if self._stop_requested:
            self.finish(End.STOPPED, "the run was stopped", cpu=cpu)
        elif self._deadline_ns is not None and time.monotonic_ns() >= self._deadline_ns:
            self.finish(End.TIMEOUT, "the time limit was reached", cpu=cpu)

    def _finish_badly(self, end: End, cpu: Cpu) -> None:
        exit = cpu.vcpu.last_exit()
        self.finish(end, self._describe(exit), cpu=cpu, exit=exit)

    def _system_event(self, cpu: Cpu) -> None:
        exit = cpu.vcpu.last_exit()
        kind = exit.type if isinstance(exit, SystemEvent) else 0
        if kind == KVM_SYSTEM_EVENT_SHUTDOWN:
            self.finish(End.POWER_OFF, "the guest powered off", cpu=cpu, exit=exit)
        elif kind == KVM_SYSTEM_EVENT_RESET:
            self.finish(End.RESET, "the guest asked for a reset", cpu=cpu, exit=exit)
        else:
            self.finish(End.CRASH, f"the guest reported a crash (system event {kind})", cpu=cpu, exit=exit)
