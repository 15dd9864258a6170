"""One counter of an 8254 (Intel 8254 data sheet, 231164-005): its modes as functions of the time in input clocks.

Nothing here counts: what a counter shows and what its output is follow from when it was last loaded. Times are ticks of
the input clock since the machine was made; a new count is loaded with the tick after it was written.
"""

from __future__ import annotations

from typing import Any, Final

TERMINAL_COUNT: Final = 0
ONE_SHOT: Final = 1
RATE_GENERATOR: Final = 2
SQUARE_WAVE: Final = 3
SOFTWARE_STROBE: Final = 4
HARDWARE_STROBE: Final = 5
"""Modes 0 to 5."""

LATCH_COMMAND: Final = 0
LOW_BYTE: Final = 1
HIGH_BYTE: Final = 2
BOTH_BYTES: Final = 3
"""The RW field of a control word (data sheet, figure 7)."""

BINARY_MODULUS: Final = 0x10000
BCD_MODULUS: Final = 10_000

STATUS_OUT: Final = 0x80
STATUS_NULL_COUNT: Final = 0x40

_TRIGGERED: Final = (ONE_SHOT, HARDWARE_STROBE)
_PERIODIC: Final = (RATE_GENERATOR, SQUARE_WAVE)

_STATE: Final = (
    "mode", "mode_bits", "bcd", "access", "reload", "count", "next_reload", "switch_at", "switch_low", "start", "paused",
    "armed", "low_before", "running", "gate", "low_byte", "write_high", "read_high", "latched", "latch_left", "status",
)  # fmt: skip


def from_bcd(value: int) -> int:
    """What four decimal digits mean; a digit above 9 counts as what it is."""
    return sum((value >> 4 * digit & 0xF) * 10**digit for digit in range(4))


