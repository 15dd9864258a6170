"""The lock of a machine whose vCPUs run in turn on one thread."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Lock, RLock


class TurnLock:
    """A `Condition` that whoever runs the machine holds all the time, so that no access to a device need take it.

    Another thread that wants it calls: `call` makes the runner look at `callers`, and `let_in` lets them have it.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._condition = Condition(RLock())
        self._counting = Lock()
        self._call = call
        self.callers = 0
        """How many threads wait for the lock."""

    def __enter__(self) -> None:
        if not self._condition.acquire(blocking=False):
            with self._counting:
                self.callers += 1
            try:
                self._call()
                self._condition.acquire()
            finally:
                with self._counting:
                    self.callers -= 1

    def __exit__(self, *error: object) -> None:
        self._condition.notify_all()
        self._condition.release()

    def let_in(self) -> None:
        """By the runner: let everybody in who waits."""
        self._condition.wait_for(lambda: not self.callers)

    def notify_all(self) -> None:
        """Wake whoever waits."""
        self._condition.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of it until somebody notifies."""
        return self._condition.wait(timeout)
