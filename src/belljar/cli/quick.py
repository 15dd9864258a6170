"""A parser for command lines that are plain and right, so that they need not wait for click to be imported.

click takes longer to import than a guest takes to be made, run and closed. What is understood here (long options, each
with its value, as `--name value` or `--name=value`, and the exact number of arguments) means the same to click; a test
compares the two. For anything else, and for every mistake, the answer is None, and click has the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from belljar.cli.spec import Command, Option


def parse(command: Command, arguments: Sequence[str]) -> dict[str, Any] | None:
    """The values of every argument and option by name; None if click had better look at it."""
    options = {option.flag: option for option in command.options}
    given: dict[str, list[Any]] = {}
    words: list[str] = []
    rest = iter(arguments)
    for item in rest:
        if not item.startswith("-"):
            words.append(item)
            continue
        flag, equals, text = item.partition("=")
        option = options.get(flag)
        if option is None or (option.switch and equals) or (option.bare is not None and not equals):
            return None
        if option.switch:
            given.setdefault(option.name, []).append(True)
            continue
        value = text if equals else next(rest, "-")
        if not equals and value.startswith("-"):
            return None
        try:
            given.setdefault(option.name, []).append(_convert(option, value))
        except ValueError:
            return None
    if len(words) != len(command.arguments):
        return None
    values = {option.name: _value(option, given.get(option.name)) for option in command.options}
    try:
        for argument, word in zip(command.arguments, words, strict=True):
            values[argument.name] = argument.parse(word)
    except ValueError:
        return None
    return values


def _convert(option: Option, text: str) -> Any:
    if option.choices:
        if text not in option.choices:
            raise ValueError(text)
        return text
    return option.parse(text)


def _value(option: Option, given: list[Any] | None) -> Any:
    if option.multiple:
        return tuple(given or ())
    if given:
        return given[-1]
    return False if option.switch else option.default
