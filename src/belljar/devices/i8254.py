"""The programmable interval timer of a PC (Intel 8254 data sheet, 231164-005): counter 0 interrupts, counter 2 speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from belljar.devices.clock import NS_PER_SECOND, Clock
from belljar.devices.pit_counter import LATCH_COMMAND, PitCounter

PIT_PORT: Final = 0x40
PIT_HZ: Final = 1_193_182
"""A PC's 14.31818 MHz crystal divided by 12; KVM's KVM_PIT_FREQ is 1193181."""

CONTROL: Final = 3
READ_BACK: Final = 3
READ_BACK_NO_COUNT: Final = 0x20
READ_BACK_NO_STATUS: Final = 0x10

SPEAKER_COUNTER: Final = 2


class Pit:
    """The 8254. `line` follows counter 0's output from its first change on. Gates 0 and 1 are tied high, as on a PC."""

    port_width = 1

    def __init__(self, clock: Clock, line: Callable[[bool], object] | None = None) -> None:
        self.ports = range(PIT_PORT, PIT_PORT + 4)
        self.counters = tuple(PitCounter(gate=number != SPEAKER_COUNTER) for number in range(3))
        self._clock = clock
        self._line = line
        self._connected = True
        self._out = True
        self._timer = clock.timer(self._tick)

    def now(self) -> int:
        """The time in ticks of the input clock."""
        return self._clock.now_ns() * PIT_HZ // NS_PER_SECOND

    def port_read(self, port: int, size: int) -> int:
        """A counter's byte; the control word cannot be read, the bus floats."""
        number = port - PIT_PORT
        return 0xFF if number == CONTROL else self.counters[number].read(self.now())

    def port_write(self, port: int, size: int, value: int) -> None:
        """A counter's byte, or a control word."""
        number = port - PIT_PORT
        now = self.now()
        if self._timer.active and self._timer.deadline_ns <= self._clock.now_ns():
            self._timer.cancel()
            self._tick()  # its owner has not come round to it yet
        if number != CONTROL:
            self.counters[number].write(value, now)
        elif value >> 6 == READ_BACK:
            self._read_back(value, now)
            return
        else:
            number = value >> 6
            counter = self.counters[number]
            access = value >> 4 & 3
            if access == LATCH_COMMAND:
                counter.latch_count(now)
                return
            counter.control(access, value >> 1 & 7, bool(value & 1))
        if number == 0:
            self._follow(now)

    def _read_back(self, value: int, now: int) -> None:
        for number, counter in enumerate(self.counters):
            if value & 2 << number:
                if not value & READ_BACK_NO_COUNT:
                    counter.latch_count(now)
                if not value & READ_BACK_NO_STATUS:
                    counter.latch_status(now)

    def set_speaker_gate(self, gate: bool) -> None:
        """Counter 2's gate, bit 0 of port 0x61."""
        self.counters[SPEAKER_COUNTER].set_gate(gate, self.now())

    @property
    def speaker_out(self) -> bool:
        """Counter 2's output, bit 5 of port 0x61."""
        return self.counters[SPEAKER_COUNTER].out(self.now())

    def connect(self, connected: bool) -> None:
        """Connect counter 0's output to its line, or not (an HPET in legacy mode takes its place)."""
        if not connected and self._line is not None:
            self._line(False)
        self._connected = connected
        self._follow(self.now())

    def awaited(self) -> list[int]:
        """The line that its timer may raise, if it is on one (`belljar.machine.wakeups`)."""
        gsi = getattr(self._line, "gsi", None)
        return [gsi] if gsi is not None and self._connected else []

    def _drive(self, level: bool) -> None:
        if self._line is not None and self._connected:
            self._line(level)

    def _follow(self, now: int) -> None:
        """Bring the line to where the output is, and come again when it next changes."""
        counter = self.counters[0]
        out = counter.out(now)
        if out != self._out:
            self._out = out
            self._drive(out)
        self._timer.cancel()
        if self._line is None or not self._connected:
            return
        pulse_end = counter.next_pulse_end(now)
        change = pulse_end if pulse_end is not None and out else counter.next_change(now)
        if change is not None:
            self._timer.set(_ns(change))

    def _tick(self) -> None:
        """The output changed, perhaps several times: a low pulse that is over is still an edge for the interrupt chip."""
        now = self.now()
        counter = self.counters[0]
        pulse_end = counter.next_pulse_end(now)
        if pulse_end is not None and self._out and now > counter.start:
            self._drive(False)
            self._drive(True)
            self._timer.set(max(_ns(pulse_end), self._clock.now_ns() + self._clock.min_tick_ns))
            return
        out = counter.out(now)
        if out == self._out:
            self._drive(not out)
        self._drive(out)
        self._out = out
        change = counter.next_change(now)
        soonest = self._clock.now_ns() + self._clock.min_tick_ns
        if change is not None and self._out and not counter.out(change):
            # a pulse of one clock is served once it is over, unless it is a square wave's half
            over = counter.next_change(change)
            change = over if over == change + 1 else change
        if change is not None:
            self._timer.set(max(_ns(change), soonest))

    def state(self) -> dict[str, Any]:
        """The counters, counter 0's output as the line knows it, and when it will be looked at again."""
        return {
            "counters": [counter.state() for counter in self.counters],
            "out": int(self._out),
            "connected": int(self._connected),
            "timer_ns": self._timer.deadline_ns if self._timer.active else -1,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back, and the appointment with the clock."""
        for counter, saved in zip(self.counters, state["counters"], strict=True):
            counter.restore(saved)
        self._out = bool(state["out"])
        self._connected = bool(state["connected"])
        self._timer.cancel()
        if state["timer_ns"] >= 0:
            self._timer.set(state["timer_ns"])


def _ns(tick: int) -> int:
    """The first nanosecond of a tick."""
    return -(-tick * NS_PER_SECOND // PIT_HZ)
