"""Timers in a trace: when a device's timer is armed and for when, and when it runs out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from belljar.devices.clock import Timer, TimerQueue
from belljar.devices.lapic import Lapic
from belljar.devices.lapic_timer import MODE_NAMES, ApicTimer
from belljar.observe.trace_lines import NO_CPU, TraceLines, seconds, spoken
from belljar.x86.local_apic import Reg

KIND = "timer"


class TimedClock(Protocol):
    """A clock with a queue of timers."""

    timers: TimerQueue

    def now_ns(self) -> int:
        """As `belljar.devices.clock.Clock`."""


class TimerTrace:
    """A line for every timer that a device of the machine sets, and for every one that runs out.

    `lapics` are the local APICs whose timers are on that clock, by vCPU.
    """

    def __init__(self, clock: TimedClock, lapics: Mapping[int, Lapic], lines: TraceLines) -> None:
        self._clock = clock
        self._lapics = lapics
        self._lines = lines
        clock.timers.watch = self

    def _name(self, timer: Timer) -> tuple[int, str]:
        owner = timer.owner
        if isinstance(owner, ApicTimer):
            cpu = next((cpu for cpu, lapic in self._lapics.items() if lapic.timer is owner), NO_CPU)
            vector = self._lapics[cpu].lvt[Reg.LVT_TIMER] & 0xFF if cpu != NO_CPU else 0
            return cpu, f"lapic timer ({MODE_NAMES[owner.mode]}, vector {vector:#04x})"
        return NO_CPU, "timer" if owner is None else spoken(type(owner).__name__)

    def armed(self, timer: Timer) -> None:
        """As `TimerWatch.armed`."""
        cpu, who = self._name(timer)
        left_ns = timer.deadline_ns - self._clock.now_ns()
        when = f"in {left_ns} ns" if left_ns > 0 else "at once"
        self._lines(cpu, KIND, f"{who} armed for {seconds(timer.deadline_ns)}, {when}")

    def expired(self, timer: Timer) -> None:
        """As `TimerWatch.expired`."""
        cpu, who = self._name(timer)
        late_ns = self._clock.now_ns() - timer.deadline_ns
        self._lines(cpu, KIND, f"{who} expired" + (f", {late_ns} ns late" if late_ns > 0 else ""))
