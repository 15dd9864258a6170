"""Every command and every example in the documentation is run, and must show what the page shows.

In a `console` block, `$ ` begins a command and the lines below it are what it prints (stdout and stderr together),
`...` standing for anything. All commands of a page run in one temporary folder, in order; `$ echo $?` gives the
status of the command before, which else must be 0 where all that is shown is `...`. In an `sh` block, every `belljar` must
succeed, given the files that it names. In a `python` block with `>>>`, doctest does the same; other `python` blocks are
whole programs, and the `text` block after one is what they print.
"""

from __future__ import annotations

import doctest
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from belljar.engines import open_engine
from belljar.errors import EngineUnavailable

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HALT = b"\xf4"
FILES = {
    "code.bin": HALT,
    "apic.flat": struct.pack("<8I", 0x1BADB002, 0x10000, 0xE4514FFE, 0x100000, 0x100000, 0, 0, 0x100020) + HALT,
}
"""What pages name and do not make: raw code, a multiboot kernel."""
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Step:
    """One thing a page tells the reader to do, and what it shows."""

    line: int
    kind: str
    body: str
    shown: str | None


def steps(text: str) -> list[Step]:
    """The runnable blocks of a page, in order."""
    found: list[Step] = []
    for match in FENCE.finditer(text):
        kind, body = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        if kind == "console":
            for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
                found.append(Step(line, kind, command, shown))
        elif kind == "sh":
            found += [Step(line, kind, command, None) for command in re.findall("^(belljar .*)$", body, re.MULTILINE)]
        elif kind == "python":
            found.append(Step(line, "doctest" if ">>>" in body else kind, body, None))
        elif kind == "text" and found and found[-1].kind == "python":
            found[-1].shown = body
    return found


def matches(shown: str, got: str) -> bool:
    """Whether `got` is what the page shows, `...` standing for anything."""
    shown, got = (re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip() for text in (shown, got))
    return re.fullmatch(re.escape(shown).replace(r"\.\.\.", ".*"), got, re.DOTALL) is not None


def run(step: Step, folder: Path, status: int) -> tuple[str, int]:
    """Run a command or program as a reader would; its output and status."""
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", COLUMNS="100")
    words = (
        [sys.executable, "-c", step.body] if step.kind == "python" else ["bash", "-c", f"(exit {status}); {step.body}"]
    )
    done = subprocess.run(
        words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout, done.returncode


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_tells_the_truth(page: Path, tmp_path: Path) -> None:
    try:
        open_engine("kvm").close()
    except EngineUnavailable as error:
        pytest.skip(f"the pages show what KVM does: {error.message}")
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    status = 0
    todo = steps(page.read_text())
    for step, following in zip(todo, [*todo[1:], None], strict=True):
        where = f"{page.name}:{step.line}: {step.body.splitlines()[0]}"
        if step.kind == "doctest":
            parsed = doctest.DocTestParser().get_doctest(step.body, {}, page.name, str(page), step.line)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            assert runner.run(parsed).failed == 0, where
            continue
        got, status = run(step, tmp_path, status)
        said_nothing = step.shown is not None and step.shown.strip() == "..."
        status_shown = following is not None and following.body == "echo $?"
        if step.kind in ("python", "sh") or (said_nothing and not status_shown):
            assert status == 0, f"{where}\n{got}"
        if step.shown is not None:
            assert matches(step.shown, got), f"{where}\nshown:\n{step.shown}\ngot (status {status}):\n{got}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
