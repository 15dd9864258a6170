"""Two ways to run the command line: in this process with its file descriptors watched, and as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from belljar.cli.main import call
from belljar.engines import ENGINES, open_engine
from belljar.errors import EngineUnavailable

SOURCE = Path(__file__).parents[2] / "src"


@dataclass
class Done:
    """What a command line came to."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr; an error if there are more, or none."""
        assert self.err.startswith("belljar: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n"), self.err
        assert "Traceback" not in self.err
        assert "mistake of belljar's own" not in self.err
        return self.err[len("belljar: ") : -1]


Belljar = Callable[..., Done]
Guest = Callable[[str], Path]


@pytest.fixture
def belljar(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Belljar:
    """Run a command line in this process."""
    monkeypatch.delenv("BELLJAR_TRACEBACK", raising=False)

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        status = call([os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in arguments])
        captured = capfd.readouterr()
        return Done(status, captured.out, captured.err)

    return run


class Child(subprocess.Popen[bytes]):
    """A process that does not outlive the `with` block that it was started for, whatever went wrong in there."""

    def __exit__(self, *error: object) -> None:
        if self.poll() is None and error[0] is not None:
            self.kill()
        super().__exit__(*error)  # type: ignore[arg-type]


def start(*arguments: object, before: Callable[[], object] = lambda: None, **options: object) -> Child:
    """Start a command line as a process of its own, that Ctrl-C reaches even where the tests' own shell ignores it.

    `before` runs in the child before belljar does.
    """
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "belljar", *(str(a) for a in arguments)]

    def as_in_a_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        before()

    return Child(command, env=environment, preexec_fn=as_in_a_terminal, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def process() -> Belljar:
    """Run a command line as a process of its own."""

    def run(*arguments: object, stdin: bytes = b"") -> Done:
        pipe = subprocess.PIPE
        with start(*arguments, stdin=pipe, stdout=pipe, stderr=pipe) as child:
            out, err = child.communicate(stdin, timeout=60)
            return Done(child.returncode, out.decode(), err.decode())

    return run


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine's name in turn, where it can be had."""
    try:
        open_engine(request.param).close()
    except EngineUnavailable as error:
        pytest.skip(f"{request.param}: {error.message}")
    return str(request.param)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    """A file of raw code from hexadecimal."""

    def write(code: str) -> Path:
        path = tmp_path / "guest.bin"
        path.write_bytes(bytes.fromhex(code))
        return path

    return write
