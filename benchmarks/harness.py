"""How benchmarks are run: contestants in turn within one run, medians, ratios, results as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Figure:
    """One measured claim. `goal` is the bound that the project set itself, `unit` what value and goal are in.

    Without a goal it is there for comparison.
    """

    name: str
    value: float
    unit: str
    goal: float | None
    at_most: bool = True
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the goal is met."""
        if self.goal is None:
            return True
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def line(self) -> str:
        """The figure as one line of text."""
        line = f"{self.name:52} {self.value:10.3f} {self.unit:6}"
        if self.goal is None:
            return f"{line} for comparison"
        return f"{line} goal {'<=' if self.at_most else '>='} {self.goal:g}  {'ok' if self.holds else 'MISSED'}"


def interleave(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call every contestant once a round, `rounds` times after one round that does not count; each returns its figure."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, contestant in contestants.items():
            value = contestant()
            if round_number:
                samples[name].append(value)
    return samples


def paired(samples: dict[str, list[float]], a: str, b: str, combine: Callable[[float, float], float]) -> float:
    """The median over rounds of `combine(a, b)`: what is compared ran next to each other."""
    return statistics.median(combine(x, y) for x, y in zip(samples[a], samples[b], strict=True))


def wall(command: list[str]) -> float:
    """Seconds that a whole process takes; its output is thrown away."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def compile_c(source: Path, target: Path) -> Path:
    """Compile one C file with the flags every yardstick gets."""
    subprocess.run(["gcc", "-O2", "-Wall", "-o", str(target), str(source)], check=True)
    return target


def save(path: Path, figures: list[Figure]) -> None:
    """Write the figures with what machine they were taken on."""
    machine = {"python": platform.python_version(), "kernel": platform.release(), "cpus": os.cpu_count()}
    rows = [{**asdict(figure), "holds": figure.holds} for figure in figures]
    path.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")
