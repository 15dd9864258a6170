"""Threads of vCPUs bound to host CPUs, and moved while the guest runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from belljar.engine import Engine
from belljar.errors import ConfigurationError
from belljar.machine import End, Machine

SPIN = b"\xe6\x80\xeb\xfe"  # out 0x80, al; jmp $
DEADLINE = 20
HOST_CPUS = sorted(os.sched_getaffinity(0))


class Threads:
    """Port 0x80: which threads run vCPUs."""

    ports = range(0x80, 0x81)
    port_width = 1

    def __init__(self, cpus: int) -> None:
        self._missing = threading.Semaphore(0)
        self._cpus = cpus
        self.ids: list[int] = []

    def port_read(self, port: int, size: int) -> int:
        return 0xFF

    def port_write(self, port: int, size: int, value: int) -> None:
        self.ids.append(threading.get_native_id())
        self._missing.release()

    def wait(self) -> None:
        for _ in range(self._cpus):
            assert self._missing.acquire(timeout=DEADLINE)


def while_it_runs(machine: Machine, act: Callable[[list[int]], None]) -> None:
    """Call `act` with the threads that run the machine's vCPUs, once every vCPU has begun."""
    threads = Threads(len(machine.cpus))
    machine.bus.attach(threads)
    results = []
    runner = threading.Thread(target=lambda: results.append(machine.run(timeout=DEADLINE)))
    runner.start()
    try:
        threads.wait()
        act(threads.ids)
    finally:
        machine.stop()
        runner.join()
    assert results[0].end is End.STOPPED


def where(thread: int) -> set[int]:
    return os.sched_getaffinity(thread)


@pytest.mark.parametrize("cpus", [1, 2])
def test_threads_run_where_they_were_bound(engine: Engine, cpus: int) -> None:
    last = HOST_CPUS[-1]

    def act(threads: list[int]) -> None:
        assert all(where(thread) == {last} for thread in threads)

    with Machine(SPIN, engine=engine, cpus=cpus, pin=[last] * cpus) as machine:
        while_it_runs(machine, act)
        assert machine.pins == dict.fromkeys(range(cpus), last)


def test_vcpu_moves_to_another_host_cpu_while_it_runs(engine: Engine) -> None:
    if len(HOST_CPUS) < 2:
        pytest.skip("this process has only one host CPU")
    first, last = HOST_CPUS[0], HOST_CPUS[-1]

    def act(threads: list[int]) -> None:
        machine.pin(1, first)
        machine.pin(0, last)
        found = sorted(where(thread).pop() for thread in set(threads)) if engine.threaded else where(threads[0])
        assert set(found) == {first, last}
        machine.pin(0, None)
        machine.pin(1, None)
        assert all(where(thread) == set(HOST_CPUS) for thread in threads)

    with Machine(SPIN, engine=engine, cpus=2) as machine:
        while_it_runs(machine, act)
        assert machine.pins == {}


def test_callers_thread_is_free_again_after_the_run(engine: Engine) -> None:
    with Machine(b"\xf4", engine=engine, pin=HOST_CPUS[:1]) as machine:
        assert machine.run(timeout=DEADLINE).end is End.HALT
        assert where(0) == set(HOST_CPUS)
        for _ in machine.exits(timeout=DEADLINE):
            assert where(0) == set(HOST_CPUS[:1])
        assert where(0) == set(HOST_CPUS)


@pytest.mark.parametrize("host_cpu", [-1, 8191, 1 << 40])
def test_host_cpu_that_is_not_there_is_refused(engine: Engine, host_cpu: int) -> None:
    with pytest.raises(ConfigurationError, match="host CPU"):
        Machine(b"\xf4", engine=engine, pin=[host_cpu])
    with Machine(b"\xf4", engine=engine) as machine, pytest.raises(ConfigurationError, match="host CPU"):
        machine.pin(0, host_cpu)
    assert where(0) == set(HOST_CPUS)


def test_vcpu_that_is_not_there_is_refused(engine: Engine) -> None:
    with Machine(b"\xf4", engine=engine) as machine, pytest.raises(ConfigurationError, match="vCPU 1"):
        machine.pin(1, HOST_CPUS[0])
    with pytest.raises(ConfigurationError, match="2 host CPUs"):
        Machine(b"\xf4", engine=engine, pin=HOST_CPUS[:1] * 2)
