"""`belljar walk`: one address, step by step through the page tables."""

from __future__ import annotations

import json
from typing import Any

from belljar.cli import values
from belljar.cli.options import GUEST, GUEST_OPTIONS, machine_options
from belljar.cli.say import complain
from belljar.cli.spec import Argument, Command, Option
from belljar.errors import ConfigurationError
from belljar.machine import Machine
from belljar.observe.walk import walk_address
from belljar.observe.walk_text import walk_dict, walk_lines

HELP = """Show how guest-virtual address GVA of GUEST becomes a guest-physical and a host-virtual one.

Each table entry on the way is shown with its bits, and the result is compared with the engine's own (KVM_TRANSLATE).
Exits 0 if the address is mapped, 1 if it is not.

\b
Examples:
  belljar walk hello-long 0x1000
  belljar walk hello-paged 0x400 --after 14
"""

NOT_MAPPED = 1
"""Exit status for an address without a translation."""


def run(given: dict[str, Any]) -> int:
    """Walk; whether it was mapped."""
    after, index = given["after"], given["vcpu"]
    with Machine(given["guest"], **machine_options(given)) as machine:
        if index >= len(machine.cpus):
            raise ConfigurationError(f"there is no vCPU {index}", hint=f"this machine has {len(machine.cpus)}, from 0")
        seen = _advance(machine, after, given["timeout"])
        found = walk_address(machine, given["gva"], machine.cpus[index])
        if given["as_json"]:
            print(json.dumps({**walk_dict(found), "exits_before": seen}, indent=2))
        else:
            print("\n".join(walk_lines(found, seen)))
        if seen < after:
            end = machine.result.message if machine.result is not None else "the guest ended"
            complain(f"only {seen} of {after} exits happened: {end}")
    return 0 if found.walk.ok else NOT_MAPPED


def _advance(machine: Machine, wanted: int, timeout: float) -> int:
    """Let the guest come back `wanted` times, or until it ends; how often it did."""
    seen = 0
    if wanted:
        for _ in machine.exits(timeout=timeout):
            seen += 1
            if seen == wanted:
                break
    return seen


COMMAND = Command(
    "walk",
    "Translate one address step by step.",
    HELP,
    run,
    (GUEST, Argument("gva", values.address)),
    (
        *GUEST_OPTIONS,
        Option(
            "--after",
            "after",
            "Let the guest run until it has come back N times.",
            "N",
            values.count_or_none,
            default=0,
        ),
        Option("--vcpu", "vcpu", "Whose page tables. Default: vCPU 0.", "I", values.count_or_none, default=0),
        Option(
            "--timeout", "timeout", "Wait no longer for --after. Default: 5.", "SECONDS", values.seconds, default=5.0
        ),
        Option("--json", "as_json", "Write JSON.", switch=True),
    ),
)
