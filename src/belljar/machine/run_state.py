"""A run of a machine's vCPUs: whether it goes on, what ends it, and what is changed while no vCPU runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, get_native_id
from typing import TYPE_CHECKING

from belljar.errors import EngineError
from belljar.exits import Exit, ExitReason, SystemEvent
from belljar.machine.census import Census
from belljar.machine.cpu import Cpu
from belljar.machine.result import STATUS, End, RunResult

if TYPE_CHECKING:
    from belljar.engine import Bus, Engine
    from belljar.machine.own_interrupts import OwnInterrupts
    from belljar.machine.pins import Pins
    from belljar.wishes import Wish

KVM_SYSTEM_EVENT_SHUTDOWN, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_CRASH = 1, 2, 3
"""api.rst 5, KVM_EXIT_SYSTEM_EVENT."""


class RunState:
    """What all threads of a run share; one run after the other.

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

    def use(self, cpus: Sequence[Cpu]) -> None:
        """The machine's vCPUs are these from now on; while none runs."""
        self._cpus = cpus
        self._census = Census(cpus, self._lock)

    # -- its beginning and its end ----------------------------------------------------------------------------------

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
        if self._failure is not None:
            raise self._failure
        assert self.result is not None
        ended = self.result
        self.result = RunResult(
            ended.end, ended.status, ended.message, ended.vcpu, ended.exit, time.monotonic_ns() - started_ns
        )
        return self.result

    def settle_halt(self, cpu: Cpu) -> RunResult:
        """Count a vCPU as halted after the fact; the result says so, and the next run continues behind the HLT."""
        cpu.halted = True
        self.result = RunResult(End.HALT, STATUS[End.HALT], "the guest halted", cpu.index)
        return self.result

    def _over(self) -> bool:
        return self.result is not None or self._failure is not None or self._stop_requested or bool(self._changes)

    # -- changes while it runs --------------------------------------------------------------------------------------

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
        """The run is over, however it came to that: so is time. What was asked for meanwhile is done, from now on at once."""
        if self._own is not None:
            self._own.end()
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

    # -- what a returned reason means -------------------------------------------------------------------------------

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

    # -- sleeping vCPUs ---------------------------------------------------------------------------------------------

    def _halt(self, cpu: Cpu, active: Sequence[Cpu]) -> None:
        if cpu.vcpu.sleeps:
            self._fell_asleep(cpu, active)
            return
        if self._own is not None and len(active) == len(self._cpus):
            self._all_asleep(cpu)
            return
        cpu.halted = True
        with self._lock:
            last = all(other.halted for other in active)
        if last:
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
