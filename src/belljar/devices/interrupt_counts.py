"""How often which interrupt reached a vCPU, from whom, and how long it waited: for the run report."""

from __future__ import annotations

from belljar.records import dataclass


@dataclass(slots=True)
class InterruptCount:
    """Interrupts of one source on one vector. Latency is from acceptance by an interrupt chip to the vCPU's acknowledgement."""

    source: str
    vector: int
    count: int = 0
    merged: int = 0
    """How many came while one was still waiting, and became one with it."""
    latency_total_ns: int = 0
    latency_max_ns: int = 0


class InterruptCounts:
    """Every interrupt of a machine, by source and vector."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], InterruptCount] = {}

    def _entry(self, source: str, vector: int) -> InterruptCount:
        entry = self._counts.get((source, vector))
        if entry is None:
            entry = self._counts[source, vector] = InterruptCount(source, vector)
        return entry

    def taken(self, source: str, vector: int, latency_ns: int) -> None:
        """A vCPU acknowledged it after `latency_ns`."""
        entry = self._entry(source, vector)
        entry.count += 1
        entry.latency_total_ns += latency_ns
        if latency_ns > entry.latency_max_ns:
            entry.latency_max_ns = latency_ns

    def merged(self, source: str, vector: int) -> None:
        """It was raised again while waiting."""
        self._entry(source, vector).merged += 1

    def entries(self) -> list[InterruptCount]:
        """All of them, by source and vector."""
        return [self._counts[key] for key in sorted(self._counts)]
