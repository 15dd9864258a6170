"""The lock of a machine's devices, and the wait under it for what comes from outside or is due. Compiled.

`threading.Condition` makes a new lock for each wait and takes a timeout, which has to be worked out from a deadline; a
guest that idles waits hundreds of times a second, each time with cold caches, and that is most of what it costs. Here a
wait is one futex(2) with an absolute deadline (FUTEX_WAIT_BITSET, CLOCK_MONOTONIC), and the lock is three numbers that only
who has the GIL looks at.
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
    """A re-entrant lock, and a way to wait until somebody who holds it notifies.

    How a wake-up cannot be lost: `notify_all` changes `turn` under the lock; who waits has read it under the lock, too, and
    the kernel compares the two once more before it puts the thread to sleep. The same with `freed`, which each release
    changes, and whoever waits for the lock itself.

    Who waits may do so as one of many, by a number: `notify` leaves the others asleep, but for those whose numbers are the
    same modulo 32 (a futex has so many channels), and for EVERYBODY.
    """

    def __enter__(self):
        self.take(1, True)
        return self

    def __exit__(self, kind, error, traceback):
        self.give()

    def acquire(self, blocking: cython.bint = True) -> bool:
        """Take the lock; False if another thread has it and this one is not to wait.

        Signal handlers run while it waits, and what they raise is raised here, without the lock.
        """
        if not blocking and self.owner != 0 and self.owner != pthread_self():
            return False
        self.take(1, True)
        return True

    def release(self) -> None:
        """Let go of the lock, if it was taken once. Raises EngineError if this thread does not have it."""
        self.give()

    def take(self, times, interruptible):
        """Have the lock, `times` more than before."""
        seen: cython.uint
        error: cython.int
        thread: cython.ulong = pthread_self()
        if self.owner != thread:
            while self.owner != 0:  # from here to its end nobody else runs, but while this thread waits
                seen = self.freed
                self.contenders += 1
                with cython.nogil:
                    error = belljar_wait(cython.address(self.freed), seen, NO_DEADLINE, EVERY_CHANNEL)
                self.contenders -= 1
                if error == EINTR and interruptible:
                    PyErr_CheckSignals()
            self.owner = thread
        self.held += times
        return 0

    def give(self):
        """Let go of the lock once."""
        self.check()
        self.held -= 1
        if self.held == 0:
            self.free()
        return 0

    def free(self):
        """Nobody has the lock."""
        self.owner = 0
        self.freed += 1
        if self.contenders:
            belljar_wake(cython.address(self.freed), 1, EVERY_CHANNEL)
        return 0

    def check(self):
        """Whether this thread has the lock. Raises EngineError."""
        if self.owner != pthread_self():
            raise EngineError("a monitor is used by who has its lock")
        return 0

    def notify_all(self) -> None:
        """Wake whoever waits. Raises EngineError without the lock."""
        self.wake(EVERY_CHANNEL)

    def notify(self, who: cython.int) -> None:
        """Wake who waits as number `who`, 0 or more, or as EVERYBODY. Raises EngineError without the lock."""
        self.wake(channel(who))

    def wake(self, channels):
        """Nobody is woken in vain: the system call is left out where nobody waits."""
        self.check()
        self.turn += 1
        if self.waiting:
            belljar_wake(cython.address(self.turn), EVERYONE, channels)
        return 0

    def wait_until(self, deadline_ns, who: cython.int = EVERYBODY) -> bool:
        """Let go of the lock until somebody notifies, or until a time of time.monotonic_ns(); None: as long as it takes.

        Whether somebody notified anybody. Signal handlers run meanwhile, and what they raise (KeyboardInterrupt) is raised
        here, the lock taken again. Raises EngineError without the lock.
        """
        until_ns: cython.longlong = NO_DEADLINE
        seen: cython.uint = self.turn
        channels: cython.uint = channel(who)
        held: cython.uint = self.held
        error: cython.int = EINTR
        self.check()
        if deadline_ns is not None and deadline_ns < NO_DEADLINE:
            until_ns = 0 if deadline_ns < 0 else deadline_ns
        PyErr_CheckSignals()  # compiled callers may not have looked since one came
        self.held = 0
        self.free()
        self.waiting += 1
        try:
            while error == EINTR:
                with cython.nogil:
                    error = belljar_wait(cython.address(self.turn), seen, until_ns, channels)
                if error == EINTR:
                    PyErr_CheckSignals()
        finally:
            self.waiting -= 1
            self.take(held, False)
        return self.turn != seen
