"""How long things took, in memory that does not grow: a histogram of powers of two beside the exact extremes and sum."""

from __future__ import annotations

from math import ceil
from typing import Any, Final

BUCKETS: Final = 65
"""One for each bit length of a 64-bit number of nanoseconds, 0 included."""

NONE_YET: Final = 1 << 100
"""Longer than anything."""


class LatencyHistogram:
    """Durations in whole nanoseconds. Bucket n counts those of bit length n: from 2**(n-1) to 2**n - 1; bucket 0 zeros."""

    __slots__ = ("_least_ns", "buckets", "max_ns", "sum_ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.sum_ns = self.max_ns = 0
        self._least_ns = NONE_YET

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    @property
    def min_ns(self) -> int:
        """The shortest; 0 before the first."""
        return 0 if self._least_ns == NONE_YET else self._least_ns

    def add(self, duration_ns: int) -> None:
        """One more; below 0 counts as 0, beyond 64 bits goes into the last bucket."""
        if duration_ns < 0:
            duration_ns = 0
        bits, rest = 0, duration_ns
        while rest:  # its bit length: counted like this it needs no call into Python
            rest >>= 1
            bits += 1
        self.buckets[bits if bits < BUCKETS else BUCKETS - 1] += 1
        self.sum_ns += duration_ns
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns
        if duration_ns < self._least_ns:
            self._least_ns = duration_ns

    def quantile_ns(self, share: float) -> int:
        """What `share` (0 to 1) of the durations did not exceed; 0 if there are none.

        Found within a bucket by its rank there, so it is off by less than a factor of 2, and never outside of min and max.
        """
        total = self.count
        if not total:
            return 0
        rank = min(max(ceil(share * total), 1), total)
        before = 0
        for bits, count in enumerate(self.buckets):
            if before + count >= rank:
                first = 1 << bits - 1 if bits else 0
                found = first + (first * (rank - before) // count if first else 0)
                return min(max(found, self.min_ns), self.max_ns)
            before += count
        return self.max_ns

    def merge(self, other: LatencyHistogram) -> None:
        """Take all durations of another in."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self._least_ns = min(self._least_ns, other._least_ns)
        self.max_ns = max(self.max_ns, other.max_ns)
        self.sum_ns += other.sum_ns

    def as_dict(self) -> dict[str, Any]:
        """For reports: count, extremes, mean, quantiles, and the buckets that are not empty by their first duration."""
        count = self.count
        if not count:
            return {"count": 0}
        return {
            "count": count,
            "min_ns": self.min_ns,
            "mean_ns": self.sum_ns // count,
            "p50_ns": self.quantile_ns(0.5),
            "p99_ns": self.quantile_ns(0.99),
            "max_ns": self.max_ns,
            "histogram": {str(1 << bits - 1 if bits else 0): held for bits, held in enumerate(self.buckets) if held},
        }
