"""The lock that whoever runs a machine in turn holds all the time."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from belljar.machine.turn_lock import TurnLock


def test_runner_does_not_wait_for_a_caller_who_was_interrupted() -> None:
    called, over = Event(), Event()

    def interrupted() -> None:
        called.set()
        while lock._monitor.acquire(blocking=False) is False:
            pass  # until the runner waits
        lock._monitor.release()
        raise KeyboardInterrupt

    def run() -> None:
        with lock:
            begun.set()
            called.wait(20)
            lock.let_in()
        over.set()

    lock, begun = TurnLock(interrupted), Event()
    runner = Thread(target=run, daemon=True)
    runner.start()
    begun.wait(20)
    with pytest.raises(KeyboardInterrupt):
        lock.__enter__()
    assert over.wait(20)
    runner.join()
