"""`belljar explain`: run a guest and say everything about it."""

from __future__ import annotations

import json
from typing import Any

import click

from belljar.cli.options import LIMIT, SECONDS, guest_options, machine_options, option
from belljar.cli.terminal import show
from belljar.observe.explain import DEFAULT_LIMIT, DEFAULT_TIMEOUT, explain

HELP = """Run GUEST and explain everything: its memory in both address spaces, how it was started, its page tables,
each switch into it and back, and what it left behind. Guests that crash or run for ever are explained too.

\b
Examples:
  belljar explain hello-long
  belljar explain hello-paged --json | jq .paging
  belljar explain fault
"""


@click.command(help=HELP, short_help="Explain everything about a run.")
@guest_options
@option(
    "--timeout",
    type=SECONDS,
    default=DEFAULT_TIMEOUT,
    metavar="SECONDS",
    help=f"End the run after so long. Default: {DEFAULT_TIMEOUT:g}.",
)
@option(
    "--limit",
    type=LIMIT,
    default=DEFAULT_LIMIT,
    metavar="N",
    help=f"Tell so many switches one by one, the rest by kind. Default: {DEFAULT_LIMIT}.",
)
@option("--json", "as_json", is_flag=True, help="Write JSON.")
def command(**given: Any) -> int:
    """Explain; 0 whatever happened to the guest."""
    guest, timeout, limit = given.pop("guest"), given.pop("timeout"), given.pop("limit")
    as_json = given.pop("as_json")
    found = explain(guest, timeout=timeout, limit=limit, **machine_options(given))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        from belljar.observe.explain_text import explain_lines

        show(explain_lines(found))
    return 0
