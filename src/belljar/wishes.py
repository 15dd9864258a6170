"""Something that one thread wants another to do: handed over, done once, waited for."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event


class Wish:
    """`action`, and what became of it."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._done = Event()
        self._failure: BaseException | None = None

    def grant(self) -> None:
        """Do it. By the thread that can; what it raises is the wisher's to see."""
        try:
            self._action()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._done.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it was done, within so many seconds. Raises what it raised."""
        if not self._done.wait(timeout):
            return False
        if self._failure is not None:
            raise self._failure
        return True
