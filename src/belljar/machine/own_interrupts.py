"""A machine with interrupt chips of its own: 8259 pair, IOAPIC, local APICs, 8254; its vCPUs are brought what they say."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, SupportsIndex

from belljar.devices.bus import Bus, LockedBus
from belljar.devices.clock import NEVER, Clock, HostClock, TimerQueue
from belljar.devices.i8254 import Pit
from belljar.devices.interrupt_chips import InterruptChips
from belljar.devices.lapic import Lapic
from belljar.devices.lines import (
    IOAPIC_PINS,
    PIT_GSI,
    Line,
    LineRoute,
    MsiRoute,
    Route,
    check_gsi,
    message_state,
    plain_routes,
)
from belljar.devices.port61 import SystemControlB
from belljar.errors import FeatureUnsupported
from belljar.exits import Exit, ExitReason, ReadMsr, WriteMsr
from belljar.machine._monitor import EVERYBODY, Monitor
from belljar.machine.cpu import Cpu
from belljar.machine.host_counter import HostCounter
from belljar.machine.seat import HALTED, Seat
from belljar.machine.split_seat import SplitSeat
from belljar.machine.turn import Turn
from belljar.machine.wakeups import Cause, may_wake

if TYPE_CHECKING:
    from belljar.machine.eventfd_thread import EventfdThread

INTERRUPTED: Final = ExitReason.INTERRUPTED
HLT: Final = ExitReason.HLT
IRQ_WINDOW_OPEN: Final = ExitReason.IRQ_WINDOW_OPEN
NMI_LIKE: Final = ("nmi", "smi", "init")


class TimekeepersClock(HostClock):
    """The host's time."""

    def due_ns(self) -> int | None:
        """When the first timer is due, as a time of time.monotonic_ns(); None if there is none. Not while paused."""
        first_ns = self.timers.first_ns
        return None if first_ns == NEVER else first_ns - self.offset_ns

    def run_due_at(self, host_ns: int) -> None:
        """Run what is due at a time of time.monotonic_ns(), which was read just now. Not while paused."""
        now_ns = host_ns + self.offset_ns
        if self.timers.first_ns <= now_ns:
            self.timers.run_due(now_ns)


class Listener(Protocol):
    """A device that may get something from outside."""

    def awaited(self) -> list[int]:
        """The lines that this may raise now."""


class Lockable(Protocol):
    """What of `Monitor` is needed."""

    def __enter__(self) -> object:
        """Take it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None:
        """Let go of it."""

    def notify(self, who: int) -> None:
        """Wake who waits as `who`, and others for whom nobody is to be woken."""

    def notify_all(self) -> None:
        """Wake whoever waits."""

    def wait_until(self, deadline_ns: int | None, who: int = EVERYBODY) -> bool:
        """Let go of it until somebody notifies, or until a time of time.monotonic_ns(); whether somebody did."""


class Timekeeper(Clock, Protocol):
    """A clock as `OwnInterrupts` needs it."""

    timers: TimerQueue

    def due_ns(self) -> int | None:
        """Until when, of time.monotonic_ns(), the host may wait for the first timer; None: it need not."""

    def next_deadline_ns(self) -> int | None:
        """When the first timer is due, as a time of the clock's own; None if there is none."""

    def run_due(self) -> int:
        """Run what is due now; how many timers ran."""

    def run_due_at(self, host_ns: int) -> None:
        """Run what is due at a time of time.monotonic_ns()."""

    def pause(self) -> None:
        """Stand still."""

    def resume(self) -> None:
        """Go on from there."""


