"""What a command takes, as plain data: read by the quick parser (`quick.py`) and, for everything else, made into click's.

A command module holds one `Command` called `COMMAND`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from belljar.records import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument. `parse` turns its text into a value or raises ValueError with one phrase."""

    name: str
    parse: Callable[[str], Any] = str
    completes_guests: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """`flag` is its spelling (`--page-size`), `name` the keyword it is handed over as.

    `parse` as for arguments; `choices` are all it may be instead. `multiple`: it may be repeated, the value is a tuple.
    `switch`: it takes no value, and is True or False. `bare` is the value if it is given without one, where it may be.
    """

    flag: str
    name: str
    help: str
    metavar: str = ""
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    default: Any = None
    multiple: bool = False
    switch: bool = False
    bare: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """`run` is called with a dict of every argument and option by name, and returns the exit status.

    `help` is shown as it stands, apart from paragraphs being filled; `summary` is one sentence for the list of commands.
    """

    name: str
    summary: str
    help: str
    run: Callable[[dict[str, Any]], int]
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
