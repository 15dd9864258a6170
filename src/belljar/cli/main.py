"""The console script: finds the command, and turns everything that can go wrong into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from belljar.cli import lazy_imports

lazy_imports.install()

import click  # noqa: E402  (its own heavy imports must be made lazy first)

from belljar import __version__  # noqa: E402
from belljar.errors import EXIT_CANNOT_START, BelljarError  # noqa: E402

EXIT_INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells count."""

EXIT_PIPE_CLOSED = 141
"""Whoever read our output went away: 128 + SIGPIPE, as shells count."""

COMMANDS = {
    "run": "belljar.cli.run",
    "samples": "belljar.cli.samples",
    "explain": "belljar.cli.explain",
    "walk": "belljar.cli.walk",
}
"""Every command's module, which holds it as `command`; in the order in which help lists them."""


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that was named."""
        if cmd_name not in COMMANDS:
            return None
        module = __import__(COMMANDS[cmd_name], fromlist=["command"])
        command: click.Command = module.command
        return command


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Shell completion: eval "$(_BELLJAR_COMPLETE=bash_source belljar)" (or zsh_source, fish_source).',
)
@click.version_option(__version__, prog_name="belljar", message="%(prog)s %(version)s")
def group() -> None:
    """belljar, the hypervisor you can see into.

    Runs guests of a few instructions or more in a virtual machine, and answers every question about what happened.

    \b
    belljar run hello-long          a guest in 64-bit mode prints its greeting
    belljar explain hello-long      where everything lay, and each switch into the guest and back
    belljar walk hello-long 0x1000  one address through the page tables
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments` (by default the process's own) and return the exit status."""
    _open_standard_files()
    try:
        status = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        _flush()
        return status
    except BrokenPipeError:
        return _pipe_closed()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        return complain(_os_error(error))


def _dispatch(arguments: list[str]) -> int:
    try:
        status = group.main(arguments, prog_name="belljar", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "belljar"
        message = " ".join(error.format_message().split()).rstrip(".")
        return complain(f"{message} (see `{where} --help`)")
    except click.ClickException as error:
        return complain(" ".join(error.format_message().split()).rstrip("."))
    except click.Abort:
        return EXIT_INTERRUPTED
    except BelljarError as error:
        return complain(str(error), error.exit_status)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except (MemoryError, RecursionError) as error:
        return complain(f"{type(error).__name__}: this is more than this process can hold")
    except OSError as error:
        return complain(_os_error(error))
    except Exception as error:
        if os.environ.get("BELLJAR_TRACEBACK"):
            raise
        return complain(
            f"a mistake of belljar's own, {type(error).__name__}: {error} "
            "(please report it, with what BELLJAR_TRACEBACK=1 shows)"
        )


def complain(message: str, status: int = EXIT_CANNOT_START) -> int:
    """One line on stderr, whatever the message holds; returns `status`."""
    click.echo("belljar: " + one_line(message), err=True)
    return status


def one_line(text: str) -> str:
    """`text` with everything unprintable escaped, so that file names and guests cannot forge lines or drive terminals."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


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
