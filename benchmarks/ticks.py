"""What a timer tick costs on the soft engine, in instruction time: interrupt, handler of ten instructions, EOI, IRET.

`python -m benchmarks.ticks` runs this part alone.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from belljar.machine import End, Machine
from benchmarks.harness import Figure, interleave

TICKS = 20_000
ROUNDS = 5
ORIGIN = 0x1000
BUSY = 100
PERIOD = 5_000
"""Between two ticks, in counts of the timer: nanoseconds for the local APIC's, 0.84 us for the 8254's."""

KINDS: dict[str, dict[str, int]] = {
    "local APIC timer, idle guest": {},
    "local APIC timer, busy guest": {"BUSY": BUSY},
    "local APIC timer, x2APIC, idle guest": {"X2APIC": 1},
    "8254 through the IOAPIC, idle guest": {"TIMER": 1, "PERIOD": 100},
    "8254 through the 8259, idle guest": {"TIMER": 2, "PERIOD": 100},
}


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
    """Microseconds for a tick. A busy guest's own work is measured too, without ticks, and taken off."""
    took, executed = seconds(guest(**symbols))
    if symbols.get("BUSY"):
        took -= seconds(guest(**symbols, PERIOD=0), executed)[0]
    return took / TICKS * 1e6


def measure() -> list[Figure]:
    """A figure a kind of tick."""
    contestants = {kind: (lambda symbols=symbols: tick_us(**symbols)) for kind, symbols in KINDS.items()}  # type: ignore[misc]
    samples = interleave(contestants, ROUNDS)
    return [
        Figure(f"soft: tick, {kind}", statistics.median(samples[kind]), "us", 5, samples={kind: samples[kind]})
        for kind in KINDS
    ]


if __name__ == "__main__":
    for figure in measure():
        print(figure.line())
