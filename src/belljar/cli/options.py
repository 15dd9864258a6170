"""Options that several commands share, and click types around the parsers of `belljar.cli.values`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from belljar.cli import values
from belljar.engine import ENGINES
from belljar.machine.config import PAGE_SIZES
from belljar.x86.modes import MODES

F = TypeVar("F", bound=Callable[..., Any])


class Value(click.ParamType[Any]):
    """A click type from a parser that raises ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a string; what is parsed already stays."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class GuestName(click.ParamType[str]):
    """A sample's name or a file; completes both."""

    name = "guest"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Samples that fit, and a word to the shell that files do too."""
        from click.shell_completion import CompletionItem

        from belljar import samples

        found = [CompletionItem(name) for name in samples.NAMES if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")]


class Option(click.Option):
    """A click option that takes its help text as it stands; click would import `inspect` to tidy it up."""

    def __init__(self, *arguments: Any, help: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.help = help


def option(*names: str, help: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` with our class."""
    return click.option(*names, cls=Option, help=help, **attributes)


ADDRESS = Value("addr", values.address)
SIZE = Value("size", values.size)
COUNT = Value("n", values.count)
COUNT_OR_NONE = Value("n", values.count_or_none)
LIMIT = Value("n", values.limit)
SECONDS = Value("seconds", values.seconds)
REGISTER = Value("name=value", values.register)

_GUEST_OPTIONS = (
    click.argument("guest", type=GuestName()),
    option("--engine", type=click.Choice(["auto", *ENGINES]), default="auto", show_default=True,
           help="What runs the guest; auto takes the first that can, and says so where that is not the first choice."),
    option("--mode", type=click.Choice(list(MODES)),
           help="CPU mode the guest starts in. Default: what the sample or the ELF file is made for, else real."),
    option("--page-size", type=click.Choice(list(PAGE_SIZES)), help="Size of the pages that the start mode maps."),
    option("--cpl", type=click.Choice(["0", "3"]), help="Privilege level that the guest starts at."),
    option("--memory", type=SIZE, metavar="SIZE", help="Guest memory, such as 64K, 16M, 1G. Default: 16M."),
    option("--cpus", type=COUNT, metavar="N", help="Number of vCPUs. Default: what the sample asks for, else 1."),
    option("--load", "load_gpa", type=ADDRESS, metavar="ADDR", help="Guest-physical address to put raw code at."),
    option("--entry", "entry_gva", type=ADDRESS, metavar="ADDR", help="Guest-virtual address to start at."),
    option("--reg", "registers", type=REGISTER, metavar="NAME=VALUE", multiple=True,
           help="Set a register of every vCPU before the start; may be repeated. Example: --reg rax=2 --reg bl=0xff"),
)  # fmt: skip


def guest_options(command: F) -> F:
    """GUEST and every option that says what machine it runs on."""
    for decorate in reversed(_GUEST_OPTIONS):
        command = decorate(command)
    return command


def machine_options(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `belljar.Machine` from those of `guest_options`; takes them out of `given`."""
    options = {name: given.pop(name) for name in ("engine", "mode", "cpus", "load_gpa", "entry_gva")}
    page_size, cpl, memory = given.pop("page_size"), given.pop("cpl"), given.pop("memory")
    options["page_size"] = None if page_size is None else PAGE_SIZES[page_size]
    options["cpl"] = None if cpl is None else int(cpl)
    if memory is not None:
        options["memory"] = memory
    options["registers"] = dict(given.pop("registers"))
    return options
