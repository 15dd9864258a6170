"""Whatever the command line, there is a status, and never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from belljar.cli.main import COMMANDS, call

FLAGS = [
    "--engine", "--mode", "--page-size", "--cpl", "--memory", "--cpus", "--load", "--entry", "--reg", "--timeout",
    "--instructions", "--trace", "--json", "--after", "--vcpu", "--limit", "--show", "--help", "--version", "--nosuch",
]  # fmt: skip
VALUES = [
    "kvm", "auto", "nosuch", "real", "protected", "paged", "long", "la57", "4K", "2M", "0", "3", "1", "2", "-1", "64K", "16M",
    "1T", "0x1000", "0xffffffffffffffff", "0x800000000000", "rax=1", "rip=0", "rsp=-1", "cl=0x100", "rflags=-1", "0.01",
    "1e9", "nan", "", "x", "\n", "\udcff",
]  # fmt: skip
GUESTS = ["hello-real", "hello-long", "add", "mmio", "fault", "triple-fault", "ping-pong", "nosuch", "/", "/dev/zero"]


NAME = st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), max_size=5)
"""Without slashes: a word behind `--trace` names a file, which may lie in this folder and nowhere else."""


def arguments() -> st.SearchStrategy[list[str]]:
    """A command, a guest, and any mixture of flags and values."""
    word = st.one_of(st.sampled_from(FLAGS), st.sampled_from(VALUES), st.sampled_from(GUESTS), NAME)
    pair = st.builds("{}={}".format, st.sampled_from(FLAGS), st.sampled_from(VALUES))
    rest = st.lists(st.one_of(word, pair), max_size=5)
    head = st.tuples(st.sampled_from([*COMMANDS, "nosuch"]), st.sampled_from(GUESTS))
    return st.builds(lambda head, rest: [*head, *rest], head, rest)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own, for whatever files a command line names."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(arguments())
def test_any_command_line_ends_with_a_status_and_no_traceback(words: list[str]) -> None:
    # Guests that run for ever get a limit; a trace goes nowhere but stderr.
    words = [word for word in words if not word.startswith("--trace=") and word != "doctor"]
    if words[:1] in (["run"], ["explain"], ["walk"]):
        words = [words[0], "--timeout", "0.2", *words[1:]]
    out, err = io.StringIO(), io.StringIO()
    saved = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = call([word.replace("\0", "") for word in words])
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)
    said = err.getvalue()
    assert 0 <= status <= 255
    assert "Traceback" not in said
    assert "mistake of belljar's own" not in said, said
    if status == 125 and "doctor" not in words:
        lines = [line for line in said.splitlines() if line.startswith("belljar: ")]
        assert len(lines) == 1, said
