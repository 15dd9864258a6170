"""Starting threads that Ctrl-C is not for."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from threading import Thread


def start(threads: Sequence[Thread]) -> None:
    """Start threads with every signal blocked.

    They inherit that, so that Ctrl-C goes to who waits for them; and no Ctrl-C can come in the middle of a start, when
    nobody could tell whether there is a thread to wait for.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for thread in threads:
            thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
