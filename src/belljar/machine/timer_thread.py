"""The host's time for devices of a machine whose vCPUs sleep inside the engine: a thread of its own runs what is due."""

from __future__ import annotations

import time
from threading import Thread
from typing import Final

from belljar.devices.clock import HostClock
from belljar.machine._monitor import Monitor
from belljar.machine.threads import start

SHORTEST_WAIT_NS: Final = 50_000
"""Between two looks: a guest that wants interrupts all the time must leave time for its vCPUs, which need the lock, too."""


class TimerThread(HostClock):
    """A clock whose timers run under `lock`, the bus's own. The thread is there from the first timer on, until `close`."""

    def __init__(self, lock: Monitor) -> None:
        super().__init__(earlier=self._notice)
        self._lock = lock
        self._runner: Thread | None = None
        self._closed = False

    def _notice(self) -> None:
        """A timer was made that is due before all others; under the lock."""
        if self._runner is None:
            self._start()
        else:
            self._lock.notify_all()

    def _start(self) -> None:
        self._runner = Thread(target=self._work, name="belljar-timers", daemon=True)
        start([self._runner])

    def _work(self) -> None:
        with self._lock:
            while not self._closed:
                self.run_due()
                first_ns = self.next_deadline_ns()
                left_ns = None if first_ns is None else max(first_ns - self.now_ns(), SHORTEST_WAIT_NS)
                self._lock.wait_until(None if left_ns is None else time.monotonic_ns() + left_ns)

    def close(self) -> None:
        """No timer runs any more. Harmless when repeated."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        if self._runner is not None:
            self._runner.join()
