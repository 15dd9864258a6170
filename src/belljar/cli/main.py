"""The console script: finds the command, and turns everything that can go wrong into one line and an exit status."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from belljar.cli import lazy_imports

lazy_imports.install()

from belljar.cli import quick  # noqa: E402  (what it imports is to find the stand-ins)
from belljar.cli.say import EXIT_PIPE_CLOSED, complain  # noqa: E402
from belljar.cli.spec import Command  # noqa: E402
from belljar.errors import BelljarError  # noqa: E402

EXIT_INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells count."""

COMMANDS = {
    "run": "belljar.cli.run",
    "samples": "belljar.cli.samples",
    "explain": "belljar.cli.explain",
    "walk": "belljar.cli.walk",
    "doctor": "belljar.cli.doctor",
}
"""Every command's module, which holds it as `COMMAND`; in the order in which help lists them."""

COMPLETION_VARIABLE = "_BELLJAR_COMPLETE"
"""Set by shells that want completions."""


def load(name: str) -> Command:
    """Import one command."""
    command: Command = import_module(COMMANDS[name]).COMMAND
    return command


def main() -> int:
    """The console script: run the process's own command line and return the exit status.

    Imports make thousands of objects that live as long as the process; looking for garbage among them, and once more at
    the very end, would take a tenth of the time of `belljar run hello-long`.
    """
    gc.disable()
    try:
        return call(sys.argv[1:], ready=_imported)
    finally:
        gc.freeze()


def _imported() -> None:
    gc.freeze()
    gc.enable()


def call(arguments: Sequence[str], *, ready: Callable[[], None] = lambda: None) -> int:
    """Run a command line and return the exit status; never raises. `ready` is called once the command is imported."""
    _open_standard_files()
    try:
        status = _guarded(list(arguments), ready)
        _flush()
        return status
    except BrokenPipeError:
        return _pipe_closed()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        return complain(_os_error(error))


def _guarded(arguments: list[str], ready: Callable[[], None]) -> int:
    try:
        return _dispatch(arguments, ready)
    except BelljarError as error:
        return complain(str(error), error.exit_status)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except OSError as error:
        return complain(_os_error(error))
    except MemoryError:
        return complain("this host has not enough memory for that")
    except Exception as error:
        if os.environ.get("BELLJAR_TRACEBACK"):
            raise
        return complain(
            f"a mistake of belljar's own, {type(error).__name__}: {error} "
            "(please report it, with what BELLJAR_TRACEBACK=1 shows)"
        )


def _dispatch(arguments: list[str], ready: Callable[[], None]) -> int:
    if arguments and arguments[0] in COMMANDS and COMPLETION_VARIABLE not in os.environ:
        command = load(arguments[0])
        given = quick.parse(command, arguments[1:])
        if given is not None:
            ready()
            return command.run(given)
    from belljar.cli import with_click

    ready()

    try:
        return with_click.run(tuple(COMMANDS), load, arguments)
    except with_click.Mistake as mistake:
        return complain(str(mistake))


def _os_error(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{what}: {error.filename}" if error.filename else what


def _open_standard_files() -> None:
    """Stand /dev/null in for standard files that the caller closed, so that no other file gets their numbers."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _pipe_closed() -> int:
    """The reader is gone: say nothing, and let the interpreter's last flush find nothing to complain about either."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    return EXIT_PIPE_CLOSED


if __name__ == "__main__":
    sys.exit(main())
