"""Lines of text on a terminal, with headings that stand out; anywhere else, just the lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def show(lines: Iterable[str]) -> None:
    """Print lines to stdout; those that start without a space are headings."""
    lines = list(lines)
    if not sys.stdout.isatty():
        print("\n".join(lines))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        heading = line and not line.startswith(" ")
        console.print(Text(line, style="bold cyan" if heading else ""))
