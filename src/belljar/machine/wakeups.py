"""Whether anything can still wake a machine whose vCPUs all sleep (SDM 3A 9.6.1 HLT; 9.4 INIT and start-up IPIs).

Nobody executes instructions then, so chips stay as they are programmed. What can happen is what timers bring about that are
set, and what comes from outside the machine. Each of these ways is followed through the routing to the local APICs:

- a local APIC's timer: its own entry in the local vector table;
- a line (GSI) or message that a device's timer, or somebody outside, may raise: the 8259 pair with its masks, priorities
  and LINT0; the IOAPIC's pin with its mask and delivery mode; the destination of the message.

A vCPU that halted wakes by an NMI; with RFLAGS.IF=1 also by an interrupt from the 8259 or of a class above its priority; the
bootstrap processor by INIT, too. Any other that waits for a start-up IPI needs another vCPU to send it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from belljar.devices.apic_message import FIRST_VECTOR, ApicMessage, DeliveryMode, from_msi
from belljar.devices.clock import TimerQueue
from belljar.devices.interrupt_chips import PIC_IOAPIC_PIN, InterruptChips
from belljar.devices.ioapic import LEVEL, MASKED, REMOTE_IRR
from belljar.devices.lapic_timer import ApicTimer
from belljar.devices.lapic_vectors import CLASS_MASK
from belljar.devices.lines import IoapicRoute, MsiRoute, PicRoute
from belljar.machine.seat import HALTED, Seat
from belljar.x86.local_apic import LVT_MASKED, MODE_MASK, MODE_SHIFT, VECTOR_MASK, Reg

Cause = int | tuple[int, int]
"""A line that may rise, or the address and data of a message that may be sent."""


def may_wake(chips: InterruptChips, seats: Sequence[Seat], timers: TimerQueue, outside: Iterable[Cause]) -> bool:
    """Whether a timer that is set, or a cause from `outside`, could make one of the sleeping vCPUs go on.

    Devices tell by a method `awaited()` which causes their timers may bring about; a timer of a device that does not tell
    may bring about anything.
    """
    ways = _Ways(chips, seats)
    causes = list(outside)
    for timer in timers.active():
        owner = timer.owner
        if isinstance(owner, ApicTimer):
            if ways.timer_wakes(owner):
                return True
            continue
        awaited = getattr(owner, "awaited", None)
        if awaited is None:
            return True
        causes += awaited()
    return any(ways.cause_wakes(cause) for cause in set(causes))


class _Ways:
    """From causes to vCPUs, as the chips are programmed now."""

    def __init__(self, chips: InterruptChips, seats: Sequence[Seat]) -> None:
        self._chips = chips
        self._seats = seats

    def timer_wakes(self, timer: ApicTimer) -> bool:
        """A local APIC's timer that is armed is not masked."""
        for seat in self._seats:
            if seat.lapic.timer is timer:
                return _takes_fixed(seat, seat.lapic.lvt[Reg.LVT_TIMER] & VECTOR_MASK)
        return False

    def cause_wakes(self, cause: Cause) -> bool:
        """A line or message, by all its routes."""
        if isinstance(cause, tuple):
            return self._message_wakes(from_msi(*cause))
        for route in self._chips.router.routes:
            if route.gsi != cause:
                continue
            if isinstance(route, MsiRoute):
                woken = self._message_wakes(from_msi(route.gpa, route.data))
            elif isinstance(route, IoapicRoute):
                woken = self._pin_wakes(route.pin)
            else:
                woken = isinstance(route, PicRoute) and self._pic_wakes(route.pin)
            if woken:
                return True
        return False

    def _pic_wakes(self, pin: int) -> bool:
        pic = self._chips.pic
        if pic.output_level or not pic.would_interrupt(pin):
            return False  # INT that is up already cannot rise before somebody acknowledges it
        return self._pin_wakes(PIC_IOAPIC_PIN) or any(_lint0_wakes(seat) for seat in self._seats)

    def _pin_wakes(self, pin: int) -> bool:
        entry = self._chips.ioapic.redirection[pin]
        if entry & MASKED or (entry & LEVEL and entry & REMOTE_IRR):
            return False
        return self._message_wakes(self._chips.ioapic.message(pin))

    def _message_wakes(self, message: ApicMessage | None) -> bool:
        if message is None:
            return False
        return any(
            _takes(seat, message.delivery, message.vector) for seat in self._seats if seat.lapic.matches(message)
        )


def _lint0_wakes(seat: Seat) -> bool:
    lapic = seat.lapic
    if not lapic.present:
        return _takes(seat, DeliveryMode.EXTINT, 0)
    entry = lapic.lvt[Reg.LVT_LINT0]
    return not entry & LVT_MASKED and _takes(seat, entry >> MODE_SHIFT & MODE_MASK, entry & VECTOR_MASK)


def _takes(seat: Seat, delivery: int, vector: int) -> bool:
    """Whether a vCPU that sleeps goes on by this."""
    if delivery <= DeliveryMode.LOWEST_PRIORITY:
        return _takes_fixed(seat, vector)
    if delivery == DeliveryMode.EXTINT:
        return seat.activity is HALTED and seat.interruptible
    if delivery == DeliveryMode.NMI:
        return seat.activity is HALTED
    return delivery == DeliveryMode.INIT and seat.cpu.index == 0


def _takes_fixed(seat: Seat, vector: int) -> bool:
    lapic = seat.lapic
    if seat.activity is not HALTED or not seat.interruptible or not lapic.enabled:
        return False
    if vector < FIRST_VECTOR:  # an error, which may interrupt in its place (SDM 3A 11.5.3)
        entry = lapic.lvt[Reg.LVT_ERROR]
        vector = entry & VECTOR_MASK
        if entry & LVT_MASKED or vector < FIRST_VECTOR:
            return False
    return vector & CLASS_MASK > lapic.vectors.ppr & CLASS_MASK
