"""The command line as click knows it: help, shell completion, every other way to write options, and words for every mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from belljar import __version__
from belljar.cli.spec import Argument, Command, Option

HELP = """belljar, the hypervisor you can see into.

Runs guests of a few instructions or more in a virtual machine, and answers every question about what happened.

\b
  belljar run hello-long          a guest in 64-bit mode prints its greeting
  belljar explain hello-long      where everything lay, and each switch into the guest and back
  belljar walk hello-long 0x1000  one address through the page tables
  belljar doctor                  what this host can do
"""

EPILOG = 'Shell completion: eval "$(_BELLJAR_COMPLETE=bash_source belljar)" (or zsh_source, fish_source).'

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Value(click.ParamType[Any]):
    """A click type from a parser that raises ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a string; a default is parsed already."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class GuestName(Value):
    """A sample's name or a file; completes both."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Samples that fit, and a word to the shell that files do too."""
        from click.shell_completion import CompletionItem

        from belljar import samples

        found = [CompletionItem(name) for name in samples.NAMES if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")]


class Commands(click.Group):
    """A group whose commands are imported when they are asked for. `load` gives a command by name, `names` all names."""

    def __init__(self, names: Sequence[str], load: Callable[[str], Command]) -> None:
        super().__init__(
            "belljar",
            help=HELP,
            epilog=EPILOG,
            context_settings=CONTEXT,
            callback=_without_command,
            invoke_without_command=True,
            params=[
                click.Option(
                    ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version,
                    help="Show the version and exit.",
                )
            ],
        )  # fmt: skip
        self._names = names
        self._load = load

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order in which help lists them."""
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that was named."""
        return click_command(self._load(cmd_name)) if cmd_name in self._names else None


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"belljar {__version__}")
        ctx.exit()


@click.pass_context
def _without_command(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def click_command(command: Command) -> click.Command:
    """A command of ours as one of click's."""
    return click.Command(
        command.name,
        help=command.help,
        short_help=command.summary,
        context_settings=CONTEXT,
        callback=lambda **given: command.run(_settle(command, given)),
        params=[*map(_argument, command.arguments), *map(_option, command.options)],
    )


def _argument(argument: Argument) -> click.Argument:
    kind = GuestName if argument.completes_guests else Value
    return click.Argument([argument.name], type=kind(argument.name, argument.parse), required=False)


def _settle(command: Command, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments that are missing: `run --trace GUEST` means a guest and a bare `--trace`; everything else is a mistake."""
    for argument in command.arguments:
        if given[argument.name] is not None:
            continue
        for option in command.options:
            if option.bare is not None and given[option.name] not in (None, option.bare):
                given[argument.name], given[option.name] = given[option.name], option.bare
                break
        else:
            raise click.UsageError(f"Missing argument {argument.name.upper()!r}", click.get_current_context())
    return given


def _option(option: Option) -> click.Option:
    names = [option.flag, option.name]
    if option.switch:
        return click.Option(names, is_flag=True, help=option.help)
    kind: click.ParamType[Any]
    kind = click.Choice(option.choices) if option.choices else Value(option.name, option.parse)
    optional: dict[str, Any] = {"is_flag": False, "flag_value": option.bare} if option.bare is not None else {}
    return click.Option(
        names,
        type=kind,
        metavar=option.metavar or None,
        help=option.help,
        multiple=option.multiple,
        default=None if option.multiple else option.default,
        **optional,
    )


def run(names: Sequence[str], load: Callable[[str], Command], arguments: Sequence[str]) -> int:
    """Let click parse and call; returns the exit status. Raises `Mistake` for a bad command line."""
    try:
        status = Commands(names, load).main(list(arguments), prog_name="belljar", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "belljar"
        raise Mistake(f"{_one_sentence(error)} (see `{where} --help`)") from None
    except click.ClickException as error:
        raise Mistake(_one_sentence(error)) from None
    except click.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


class Mistake(Exception):
    """What is wrong with a command line, in one sentence."""


def _one_sentence(error: click.ClickException) -> str:
    return " ".join(error.format_message().split()).rstrip(".")
