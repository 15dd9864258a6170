"""What this machine's own <linux/kvm.h> says, asked by compiling and running a C program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

PROLOGUE = """\
#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdio.h>
int main(void) {
"""


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")


def evaluate(expressions: list[str], folder: Path) -> dict[str, int]:
    """The value of each C expression; those that the header has no words for are left out."""
    source, program = folder / "ask.c", folder / "ask"
    asked = list(range(len(expressions)))
    for _ in range(4):  # an error may hide others
        lines = [f'printf("{number} %llu\\n", (unsigned long long)({expressions[number]}));' for number in asked]
        source.write_text(PROLOGUE + "\n".join(lines) + "\nreturn 0;\n}\n")
        built = subprocess.run(
            [compiler() or "cc", "-w", "-fmax-errors=0", "-o", program, source],
            capture_output=True,
            text=True,
            timeout=120,
        )
        if built.returncode == 0:
            break
        first = PROLOGUE.count("\n") + 1
        wrong = {int(line) - first for line in re.findall(r"ask\.c:(\d+):\d+: error:", built.stderr)}
        assert wrong, built.stderr
        asked = [number for position, number in enumerate(asked) if position not in wrong]
    answers = subprocess.run([program], capture_output=True, text=True, timeout=60, check=True).stdout
    pairs = (line.split() for line in answers.splitlines())
    return {expressions[int(number)]: int(value) for number, value in pairs}
