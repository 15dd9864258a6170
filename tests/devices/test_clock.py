"""Clocks: timers run in order, once, not before their time, and cost no memory once cancelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.devices.clock import NEVER, HostClock, InstructionClock, Timer, TimerQueue, Tsc
from belljar.errors import ConfigurationError


@given(st.lists(st.integers(0, 50), max_size=30), st.lists(st.integers(0, 20), max_size=10))
def test_timers_run_in_order_of_deadline_then_of_age(deadlines: list[int], steps: list[int]) -> None:
    clock = InstructionClock()
    ran: list[tuple[int, int]] = []
    for age, deadline in enumerate(deadlines):
        clock.call_at(deadline, lambda deadline=deadline, age=age: ran.append((deadline, age)))
    for step in [*steps, 100]:
        clock.advance(step)
        assert all(deadline <= clock.now_ns() for deadline, _ in ran)
        left = [deadline for deadline in deadlines if deadline > clock.now_ns()]
        assert clock.next_deadline_ns() == (min(left) if left else None)
    assert ran == sorted((deadline, age) for age, deadline in enumerate(deadlines))


def test_a_cancelled_timer_does_not_run_and_is_not_waited_for() -> None:
    clock = InstructionClock()
    timer = clock.call_at(5, lambda: pytest.fail("it was cancelled"))
    timer.cancel()
    timer.cancel()
    assert not timer.active
    assert clock.next_deadline_ns() is None
    assert clock.advance(10) == 0


def test_rearming_for_ever_needs_no_more_memory() -> None:
    queue = TimerQueue()
    one, other = Timer(queue, lambda: None), Timer(queue, lambda: None)
    for _ in range(10_000):
        one.cancel()
        one.set(1 << 60)
        other.set(1 << 60)
    assert len(queue) < 200


def test_a_timer_set_again_runs_once_at_its_new_time() -> None:
    clock = InstructionClock()
    ran: list[int] = []
    timer = clock.timer(lambda: ran.append(clock.now_ns()))
    assert not timer.active
    timer.set(5)
    timer.set(8)
    assert (clock.next_deadline_ns(), clock.advance(6), timer.active) == (8, 0, True)
    timer.set(7)
    assert (clock.advance(6), clock.advance(100), ran, timer.active) == (1, 0, [12], False)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 30)), max_size=60))
def test_the_first_deadline_is_known_whatever_is_set_and_cancelled(orders: list[tuple[int, int]]) -> None:
    news: list[int] = []
    queue = TimerQueue(lambda: news.append(queue.first_ns))
    timers = [Timer(queue, lambda: None) for _ in range(4)]
    for which, deadline in orders:
        before = queue.first_ns
        timers[which].cancel() if deadline < 0 else timers[which].set(deadline)
        assert queue.first_ns == min((timer.deadline_ns for timer in timers if timer.active), default=NEVER)
        assert deadline < 0 or queue.first_ns >= before or news[-1] == queue.first_ns


def test_a_timer_made_by_a_timer_waits_for_the_next_call_even_if_its_time_is_past() -> None:
    clock = InstructionClock()
    ran: list[int] = []

    def again() -> None:
        ran.append(clock.now_ns())
        clock.call_at(0, again)

    clock.call_at(3, again)
    clock.advance(10)
    assert ran == [10]
    clock.advance(0)
    assert ran == [10, 10]


def test_time_does_not_go_back() -> None:
    clock = InstructionClock(100)
    with pytest.raises(ConfigurationError, match="does not go back"):
        clock.advance_to(99)


def test_the_host_clock_follows_its_source_and_stands_still_while_paused() -> None:
    host = [1000]
    clock = HostClock(5, source=lambda: host[0])
    ran: list[int] = []
    clock.call_at(15, lambda: ran.append(clock.now_ns()))
    host[0] += 4
    assert (clock.now_ns(), clock.run_due(), clock.next_deadline_ns()) == (9, 0, 15)
    clock.pause()
    host[0] += 1000
    assert (clock.now_ns(), clock.run_due()) == (9, 0)
    clock.resume()
    host[0] += 7
    assert clock.run_due() == 1
    assert ran == [16]


@given(st.integers(1, 10**10), st.integers(-(10**12), 10**12), st.integers(0, 10**15))
def test_a_time_stamp_is_reached_when_the_counter_says_and_not_before(hz: int, offset: int, value: int) -> None:
    tsc = Tsc(InstructionClock(), hz, offset)
    when = tsc.ns_at(value)
    assert when * hz // 10**9 + offset >= value
    assert (when - 1) * hz // 10**9 + offset < value