class OwnInterrupts:
    """The chips, and the way from them to the vCPUs. Everything about chips happens under `lock`, the bus's own.

    `optional` chips are for guests that may know nothing of them: all vCPUs start together, the chips give way to the user's
    devices, and who has halted where no timer of the machine is left sleeps for good.

    vCPU 0's thread keeps the time: it runs due timers. A vCPU that has halted waits on `lock`, and costs no time.
    """

    passing = (INTERRUPTED, HLT, IRQ_WINDOW_OPEN)
    """What a vCPU comes back with and goes on after."""

    def __init__(self, cpus: Sequence[Cpu], bus: Bus, *, optional: bool = False) -> None:
        self.lock = self._make_lock(bus)
        self._optional = optional
        self._inside: set[int] = set()  # vCPUs that execute, or are about to
        self._calls = 0  # how often everybody was told to look whether the run is over
        self.clock = self._make_clock()
        self.seats: tuple[Seat | SplitSeat, ...] = ()
        self.chips = self._make_chips(len(cpus))
        self.pit = Pit(self.clock, self.chips.router.line(PIT_GSI, "pit"))
        for device in (*self.chips.devices(), self.pit, SystemControlB(self.clock, self.pit)):
            bus.attach(device, gives_way=optional)
        self.seats = tuple(self._seat(cpu, bus) for cpu in cpus)
        """By the vCPU's index; those of vCPUs that were removed stay, and wait for ever."""
        for seat in self.seats if optional else ():
            seat.start_at_once()
        self.clock.pause()
        self._own_seats = tuple(seat for seat in self.seats if isinstance(seat, Seat))
        self._outside_gsis: set[int] = set()
        self._messages_expected = False
        self.favoured: int | None = None
        """The vCPU that another has given its turn to."""
        self._eventfds: EventfdThread | None = None
        self.listeners: list[Listener] = []
        """Devices that may get something from outside, as a serial port gets input."""

    def _seat(self, cpu: Cpu, bus: Bus) -> Seat | SplitSeat:
        seat = self._make_seat(cpu, bus)
        if isinstance(seat, Seat):
            seat.guard = self.lock
        return seat

    def add_cpu(self, cpu: Cpu, bus: Bus, *, running: bool) -> None:
        """A vCPU was added, which waits for INIT. While no vCPU executes; `running`: in the middle of a run."""
        with self.lock:
            self._add_lapic(cpu.index)
            seats = list(self.seats)
            seats[cpu.index : cpu.index + 1] = [self._seat(cpu, bus)]
            self._use(seats)

    def _add_lapic(self, index: int) -> None:
        self.chips.add_cpu(index)

    def remove_cpu(self, index: int) -> None:
        """A vCPU goes. While no vCPU executes."""
        with self.lock:
            seat = self.seats[index]
            if isinstance(seat, Seat):
                seat.retire()
                self.chips.remove_cpu(index)

    def cpus_changed(self, cpus: Sequence[Cpu]) -> None:
        """The machine's vCPUs are these from now on."""

    def _use(self, seats: Sequence[Seat | SplitSeat]) -> None:
        self.seats = tuple(seats)
        self._own_seats = tuple(seat for seat in self.seats if isinstance(seat, Seat))

    def _make_clock(self) -> Timekeeper:
        return TimekeepersClock(earlier=lambda: self._wake(0))

    def _make_lock(self, bus: Bus) -> Lockable:
        assert isinstance(bus, LockedBus)
        assert isinstance(bus.lock, Monitor)
        return bus.lock

    def _make_chips(self, cpus: int) -> InterruptChips:
        return InterruptChips(self.clock, cpus=cpus, wake=self._wake)

    def _make_seat(self, cpu: Cpu, bus: Bus) -> Seat | SplitSeat:
        assert isinstance(bus, LockedBus)
        lapic = self.chips.lapics[cpu.index]
        try:
            tsc = cpu.vcpu.tsc
        except FeatureUnsupported:  # the engine keeps IA32_TSC_DEADLINE to itself
            return Seat(cpu, lapic, bus, bus.lock)
        lapic.timer.use_counter(HostCounter(tsc, self.clock))
        tsc.changed.append(partial(self._counter_jumped, lapic))
        return Seat(cpu, lapic, bus, bus.lock)

    def _counter_jumped(self, lapic: Lapic) -> None:
        """TSC deadlines are on the guest's counter. On the thread that runs the vCPU, or while none does."""
        with self.lock:
            lapic.timer.rearm()

    # -- lines -----------------------------------------------------------------------------------------------------

    @property
    def routes(self) -> tuple[Route, ...]:
        """The table, as it was last set."""
        return self.chips.router.routes

    def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the table. Raises ConfigurationError for a line or pin that does not exist."""
        with self.lock:
            self.chips.router.set_routes(plain_routes(routes))

    def line(self, gsi: SupportsIndex, source: str) -> Line:
        """A new source, called `source` in reports, on a line (GSI). The line is up while any of its sources holds it up."""
        return self.chips.router.line(operator.index(gsi), source, self)

    def expect(self, gsi: SupportsIndex) -> None:
        """Somebody outside, such as another thread, may raise this line: a machine that idles waits for that."""
        self._outside_gsis.add(operator.index(gsi))

    def expect_messages(self) -> None:
        """Somebody outside may send messages (MSI): a machine that idles with RFLAGS.IF=1 waits for that."""
        self._messages_expected = True

    @property
    def lines(self) -> tuple[Line, ...]:
        """Every source of interrupts on a line, by GSI."""
        return self.chips.router.lines

    def drive(self, line: Line, level: bool) -> int:
        """Set one source's level; called by `Line`, from any thread."""
        with self.lock:
            return self.chips.router.drive(line, level)

    def signal_msi(self, gpa: SupportsIndex, data: SupportsIndex, source: str = "msi") -> int:
        """Send a message-signalled interrupt (SDM 3A 11.11); above 0 if a local APIC took it. From any thread."""
        with self.lock:
            return self.chips.signal_msi(operator.index(gpa), operator.index(data), source)

    def connect_eventfd(self, eventfd: SupportsIndex, gsi: SupportsIndex) -> None:
        """One edge on a line whenever a host eventfd is signalled, by a thread of this process; until `close`."""
        self._connect_eventfd(operator.index(eventfd), operator.index(gsi))

    def _connect_eventfd(self, eventfd: int, gsi: int) -> None:
        from belljar.machine.eventfd_thread import EventfdThread  # few machines have any

        check_gsi(gsi, "eventfd")
        with self.lock:
            if self._eventfds is None:
                self._eventfds = EventfdThread(self.lock)
            self._eventfds.connect(eventfd, lambda: self.line(gsi, "eventfd"))
            self.expect(gsi)

    def close(self) -> None:
        """Nobody signals any more. Harmless when repeated."""
        if self._eventfds is not None:
            self._eventfds.close()

    def explain(self) -> list[LineRoute]:
        """Which line reaches which vector on which vCPU, as the chips are programmed now, by GSI."""
        with self.lock:
            return self.chips.explain()

    # -- vCPUs -----------------------------------------------------------------------------------------------------

    def _wake(self, index: int) -> None:
        """Something may be ready for a vCPU, or for the timekeeper: have its thread look."""
        if index < len(self.seats):
            seat = self.seats[index]
            seat.stale = True
            if index in self._inside:  # else it looks before it enters
                seat.cpu.vcpu.kick()
            else:
                self.lock.notify(index)

    def wake_all(self) -> None:
        """The run is to end: nobody may go on waiting."""
        with self.lock:
            self._calls += 1
            self.lock.notify_all()

    def answer(self, exit: Exit) -> int | None:
        """What a local APIC's MSR answers; None for other MSRs, and for what it refuses."""
        if not isinstance(exit, ReadMsr | WriteMsr) or not self.seats[exit.vcpu].covers(exit.msr):
            return None
        with self.lock:
            return self.seats[exit.vcpu].answer(exit)

    def turn(
        self,
        over: Callable[[], bool],
        observer: Callable[[Exit], None] | None,
        *,
        single_exit: bool = False,
        patient: bool = True,
    ) -> Turn:
        """What `run` is to be given (`Turn`)."""
        return Turn(over, observer, single_exit=single_exit, patient=patient)

    def run(self, index: int, turn: Turn) -> ExitReason | None:
        """Run a vCPU, waiting while it has nothing to do; what ended that. HLT: all sleep for good (SDM 3A 9.6.1).

        None where it would have to wait and the turn is not `patient`. `instructions` as for `Vcpu.run`.
        """
        seat, lock = self.seats[index], self.lock
        reason: ExitReason | None = None
        with lock:
            calls = self._calls
        if turn.over():
            return INTERRUPTED
        while True:
            with lock:
                if reason is not None:
                    seat.came_back(reason)
                    if reason is HLT and seat.stepping:
                        return HLT
                    if reason is INTERRUPTED and (turn.over() or turn.late()):
                        return INTERRUPTED
                    if reason not in self.passing:
                        return reason
                instead = self._wait(seat, turn, calls)
                if instead is not None:
                    return instead if instead is not IRQ_WINDOW_OPEN else None
                until_ns = self._until(index, turn.deadline_ns)
                self._inside.add(index)
            try:
                reason = seat.cpu.vcpu.run(
                    seat.bus,
                    deadline_ns=until_ns,
                    instructions=turn.instructions,
                    single_exit=turn.single_exit,
                    observer=turn.observer,
                )
            finally:
                self._inside.discard(index)

    def _wait(self, seat: Seat | SplitSeat, turn: Turn, calls: int) -> ExitReason | None:
        """Wait until a vCPU has something to run for: None. Else what to return instead; IRQ_WINDOW_OPEN: was not patient.

        Whoever wants the run to be over has called everybody after `over()` was asked, when there had been `calls` calls.
        A vCPU that has just halted is most often woken by the next timer. It waits for that without being asked again what
        it has to run for, and whether anything else could wake it is asked only if that timer did not.
        """
        index, patient, rested = seat.cpu.index, turn.patient, False
        while True:
            now_ns = time.monotonic_ns()
            if index == 0 or not patient:
                self.clock.run_due_at(now_ns)
            if calls != self._calls and turn.over():
                return INTERRUPTED
            if turn.late_at(now_ns):
                return INTERRUPTED
            if seat.stale or not self.dozes(seat, patient, rested):
                if seat.prepare():
                    return None
                if seat.stepping or ((self._optional or seat.asleep()) and self.all_asleep()):
                    return HLT
                if not patient:
                    return IRQ_WINDOW_OPEN
            self.lock.wait_until(self._until(index, turn.deadline_ns), index)
            rested = True

    def dozes(self, seat: Seat | SplitSeat, patient: bool, rested: bool) -> bool:
        """Whether a vCPU for which nothing has come only waits for the next timer or wake-up: nothing is to be looked after.

        `rested`: that has come, and did not wake it.
        """
        if not patient or seat.activity is not HALTED or not seat.interruptible:
            return False
        return not self._optional or (not rested and seat.cpu.index == 0 and self.clock.timers.first_ns != NEVER)

    def rest(self, until_ns: int | None) -> None:
        """Wait for a wake-up, until a time of time.monotonic_ns() at the latest. Under the lock."""
        self.lock.wait_until(until_ns)

    def _until(self, index: int, deadline_ns: int | None) -> int | None:
        first_ns = self.clock.due_ns() if index == 0 else None
        if first_ns is None or (deadline_ns is not None and deadline_ns < first_ns):
            return deadline_ns
        return first_ns

    def rest_in_turn(self, deadline_ns: int | None) -> None:
        """When no vCPU had anything to run for in its turn: wait for the next timer, a wake-up or the time limit."""
        with self.lock:
            if not any(seat.wants_to_run for seat in self.seats):
                self.rest(self._until(0, deadline_ns))

    def all_asleep(self) -> bool:
        """Whether every vCPU has halted for good or waits for another. Under the lock."""
        if any(seat.wants_to_run for seat in self.seats):
            return False
        if self._optional and not self._messages_expected:
            return not may_wake(self.chips, self._own_seats, self.clock.timers, self._outside())
        if not all(seat.asleep() for seat in self.seats):
            return False
        # In real time, somebody outside may drive any line.
        if any(seat.may_get_nmi() for seat in self.seats):
            return False
        ways = [self.chips.ioapic.pin_state(pin) for pin in range(IOAPIC_PINS)]
        ways += [message_state(route) for route in self.routes if isinstance(route, MsiRoute)]
        return not any(not way.masked and way.delivery in NMI_LIKE for way in ways)

    def _outside(self) -> list[Cause]:
        """What may come from outside of the machine: input, and what its user made a line for."""
        causes: list[Cause] = list(self._outside_gsis)
        for device in self.listeners:
            causes += device.awaited()
        return causes

    def begin(self, *, again: bool) -> None:
        """A run begins; `again`: behind the HLT with which everything ended."""
        self.clock.resume()
        for seat in self.seats:
            seat.begin(again=again)
            if isinstance(seat, Seat):
                self._counter_jumped(seat.lapic)  # it may have gone on while the clock stood still

    def step_on(self, index: int) -> None:
        """A vCPU is to be stepped: where nobody asked for chips it goes on behind its HLT, if interrupts cannot end that.

        Until the next run begins, it takes no interrupts.
        """
        seat = self.seats[index]
        seat.stepping = True
        if self._optional and isinstance(seat, Seat) and seat.asleep():
            seat.leave_halt()

    def end(self) -> None:
        """The run is over: time stands still."""
        self.clock.pause()
