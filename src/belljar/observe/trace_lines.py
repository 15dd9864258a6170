"""The lines of a trace by kind: numbered over the whole machine, with the time and the vCPU."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from threading import Lock

from belljar.machine import Machine

NS_PER_SECOND = 1_000_000_000
NO_CPU = -1

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class TraceLines:
    """Writes `NUMBER [SECONDS] vcpuN KIND TEXT`, from any thread. Times are the machine's, to the nanosecond."""

    def __init__(self, machine: Machine, write: Callable[[str], object]) -> None:
        self.now_ns = machine_time(machine)
        self._write = write
        self._lock = Lock()
        self.count = 0

    def __call__(self, cpu: int, kind: str, text: str) -> None:
        """One line; `cpu` is `NO_CPU` where no vCPU did it."""
        who = f"vcpu{cpu}" if cpu != NO_CPU else "-"
        with self._lock:
            self.count += 1
            self._write(f"{self.count:>6} [{seconds(self.now_ns())}] {who:<5} {kind:<5} {text}\n")


def machine_time(machine: Machine) -> Callable[[], int]:
    """The clock of a machine's devices; where it has none, its processors' own added up, or else the host's time from now on.

    Nanoseconds. Processors' clocks count what was executed, so that two runs show the same.
    """
    if machine.own_interrupts is not None:
        return machine.own_interrupts.clock.now_ns
    if machine.engine.counts_instructions:
        return lambda: sum(cpu.vcpu.clock_ns for cpu in machine.cpus)
    if machine.timers is not None:
        return machine.timers.now_ns
    began_ns = time.monotonic_ns()
    return lambda: time.monotonic_ns() - began_ns


def seconds(time_ns: int) -> str:
    """`0.003432840`."""
    return f"{time_ns // NS_PER_SECOND}.{time_ns % NS_PER_SECOND:09d}"


def spoken(class_name: str) -> str:
    """A device's class as words: `debug console` for DebugConsole."""
    return _WORD.sub(" ", class_name.strip("_")).lower()
