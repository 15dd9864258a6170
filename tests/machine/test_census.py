"""Whether all vCPUs sleep, found out by their threads together."""

from __future__ import annotations

import threading
from typing import Any

from belljar.machine.census import Census


def sleeper(index: int, sleeps: bool) -> Any:
    class Cpu:
        asleep = False

    cpu: Any = Cpu()
    cpu.index = index
    cpu.vcpu = type("Vcpu", (), {"asleep": lambda self: sleeps})()
    return cpu


def test_all_sleep_is_found_out_by_the_last_one() -> None:
    lock = threading.Condition()
    cpus = [sleeper(0, True), sleeper(1, True)]
    census = Census(cpus, lock)
    assert census.begin()
    assert not census.begin()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(census.take_part(cpus[0], lambda: False, None)))
    thread.start()
    answers.append(census.take_part(cpus[1], lambda: False, None))
    thread.join(20)
    assert sorted(answers) == [False, True]


def test_who_waited_for_one_census_takes_part_in_the_next_that_begins_at_once() -> None:
    """It once went on waiting for the first for ever, and the second waited for it."""
    lock = threading.Condition()
    cpus = [sleeper(0, True), sleeper(1, False)]
    census = Census(cpus, lock)
    census.begin()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(census.take_part(cpus[0], lambda: False, None)))
    thread.start()
    while not census._counted:
        with lock:
            lock.wait(0.01)
    with lock:  # so that the waiting thread cannot see the end of the first
        assert not census.take_part(cpus[1], lambda: False, None)
        assert census.begin()
    thread.join(20)
    assert not thread.is_alive()
    assert answers == [False]
