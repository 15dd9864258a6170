"""What a timer tick costs: on the soft engine in instruction time, and to a core whose guest idles in the host's time.

A tick is an interrupt, a handler of ten instructions, EOI and IRET; an idle guest has 250 of them a second.

`python -m benchmarks.ticks` runs this part alone.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from belljar.machine import End, Machine
from benchmarks.harness import Figure, compile_c, interleave

TICKS = 10_000
ROUNDS = 3
BUSY_TRIES = 4
ORIGIN = 0x1000
BUSY = 100
PERIOD = 12_000
"""Between two ticks, in counts of the timer: nanoseconds for the local APIC's, 0.84 us for the 8254's."""

KINDS: dict[str, dict[str, int]] = {
    "local APIC timer, idle guest": {},
    "local APIC timer, busy guest": {"BUSY": BUSY},
    "local APIC timer, x2APIC, idle guest": {"X2APIC": 1},
    "8254 through the IOAPIC, idle guest": {"TIMER": 1, "PERIOD": 100},
    "8254 through the 8259, idle guest": {"TIMER": 2, "PERIOD": 100},
}


IDLE_HZ = 250
IDLE_TICKS = 500
IDLE_KINDS: dict[str, dict[str, Any]] = {
    "soft --clock host": {"engine": "soft", "irqchip": "user", "clock": "host"},
    "kvm --irqchip user": {"engine": "kvm", "irqchip": "user"},
    "kvm --irqchip split": {"engine": "kvm", "irqchip": "split"},
    "kvm --irqchip kernel": {"engine": "kvm", "irqchip": "kernel"},
}
IDLE_PERCENT = 2
IDLE_YARDSTICKS = {"a process that only sleeps, in C": "sleep", "kvm, chips left out, in C": "kvm"}
"""What cannot be done for less on this host."""


@cache
def guest(**symbols: int) -> bytes:
    """The code of `ticks.S` with these symbols."""
    values = {"TICKS": TICKS, "TIMER": 0, "X2APIC": 0, "BUSY": 0, "PERIOD": PERIOD, **symbols}
    with tempfile.TemporaryDirectory() as folder:
        compiled, linked, flat = (str(Path(folder) / name) for name in ("guest.o", "guest.elf", "guest.bin"))
        defines = [part for name, value in values.items() for part in ("--defsym", f"{name}={value}")]
        source = str(Path(__file__).with_name("ticks.S"))
        subprocess.run(["as", "--64", *defines, "-o", compiled, source], check=True)
        subprocess.run(
            ["ld", "-m", "elf_x86_64", f"-Ttext={ORIGIN:#x}", "-e", "start", "-o", linked, compiled], check=True
        )
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", linked, flat], check=True)
        return Path(flat).read_bytes()


def seconds(code: bytes, instructions: int | None = None) -> tuple[float, int]:
    """Seconds from entry to the end, and how many instructions were executed."""
    with Machine(code, engine="soft", irqchip="user", mode="long") as machine:
        began = time.perf_counter()
        result = machine.run(timeout=120, instructions=instructions)
        took = time.perf_counter() - began
        assert result.end in (End.HALT, End.INSTRUCTION_LIMIT), result
        return took, machine.cpu.vcpu.instructions_retired()


def tick_us(**symbols: int) -> float:
    """Microseconds for a tick. A busy guest's own work is measured too, without ticks, and taken off: it takes much longer
    than they do, so that the least of some is wanted of both.
    """
    took, executed = seconds(guest(**symbols))
    if symbols.get("BUSY"):
        took = min(took, *(seconds(guest(**symbols))[0] for _ in range(BUSY_TRIES)))
        took -= min(seconds(guest(**{**symbols, "PERIOD": 0}), executed)[0] for _ in range(BUSY_TRIES))
    return took / TICKS * 1e6


def idle_percent(options: dict[str, Any]) -> float:
    """How much of a core the process takes while its guest ticks 250 times a second and sleeps between."""
    code = guest(TICKS=IDLE_TICKS, PERIOD=1_000_000_000 // IDLE_HZ)
    with Machine(code, mode="long", **options) as machine:
        used, began = time.process_time(), time.perf_counter()
        result = machine.run(timeout=60)
        used, took = time.process_time() - used, time.perf_counter() - began
    assert result.end is End.HALT, result
    return 100 * used / took


def least_percent(program: Path, kind: str) -> float:
    """The same for the yardstick."""
    words = [str(program), kind, str(IDLE_TICKS), str(IDLE_HZ)]
    tick_us = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return tick_us * IDLE_HZ / 1e4


def measure_idle() -> list[Figure]:
    """A figure a way to have a guest idle, beside the yardsticks'."""
    with tempfile.TemporaryDirectory() as folder:
        program = compile_c(Path(__file__).with_name("yardstick_idle.c"), Path(folder) / "yardstick_idle")
        contestants: dict[str, Callable[[], float]] = {
            **{kind: partial(least_percent, program, word) for kind, word in IDLE_YARDSTICKS.items()},
            **{kind: partial(idle_percent, options) for kind, options in IDLE_KINDS.items()},
        }
        samples = interleave(contestants, 3)
    return [
        Figure(
            f"idle at 250 Hz, {kind}",
            statistics.median(percents),
            "%",
            None if kind in IDLE_YARDSTICKS else IDLE_PERCENT,
            samples={kind: percents},
        )
        for kind, percents in samples.items()
    ]


def measure() -> list[Figure]:
    """A figure a kind of tick, and one a way to have a guest idle."""
    contestants = {kind: (lambda symbols=symbols: tick_us(**symbols)) for kind, symbols in KINDS.items()}  # type: ignore[misc]
    samples = interleave(contestants, ROUNDS)
    figures = [
        Figure(f"soft: tick, {kind}", statistics.median(samples[kind]), "us", 5, samples={kind: samples[kind]})
        for kind in KINDS
    ]
    return figures + measure_idle()


if __name__ == "__main__":
    for figure in measure():
        print(figure.line())
