"""The soft engine against Unicorn (QEMU's translator) on the same code, and what it costs to enter, hold and build it.

`python -m benchmarks.soft [--json FILE]` runs this part alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from belljar.engines import open_engine
from belljar.exits import ExitReason
from belljar.machine import End, Machine
from benchmarks import soft_guests as guests
from benchmarks.harness import Figure, interleave, paired, save

ROUNDS = 5
EXITS = 200_000
STEPS = 100_000
GOALS: dict[str, tuple[Callable[[], bytes], float]] = {
    "register loop": (guests.register_loop, 0.7),
    "memory loop": (guests.memory_loop, 2.0),
    "call and return": (guests.calls, 3.0),
    "wide calls": (guests.wide, 1.2),
}
"""What runs, and how many times Unicorn's speed is asked for."""
BUILD_SECONDS = 180
IDLE_MIB = 20


class Scratch:
    """A device that does as little as a device can."""

    ports = range(0x80, 0x81)
    port_width = 1

    def port_read(self, port: int, size: int) -> int:
        """Zero."""
        return 0

    def port_write(self, port: int, size: int, value: int) -> None:
        """Nothing."""


def machine(code: bytes) -> Machine:
    """A 64-bit machine on the soft engine, ready to run the code."""
    return Machine(code, engine="soft", mode="long", memory=guests.MEMORY, load_gpa=guests.LOAD_GPA)


def soft_seconds(code: bytes) -> float:
    """Seconds that the soft engine takes from entry to HLT, decoding included."""
    with machine(code) as guest:
        guest.cpu.rsp = guests.STACK_TOP
        began = time.perf_counter()
        result = guest.run(timeout=120)
        took = time.perf_counter() - began
    assert result.end is End.HALT, result
    return took


def unicorn_seconds(code: bytes) -> float:
    """Seconds that Unicorn takes for the same, translation included."""
    from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
    from unicorn.x86_const import UC_X86_REG_RIP, UC_X86_REG_RSP

    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, guests.MEMORY)
    uc.mem_write(guests.LOAD_GPA, code)
    uc.reg_write(UC_X86_REG_RSP, guests.STACK_TOP)
    began = time.perf_counter()
    uc.emu_start(guests.LOAD_GPA, guests.MEMORY)
    took = time.perf_counter() - began
    assert uc.mem_read(uc.reg_read(UC_X86_REG_RIP) - 1, 1) == b"\xf4"
    return took


def exit_round_trip() -> float:
    """Microseconds for one OUT that a Python device serves, entering and leaving included, loop and run subtracted."""
    with machine(guests.out_loop(EXITS)) as guest:
        guest.bus.attach(Scratch())
        began = time.perf_counter()
        result = guest.run(timeout=120)
        took = time.perf_counter() - began
    assert result.end is End.HALT, result
    return took / EXITS * 1e6


def processor_round_trip() -> float:
    """Microseconds for one OUT exit of the processor: entered from Python, left to it, and skipped."""
    with machine(guests.out_loop(EXITS)) as guest:
        guest.run(instructions=1)
        processor = guest.cpu.vcpu.processor  # type: ignore[attr-defined]
        rounds = range(EXITS - 1)
        began = time.perf_counter()
        for _ in rounds:
            processor.enter(1_000)
            processor.take_port_access()
        took = time.perf_counter() - began
    return took / (EXITS - 1) * 1e6


def processor_step() -> float:
    """Microseconds for entering the processor for exactly one instruction."""
    with machine(guests.register_loop()) as guest:
        guest.run(instructions=1)
        processor = guest.cpu.vcpu.processor  # type: ignore[attr-defined]
        steps = range(STEPS)
        began = time.perf_counter()
        for _ in steps:
            processor.enter(1)
        took = time.perf_counter() - began
    return took / STEPS * 1e6


