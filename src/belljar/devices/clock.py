"""Time as devices see it: a clock to read, and timers on it. No threads: whoever owns the clock runs what is due.

`InstructionClock` stands still until its owner moves it, so that two runs are the same; `HostClock` follows the host.
Both run due timers in the order of their deadlines, ties in the order in which they were made.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Final, Protocol

from belljar.errors import ConfigurationError

NS_PER_SECOND: Final = 1_000_000_000

MIN_TICK_NS: Final = 10_000
"""In instruction time, no periodic timer interrupts more often than this: a handler makes some exits of a thousand nanoseconds
each, and something must be left for the rest of the guest. What a guest asks for beyond it is merged, as on a processor too
slow to take every tick; counters still show what was asked for."""

HOST_MIN_TICK_NS: Final = 200_000
"""The same on the host's clock, where vCPUs may be slow and a tick must leave them time for more than itself. KVM's limit,
`min_timer_period_us`, is the same by default."""

MONOTONIC_NS: Final[Callable[[], int]] = monotonic_ns
"""time.monotonic_ns(): compiled code would look it up by its names at each call."""

NEVER: Final = (1 << 62) - 1
"""Later than every deadline that a device can ask for: deadlines are cut to it."""


class Timer:
    """An appointment that can be made again and again. `deadline_ns` is when, `active` whether it is still to come."""

    __slots__ = ("_queue", "age", "callback", "deadline_ns", "later")

    def __init__(self, queue: TimerQueue, callback: Callable[[], None]) -> None:
        self._queue = queue
        self.callback = callback
        self.deadline_ns = NEVER
        self.age = 0  # how many were set before it, and it; 0: not active
        self.later: Timer | None = None  # the next that is due, while it is active

    @property
    def active(self) -> bool:
        """Whether it is set, and has neither run nor been cancelled since."""
        return self.age != 0

    @property
    def owner(self) -> object:
        """Whose method it calls; None if that is nobody's."""
        callback = getattr(self.callback, "func", self.callback)  # of a functools.partial
        return getattr(callback, "__self__", None)

    def set(self, deadline_ns: int) -> None:
        """Run once when the time has come, instead of when it was set for before."""
        self._queue.add(self, deadline_ns)

    def cancel(self) -> None:
        """Do not run it any more. Harmless when repeated, or when it has run."""
        if self.age:
            self._queue.forget(self)


class Clock(Protocol):
    """What a device needs of time."""

    min_tick_ns: int
    """No periodic timer interrupts more often."""

    def now_ns(self) -> int:
        """Nanoseconds since the machine was made; never goes back."""

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Have `callback` called once when the time has come: not before, possibly later, never from within this call."""

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A timer that is not set: for what is to be called at one time after the other."""


class TimerWatch(Protocol):
    """Somebody who wants to see what timers do. Must not change anything."""

    def armed(self, timer: Timer) -> None:
        """It was set for `timer.deadline_ns`."""

    def expired(self, timer: Timer) -> None:
        """Its time has come, and its callback is next."""


class TimerQueue:
    """The timers that are set, by deadline, then by age, each pointing to the next.

    A machine has a handful, and one or two are set at a time: going along them takes less than keeping a heap in order.
    `first_ns` is when the earliest is due, NEVER if there is none. `earlier` is called when one is set that is due before
    all others.
    """

    def __init__(self, earlier: Callable[[], None] | None = None) -> None:
        self._first: Timer | None = None
        self._made = 0
        self._earlier = earlier
        self.first_ns = NEVER
        self.watch: TimerWatch | None = None

    def add(self, timer: Timer, deadline_ns: int) -> None:
        """Set a timer."""
        if timer.age:
            self.forget(timer)
        if deadline_ns > NEVER:
            deadline_ns = NEVER
        self._made = timer.age = self._made + 1
        timer.deadline_ns = deadline_ns
        before, after = None, self._first
        while after is not None and after.deadline_ns <= deadline_ns:
            before, after = after, after.later
        timer.later = after
        if before is None:
            self._first = timer
        else:
            before.later = timer
        if self.watch is not None:
            self.watch.armed(timer)
        if deadline_ns < self.first_ns:
            self.first_ns = deadline_ns
            if self._earlier is not None:
                self._earlier()

    def forget(self, timer: Timer) -> None:
        """A timer is not to run any more."""
        self._take_out(timer)
        if timer.deadline_ns == self.first_ns:
            self._find_first()

    def _take_out(self, timer: Timer) -> None:
        before = self._first
        if before is timer:
            self._first = timer.later
        while before is not None:
            if before.later is timer:
                before.later = timer.later
                break
            before = before.later
        timer.later = None
        timer.age = 0

    def _find_first(self) -> None:
        first = self._first
        self.first_ns = NEVER if first is None else first.deadline_ns

    def run_due(self, now_ns: int) -> int:
        """Run what is due at `now_ns` and was there when the call began; how many ran."""
        newest = self._made
        ran = 0
        timer = self._first
        while timer is not None and timer.deadline_ns <= now_ns:
            if timer.age > newest:  # set by a callback: its turn comes with the next call, so that every call ends
                timer = timer.later
                continue
            ran += 1
            if self.watch is not None:
                self.watch.expired(timer)
            self._take_out(timer)
            timer.callback()
            timer = self._first
        self._find_first()
        return ran

    def active(self) -> list[Timer]:
        """The timers that are set, by deadline."""
        timers = []
        timer = self._first
        while timer is not None:
            timers.append(timer)
            timer = timer.later
        return timers

    def __len__(self) -> int:
        """How many are set."""
        return len(self.active())


