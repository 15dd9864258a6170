"""Whether all vCPUs of a machine sleep at one and the same time, found out while each has a thread.

Where HLT waits inside the engine, a vCPU that looks asleep may be woken by another a moment later. So when all look asleep,
every thread comes back, looks at its own vCPU, and waits for the others: nobody runs, and what is seen then holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Condition

from belljar.machine.cpu import Cpu

SECOND_NS = 1_000_000_000


class Census:
    """`lock` is the run's own, notified at its end."""

    def __init__(self, cpus: Sequence[Cpu], lock: Condition) -> None:
        self._cpus = cpus
        self._lock = lock
        self._counted: set[int] = set()
        self._number = 0
        self.going_on = False

    def begin(self) -> bool:
        """Begin one; False if one is going on. Whoever began it makes all others come back."""
        with self._lock:
            begun, self.going_on = not self.going_on, True
            if begun:
                self._counted.clear()
                self._number += 1
        return begun

    def cancel(self) -> None:
        """The run is over."""
        with self._lock:
            self.going_on = False
            self._counted.clear()

    def take_part(self, cpu: Cpu, over: Callable[[], bool], deadline_ns: int | None) -> bool:
        """Look at this thread's vCPU and wait for the others, for the end of the run or its time limit.

        True for the last one if all sleep.
        """
        with self._lock:
            if not self.going_on or over():
                return False
            cpu.asleep = cpu.vcpu.asleep()
            self._counted.add(cpu.index)
            if len(self._counted) < len(self._cpus):
                left = None if deadline_ns is None else max(0, deadline_ns - time.monotonic_ns()) / SECOND_NS
                # The next one may begin before who waited for this one gets to run: it must take part in that anew.
                number = self._number
                self._lock.wait_for(lambda: not self.going_on or self._number != number or over(), left)
                return False
            self.going_on = False
            self._lock.notify_all()
            return all(each.asleep for each in self._cpus)
