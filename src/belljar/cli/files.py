"""Files that belljar writes for the user: opened before the guest runs, so that a bad name costs nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from belljar.devices.console import FileOutput
from belljar.errors import BelljarError, ConfigurationError


class OutputFailed(BelljarError):
    """The host refused to take what belljar wrote: a full disk, a file that went away."""


class OutputFile:
    """A file to be written later; `-` is `standard_fd`. Opening neither truncates it nor waits for a FIFO's reader.

    Raises ConfigurationError if it cannot be written. A file that belljar made and never wrote to is removed on close.
    """

    def __init__(self, path: str, option: str, *, standard_fd: int) -> None:
        self._path = path
        self._option = option
        self._made = False
        self._written = False
        if path == "-":
            self._fd = os.dup(standard_fd)
            return
        try:
            self._fd = self._open(path)
            os.set_blocking(self._fd, True)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            if isinstance(error, OSError) and error.errno == errno.ENXIO:
                why = "nobody reads this FIFO"
            raise ConfigurationError(f"{option} {path}: cannot write it: {why}") from None

    def _open(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            self._made = True
        except FileExistsError:
            fd = os.open(path, flags)
        return fd

    def same_as(self, other: OutputFile) -> bool:
        """Whether both are one regular file, where the later would overwrite the earlier."""
        mine, theirs = os.fstat(self._fd), os.fstat(other._fd)
        return stat.S_ISREG(mine.st_mode) and os.path.samestat(mine, theirs)

    @property
    def is_terminal(self) -> bool:
        """Whether somebody reads along."""
        return os.isatty(self._fd)

    def write(self, data: bytes) -> None:
        """Append; the first write replaces what the file held. Raises OutputFailed, BrokenPipeError."""
        try:
            if not self._written:
                self._written = True
                if self._path != "-" and stat.S_ISREG(os.fstat(self._fd).st_mode):
                    os.ftruncate(self._fd, 0)
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(f"{self._option} {self._path}: cannot write it: {error.strerror}") from None

    def close(self) -> None:
        """Close it. Harmless when repeated."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        if self._made and not self._written:
            with suppress(OSError):  # somebody else may have taken it away
                os.unlink(self._path)


class Stoppable(Protocol):
    """What a console output needs of a machine."""

    @property
    def ending(self) -> bool:
        """Whether the run should be over by now."""

    def stop(self) -> None:
        """End the run."""


class ConsoleOutput:
    """The guest's console on a host file: where the host refuses a write, the run is stopped instead of torn down.

    `attach` tells it the machine once there is one; `error` says what the host refused.
    """

    def __init__(self, fd: int) -> None:
        self._file = FileOutput(fd)
        self.error: OSError | None = None
        self._stop: Callable[[], None] | None = None

    def attach(self, machine: Stoppable) -> None:
        """Whom to stop, and whom to ask whether waiting for a slow reader still makes sense."""
        self._file.give_up = lambda: machine.ending
        self._stop = machine.stop

    @property
    def dropped(self) -> int:
        """Bytes that were given up because nobody read them in time."""
        return self._file.dropped

    def write(self, data: bytes) -> None:
        """Write all of it, or remember why not."""
        if self.error is not None:
            return
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            if self._stop is not None:
                self._stop()
