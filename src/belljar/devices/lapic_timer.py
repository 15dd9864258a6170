"""A local APIC's timer: one-shot, periodic, TSC-deadline (SDM 3A 11.5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from belljar.devices.clock import Clock, Tsc
from belljar.x86.local_apic import DIVIDE_WRITABLE

ONE_SHOT: Final = 0
PERIODIC: Final = 1
TSC_DEADLINE: Final = 2
MODE_NAMES: Final = ("one-shot", "periodic", "TSC deadline", "reserved")
"""As reports spell them."""

BUS_PERIOD_NS: Final = 1
"""One undivided count takes so long: KVM's APIC_BUS_CYCLE_NS."""

_COUNTER_MAX: Final = 0xFFFF_FFFF


def divisor(configuration: int) -> int:
    """What the divide configuration register means: 1 to 128 (SDM 3A figure 11-10)."""
    code = configuration & 3 | configuration >> 1 & 4
    return 1 << (code + 1 & 7)


class Counter(Protocol):
    """A time-stamp counter on a clock: `belljar.devices.clock.Tsc`, or a vCPU's own."""

    def read(self) -> int:
        """The counter now, 64 bits."""

    def ns_at(self, value: int) -> int:
        """The clock's time when it shows `value` or more."""


class ApicTimer:
    """The timer. `expire` is called when it runs out; it is armed on the clock only while `audible`.

    Nobody can tell a silent timer (masked, or the APIC off) from one that does not run, but by its count, which follows
    from the time.
    """

    def __init__(
        self,
        clock: Clock,
        expire: Callable[[], None],
        *,
        tsc: Counter | None = None,
        bus_period_ns: int = BUS_PERIOD_NS,
    ) -> None:
        self._clock = clock
        self._expire = expire
        self._min_tick_ns = clock.min_tick_ns
        self._tsc: Counter = tsc or Tsc(clock)
        self._bus_period_ns = bus_period_ns
        self._timer = clock.timer(self._run_out)
        self._audible = False
        self.mode = ONE_SHOT
        self.initial = 0
        self.configuration = 0
        self._start_ns = 0
        self._period_ns = 0
        self._deadline = 0

    def reset(self) -> None:
        """As after power-up."""
        self._timer.cancel()
        self._audible = False
        self.mode = ONE_SHOT
        self.initial = self.configuration = 0
        self._start_ns = self._period_ns = self._deadline = 0

    @property
    def _count_ns(self) -> int:
        return self._bus_period_ns * divisor(self.configuration)

    def set_mode(self, mode: int, audible: bool) -> None:
        """What LVT timer says. To or from TSC-deadline mode disarms the timer (SDM 3A 11.5.4.1)."""
        if mode != self.mode:
            if mode == TSC_DEADLINE or self.mode == TSC_DEADLINE:
                self.initial = self._period_ns = self._deadline = 0
            elif self.mode == PERIODIC and self._period_ns:
                elapsed_ns = self._clock.now_ns() - self._start_ns
                self._start_ns += elapsed_ns - elapsed_ns % self._period_ns  # the cycle that runs is the last one
            elif mode == PERIODIC and self._clock.now_ns() >= self._start_ns + self._period_ns:
                self._period_ns = 0  # it had run out, and periods begin with a write to the initial count
            self.mode = mode
        elif audible == self._audible:
            return
        self._audible = audible
        self._arm()

    def write_initial(self, value: int) -> None:
        """Start counting down from `value`; 0 stops. Ignored in TSC-deadline mode."""
        if self.mode == TSC_DEADLINE:
            return
        self.initial = value
        self._start_ns = self._clock.now_ns()
        self._period_ns = value * self._count_ns
        self._arm(overdue=True)  # the host's time goes on meanwhile

    def current(self) -> int:
        """The count now."""
        if self.mode == TSC_DEADLINE or not self._period_ns:
            return 0
        elapsed_ns = self._clock.now_ns() - self._start_ns
        if elapsed_ns >= self._period_ns:
            if self.mode != PERIODIC:
                return 0
            elapsed_ns %= self._period_ns
        return min((self._period_ns - elapsed_ns) // self._count_ns, _COUNTER_MAX)

    def write_divide(self, value: int) -> None:
        """How fast it counts; a count that is under way goes on from where it is."""
        remaining = self._remaining_ns()
        before_ns = self._count_ns
        self.configuration = value & DIVIDE_WRITABLE
        after_ns = self._count_ns
        if after_ns == before_ns or not self._period_ns:
            return
        self._period_ns = self.initial * after_ns
        self._start_ns = self._clock.now_ns() + remaining * after_ns // before_ns - self._period_ns
        self._arm(overdue=remaining > 0)

    def _remaining_ns(self) -> int:
        elapsed_ns = self._clock.now_ns() - self._start_ns
        if elapsed_ns < self._period_ns:
            return self._period_ns - elapsed_ns
        return self._period_ns - elapsed_ns % self._period_ns if self.mode == PERIODIC and self._period_ns else 0

    def write_deadline(self, value: int) -> None:
        """IA32_TSC_DEADLINE: run out when the time-stamp counter reaches `value`; 0 disarms. Ignored in other modes."""
        if self.mode == TSC_DEADLINE:
            self._deadline = value
            self._arm()

    def read_deadline(self) -> int:
        """IA32_TSC_DEADLINE: 0 if it is not armed, or not in this mode."""
        return 0 if self._deadline and self._tsc.read() >= self._deadline else self._deadline

    def use_counter(self, tsc: Counter) -> None:
        """TSC deadlines are meant on this counter from now on."""
        self._tsc = tsc
        self._arm()

    def rearm(self) -> None:
        """The relation between the time-stamp counter and the clock has changed."""
        if self.mode == TSC_DEADLINE:
            self._arm()

    def _arm(self, overdue: bool = False) -> None:
        """Make the appointment; with `overdue` also that of a one-shot whose time has come and that did not run yet."""
        self._timer.cancel()
        if not self._audible:
            return
        now_ns = self._clock.now_ns()
        if self.mode == TSC_DEADLINE:
            if self._deadline:
                self._timer.set(max(self._tsc.ns_at(self._deadline), now_ns))
        elif self._period_ns and self.mode in (ONE_SHOT, PERIODIC):
            end_ns = self._start_ns + self._period_ns
            if self.mode == ONE_SHOT and (end_ns > now_ns or overdue):
                self._timer.set(end_ns)
            elif self.mode == PERIODIC:
                self._timer.set(self._next_tick(now_ns))

    def _next_tick(self, now_ns: int) -> int:
        passed = (now_ns - self._start_ns) // self._period_ns
        next_ns = self._start_ns + (passed + 1) * self._period_ns
        if self._period_ns < self._min_tick_ns:
            next_ns += -(-(self._min_tick_ns - (next_ns - now_ns)) // self._period_ns) * self._period_ns
        return next_ns

    def _run_out(self) -> None:
        if self.mode == TSC_DEADLINE:
            if self._tsc.read() < self._deadline:
                self._arm()  # the counter was set back meanwhile
                return
            self._deadline = 0
        elif self.mode == PERIODIC:
            now_ns, next_ns = self._clock.now_ns(), self._timer.deadline_ns + self._period_ns
            on_time = now_ns < next_ns and self._period_ns >= self._min_tick_ns
            self._timer.set(next_ns if on_time else self._next_tick(now_ns))
        self._expire()

    def state(self) -> dict[str, Any]:
        """Registers, and when the cycle began on the clock."""
        return {
            "mode": self.mode,
            "audible": int(self._audible),
            "initial": self.initial,
            "configuration": self.configuration,
            "start_ns": self._start_ns,
            "period_ns": self._period_ns,
            "deadline": self._deadline,
            "armed": int(self._timer.active),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back, and arm it if it was armed."""
        self.mode, self._audible = state["mode"], bool(state["audible"])
        self.initial, self.configuration = state["initial"], state["configuration"]
        self._start_ns, self._period_ns = state["start_ns"], state["period_ns"]
        self._deadline = state["deadline"]
        self._timer.cancel()
        if state["armed"]:
            self._arm(overdue=True)
