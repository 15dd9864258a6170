"""A machine with interrupt chips of its own, as an engine sees it that serves paravirtual interfaces itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from belljar.devices.apic_message import ApicMessage
from belljar.devices.clock import Timer
from belljar.devices.lapic import Lapic
from belljar.devices.lapic_timer import BUS_PERIOD_NS
from belljar.machine.own_interrupts import Lockable, OwnInterrupts
from belljar.machine.seat import Seat
from belljar.platform import EntryHooks
from belljar.x86.local_apic import Reg

NS_PER_SECOND = 1_000_000_000


class LapicFace:
    """A local APIC as `belljar.platform.LocalApic`: everything under the lock of the chips."""

    def __init__(self, lapic: Lapic, lock: Lockable) -> None:
        self._lapic = lapic
        self._lock = lock

    @property
    def settle(self) -> Callable[[], None] | None:
        """Called before anybody looks at the registers."""
        return self._lapic.settle

    @settle.setter
    def settle(self, callback: Callable[[], None] | None) -> None:
        """One at a time; None: nobody."""
        self._lapic.settle = callback

    @property
    def ended(self) -> Callable[[int], None] | None:
        """Called with the vector when an interrupt's service ends."""
        return self._lapic.ended

    @ended.setter
    def ended(self, callback: Callable[[int], None] | None) -> None:
        """One at a time; None: nobody."""
        self._lapic.ended = callback

    def end_of_interrupt(self) -> None:
        """As a write to EOI."""
        with self._lock:
            self._lapic.write(Reg.EOI, 0)

    def can_skip_eoi(self) -> bool:
        """Edge-triggered, and no other interrupt waits."""
        vectors = self._lapic.vectors
        serving = vectors.serving()
        return serving >= 0 and not vectors.waits() and not vectors.tmr >> serving & 1

    def raise_interrupt(self, vector: int, source: str) -> bool:
        """A fixed, edge-triggered interrupt."""
        with self._lock:
            return self._lapic.accept(vector, False, source)

    def read_icr(self) -> int:
        """The interrupt command register."""
        return self._lapic.icr.value

    def write_icr(self, value: int) -> None:
        """At once, as an x2APIC's, or both halves, the upper first, as an xAPIC's."""
        with self._lock:
            if self._lapic.x2apic:
                self._lapic.icr.write(value)
                return
            self._lapic.write(Reg.ICR_HIGH, value >> 32)
            self._lapic.write(Reg.ICR, value & 0xFFFF_FFFF)

    def read_tpr(self) -> int:
        """The task priority register."""
        with self._lock:
            return self._lapic.read(Reg.TPR) or 0

    def write_tpr(self, value: int) -> None:
        """Set it."""
        with self._lock:
            self._lapic.write(Reg.TPR, value & 0xFF)


class GuestPlatform:
    """As `belljar.platform.Platform`. `start_s` is the time of day when the machine was made, in seconds since 1970 UTC."""

    steady = True
    bus_hz = NS_PER_SECOND // BUS_PERIOD_NS

    def __init__(self, own: OwnInterrupts, start_s: int, reset: Callable[[str], None]) -> None:
        self._own = own
        self._start_ns = start_s * NS_PER_SECOND
        self._reset = reset
        self.now_ns = own.clock.now_ns

    @property
    def cpus(self) -> int:
        """How many vCPUs there are; the highest index, and one, where some were taken away."""
        return max(self._own.chips.lapics) + 1

    def wall_ns(self) -> int:
        """The time of day that the machine believes in."""
        return self._start_ns + self.now_ns()

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """A timer on the machine's clock."""
        with self._own.lock:
            return self._own.clock.call_at(deadline_ns, callback)

    def local_apic(self, index: int) -> LapicFace:
        """A vCPU's local APIC."""
        return LapicFace(self._own.chips.lapics[index], self._own.lock)

    def send_ipi(self, apic_id: int, vector: int, delivery: int, level_triggered: bool) -> bool:
        """A message over the APIC bus."""
        message = ApicMessage(vector, delivery, apic_id, level_triggered=level_triggered, source="pv ipi", wide=True)
        with self._own.lock:
            return bool(self._own.chips.bus.deliver(message))

    def unhalt(self, index: int) -> None:
        """Have a vCPU go on behind its HLT."""
        for seat in self._seats(index):
            seat.unhalt()

    def yield_to(self, index: int) -> bool:
        """Have a vCPU run next."""
        for seat in self._seats(index):
            if seat.wants_to_run:
                self._own.favoured = index
                return True
        return False

    def watch_entries(self, index: int, hooks: EntryHooks) -> None:
        """Tell `hooks` of a vCPU's runs."""
        for seat in self._seats(index):
            seat.hooks = hooks

    def _seats(self, index: int) -> Iterator[Seat]:
        """That of a vCPU, if it is there."""
        for seat in self._own.seats:
            if isinstance(seat, Seat) and seat.cpu.index == index:
                yield seat

    def reset(self, index: int) -> None:
        """The guest asks for a reset, which is the whole machine's."""
        self._reset("its hypervisor")
