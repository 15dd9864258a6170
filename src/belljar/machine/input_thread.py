"""Input that arrives while the guest sleeps: a thread that waits for it and brings it to the serial port's interrupt."""

from __future__ import annotations

import os
import select
from contextlib import AbstractContextManager
from threading import Thread

from belljar.devices.serial import Serial
from belljar.machine.threads import start


class InputThread:
    """Waits on a host file descriptor as long as the guest waits for input; `lock` guards the serial port.

    The thread is there from the first time on that the guest does, until `close`. It costs nothing while it waits.
    """

    def __init__(self, serial: Serial, fd: int, lock: AbstractContextManager[object]) -> None:
        self._serial = serial
        self._fd = fd
        self._lock = lock
        self._wanted = False
        self._closed = False
        self._bell = -1
        self._thread: Thread | None = None
        serial.input_wanted = self._want

    def _want(self, wanted: bool) -> None:
        """Under the lock."""
        self._wanted = wanted
        if self._closed:
            return
        if self._thread is None:
            self._start()
        elif wanted:
            os.eventfd_write(self._bell, 1)

    def _start(self) -> None:
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = Thread(target=self._work, name="belljar-input", daemon=True)
        start([self._thread])

    def _work(self) -> None:
        bell, both = select.poll(), select.poll()
        bell.register(self._bell, select.POLLIN)
        both.register(self._bell, select.POLLIN)
        both.register(self._fd, select.POLLIN)
        while not self._closed:
            ready = (both if self._wanted else bell).poll()
            if any(fd == self._bell for fd, _ in ready):
                os.eventfd_read(self._bell)
            if any(fd == self._fd for fd, _ in ready):
                with self._lock:
                    if not self._closed:
                        self._serial.poll()

    def close(self) -> None:
        """Wait no more. Harmless when repeated."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            os.eventfd_write(self._bell, 1)
            self._thread.join()
            os.close(self._bell)
            self._thread = None
