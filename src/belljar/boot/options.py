"""What the user may say about loading, whatever the format, and what a loader must know of the machine."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING

from belljar.records import dataclass

if TYPE_CHECKING:
    from belljar.boot.acpi import AcpiHardware

MAX_IMAGE_SIZE = 1 << 30
"""Bytes of files that end up in guest memory, at most; far above any guest, far below what would hurt the host."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`load_gpa` and `entry_gva` override where a guest lies and starts; `limit` bounds the bytes it may load.

    `ram` is the machine's memory as (gpa, size) in the order of addresses, for formats that tell the guest or place things
    in it. `program` is put before the command line, where there is one. `command_line` and `modules` (a file and the text
    that goes with it) are for formats that hand them over; `acpi` tells of the hardware for formats with ACPI tables.
    """

    load_gpa: int | None = None
    entry_gva: int | None = None
    limit: int = MAX_IMAGE_SIZE
    ram: tuple[tuple[int, int], ...] = ()
    command_line: str = ""
    program: str = ""
    modules: tuple[tuple[str | PathLike[str], str], ...] = ()
    acpi: Callable[[], AcpiHardware] | None = None

    @property
    def whole_line(self) -> str:
        """The command line as it is handed over."""
        return f"{self.program} {self.command_line}".rstrip() if self.program else self.command_line
