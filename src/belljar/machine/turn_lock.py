"""The lock of a machine whose vCPUs run in turn on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from belljar.machine._monitor import EVERYBODY, Monitor

LOOK_NS: Final = 10_000_000
"""After which the runner looks whether callers still want to be let in."""


class TurnLock:
    """A `Monitor` that whoever runs the machine holds all the time, so that no access to a device need take it.

    Another thread that wants it calls: `call` makes the runner look at `callers`, and `let_in` lets them have it.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._monitor = Monitor()
        self._counting = Lock()
        self._call = call
        self.callers = 0
        """How many threads wait for the lock."""

    def __enter__(self) -> None:
        if not self._monitor.acquire(blocking=False):
            with self._counting:
                self.callers += 1
            try:
                self._call()
                self._monitor.acquire()
            finally:
                with self._counting:
                    self.callers -= 1

    def __exit__(self, *error: object) -> None:
        self._monitor.notify_all()
        self._monitor.release()

    def let_in(self) -> None:
        """By the runner: let everybody in who waits. Who is interrupted before that tells nobody (Ctrl-C)."""
        while self.callers:
            self._monitor.wait_until(time.monotonic_ns() + LOOK_NS)

    def notify(self, who: int) -> None:
        """As `Monitor.notify`."""
        self._monitor.notify(who)

    def notify_all(self) -> None:
        """Wake whoever waits."""
        self._monitor.notify_all()

    def wait_until(self, deadline_ns: int | None, who: int = EVERYBODY) -> bool:
        """As `Monitor.wait_until`."""
        return self._monitor.wait_until(deadline_ns, who)
