"""`belljar samples`: the guests that come with the package."""

from __future__ import annotations

from typing import Any

from belljar import samples
from belljar.cli.spec import Command, Option

HELP = """List the sample guests, or show one's listing.

\b
Examples:
  belljar samples
  belljar samples --show hello-long
"""


def run(given: dict[str, Any]) -> int:
    """Print the list, or one listing."""
    if given["show"] is not None:
        print("\n".join(listing(samples.get(given["show"]))))
        return 0
    width = max(len(name) for name in samples.NAMES)
    for name in samples.NAMES:
        print(f"{name:<{width}}  {samples.get(name).summary}")
    return 0


def listing(sample: samples.Sample) -> list[str]:
    """The sample as an assembler's listing: address, bytes, instruction, comment."""
    start = f"; {sample.name}: {sample.summary}"
    lines = [
        start,
        f"; mode {sample.mode}, CPL{sample.cpl}, {sample.cpus} vCPU, at guest-physical {sample.load_gpa:#x}",
    ]
    code_width = max(len(line.code) for line in sample.listing if not line.is_data)
    for gva, line in sample.addressed():
        if line.label:
            lines.append(f"{line.label}:")
        code = line.code if len(line.code) <= code_width else line.code[: code_width - 3] + "..."
        text = f"  {gva:08x}  {code:<{code_width}}  {line.text:<36}"
        lines.append(f"{text} ; {line.why}" if line.why else text.rstrip())
    return lines


COMMAND = Command(
    "samples",
    "List the sample guests and their listings.",
    HELP,
    run,
    options=(Option("--show", "show", "Print the commented listing of one sample.", "NAME"),),
)
