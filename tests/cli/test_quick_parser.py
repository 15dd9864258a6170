"""The quick parser and click must agree: whatever the first understands, the second understands the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.cli import quick, with_click
from belljar.cli.main import COMMANDS, load
from belljar.cli.spec import Command

WORDS = [
    "hello-long",
    "0x10",
    "1",
    "-1",
    "1.5",
    "16M",
    "rax=2",
    "al=-1",
    "kvm",
    "auto",
    "real",
    "long",
    "4K",
    "3",
    "",
    "x y",
    "--",
    "-",
    "-h",
]


def command_lines(command: Command) -> st.SearchStrategy[list[str]]:
    """Right, nearly right and wrong command lines."""
    flags = st.sampled_from([option.flag for option in command.options] + ["--nosuch", "--", "--mem"])
    words = st.sampled_from(WORDS)
    joined = st.builds(lambda flag, word: [f"{flag}={word}"], flags, words)
    apart = st.builds(lambda flag, word: [flag, word], flags, words)
    pieces = st.one_of(words.map(lambda word: [word]), flags.map(lambda flag: [flag]), joined, apart)
    plain = st.lists(pieces, max_size=5).map(lambda pieces: [word for piece in pieces for word in piece])
    names = ["hello-long", "0x1000"][: len(command.arguments)]
    return plain.flatmap(lambda words: st.sampled_from([words, [*names, *words], [*words, *names]]))


def ask_click(command: Command, arguments: list[str]) -> dict[str, Any]:
    """What click makes of a command line."""
    seen: list[dict[str, Any]] = []
    spy = replace(command, run=lambda given: seen.append(given) or 0)
    with_click.click_command(spy).main(arguments, prog_name="test", standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_quick_parser_agrees_with_click(name: str) -> None:
    command = load(name)

    @settings(max_examples=300, deadline=None)
    @given(command_lines(command))
    def compare(arguments: list[str]) -> None:
        found = quick.parse(command, arguments)
        if found is not None:
            assert found == ask_click(command, arguments)

    compare()


@pytest.mark.parametrize(
    "arguments",
    [
        ["hello-long"],
        ["hello-long", "--memory", "16M", "--reg=rax=1", "--reg", "rbx=2", "--trace=x"],
        ["--timeout", "1", "hello-long"],
    ],
)
def test_plain_command_lines_need_no_click(arguments: list[str]) -> None:
    command = load("run")
    found = quick.parse(command, arguments)
    assert found is not None
    assert found == ask_click(command, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_a_unique_name(name: str) -> None:
    command = load(name)
    names = [option.name for option in command.options] + [argument.name for argument in command.arguments]
    assert len(names) == len(set(names))
    assert all(option.help.endswith(".") or "Example" in option.help for option in command.options)
    assert isinstance(with_click.click_command(command), click.Command)
