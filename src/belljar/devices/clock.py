"""Time as devices see it: a clock to read, and timers on it. No threads: whoever owns the clock runs what is due.

`InstructionClock` stands still until its owner moves it, so that two runs are the same; `HostClock` follows the host.
Both run due timers in the order of their deadlines, ties in the order in which they were made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, Protocol

from belljar.errors import ConfigurationError

NS_PER_SECOND: Final = 1_000_000_000

MIN_TICK_NS: Final = 1_000
"""In instruction time, no periodic timer interrupts more often than this. What a guest asks for beyond it is merged, as on a
processor too slow to take every tick; counters still show what was asked for."""

HOST_MIN_TICK_NS: Final = 200_000
"""The same on the host's clock, where vCPUs may be slow and a tick must leave them time for more than itself. KVM's limit,
`min_timer_period_us`, is the same by default."""

_ENOUGH_STALE: Final = 64


NEVER: Final = (1 << 62) - 1
"""Later than every deadline that a device can ask for: deadlines are cut to it."""


class Timer:
    """An appointment that can be made again and again. `deadline_ns` is when, `active` whether it is still to come."""

    __slots__ = ("_queue", "age", "callback", "deadline_ns")

    def __init__(self, queue: TimerQueue, callback: Callable[[], None]) -> None:
        self._queue = queue
        self.callback = callback
        self.deadline_ns = NEVER
        self.age = 0  # tells its present entry in the queue from earlier ones; 0: not active

    @property
    def active(self) -> bool:
        """Whether it is set, and has neither run nor been cancelled since."""
        return self.age != 0

    def set(self, deadline_ns: int) -> None:
        """Run once when the time has come, instead of when it was set for before."""
        self._queue.add(self, deadline_ns)

    def cancel(self) -> None:
        """Do not run it any more. Harmless when repeated, or when it has run."""
        if self.age:
            self.age = 0
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
    """Timers ordered by deadline, then by age. Stale entries are swept, so that re-arming for ever needs no more memory.

    `first_ns` is when the earliest is due, NEVER if there is none. `earlier` is called when one is set that is due before
    all others.
    """

    def __init__(self, earlier: Callable[[], None] | None = None) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._made = 0
        self._stale = 0
        self._earlier = earlier
        self.first_ns = NEVER
        self.watch: TimerWatch | None = None

    def add(self, timer: Timer, deadline_ns: int) -> None:
        """Set a timer."""
        if timer.age:
            timer.cancel()
        if deadline_ns > NEVER:
            deadline_ns = NEVER
        self._made = timer.age = self._made + 1
        timer.deadline_ns = deadline_ns
        heappush(self._heap, (deadline_ns, timer.age, timer))
        if self.watch is not None:
            self.watch.armed(timer)
        if deadline_ns < self.first_ns:
            self.first_ns = deadline_ns
            if self._earlier is not None:
                self._earlier()

    def forget(self, timer: Timer) -> None:
        """A timer was cancelled."""
        self._stale += 1
        if self._stale > _ENOUGH_STALE and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].age == entry[1]]
            heapify(self._heap)
            self._stale = 0
        if timer.deadline_ns == self.first_ns:
            self._find_first()

    def _find_first(self) -> None:
        heap = self._heap
        while heap and heap[0][2].age != heap[0][1]:
            heappop(heap)
            self._stale -= 1
        self.first_ns = heap[0][0] if heap else NEVER

    def run_due(self, now_ns: int) -> int:
        """Run what is due at `now_ns` and was there when the call began; how many ran."""
        newest = self._made
        later = []
        ran = 0
        while self._heap and self._heap[0][0] <= now_ns:  # what a callback adds may be a new list
            entry = heappop(self._heap)
            timer = entry[2]
            if timer.age != entry[1]:
                self._stale -= 1
            elif entry[1] > newest:
                later.append(entry)  # set by a callback: its turn comes with the next call, so that every call ends
            else:
                ran += 1
                if self.watch is not None:
                    self.watch.expired(timer)
                timer.age = 0
                timer.callback()
        for entry in later:
            heappush(self._heap, entry)
        self._find_first()
        return ran

    def active(self) -> list[Timer]:
        """The timers that are set."""
        return [timer for _, age, timer in self._heap if timer.age == age]

    def __len__(self) -> int:
        """How many entries are kept, stale ones included."""
        return len(self._heap)


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
        source: Callable[[], int] = time.monotonic_ns,
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
