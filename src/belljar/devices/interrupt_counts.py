"""How often which interrupt was raised and reached a vCPU, from whom, and how long it waited: for the run report."""

from __future__ import annotations

from typing import Final

from belljar.devices.apic_message import ApicMessage
from belljar.devices.interrupt_watch import InterruptWatch
from belljar.devices.latency import LatencyHistogram

MAX_ENTRIES: Final = 1024
"""Pairs of source and vector that are counted apart; a guest can make any number of them with IPIs."""

OTHERS: Final = "others"
"""The source under which further ones are counted together, on vector `NO_VECTOR`."""

NO_VECTOR: Final = -1


class InterruptCount:
    """Interrupts of one source on one vector. What was raised was delivered, merged, lost, or still waits.

    Latency is from acceptance by an interrupt chip to the vCPU's acknowledgement, in the machine's time.
    """

    __slots__ = ("_by_cpu", "_more", "_taker", "latency", "lost", "merged", "raised", "source", "spurious", "vector")

    def __init__(self, source: str, vector: int) -> None:
        self.source = source
        self.vector = vector
        self.raised = 0
        self.merged = 0
        """How many came while one was still waiting, and became one with it."""
        self.lost = 0
        """How many no local APIC took."""
        self.spurious = 0
        """How often a vCPU was given this vector though nothing was there any more."""
        self._by_cpu: dict[int, int] = {}
        self._taker = self._more = 0  # the vCPU that takes it now, and how many it took beside those counted above
        self.latency = LatencyHistogram()

    @property
    def by_cpu(self) -> dict[int, int]:
        """How many each vCPU took."""
        self._settle()
        return self._by_cpu

    @property
    def count(self) -> int:
        """How many were delivered."""
        return sum(self.by_cpu.values())

    def taken(self, cpu: int, latency_ns: int) -> None:
        """A vCPU acknowledged it after `latency_ns`."""
        if cpu != self._taker:
            self._settle()
            self._taker = cpu
        self._more += 1
        self.latency.add(latency_ns)

    def _settle(self) -> None:
        if self._more:
            self._by_cpu[self._taker] = self._by_cpu.get(self._taker, 0) + self._more
            self._more = 0


class InterruptCounts:
    """Every interrupt of a machine, by source and vector. `watch` is told of each event as it happens, if there is one."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], InterruptCount] = {}
        self.watch: InterruptWatch | None = None

    def entry(self, source: str, vector: int) -> InterruptCount:
        """The count for a source and vector, to be kept by whoever counts."""
        found = self._counts.get((source, vector))
        if found is None:
            if len(self._counts) >= MAX_ENTRIES:
                source, vector = OTHERS, NO_VECTOR
            found = self._counts.setdefault((source, vector), InterruptCount(source, vector))
        return found

    def lose(self, message: ApicMessage) -> None:
        """A message that no local APIC was there for."""
        entry = self.entry(message.source, message.vector)
        entry.raised += 1
        entry.lost += 1
        if self.watch is not None:
            self.watch.undelivered(message)

    def entries(self) -> list[InterruptCount]:
        """All of them, by source and vector."""
        return [self._counts[key] for key in sorted(self._counts)]
