"""Which host CPU each vCPU's thread is bound to (sched_setaffinity(2))."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from threading import Lock, get_native_id

from belljar.errors import ConfigurationError

MOST_HOST_CPUS = 8192
"""A Linux kernel on x86 has no more (CONFIG_NR_CPUS)."""


def check_host_cpu(host_cpu: int) -> None:
    """Raise ConfigurationError unless a thread of this process may run on that host CPU: by trying."""
    before = os.sched_getaffinity(0)
    try:
        if not 0 <= host_cpu < MOST_HOST_CPUS:
            raise ValueError
        os.sched_setaffinity(0, {host_cpu})
    except (OSError, ValueError):
        last = (os.cpu_count() or 1) - 1
        raise ConfigurationError(
            f"no thread can be bound to host CPU {host_cpu}",
            hint=f"host CPUs 0 to {last}, of which this process may be allowed a part: `taskset -p $$`",
        ) from None
    finally:
        os.sched_setaffinity(0, before)


class Pins:
    """`threads` says which thread, by its native id, runs which vCPU now. Calls may come from any thread.

    A thread that runs several vCPUs in turn may run on the host CPUs of all of them.
    """

    def __init__(self, threads: Mapping[int, int], host_cpus: Sequence[int] = ()) -> None:
        self._threads = threads
        self._lock = Lock()
        self._unbound: dict[int, set[int]] = {}
        """By thread: where it might run before."""
        for host_cpu in host_cpus:
            check_host_cpu(host_cpu)
        self._host_cpus = dict(enumerate(host_cpus))

    @property
    def host_cpus(self) -> dict[int, int]:
        """By vCPU; those that are not bound are left out."""
        return dict(self._host_cpus)

    def move(self, index: int, host_cpu: int | None) -> None:
        """Bind a vCPU to another host CPU, from now on; None: to none."""
        if host_cpu is not None:
            check_host_cpu(host_cpu)
        with self._lock:
            if host_cpu is None:
                self._host_cpus.pop(index, None)
            else:
                self._host_cpus[index] = host_cpu
            thread = self._threads.get(index)
            if thread is not None:
                self._bind(thread)

    def bind_this_thread(self) -> None:
        """Before it runs its vCPUs."""
        with self._lock:
            self._bind(get_native_id())

    def release_this_thread(self) -> None:
        """After that."""
        with self._lock:
            before = self._unbound.pop(get_native_id(), None)
        if before is not None:
            os.sched_setaffinity(0, before)

    def _bind(self, thread: int) -> None:
        running = [index for index, runner in tuple(self._threads.items()) if runner == thread]
        wanted = {self._host_cpus[index] for index in running if index in self._host_cpus}
        if thread not in self._unbound:
            if not wanted:
                return
            self._unbound[thread] = os.sched_getaffinity(thread)
        os.sched_setaffinity(thread, wanted or self._unbound[thread])
