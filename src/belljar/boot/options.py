"""What the user may say about loading, whatever the format."""

from __future__ import annotations

from belljar.records import dataclass

MAX_IMAGE_SIZE = 1 << 30
"""Bytes of a file that end up in guest memory, at most; far above any guest, far below what would hurt the host."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`load_gpa` and `entry_gva` override where a guest lies and starts; `limit` bounds the bytes it may load."""

    load_gpa: int | None = None
    entry_gva: int | None = None
    limit: int = MAX_IMAGE_SIZE
