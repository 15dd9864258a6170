"""Kernels that ask of the soft engine what heavy images of the KVM unit tests ask (docs/kvm-unit-tests.md), with fewer rounds.

`python -m benchmarks kernels` runs this part alone. Time is the processor's, of the one thread that runs such a machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from tests.conformance.kernels import kernel

from belljar.machine import End, Machine
from benchmarks.harness import Figure

ROUNDS = 3
SPINS, PAIRS, CLOCK_READS = 3_000, 10_000, 300_000
PASSED = 1


def seconds(file: Path, command_line: str, cpus: int = 1) -> tuple[float, str]:
    """What a kernel takes from its entry to its end, and what it prints."""
    with Machine(file, engine="soft", test_device=True, cpus=cpus, command_line=command_line) as machine:
        began = time.process_time()
        result = machine.run(timeout=120)
        took = time.process_time() - began
        printed = machine.console.decode()
    assert result.end is End.DEBUG_EXIT, result
    assert result.status == PASSED, printed
    return took, printed


def figure(what: str, file: Path, command_line: str, rounds: int | None, goal_us: float, cpus: int = 2) -> Figure:
    """Microseconds a round of a kernel, in the median of some runs; None: it says itself how many there were."""
    samples = []
    for _ in range(ROUNDS):
        took, printed = seconds(file, command_line, cpus)
        tried = sum(int(line.split()[1], 16) for line in printed.splitlines() if line.startswith("tried "))
        samples.append(took / (rounds or tried) * 1e6)
    return Figure(f"kernels: {what}", statistics.median(samples), "us", goal_us, samples={"us": samples})


def measure() -> list[Figure]:
    """What takes long in apic, access and kvmclock_test."""
    with tempfile.TemporaryDirectory() as place:
        nmis, access, clocks = (kernel(name, Path(place)) for name in ("nmis", "access", "clocks"))
        return [
            figure("NMI to a CPU that is waited for without PAUSE", nmis, "10w", SPINS, 100),
            figure("two NMIs and an interrupt, CPUs in PAUSE", nmis, "10t", PAIRS, 60),
            figure("eleven NMIs to oneself, of which two arrive", nmis, "10s", PAIRS, 80),
            figure("access to a page whose entries changed", access, "-", None, 3, cpus=1),
            figure("KVM's clock read twice under a lock, by two CPUs", clocks, str(CLOCK_READS), 2 * CLOCK_READS, 1),
        ]
