"""Compiles the test programs with the host's gcc: once natively, whose output is right by definition, and once a mode."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("sha256", "sieve", "json", "lisp")
LEVELS = ("-O2", "-O3")

COMMON = ("-std=gnu11", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-fno-pie", "-no-pie", "-mgeneral-regs-only",
          "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none")  # fmt: skip
BY_BITS = {
    16: ("-m16", "-march=i386"),
    32: ("-m32", "-march=i686"),
    64: ("-m64", "-mno-red-zone"),
}
NEWER = ("-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt", "-mmovbe", "-madx")
"""The integer extensions that gcc will use by itself when it is allowed to."""


@dataclass(frozen=True)
class Program:
    """A flat image, entered at its first byte, linked to run at `origin_gva`."""

    name: str
    bits: int
    origin_gva: int
    image: bytes
    output: bytes


@cache
def native_output(name: str, where: Path) -> bytes:
    """What the program prints when the host's own CPU and operating system run it."""
    target = where / f"{name}-native"
    _run("gcc", "-O2", "-std=gnu11", "-o", str(target), str(HERE / f"{name}.c"), str(HERE / "host.c"))
    return subprocess.run([str(target)], check=True, capture_output=True, timeout=60).stdout


@cache
def guest_program(name: str, bits: int, level: str, origin_gva: int, where: Path, newer: bool = False) -> Program:
    """The program for a guest whose default code size is `bits`; `newer` lets gcc use BMI, MOVBE and their like."""
    target = where / f"{name}-{bits}{level}{'-newer' if newer else ''}-{origin_gva:x}"
    flags = (*COMMON, *BY_BITS[bits], level, *(NEWER if newer else ()))
    linker = (
        f"-Wl,-T,{HERE / 'guest.ld'}",
        f"-Wl,-Ttext={origin_gva:#x}",
        f"-Wl,--section-start=.image={origin_gva:#x}",
    )
    elf, flat = str(target) + ".elf", str(target) + ".bin"
    _run("gcc", *flags, *linker, "-o", elf, str(HERE / f"{name}.c"), str(HERE / "guest.c"))
    _run("objcopy", "-O", "binary", "--set-section-flags", ".image=alloc,load,contents", elf, flat)
    return Program(name, bits, origin_gva, Path(flat).read_bytes(), native_output(name, where))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


@cache
def boot_sector(where: Path) -> bytes:
    """The 512 bytes of boot.S, to be loaded and entered at 0x7C00 in real mode."""
    elf, flat = str(where / "boot.elf"), str(where / "boot.bin")
    linker = ("-Wl,-T," + str(HERE / "guest.ld"), "-Wl,--section-start=.image=0x7c00", "-Wl,--build-id=none")
    _run("gcc", "-m32", "-nostdlib", "-static", "-no-pie", *linker, "-o", elf, str(HERE / "boot.S"))
    _run("objcopy", "-O", "binary", elf, flat)
    return Path(flat).read_bytes()
