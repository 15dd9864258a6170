"""Multiboot kernels, made by gcc as such kernels are made: those of 64-bit code are linked as ELF64, then called ELF32."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent / "kernels"

FLAGS = (
    "-std=gnu11", "-O1", "-masm=intel", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-fno-pie",
    "-no-pie", "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables", "-fno-strict-aliasing", "-Wall", "-Wno-main", "-Wa,--noexecstack",
    "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", "-Wl,-z,noexecstack", "-Wl,--no-warn-rwx-segments",
)  # fmt: skip
WIDE = ("-m64", "-march=x86-64", "-mno-red-zone")
NARROW = ("-m32", "-march=i686")


@cache
def kernel(name: str, where: Path) -> Path:
    """The file of a kernel whose `main` is in kernels/NAME.c."""
    return _build(name, where, "kernel.ld", "boot.S", "kit.c", f"{name}.c")


@cache
def low_kernel(name: str, where: Path) -> Path:
    """The file of a kernel of 16-bit code, all of it in kernels/NAME.S."""
    return _build(name, where, "low.ld", f"{name}.S")


@cache
def plain_kernel(name: str, where: Path) -> Path:
    """The file of a kernel of 32-bit code, all of it in kernels/NAME.S."""
    return _build(name, where, "kernel.ld", f"{name}.S")


@cache
def narrow_kernel(name: str, where: Path) -> Path:
    """The file of a kernel of 32-bit code, all of it in kernels/NAME.c."""
    file = where / name
    _run("gcc", *FLAGS, *NARROW, f"-Wl,-T,{HERE / 'kernel.ld'}", "-o", str(file), str(HERE / f"{name}.c"))
    return file


@cache
def script_kernel(where: Path) -> Path:
    """The file of the kernel that runs programs of `oracles.scripts`."""
    return _build("script", where, "kernel.ld", "boot.S", "script.c")


def _build(name: str, where: Path, script: str, *sources: str) -> Path:
    linked, file = where / f"{name}.elf64", where / name
    _run(
        "gcc", *FLAGS, *WIDE, f"-Wl,-T,{HERE / script}", "-o", str(linked), *(str(HERE / source) for source in sources)
    )
    _run("objcopy", "-O", "elf32-i386", str(linked), str(file))
    return file


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
