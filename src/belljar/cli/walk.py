"""`belljar walk`: one address, step by step through the page tables."""

from __future__ import annotations

import json
from typing import Any

import click

from belljar.cli.main import complain
from belljar.cli.options import ADDRESS, COUNT_OR_NONE, SECONDS, guest_options, machine_options, option
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


@click.command(help=HELP, short_help="Translate one address step by step.")
@guest_options
@click.argument("gva", type=ADDRESS)
@option("--after", type=COUNT_OR_NONE, default=0, metavar="N", help="Let the guest run until it has come back N times.")
@option("--vcpu", type=COUNT_OR_NONE, default=0, metavar="I", help="Whose page tables. Default: vCPU 0.")
@option("--timeout", type=SECONDS, default=5.0, metavar="SECONDS", help="Wait no longer for --after. Default: 5.")
@option("--json", "as_json", is_flag=True, help="Write JSON.")
def command(**given: Any) -> int:
    """Walk; whether it was mapped."""
    guest, gva, after, index = (given.pop(name) for name in ("guest", "gva", "after", "vcpu"))
    timeout, as_json = given.pop("timeout"), given.pop("as_json")
    with Machine(guest, **machine_options(given)) as machine:
        if index >= len(machine.cpus):
            raise ConfigurationError(f"there is no vCPU {index}", hint=f"this machine has {len(machine.cpus)}, from 0")
        seen = _advance(machine, after, timeout)
        found = walk_address(machine, gva, machine.cpus[index])
        if as_json:
            click.echo(json.dumps({**walk_dict(found), "exits_before": seen}, indent=2))
        else:
            click.echo("\n".join(walk_lines(found, seen)))
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
