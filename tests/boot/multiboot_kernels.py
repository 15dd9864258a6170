"""Real multiboot kernels, made by gcc."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent / "kernels"

FLAGS = ("-m32", "-march=i386", "-std=gnu11", "-O1", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-fno-pie",
         "-no-pie", "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none",
         "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", "-Wl,--no-warn-rwx-segments",
         f"-Wl,-T,{HERE / 'kernel.ld'}")  # fmt: skip
KINDS = ("elf32", "elf64", "flat")


@cache
def kernel(version: int, kind: str, where: Path, *defines: str) -> Path:
    """The file of a kernel for multiboot `version`, as one of KINDS."""
    name = where / "-".join((f"kernel{version}", kind, *defines))
    elf = Path(f"{name}.elf")
    macros = [f"-D{define}" for define in (f"MULTIBOOT={version}", *(("FLAT",) if kind == "flat" else ()), *defines)]
    _run("gcc", *FLAGS, *macros, "-o", str(elf), str(HERE / "entry.S"), str(HERE / "kernel.c"))
    if kind == "elf32":
        return elf
    _run("objcopy", "-O", {"elf64": "elf64-x86-64", "flat": "binary"}[kind], str(elf), str(name))
    return name


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
