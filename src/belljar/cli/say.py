"""belljar's own words, on stderr: each message one line, whatever it holds."""

from __future__ import annotations

import sys
from contextlib import suppress

from belljar.errors import EXIT_CANNOT_START

EXIT_PIPE_CLOSED = 141
"""Whoever read our output went away: 128 + SIGPIPE, as shells count."""


def complain(message: str, status: int = EXIT_CANNOT_START) -> int:
    """One line on stderr; returns `status`. A stderr that nobody reads is no reason to fail."""
    with suppress(OSError):
        print("belljar: " + one_line(message), file=sys.stderr, flush=True)
    return status


def one_line(text: str) -> str:
    """`text` with everything unprintable escaped, so that file names and guests cannot forge lines or drive terminals."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
