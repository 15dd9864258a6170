"""Where a guest's console bytes go to and come from; shared by every console device."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

CAPTURE_LIMIT = 16 << 20
"""How many bytes `Capture` keeps unless told otherwise: a guest may print for ever, memory is finite."""


class Output(Protocol):
    """Takes console bytes in order."""

    def write(self, data: bytes) -> None:
        """Take all of `data`."""


class Input(Protocol):
    """Gives console bytes without waiting.

    One that also has a `fileno()` wakes a sleeping guest: poll(2) on it says when there is something. `ended`, if there is
    such an attribute, says that nothing will ever come any more.
    """

    def read(self, limit: int) -> bytes:
        """Up to `limit` bytes that are there now; empty if there are none."""


class Capture:
    """Keeps the first `limit` bytes of console output; `dropped` counts what came after."""

    def __init__(self, limit: int = CAPTURE_LIMIT) -> None:
        self._parts = bytearray()
        self._limit = limit
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Keep what still fits."""
        room = self._limit - len(self._parts)
        if len(data) <= room:
            self._parts += data
        else:
            self._parts += data[:room]
            self.dropped += len(data) - room

    def getvalue(self) -> bytes:
        """Everything kept so far."""
        return bytes(self._parts)


class FileOutput:
    """Writes to a host file descriptor at once, so that nothing is lost when the guest or we end.

    A pipe or terminal whose reader has stopped reading must not hold up the end of a run: while it is full, `give_up` is
    asked twenty times a second, and once it says True, what could not be written is dropped and counted.
    """

    def __init__(self, fd: int, give_up: Callable[[], bool] = lambda: False) -> None:
        self._fd = fd
        self._can_block = not stat.S_ISREG(os.fstat(fd).st_mode)
        self.give_up = give_up
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Write all of it. Raises OSError where the host refuses (a closed pipe, a full disk)."""
        if not self._can_block:
            while data:
                data = data[os.write(self._fd, data) :]
            return
        while data:
            if not select.select([], [self._fd], [], 0.05)[1]:
                if self.give_up():
                    self.dropped += len(data)
                    return
                continue
            with suppress(BlockingIOError):
                data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]


class FileInput:
    """Reads a host file descriptor as far as it has something; at end of file it stays silent."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.ended = False
        """Whether the end of the file was read."""

    def fileno(self) -> int:
        """The file descriptor."""
        return self._fd

    def read(self, limit: int) -> bytes:
        """What is there now."""
        if self.ended:
            return b""
        try:
            ready, _, _ = select.select([self._fd], [], [], 0)
            if not ready:
                return b""
            data = os.read(self._fd, limit)
        except (BlockingIOError, InterruptedError):
            return b""
        except (OSError, ValueError):
            data = b""
        self.ended = not data
        return data


class NoInput:
    """A console nobody types on."""

    def read(self, limit: int) -> bytes:
        """Nothing."""
        return b""


class BytesInput:
    """Input that is known beforehand."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        return not self._data

    def read(self, limit: int) -> bytes:
        """The next bytes of it."""
        data, self._data = self._data[:limit], self._data[limit:]
        return data
