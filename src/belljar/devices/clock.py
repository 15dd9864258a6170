"""Time as devices see it: a clock to read, and timers on it. No threads: whoever owns the clock runs what is due.

`InstructionClock` stands still until its owner moves it, so that two runs are the same; `HostClock` follows the host.
Both run due timers in the order of their deadlines, ties in the order in which they were made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Protocol

from belljar.errors import ConfigurationError

NS_PER_SECOND = 1_000_000_000

MIN_TICK_NS = 1_000
"""No periodic timer interrupts more often than this. What a guest asks for beyond it is merged, as on a processor too slow
to take every tick; counters still show what was asked for. (KVM's limit is `min_timer_period_us`, 200 us by default.)"""

_ENOUGH_CANCELLED = 64


class Timer:
    """One appointment. `deadline_ns` is when; `active` whether it is still to come."""

    __slots__ = ("_callback", "_owner", "deadline_ns")

    def __init__(self, owner: TimerQueue, deadline_ns: int, callback: Callable[[], None]) -> None:
        self._owner = owner
        self.deadline_ns = deadline_ns
        self._callback: Callable[[], None] | None = callback

    @property
    def active(self) -> bool:
        """Whether it has neither run nor been cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Do not run it any more. Harmless when repeated, or when it has run."""
        if self._callback is not None:
            self._callback = None
            self._owner.forget()

    def fire(self) -> bool:
        """Run it unless it was cancelled; whether it ran."""
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        callback()
        return True


class Clock(Protocol):
    """What a device needs of time."""

    def now_ns(self) -> int:
        """Nanoseconds since the machine was made; never goes back."""

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Have `callback` called once when the time has come: not before, possibly later, never from within this call."""


class TimerQueue:
    """Timers ordered by deadline, then by age. Cancelled ones are swept, so that re-arming for ever needs no more memory."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._made = 0
        self._cancelled = 0

    def add(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """A new timer."""
        timer = Timer(self, deadline_ns, callback)
        self._made += 1
        heappush(self._heap, (deadline_ns, self._made, timer))
        return timer

    def forget(self) -> None:
        """One of the timers was cancelled."""
        self._cancelled += 1
        if self._cancelled > _ENOUGH_CANCELLED and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].active]
            heapify(self._heap)
            self._cancelled = 0

    def next_deadline_ns(self) -> int | None:
        """When the earliest timer is due; None if there is none."""
        heap = self._heap
        while heap and not heap[0][2].active:
            heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else None

    def run_due(self, now_ns: int) -> int:
        """Run what is due at `now_ns` and was there when the call began; how many ran."""
        newest = self._made
        later = []
        ran = 0
        while self._heap and self._heap[0][0] <= now_ns:  # what a callback adds may be a new list
            entry = heappop(self._heap)
            if entry[1] > newest:
                later.append(entry)  # made by a callback: its turn comes with the next call, so that every call ends
            elif entry[2].fire():
                ran += 1
            else:
                self._cancelled -= 1
        for entry in later:
            heappush(self._heap, entry)
        return ran

    def __len__(self) -> int:
        """How many entries are kept, cancelled ones included."""
        return len(self._heap)


class InstructionClock:
    """A clock that moves only when told: a function of what was executed, the same in every run."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns
        self._timers = TimerQueue()

    def now_ns(self) -> int:
        """The time it was last moved to."""
        return self._now_ns

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """As `Clock.call_at`."""
        return self._timers.add(deadline_ns, callback)

    def next_deadline_ns(self) -> int | None:
        """How far an idle machine may skip; None if nothing will ever happen by itself."""
        return self._timers.next_deadline_ns()

    def advance_to(self, now_ns: int) -> int:
        """Move to `now_ns`, then run what is due; how many timers ran. Raises ConfigurationError for a time in the past."""
        if now_ns < self._now_ns:
            raise ConfigurationError(f"time does not go back: from {self._now_ns} ns to {now_ns} ns")
        self._now_ns = now_ns
        return self._timers.run_due(now_ns)

    def advance(self, ns: int) -> int:
        """Move on by `ns`."""
        return self.advance_to(self._now_ns + ns)

    def state(self) -> dict[str, int]:
        """The time. Timers belong to those who made them, and are made again when these are restored."""
        return {"now_ns": self._now_ns}

    def restore(self, state: dict[str, int]) -> None:
        """Set the time; restore the clock first, then the devices."""
        self._now_ns = state["now_ns"]


class HostClock:
    """The host's monotonic time, from `now_ns` on. Stops while `paused`, so that a stopped machine misses nothing."""

    def __init__(self, now_ns: int = 0, *, source: Callable[[], int] = time.monotonic_ns) -> None:
        self._source = source
        self._offset_ns = now_ns - source()
        self._paused_ns: int | None = None
        self._timers = TimerQueue()

    def now_ns(self) -> int:
        """Host time since the start, pauses left out."""
        return self._source() + self._offset_ns if self._paused_ns is None else self._paused_ns

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """As `Clock.call_at`."""
        return self._timers.add(deadline_ns, callback)

    def next_deadline_ns(self) -> int | None:
        """Until when the owner may sleep; None if nothing will ever happen by itself."""
        return self._timers.next_deadline_ns()

    def run_due(self) -> int:
        """Run what is due now; how many timers ran."""
        return self._timers.run_due(self.now_ns())

    def pause(self) -> None:
        """Stop. Harmless when repeated."""
        self._paused_ns = self.now_ns()

    def resume(self) -> None:
        """Go on from where it stopped."""
        if self._paused_ns is not None:
            self._offset_ns = self._paused_ns - self._source()
            self._paused_ns = None

    def state(self) -> dict[str, int]:
        """The time."""
        return {"now_ns": self.now_ns()}

    def restore(self, state: dict[str, int]) -> None:
        """Set the time; restore the clock first, then the devices."""
        self._offset_ns = state["now_ns"] - self._source()
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
