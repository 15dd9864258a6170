"""Host eventfds that raise interrupt lines of a machine's own chips, as KVM_IRQFD does with the kernel's (api.rst 4.75)."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Thread

from belljar.devices.lines import Line
from belljar.errors import ConfigurationError
from belljar.machine.threads import start

COUNTER_BYTES = 8
"""What is read from an eventfd (eventfd(2))."""

EVENTFD = "anon_inode:[eventfd]"
"""What /proc/self/fd says of one."""


class EventfdThread:
    """Waits for eventfds, and gives their lines one edge each time they are signalled; `lock` guards the lines.

    It costs nothing while it waits.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._lines: dict[int, Line] = {}
        self._closed = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._ready = select.epoll()
        self._ready.register(self._bell, select.EPOLLIN)
        self._thread = Thread(target=self._work, name="belljar-eventfds", daemon=True)
        start([self._thread])

    def connect(self, eventfd: int, make_line: Callable[[], Line]) -> None:
        """Under the lock. The caller may close its descriptor. Raises ConfigurationError for what is no eventfd."""
        own = _own(eventfd)
        self._lines[own] = make_line()
        self._ready.register(own, select.EPOLLIN)

    def _work(self) -> None:
        while not self._closed:
            for fd, _ in self._ready.poll():
                if fd != self._bell and _signalled(fd):
                    with self._lock:
                        if not self._closed:
                            self._lines[fd].pulse()

    def close(self) -> None:
        """Wait no more, and give the descriptors back. Harmless when repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        os.eventfd_write(self._bell, 1)
        self._thread.join()
        self._ready.close()
        for fd in (self._bell, *self._lines):
            os.close(fd)


def _own(eventfd: int) -> int:
    """A descriptor of its own for the same eventfd."""
    try:
        if os.readlink(f"/proc/self/fd/{eventfd}") == EVENTFD:
            return os.dup(eventfd)
        why = "it is something else"
    except OSError as error:
        why = str(error.strerror)
    raise ConfigurationError(f"descriptor {eventfd} is no eventfd: {why}", hint="os.eventfd makes one")


def _signalled(fd: int) -> bool:
    """Set the counter back to 0; False if somebody else was faster. Never waits, whatever the descriptor's flags."""
    try:
        return os.preadv(fd, [bytearray(COUNTER_BYTES)], -1, os.RWF_NOWAIT) == COUNTER_BYTES
    except BlockingIOError:
        return False
