"""How long things took, in memory that does not grow: a histogram of powers of two beside the exact extremes and sum."""

from __future__ import annotations

from typing import Any

BUCKETS = 65
"""One for each bit length of a 64-bit number of nanoseconds, 0 included."""


class LatencyHistogram:
    """Durations in whole nanoseconds. Bucket n counts those of bit length n: from 2**(n-1) to 2**n - 1; bucket 0 zeros."""

    __slots__ = ("buckets", "count", "max_ns", "min_ns", "sum_ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.count = self.sum_ns = self.max_ns = 0
        self.min_ns = -1
        """-1 before the first."""

    def add(self, duration_ns: int) -> None:
        """One more; below 0 counts as 0, beyond 64 bits goes into the last bucket."""
        duration_ns = max(duration_ns, 0)
        self.buckets[min(duration_ns.bit_length(), BUCKETS - 1)] += 1
        self.count += 1
        self.sum_ns += duration_ns
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns
        if duration_ns < self.min_ns or self.min_ns < 0:
            self.min_ns = duration_ns

    def quantile_ns(self, share: float) -> int:
        """What `share` (0 to 1) of the durations did not exceed; 0 if there are none.

        Found within a bucket by its rank there, so it is off by less than a factor of 2, and never outside of min and max.
        """
        if not self.count:
            return 0
        rank = min(max(int(share * self.count + 0.999999), 1), self.count)
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
        if not other.count:
            return
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.min_ns = other.min_ns if self.min_ns < 0 else min(self.min_ns, other.min_ns)
        self.max_ns = max(self.max_ns, other.max_ns)
        self.count += other.count
        self.sum_ns += other.sum_ns

    def as_dict(self) -> dict[str, Any]:
        """For reports: count, extremes, mean, quantiles, and the buckets that are not empty by their first duration."""
        if not self.count:
            return {"count": 0}
        return {
            "count": self.count,
            "min_ns": self.min_ns,
            "mean_ns": self.sum_ns // self.count,
            "p50_ns": self.quantile_ns(0.5),
            "p99_ns": self.quantile_ns(0.99),
            "max_ns": self.max_ns,
            "histogram": {str(1 << bits - 1 if bits else 0): count for bits, count in enumerate(self.buckets) if count},
        }