class QueueClock:
    """What the clocks have in common: their timers."""

    def __init__(self, earlier: Callable[[], None] | None = None) -> None:
        self.timers = TimerQueue(earlier)
        self.min_tick_ns = MIN_TICK_NS

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """As `Clock.call_at`."""
        timer = Timer(self.timers, callback)
        self.timers.add(timer, deadline_ns)
        return timer

    def timer(self, callback: Callable[[], None]) -> Timer:
        """As `Clock.timer`."""
        return Timer(self.timers, callback)

    def next_deadline_ns(self) -> int | None:
        """How far an idle machine may skip, or its owner sleep; None if nothing will ever happen by itself."""
        first_ns = self.timers.first_ns
        return None if first_ns == NEVER else first_ns


class InstructionClock(QueueClock):
    """A clock that moves only when told: a function of what was executed, the same in every run."""

    def __init__(self, now_ns: int = 0, *, earlier: Callable[[], None] | None = None) -> None:
        super().__init__(earlier)
        self.time_ns = now_ns
        """The time it was last moved to."""

    def now_ns(self) -> int:
        """The time it was last moved to."""
        return self.time_ns

    def advance_to(self, now_ns: int) -> int:
        """Move to `now_ns`, then run what is due; how many timers ran. Raises ConfigurationError for a time in the past."""
        if now_ns < self.time_ns:
            raise ConfigurationError(f"time does not go back: from {self.time_ns} ns to {now_ns} ns")
        self.time_ns = now_ns
        return self.timers.run_due(now_ns)

    def advance(self, ns: int) -> int:
        """Move on by `ns`."""
        return self.advance_to(self.time_ns + ns)

    def state(self) -> dict[str, int]:
        """The time. Timers belong to those who made them, and are made again when these are restored."""
        return {"now_ns": self.time_ns}

    def restore(self, state: dict[str, int]) -> None:
        """Set the time; restore the clock first, then the devices."""
        self.time_ns = state["now_ns"]


class HostClock(QueueClock):
    """The host's monotonic time, from `now_ns` on. Stops while `paused`, so that a stopped machine misses nothing."""

    def __init__(
        self,
        now_ns: int = 0,
        *,
        source: Callable[[], int] = monotonic_ns,
        earlier: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(earlier)
        self.min_tick_ns = HOST_MIN_TICK_NS
        self._source = source
        self.offset_ns = now_ns - source()
        """What is added to the host's time, unless this stands still."""
        self._paused_ns: int | None = None

    def now_ns(self) -> int:
        """Host time since the start, pauses left out."""
        return self._source() + self.offset_ns if self._paused_ns is None else self._paused_ns

    def run_due(self) -> int:
        """Run what is due now; how many timers ran."""
        return self.timers.run_due(self.now_ns())

    def pause(self) -> None:
        """Stop. Harmless when repeated."""
        self._paused_ns = self.now_ns()

    def resume(self) -> None:
        """Go on from where it stopped."""
        if self._paused_ns is not None:
            self.offset_ns = self._paused_ns - self._source()
            self._paused_ns = None

    def state(self) -> dict[str, int]:
        """The time."""
        return {"now_ns": self.now_ns()}

    def restore(self, state: dict[str, int]) -> None:
        """Set the time; restore the clock first, then the devices."""
        self.offset_ns = state["now_ns"] - self._source()
        if self._paused_ns is not None:
            self._paused_ns = state["now_ns"]


class Tsc:
    """A guest's time-stamp counter as a function of a clock: `hz` ticks a second, plus `offset` (both may be changed)."""

    MASK = (1 << 64) - 1

    def __init__(self, clock: Clock, hz: int = NS_PER_SECOND, offset: int = 0) -> None:
        if hz <= 0:
            raise ConfigurationError(f"a time-stamp counter needs a frequency above 0, not {hz} Hz")
        self._clock = clock
        self.hz = hz
        self.offset = offset

    def read(self) -> int:
        """The counter now, 64 bits."""
        return (self._clock.now_ns() * self.hz // NS_PER_SECOND + self.offset) & self.MASK

    def ns_at(self, value: int) -> int:
        """The clock's time when the counter first shows `value` or more, if it does not wrap before."""
        return -(-(value - self.offset) * NS_PER_SECOND // self.hz)
