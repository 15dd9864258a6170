"""What tests of every kind call: an engine or a skip, and Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from belljar.engine import Engine
from belljar.engines import open_engine
from belljar.errors import EngineUnavailable


def open_or_skip(name: str) -> Engine:
    """The engine, or a skip that says why this host does not have it."""
    try:
        return open_engine(name)
    except EngineUnavailable as error:
        pytest.skip(f"{name}: {error.message}")


@contextmanager
def ctrl_c(after_s: float = 0.05) -> Iterator[None]:
    """KeyboardInterrupt in this thread so many seconds from now, which must come out of the block."""
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, after_s)
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGALRM, previous)
