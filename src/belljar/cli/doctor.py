"""`belljar doctor`: what this host can do, and what to do about the rest."""

from __future__ import annotations

import json
from typing import Any

from belljar.cli.spec import Command, Option
from belljar.cli.terminal import show
from belljar.errors import EXIT_CANNOT_START
from belljar.observe.doctor import examine
from belljar.observe.doctor_text import health_lines

HELP = """Find out what this host can do by running small guests in every mode, and say what to do about what fails.

Exits 0 if some engine runs guests here, else 125.

\b
Examples:
  belljar doctor
  belljar doctor --json | jq '.engines[].modes[] | select(.works | not)'
"""


def run(given: dict[str, Any]) -> int:
    """Examine and print."""
    health = examine()
    if given["as_json"]:
        print(json.dumps(health.as_dict(), indent=2))
    else:
        show(health_lines(health))
    return 0 if health.usable else EXIT_CANNOT_START


COMMAND = Command(
    "doctor",
    "Say what this host can do.",
    HELP,
    run,
    options=(Option("--json", "as_json", "Write JSON.", switch=True),),
)
