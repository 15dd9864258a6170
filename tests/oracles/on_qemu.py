"""Answers from another PC: QEMU with software emulation (TCG), which shares no code with KVM's CPUs or with ours."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from .scripts import Script

PROGRAM = "qemu-system-x86_64"


@cache
def missing() -> str:
    """Why it cannot be asked; empty if it can."""
    return "" if shutil.which(PROGRAM) else f"{PROGRAM} is not installed (Debian: qemu-system-x86)"


def run_on_qemu(path: Path, script: Script, timeout: float = 60) -> list[str]:
    """What a program prints there."""
    command = [
        PROGRAM, "-accel", "tcg,thread=single", "-machine", "pc", "-cpu", "max", "-smp", str(script.cpus), "-m", "128",
        "-nodefaults", "-display", "none", "-no-reboot", "-rtc", "base=2000-01-01,clock=vm", "-serial", "stdio",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "pc-testdev", "-kernel", str(path),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        return [*(error.stdout or b"").decode("latin-1").splitlines(), "ended: TIMEOUT"]
    lines = done.stdout.decode("latin-1").splitlines()
    if done.returncode != 1:
        lines.append(f"ended: {done.returncode} {done.stderr.decode()[-300:]}")
    return lines
