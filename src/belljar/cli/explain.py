"""`belljar explain`: run a guest and say everything about it."""

from __future__ import annotations

import json
from typing import Any

from belljar.cli import values
from belljar.cli.files import OutputFile
from belljar.cli.options import GUEST, GUEST_OPTIONS, machine_options
from belljar.cli.spec import Command, Option
from belljar.cli.terminal import show
from belljar.observe.explain import DEFAULT_LIMIT, DEFAULT_TIMEOUT, explain

HELP = """Run GUEST and explain everything: its memory in both address spaces, how it was started, its page tables,
each switch into it and back, and what it left behind. Guests that crash or run for ever are explained too.

\b
Examples:
  belljar explain hello-long
  belljar explain hello-paged --json | jq .paging
  belljar explain fault --html fault.html
  belljar explain tick --irqchip user --what interrupts
"""

INTERRUPTS = "interrupts"


def run(given: dict[str, Any]) -> int:
    """Explain; 0 whatever happened to the guest."""
    html = given["html"]
    page = None if html is None else OutputFile(html, "--html", standard_fd=1)
    try:
        found = explain(given["guest"], timeout=given["timeout"], limit=given["limit"], **machine_options(given))
        if page is not None:
            from belljar.observe.explain_html import explain_page

            page.write(explain_page(found).encode("utf-8", "backslashreplace"))
    finally:
        if page is not None:
            page.close()
    if given["as_json"]:
        plain = found.as_dict()
        print(json.dumps({INTERRUPTS: plain[INTERRUPTS]} if given["what"] == INTERRUPTS else plain, indent=2))
    elif html is None:
        from belljar.observe.explain_text import explain_lines, interrupt_lines

        show(interrupt_lines(found) if given["what"] == INTERRUPTS else explain_lines(found))
    return 0


COMMAND = Command(
    "explain",
    "Explain everything about a run.",
    HELP,
    run,
    (GUEST,),
    (
        *GUEST_OPTIONS,
        Option(
            "--timeout", "timeout", f"End the run after so long. Default: {DEFAULT_TIMEOUT:g}.", "SECONDS", values.seconds,
            default=DEFAULT_TIMEOUT,
        ),
        Option(
            "--limit", "limit", f"Tell so many switches one by one, the rest by kind. Default: {DEFAULT_LIMIT}.", "N",
            values.limit, default=DEFAULT_LIMIT,
        ),
        Option(
            "--what", "what", "Tell only of that, as text or JSON: interrupts (where lines lead, and every interrupt chip).",
            choices=("all", INTERRUPTS), default="all",
        ),
        Option("--json", "as_json", "Write JSON.", switch=True),
        Option("--html", "html", "Write a page with pictures to FILE; it needs nothing from the net.", "FILE"),
    ),
)  # fmt: skip
