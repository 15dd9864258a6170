"""Programs of register accesses for the kernel `script`, which runs alike on any PC: how they are written and what they find.

A program is a list of steps; every step that finds something prints a line. `run_on_machine` and the emulator of
`oracles.on_qemu` give the same lines for the same program where the chips are alike.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from belljar.machine import Machine
from conformance.assembly import run
from conformance.kernels import script_kernel

MARK = struct.pack("<QQ", 0x6C6C656A72616C6C, 0x7470697263730A0A)
OPS, CODE_BYTES, CODE_ALIGNMENT = 6144, 8192, 64
ASYNC = 1 << 31

(
    OUT, IN, STORE, LOAD, WRITE_MSR, READ_MSR, WRITE_CR8, READ_CR8, WINDOW, HALT, DELAY, FLUSH, HANDLER, CODE, START, JOIN,
    STATE, RATIO, WAIT, END, WAIT_BIT, TIMED, WHERE,
) = range(23)  # fmt: skip
"""What a step does, as in kernels/script.c."""

LAPIC, IOAPIC, HPET = 0xFEE00000, 0xFEC00000, 0xFED00000
LINES = 0x2000
ALL = (1 << 64) - 1


@dataclass
class Script:
    """A program that is being written. Steps go to CPU 0 unless `cpu` says otherwise.

    `names` tells by step what its line shows, for those that the emulators show in different words. `pace` is how many ticks
    of the ACPI timer other CPUs are given to come to rest.
    """

    cpus: int = 1
    pace: int = 0
    ops: list[tuple[int, int, int]] = field(default_factory=list)
    code: bytearray = field(default_factory=bytearray)
    tails: list[tuple[int, int, list[tuple[int, int, int]]]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    name: str = ""

    def op(self, kind: int, a: int = 0, b: int = 0, *, cpu: int = 0, later: bool = False) -> None:
        self.names[len(self.ops)] = self.name
        self.ops.append((kind | cpu << 16 | (ASYNC if later else 0), a & 0xFFFF_FFFF, b & ALL))

    def out(self, port: int, *values: int, size: int = 1, cpu: int = 0) -> None:
        for value in values:
            self.op(OUT, port | size << 16, value, cpu=cpu)

    def inp(self, port: int, mask: int = ALL, *, size: int = 1, cpu: int = 0) -> None:
        self.op(IN, port | size << 16, mask, cpu=cpu)

    def silent_in(self, port: int) -> None:
        """Read a byte for what reading does."""
        self.inp(port, 0)

    def rest(self) -> None:
        """Give the other CPUs time to come to rest."""
        self.op(DELAY, self.pace)

    def store(self, gpa: int, value: int, *, cpu: int = 0) -> None:
        self.op(STORE, gpa, value, cpu=cpu)

    def load(self, gpa: int, mask: int = 0xFFFF_FFFF, *, cpu: int = 0) -> None:
        self.op(LOAD, gpa, mask, cpu=cpu)

    def apic(self, offset: int, value: int, *, cpu: int = 0) -> None:
        self.store(LAPIC + offset, value, cpu=cpu)

    def end_all(self, cpu: int) -> None:
        """End whatever is in service."""
        for _ in range(16):
            self.apic(0xB0, 0, cpu=cpu)

    def redirect(self, pin: int, low: int, high: int = 0) -> None:
        for index, value in ((0x11 + 2 * pin, high << 24), (0x10 + 2 * pin, low)):
            self.store(IOAPIC, index)
            self.store(IOAPIC + 0x10, value)

    def entry(self, pin: int, mask: int = 0xFFFF_FFFF) -> None:
        self.store(IOAPIC, 0x10 + 2 * pin)
        self.load(IOAPIC + 0x10, mask)

    def line(self, gsi: int, level: int) -> None:
        self.out(LINES + gsi, level)

    def window(self, chances: int = 3, *, cpu: int = 0, flush: bool = True) -> None:
        self.op(WINDOW, chances, cpu=cpu)
        if flush:
            self.flush()

    def flush(self) -> None:
        self.op(FLUSH)

    def state(self) -> None:
        self.op(STATE)

    def handler(self, vector: int, steps: Script | None) -> None:
        """What is done when a vector comes; None: nothing, not even an end of interrupt."""
        self.tails.append((len(self.ops), vector, list(steps.ops) if steps is not None else []))
        self.op(HANDLER, vector)

    def place(self, text: str) -> int:
        """Put a function, as GNU assembler text, with the program: where it lies, for `CODE` and `WHERE`."""
        at = -(-len(self.code) // CODE_ALIGNMENT) * CODE_ALIGNMENT
        self.code += bytes(at - len(self.code)) + assemble(text)
        return at

    def image(self) -> bytes:
        ops = [*self.ops, (END, 0, 0)]
        known: dict[tuple[tuple[int, int, int], ...], int] = {(): 0}
        for at, vector, steps in self.tails:
            key = tuple(steps)
            if key not in known:
                known[key] = len(ops)
                ops += [*steps, (END, 0, 0)]
            ops[at] = (HANDLER, vector, known[key])
        assert len(ops) <= OPS, len(ops)
        assert len(self.code) <= CODE_BYTES
        packed = b"".join(struct.pack("<IIQ", *op) for op in ops)
        return struct.pack("<II", self.cpus, len(self.ops)) + packed.ljust(16 * OPS, b"\0") + bytes(self.code)


@cache
def assemble(text: str) -> bytes:
    """Machine code that lies anywhere."""
    with TemporaryDirectory() as where:
        source, linked, flat = (str(Path(where) / name) for name in ("code.s", "code.o", "code.bin"))
        Path(source).write_text(f".intel_syntax noprefix\n.code64\n{text}\n")
        run("as", "--64", "-o", linked, source)
        run("objcopy", "-O", "binary", "-j", ".text", linked, flat)
        return Path(flat).read_bytes()


@cache
def _kernel(where: Path) -> bytes:
    return script_kernel(where).read_bytes()


def place(script: Script, where: Path, name: str = "script") -> Path:
    """The kernel's file with a program in it."""
    file, image = bytearray(_kernel(where)), script.image()
    at = file.index(MARK) + len(MARK)
    file[at : at + len(image)] = image
    path = where / name
    path.write_bytes(file)
    return path


def run_on_machine(path: Path, script: Script, timeout: float = 60, **options: object) -> list[str]:
    """What a program prints on one of our machines, lines whole; the last says how the run ended if not by itself."""
    with Machine(path, test_device=True, cpus=script.cpus, **options) as machine:
        result = machine.run(timeout=timeout)
        lines = machine.console.decode("latin-1").splitlines()
        if result.status != 1:
            lines.append(f"ended: {result.end.name} {result.message}")
        return lines