def single_instruction() -> float:
    """Microseconds for `run(instructions=1)` of a vCPU."""
    with machine(guests.register_loop()) as guest:
        vcpu, bus = guest.cpu.vcpu, guest.bus
        vcpu.run(bus, instructions=1)
        steps = range(STEPS)
        began = time.perf_counter()
        for _ in steps:
            reason = vcpu.run(bus, instructions=1)
        took = time.perf_counter() - began
    assert reason is ExitReason.INSTRUCTION_LIMIT
    return took / STEPS * 1e6


IDLE_PROGRAM = """
import sys, gc
from belljar.machine import Machine
def resident():
    gc.collect()
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Rss:"):
            return int(line.split()[1])
Machine(b"\\xf4", engine="soft", mode="real").close()
before = resident()
machine = Machine(b"\\xf4", engine="soft", mode="long", memory=256 << 20)
machine.run(timeout=10)
touched = sum(placed.size for placed in machine.placements) if hasattr(machine, "placements") else 0
print((resident() - before) * 1024 - touched)
"""
"""A process of its own: what it holds more once a machine has run and halted, its structures in guest memory left out."""


def idle_mib() -> float:
    """MiB that an idle machine of 256 MiB holds beyond what its guest touched."""
    done = subprocess.run([sys.executable, "-c", IDLE_PROGRAM], capture_output=True, text=True, check=True)
    return int(done.stdout) / (1 << 20)


def build_seconds() -> float:
    """Seconds to compile the package from a clean copy of its sources, as installing does."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        ignore = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "build", "_core.py")
        shutil.copytree(root / "src", Path(folder) / "src", ignore=ignore)
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copy(root / name, folder)
        began = time.perf_counter()
        command = [sys.executable, "setup.py", "build_ext", "--inplace", f"-j{os.cpu_count()}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began


def against_unicorn() -> list[Figure]:
    """Unicorn's time divided by ours for each kind of code, the two in turn."""
    contestants: dict[str, Callable[[], float]] = {}
    for name, (make, _) in GOALS.items():
        code = make()
        contestants[f"{name}: soft"] = lambda code=code: soft_seconds(code)  # type: ignore[misc]
        contestants[f"{name}: unicorn"] = lambda code=code: unicorn_seconds(code)  # type: ignore[misc]
    samples = interleave(contestants, ROUNDS)
    figures = []
    for name, (_, goal) in GOALS.items():
        mine, theirs = f"{name}: soft", f"{name}: unicorn"
        ratio = paired(samples, theirs, mine, lambda unicorn, soft: unicorn / soft)
        kept = {key: samples[key] for key in (mine, theirs)}
        figures.append(Figure(f"soft: {name}, times Unicorn's speed", ratio, "x", goal, at_most=False, samples=kept))
    return figures


def measure() -> list[Figure]:
    """All figures of the soft engine."""
    open_engine("soft").close()
    figures = against_unicorn()
    samples = interleave(
        {
            "enter": processor_round_trip,
            "step": processor_step,
            "exit": exit_round_trip,
            "run": single_instruction,
        },
        ROUNDS,
    )
    for name, title, goal in (
        ("enter", "exit round trip of the processor from Python", 0.5),
        ("step", "enter(1) of the processor", 0.3),
        ("exit", "exit served by a Python device in a machine's run", 0.5),
        ("run", "run(instructions=1) of the engine's vCPU", 0.3),
    ):
        median = statistics.median(samples[name])
        figures.append(Figure(f"soft: {title}", median, "us", goal, samples={name: samples[name]}))
    idle = interleave({"idle": idle_mib}, 3)
    figures.append(
        Figure(
            "soft: idle machine beyond touched pages", statistics.median(idle["idle"]), "MiB", IDLE_MIB, samples=idle
        )
    )
    figures.append(Figure("soft: compiling the package", build_seconds(), "s", BUILD_SECONDS))
    return figures


def main() -> None:
    """Run this part alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench-soft.json"), help="where the figures go")
    options = parser.parse_args()
    figures = measure()
    for figure in figures:
        print(figure.line())
    save(options.json, figures)


if __name__ == "__main__":
    main()
