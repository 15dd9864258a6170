"""The bus between APICs: messages to the local APICs they are for, ends of interrupt back to the IOAPICs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from belljar.devices.apic_message import ApicMessage
from belljar.devices.interrupt_counts import InterruptCounts


class LocalApic(Protocol):
    """A local APIC as the bus sees it."""

    def matches(self, message: ApicMessage) -> bool:
        """Whether the message is for it."""

    def receive(self, message: ApicMessage) -> bool:
        """Take a message that is for it; False if it was refused (switched off, illegal)."""

    def arbitration(self) -> tuple[int, int]:
        """Its rank for lowest-priority delivery: the lowest wins. Asked only of those that are `enabled`."""

    @property
    def enabled(self) -> bool:
        """Whether it takes fixed interrupts."""


class EoiListener(Protocol):
    """An IOAPIC."""

    def end_of_interrupt(self, vector: int) -> None:
        """A level-triggered interrupt with this vector was finished."""


class ApicBus:
    """Joins local APICs and IOAPICs. APICs may come and go while the guest runs."""

    def __init__(self, counts: InterruptCounts | None = None) -> None:
        self._counts = counts
        self._lapics: list[LocalApic] = []
        self._listeners: list[EoiListener] = []

    @property
    def lapics(self) -> tuple[LocalApic, ...]:
        """The local APICs, in the order in which they came."""
        return tuple(self._lapics)

    def add_lapic(self, lapic: LocalApic) -> None:
        """A vCPU was added."""
        self._lapics.append(lapic)

    def remove_lapic(self, lapic: LocalApic) -> None:
        """A vCPU was taken away."""
        self._lapics.remove(lapic)

    def add_ioapic(self, ioapic: EoiListener) -> None:
        """Have ends of interrupt told to an IOAPIC."""
        self._listeners.append(ioapic)

    def deliver(self, message: ApicMessage) -> int:
        """Bring a message to where its destination says; how many APICs took it."""
        return self.deliver_to(message, [lapic for lapic in self._lapics if lapic.matches(message)])

    def deliver_to(self, message: ApicMessage, targets: Iterable[LocalApic]) -> int:
        """The same with the destination already decoded (an IPI's shorthand)."""
        counts = self._counts
        if counts is not None and counts.watch is not None:
            counts.watch.message(message)
        if message.lowest_priority:
            able = [lapic for lapic in targets if lapic.enabled]
            targets = [min(able, key=_rank)] if able else []
        taken = found = 0
        for lapic in targets:
            found += 1
            taken += lapic.receive(message)
        if not found and counts is not None:
            counts.lose(message)
        return taken

    def end_of_interrupt(self, vector: int) -> None:
        """A local APIC finished a level-triggered interrupt: every IOAPIC hears of it (SDM 3A 11.8.5)."""
        for listener in self._listeners:
            listener.end_of_interrupt(vector)


def _rank(lapic: LocalApic) -> tuple[int, int]:
    return lapic.arbitration()
