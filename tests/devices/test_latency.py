"""Latencies in a histogram of fixed size: counts, sum and extremes exact, quantiles within a factor of two."""

from __future__ import annotations

import sys
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from belljar.devices.latency import BUCKETS, LatencyHistogram

DURATIONS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10_000), st.integers(0, 1 << 63)), min_size=1)


def histogram(durations: list[int]) -> LatencyHistogram:
    """All durations, in order."""
    found = LatencyHistogram()
    for duration_ns in durations:
        found.add(duration_ns)
    return found


@given(DURATIONS)
def test_counts_sum_and_extremes_are_exact(durations: list[int]) -> None:
    found = histogram(durations)
    assert (found.count, found.sum_ns) == (len(durations), sum(durations))
    assert (found.min_ns, found.max_ns) == (min(durations), max(durations))
    assert sum(found.buckets) == len(durations)


@given(DURATIONS, st.floats(0, 1))
def test_quantiles_are_off_by_less_than_a_factor_of_two(durations: list[int], share: float) -> None:
    found = histogram(durations).quantile_ns(share)
    rank = max(1, ceil(share * len(durations)))
    exact = sorted(durations)[min(rank, len(durations)) - 1]
    assert min(durations) <= found <= max(durations)
    assert exact.bit_length() - 1 <= found.bit_length() <= exact.bit_length() + 1


@given(DURATIONS)
def test_quantiles_do_not_fall(durations: list[int]) -> None:
    found = histogram(durations)
    quantiles = [found.quantile_ns(share / 20) for share in range(21)]
    assert quantiles == sorted(quantiles)
    assert quantiles[-1] == max(durations)


@given(DURATIONS, DURATIONS)
def test_merging_is_as_if_all_had_been_added_to_one(one: list[int], other: list[int]) -> None:
    merged = histogram(one)
    merged.merge(histogram(other))
    assert merged.as_dict() == histogram(one + other).as_dict()


def test_nothing_and_the_impossible_are_taken() -> None:
    found = LatencyHistogram()
    assert (found.as_dict(), found.quantile_ns(0.5)) == ({"count": 0}, 0)
    found.merge(LatencyHistogram())
    found.add(-5)
    found.add(1 << 80)
    assert (found.min_ns, found.max_ns, found.count) == (0, 1 << 80, 2)
    assert found.as_dict()["histogram"] == {"0": 1, str(1 << 63): 1}


def test_a_million_durations_need_no_more_memory_than_one() -> None:
    few, many = LatencyHistogram(), LatencyHistogram()
    few.add(1)
    for duration_ns in range(10_000):
        many.add(duration_ns)
    assert len(many.buckets) == len(few.buckets) == BUCKETS
    assert sys.getsizeof(many.buckets) == sys.getsizeof(few.buckets)
