"""The KVM engine against a C program with the same ioctls (`yardstick.c`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from belljar import samples
from belljar.devices.console import FileOutput
from belljar.machine import End, Machine
from benchmarks.harness import Figure, compile_c, interleave, paired, wall

EXITS = 20_000
CONSOLE_BYTES = 100_000
HELLOS = 20
ROUNDS = 11


def out_loop(port: int, count: int) -> bytes:
    """Real mode: write `count` bytes to `port`, then halt."""
    return (
        b"\x66\xb9" + count.to_bytes(4, "little")  # mov ecx, count
        + b"\xba" + port.to_bytes(2, "little")     # mov dx, port
        + b"\xb0\x2e"                              # mov al, '.'
        + b"\xee"                                  # again: out dx, al
        + b"\x66\x49"                              # dec ecx
        + b"\x75\xfb"                              # jnz again
        + b"\xf4"                                  # hlt
    )  # fmt: skip


class Scratch:
    """A device that does as little as a device can."""

    ports = range(0x80, 0x81)
    port_width = 1

    def port_read(self, port: int, size: int) -> int:
        """Zero."""
        return 0

    def port_write(self, port: int, size: int, value: int) -> None:
        """Nothing."""


class Yardstick:
    """The compiled C program."""

    def __init__(self, folder: Path) -> None:
        self._program = compile_c(Path(__file__).with_name("yardstick.c"), folder / "yardstick")

    def ns(self, *arguments: str) -> float:
        """What the program measured of itself, in nanoseconds."""
        out = subprocess.run([str(self._program), *arguments], capture_output=True, text=True, check=True).stdout
        return float(out.split()[0])


def exits_in_python(code: bytes) -> float:
    """Nanoseconds for a run whose every port exit is served by a Python method."""
    with Machine(code, engine="kvm") as machine:
        machine.bus.attach(Scratch())
        began = time.perf_counter_ns()
        result = machine.run(timeout=60)
        took = time.perf_counter_ns() - began
    assert result.end is End.HALT, result
    return took


def iterate_in_python(code: bytes) -> float:
    """The same, every exit an object in a Python loop."""
    with Machine(code, engine="kvm") as machine:
        began = time.perf_counter_ns()
        count = sum(1 for _ in machine.exits(timeout=60))
        took = time.perf_counter_ns() - began
    assert count == EXITS + 1, count
    return took


def hello_in_python() -> float:
    """Nanoseconds for HELLOS machines: made, run to the greeting, given back."""
    began = time.perf_counter_ns()
    for _ in range(HELLOS):
        with Machine("hello-long", engine="kvm") as machine:
            machine.run()
            assert machine.console == b"Hello, world!\n"
    return time.perf_counter_ns() - began


def console_in_python(code: bytes) -> float:
    """Nanoseconds for a guest that prints CONSOLE_BYTES to /dev/null; every byte must have come through."""
    sink = os.open(os.devnull, os.O_WRONLY)
    counted = 0

    class Counting(FileOutput):
        def write(self, data: bytes) -> None:
            nonlocal counted
            counted += len(data)
            super().write(data)

    try:
        with Machine(code, engine="kvm", output=Counting(sink)) as machine:
            began = time.perf_counter_ns()
            machine.run(timeout=60)
            took = time.perf_counter_ns() - began
    finally:
        os.close(sink)
    assert counted == CONSOLE_BYTES, counted
    return took


def measure_start() -> list[Figure]:
    """Import time and whole-process time, against an interpreter that does nothing."""
    python = sys.executable
    belljar = str(Path(python).with_name("belljar"))
    samples_s = interleave(
        {
            "pass": lambda: wall([python, "-c", "pass"]),
            "import": lambda: wall([python, "-c", "import belljar"]),
            "hello": lambda: wall([belljar, "run", "hello-long"]),
        },
        2 * ROUNDS,
    )
    return [
        Figure("import belljar (whole process less `pass`)", 1e3 * paired(samples_s, "import", "pass", lambda a, b: a - b),
               "ms", 60, samples=samples_s),
        Figure("belljar run hello-long / python -c pass", paired(samples_s, "hello", "pass", lambda a, b: a / b), "x", 5),
    ]  # fmt: skip


def measure() -> list[Figure]:
    """All figures of the KVM engine."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        c = Yardstick(Path(folder))
        code = out_loop(0x80, EXITS)
        exits = interleave(
            {
                "c": lambda: c.ns("exits", code.hex()) / EXITS,
                "python": lambda: exits_in_python(code) / EXITS,
                "iterate": lambda: iterate_in_python(code) / EXITS,
            },
            ROUNDS,
        )
        own = paired(exits, "python", "c", lambda a, b: a - b) / 1e3
        figures.append(Figure("Python's own cost of a port exit", own, "us", 1.0, samples=exits))
        iterated = paired(exits, "iterate", "c", lambda a, b: a - b) / 1e3
        figures.append(Figure("the same, every exit an object (no goal set)", iterated, "us", float("inf")))
        hello_code = samples.get("hello-long").code.hex()
        hello = interleave({"c": lambda: c.ns("hello", hello_code, str(HELLOS)), "python": hello_in_python}, 2 * ROUNDS)
        ratio = paired(hello, "python", "c", lambda a, b: a / b)
        figures.append(Figure("create -> hello -> destroy / C", ratio, "x", 1.3, samples=hello))
        for name, port in (("debug console", 0xE9), ("serial port", 0x3F8)):
            printing = out_loop(port, CONSOLE_BYTES)
            console = interleave(
                {
                    "c": lambda printing=printing: c.ns("console", printing.hex()),
                    "python": lambda printing=printing: console_in_python(printing),
                },
                5,
            )
            speed = paired(console, "python", "c", lambda a, b: b / a)
            figures.append(
                Figure(f"{name}: bytes/s / C, an exit a byte", speed, "x", 4, at_most=False, samples=console)
            )
    return figures + measure_start()