def to_bcd(value: int) -> int:
    """Four decimal digits."""
    return sum(value // 10**digit % 10 << 4 * digit for digit in range(4))


class PitCounter:
    """One counter. `count` is what it was loaded with at tick `start`; -1 in `next_reload`, `latched`, `status` is none."""

    def __init__(self, *, gate: bool) -> None:
        self.mode = self.mode_bits = SQUARE_WAVE
        self.bcd = False
        self.access = BOTH_BYTES
        self.reload = 0
        self.count = BINARY_MODULUS
        self.next_reload = -1
        self.switch_at = 0
        self.switch_low = False
        self.start = 0
        self.paused = 0
        self.armed = False
        self.low_before = False
        self.running = False
        self.gate = gate
        self.low_byte = 0
        self.write_high = self.read_high = False
        self.latched = -1
        self.latch_left = 0
        self.status = -1

    @property
    def _modulus(self) -> int:
        return BCD_MODULUS if self.bcd else BINARY_MODULUS

    def _periods(self, value: int) -> int:
        """How many ticks a written count stands for; 0 is the largest."""
        return (from_bcd(value) if self.bcd else value) or self._modulus

    # -- programming -------------------------------------------------------------------------------------------------

    def control(self, access: int, mode: int, bcd: bool) -> None:
        """A control word: everything starts anew and waits for a count."""
        self.access = access
        self.mode_bits = mode  # the status shows them as they were written (data sheet, "Read-Back Command")
        self.mode = mode if mode <= HARDWARE_STROBE else mode - 4  # 6 and 7 are 2 and 3 (data sheet, figure 7)
        self.bcd = bcd
        self.write_high = self.read_high = False
        self.latched = self.status = -1
        self.armed = self.running = False
        self.next_reload = -1

    def write(self, value: int, now: int) -> None:
        """A byte of a count."""
        if self.access == BOTH_BYTES and not self.write_high:
            self.low_byte = value
            self.write_high = True
            if self.mode == TERMINAL_COUNT:
                self.running = False  # counting stops between the two bytes (data sheet, "Mode 0")
            return
        if self.access == BOTH_BYTES:
            value = self.low_byte | value << 8
            self.write_high = False
        elif self.access == HIGH_BYTE:
            value <<= 8
        self._load(value, now)

    def _load(self, value: int, now: int) -> None:
        self.sync(now)
        self.reload = value
        self.armed = True
        if not self.running and self.mode in _TRIGGERED:
            self.count = self._periods(value)
        elif self.running and self.mode in _TRIGGERED:
            self.next_reload = value  # the next trigger loads it
        elif self.running and self.mode in _PERIODIC:
            self._load_later(value, now)
        else:
            self._begin(now)

    def _load_later(self, value: int, now: int) -> None:
        """The end of the current cycle loads the new count; with a square wave, of the current half of it."""
        if self.next_reload < 0 and self.gate:
            self.start += max(0, (now - self.start) // self.count) * self.count
            self.switch_at = self.start + self.count
            half = self.start + (self.count + 1) // 2
            self.switch_low = self.mode == SQUARE_WAVE and now < half
            if self.switch_low:
                self.switch_at = half
        self.next_reload = value

    def _begin(self, now: int) -> None:
        self.low_before = self.mode == ONE_SHOT and not self.out(now)
        self.count = self._periods(self.reload)
        self.start = now + 1
        self.paused = self.start
        self.running = True
        self.next_reload = -1

    def set_gate(self, gate: bool, now: int) -> None:
        """Drive the gate: it triggers, restarts or suspends, as the mode has it (data sheet, figure 21)."""
        if gate == self.gate:
            return
        self.sync(now)
        self.gate = gate
        if not gate:
            self.paused = max(now, self.start)
        elif self.mode in _TRIGGERED:
            if self.armed:
                self._begin(now)
        elif self.running and self.mode in _PERIODIC:
            self._begin(now)
        elif self.running:
            self.start += max(now, self.start) - self.paused

    def sync(self, now: int) -> None:
        """Let a count that was waiting for the end of a cycle, or half of one, take effect if that has come."""
        if self.next_reload >= 0 and self.mode in _PERIODIC and self.gate and now >= self.switch_at:
            self.count = self._periods(self.next_reload)
            self.start = self.switch_at - ((self.count + 1) // 2 if self.switch_low else 0)
            self.next_reload = -1

    # -- what shows ----------------------------------------------------------------------------------------------------

    def _elapsed(self, now: int) -> int:
        """Ticks counted since the load; below 0 before it."""
        if not self.gate and self.mode not in _TRIGGERED:
            now = self.paused
        return now - self.start

    def value(self, now: int) -> int:
        """The counting element's 16 bits, decimal digits in BCD."""
        self.sync(now)
        modulus = self._modulus
        elapsed = self._elapsed(now)
        if not self.running or elapsed < 0:
            value = self.count
        elif self.mode == SQUARE_WAVE:
            high = (self.count + 1) // 2
            within = elapsed % self.count
            value = (self.count & ~1) - 2 * (within if within < high else within - high)
            value = value if value > 0 else self.count & ~1
        elif self.mode == RATE_GENERATOR:
            value = self.count - elapsed % self.count
        else:
            value = self.count - elapsed
        value %= modulus
        return to_bcd(value) if self.bcd else value

    def out(self, now: int) -> bool:
        """The output pin."""
        self.sync(now)
        if not self.running:
            return self.mode != TERMINAL_COUNT
        elapsed = self._elapsed(now)
        if self.mode == TERMINAL_COUNT:
            return elapsed >= self.count
        if self.mode == ONE_SHOT:
            return elapsed >= self.count or (elapsed < 0 and not self.low_before)
        if self.mode in (SOFTWARE_STROBE, HARDWARE_STROBE):
            return elapsed != self.count
        if not self.gate or elapsed < 0:
            return True
        if self.mode == RATE_GENERATOR:
            return elapsed % self.count != self.count - 1
        return elapsed % self.count < (self.count + 1) // 2

    def next_change(self, now: int) -> int | None:
        """The tick after `now` with which the output may change by itself; None if it will not."""
        self.sync(now)
        if not self.running or (not self.gate and self.mode not in _TRIGGERED):
            return None
        elapsed = now - self.start
        if self.mode in _PERIODIC:
            if self.count == 1:
                return None  # illegal (data sheet, figure 21): no cycle has two halves
            turn = self.count - 1 if self.mode == RATE_GENERATOR else (self.count + 1) // 2
            cycle = max(0, elapsed // self.count) * self.count
            candidates: tuple[int, ...] = (cycle + turn, cycle + self.count, cycle + self.count + turn)
        elif self.mode in (SOFTWARE_STROBE, HARDWARE_STROBE):
            candidates = (self.count, self.count + 1)
        else:
            candidates = (self.count,) if self.mode == TERMINAL_COUNT else (0, self.count)
        return next((self.start + tick for tick in candidates if tick > elapsed), None)

    def next_pulse_end(self, now: int) -> int | None:
        """The tick after `now` with which a rate generator's next low tick is over, if nothing intervenes; else None.

        What `next_change` says of a timer's usual life, at a fraction of its cost.
        """
        if self.mode != RATE_GENERATOR or not self.running or not self.gate or self.next_reload >= 0 or self.count == 1:
            return None
        return self.start + (max(now - self.start, 0) // self.count + 1) * self.count

    def latch_count(self, now: int) -> None:
        """Keep the value for the next reads, unless one is kept already."""
        if self.latched < 0:
            self.latched = self.value(now)
            self.latch_left = 2 if self.access == BOTH_BYTES else 1

    def latch_status(self, now: int) -> None:
        """Keep the status for the next read, unless it is kept already."""
        if self.status < 0:
            out = STATUS_OUT if self.out(now) else 0
            null = STATUS_NULL_COUNT if self._null_count(now) else 0
            self.status = out | null | self.access << 4 | self.mode_bits << 1 | int(self.bcd)

    def _null_count(self, now: int) -> bool:
        """Whether the last count written is not in the counting element yet."""
        return not self.running or now < self.start or self.next_reload >= 0

    def read(self, now: int) -> int:
        """A byte: of the latched status, of the latched count, or of the running count."""
        if self.status >= 0:
            status, self.status = self.status, -1
            return status
        if self.latched >= 0:
            value = self.latched
            high = self.latch_left == 1 if self.access == BOTH_BYTES else self.access == HIGH_BYTE
            self.latch_left -= 1
            if not self.latch_left:
                self.latched = -1
        else:
            value = self.value(now)
            high = self.read_high if self.access == BOTH_BYTES else self.access == HIGH_BYTE
            self.read_high = self.access == BOTH_BYTES and not high
        return value >> 8 & 0xFF if high else value & 0xFF

    def state(self) -> dict[str, Any]:
        """Everything, as numbers."""
        return {name: int(getattr(self, name)) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        for name in _STATE:
            setattr(self, name, type(getattr(self, name))(state[name]))
