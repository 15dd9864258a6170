"""A local APIC's part of the counts: who raised what, and how long it has waited."""

from __future__ import annotations

from typing import Final

from belljar.devices.apic_message import ApicMessage, DeliveryMode
from belljar.devices.clock import Clock
from belljar.devices.interrupt_counts import InterruptCount, InterruptCounts
from belljar.devices.interrupt_watch import Outcome
from belljar.x86.vectors import Vector

VECTORS: Final = 256

RESERVED: Final = int(DeliveryMode.RESERVED)
NMI: Final = int(Vector.NMI)
"""By plain numbers, which are looked up faster."""


class InterruptBook:
    """Where one local APIC writes down what comes and goes. Whoever looks on (`InterruptCounts.watch`) hears of it, too."""

    def __init__(self, cpu: int, clock: Clock, counts: InterruptCounts) -> None:
        self._cpu = cpu
        self._clock = clock
        self._counts = counts
        self._waiting: list[InterruptCount | None] = [None] * VECTORS  # by vector: what a request counts for
        self._since_ns = [0] * VECTORS
        self._nmis: list[tuple[InterruptCount, int]] = []
        self._recent: InterruptCount | None = None  # the same interrupt comes most often

    def accepted(self, vector: int, source: str, fresh: bool) -> None:
        """A request was set; not `fresh`: one was waiting already."""
        counts, entry = self._counts, self._recent
        if entry is None or entry.vector != vector or entry.source is not source:
            entry = self._recent = counts.entry(source, vector)
        entry.raised += 1
        if fresh:
            self._waiting[vector] = entry
            self._since_ns[vector] = self._clock.now_ns()
        else:
            entry.merged += 1
        if counts.watch is not None:
            counts.watch.request(self._cpu, vector, source, Outcome.ACCEPTED if fresh else Outcome.MERGED)

    def refused(self, vector: int, source: str) -> None:
        """The APIC is off, or the vector illegal."""
        entry = self._counts.entry(source, vector)
        entry.raised += 1
        entry.lost += 1
        if self._counts.watch is not None:
            self._counts.watch.request(self._cpu, vector, source, Outcome.REFUSED)

    def taken(self, vector: int) -> None:
        """The vCPU took a request."""
        entry, counts, latency_ns = self._waiting[vector], self._counts, 0
        if entry is None:
            entry = counts.entry("restored", vector)
        else:
            self._waiting[vector] = None
            latency_ns = self._clock.now_ns() - self._since_ns[vector]
        entry.taken(self._cpu, latency_ns)
        if counts.watch is not None:
            counts.watch.taken(self._cpu, "lapic", vector, entry.source, latency_ns)

    def ended(self, vector: int) -> None:
        """The guest ended one."""
        if self._counts.watch is not None:
            self._counts.watch.ended(self._cpu, "lapic", vector)

    def signal(self, message: ApicMessage) -> None:
        """A message that is no maskable interrupt of the APIC's own."""
        if self._counts.watch is not None and message.delivery != RESERVED:
            kind = DeliveryMode(message.delivery).name.lower()
            self._counts.watch.signal(self._cpu, kind, message.source, message.vector)

    def nmi_raised(self, source: str, fresh: bool) -> None:
        """An NMI; not `fresh`: as many wait already as can."""
        entry = self._counts.entry(source, NMI)
        entry.raised += 1
        if fresh:
            self._nmis.append((entry, self._clock.now_ns()))
        else:
            entry.merged += 1

    def nmi_taken(self) -> None:
        """The vCPU took the oldest of them."""
        if self._nmis:
            entry, since_ns = self._nmis.pop(0)
            latency_ns = self._clock.now_ns() - since_ns
            entry.taken(self._cpu, latency_ns)
            if self._counts.watch is not None:
                self._counts.watch.taken(self._cpu, "lapic", Vector.NMI, entry.source, latency_ns)

    def lose(self) -> None:
        """A reset: what waits is lost."""
        for entry in self._waiting:
            if entry is not None:
                entry.lost += 1
        self._waiting = [None] * VECTORS

    def forget(self) -> None:
        """Another state was restored: what waits in that has no history."""
        self._waiting = [None] * VECTORS
        self._nmis.clear()
