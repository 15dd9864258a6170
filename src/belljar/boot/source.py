"""The bytes that a loader reads: a file or bytes in memory behind one bounded, checked read."""

from __future__ import annotations

import os
import stat
from types import TracebackType

from belljar.errors import LoadError

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)

_READ_CHUNK = 1 << 30
"""Bytes asked of one pread(2), which never gives more than 2 GiB - 4 KiB."""


class Source:
    """`size` bytes that can be read at any offset. A context manager; `name` is fit to be printed in one line."""

    def __init__(self, name: str, *, data: bytes = b"", fd: int = -1, size: int = 0) -> None:
        self.name = name
        self.size = size if fd >= 0 else len(data)
        self._data = data
        self._fd = fd

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`. The caller has compared both with `self.size`; LoadError if they are gone."""
        if self._fd < 0:
            return self._data[offset : offset + size]
        pieces = []
        while size > 0:
            try:
                piece = os.pread(self._fd, min(size, _READ_CHUNK), offset)
            except OSError as error:
                raise LoadError(
                    f"{self.name}: reading at offset {offset:#x} failed: {os.strerror(error.errno or 0)}",
                    hint="look after the disk that it lies on",
                ) from None
            if not piece:
                raise LoadError(
                    f"{self.name}: it became shorter while it was read", hint="wait until it is written, run again"
                )
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def head(self, size: int) -> bytes:
        """The first `size` bytes, or as many as there are."""
        return self.read(0, min(size, self.size))

    def close(self) -> None:
        """Close the file, if it is one. Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_file(path: str | os.PathLike[str]) -> Source:
    """A file as a source. Raises LoadError for whatever is not a readable regular file; never waits for one (FIFOs)."""
    name = printable(os.fspath(path))
    try:
        # Looking comes before opening: to open a FIFO may wait and to open a device may do things.
        _require_regular(name, os.stat(path))
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise LoadError(
            f"{name}: it cannot be opened: {os.strerror(error.errno or 0)}",
            hint="give a regular file that you may read",
        ) from None
    except ValueError:
        raise LoadError(
            f"{name}: it cannot be opened: this is no file name", hint="it holds a null character"
        ) from None
    try:
        info = os.fstat(fd)
        _require_regular(name, info)
        return Source(name, fd=fd, size=info.st_size)
    except BaseException:
        os.close(fd)
        raise


def printable(name: str) -> str:
    """A file's name in one harmless line."""
    return name if name and name.isprintable() else repr(name)


def _require_regular(name: str, info: os.stat_result) -> None:
    if stat.S_ISREG(info.st_mode):
        return
    kind = next((words for test, words in _KINDS if test(info.st_mode)), "something else")
    raise LoadError(f"{name}: it is {kind}, not a regular file", hint="give a regular file that you may read")
