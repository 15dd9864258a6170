"""The lock of a machine's devices, and the wait under it for what comes from outside or is due. Compiled.

`threading.Condition` makes a new lock for each wait and takes a timeout, which has to be worked out from a deadline; a
guest that idles waits hundreds of times a second, each time with cold caches, and that is most of what it costs. Here a
wait is one futex(2) with an absolute deadline (FUTEX_WAIT_BITSET, CLOCK_MONOTONIC).
"""

# ruff: noqa: F821  (the C names come from _monitor.pxd)

import cython
from cython.cimports.cpython.exc import PyErr_CheckSignals
from cython.cimports.libc.errno import EINTR

from belljar.errors import EngineError

EVERYBODY = -1
"""Woken with everybody."""


@cython.cclass
class Monitor:
    """`lock`, which must be re-entrant (`threading.RLock`), and a way to wait until somebody who holds it notifies.

    How a wake-up cannot be lost: `notify_all` changes `turn` under the lock; who waits has read it under the lock, too, and
    the kernel compares the two once more before it puts the thread to sleep.

    Who waits may do so as one of many, by a number: `notify` leaves the others asleep, but for those whose numbers are the
    same modulo 32 (a futex has so many channels), and for EVERYBODY.
    """

    def __cinit__(self, lock):
        self.lock = lock
        self.enter = lock.__enter__
        self.leave = lock.release
        self.let_go = lock._release_save
        self.take_back = lock._acquire_restore
        self.is_owned = lock._is_owned

    def __enter__(self):
        self.enter()
        return self

    def __exit__(self, kind, error, traceback):
        self.leave()

    def acquire(self, blocking: cython.bint = True) -> bool:
        """Take the lock; False if another thread has it and this one is not to wait."""
        return self.lock.acquire(blocking)

    def release(self) -> None:
        """Let go of the lock. Raises RuntimeError if this thread does not have it."""
        self.leave()

    def notify_all(self) -> None:
        """Wake whoever waits. Raises EngineError without the lock."""
        self.wake(EVERY_CHANNEL)

    def notify(self, who: cython.int) -> None:
        """Wake who waits as number `who`, 0 or more, or as EVERYBODY. Raises EngineError without the lock."""
        self.wake(channel(who))

    def wake(self, channels: cython.uint):
        """Nobody is woken in vain: the system call is left out where nobody waits."""
        if not self.is_owned():
            raise EngineError("a monitor is notified by who has its lock")
        self.turn += 1
        if self.waiting:
            belljar_wake(cython.address(self.turn), channels)
        return 0

    def wait_until(self, deadline_ns, who: cython.int = EVERYBODY) -> bool:
        """Let go of the lock until somebody notifies, or until a time of time.monotonic_ns(); None: as long as it takes.

        Whether somebody notified anybody. Signal handlers run meanwhile, and what they raise (KeyboardInterrupt) is raised
        here, the lock taken again. Raises EngineError without the lock.
        """
        until_ns: cython.longlong = NO_DEADLINE
        seen: cython.uint = self.turn
        channels: cython.uint = channel(who)
        error: cython.int = EINTR
        if not self.is_owned():
            raise EngineError("a monitor is waited for by who has its lock")
        if deadline_ns is not None and deadline_ns < NO_DEADLINE:
            until_ns = 0 if deadline_ns < 0 else deadline_ns
        PyErr_CheckSignals()  # compiled callers may not have looked since one came
        held = self.let_go()
        self.waiting += 1
        try:
            while error == EINTR:
                with cython.nogil:
                    error = belljar_wait(cython.address(self.turn), seen, until_ns, channels)
                if error == EINTR:
                    PyErr_CheckSignals()
        finally:
            self.waiting -= 1
            self.take_back(held)
        return self.turn != seen
