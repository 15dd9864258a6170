"""The map of guest memory that a boot loader gives a kernel, as a PC's firmware would (ACPI 6.5, 15: address range types)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from belljar.x86.structures import IO_WINDOW_GPA

AVAILABLE = 1
RESERVED = 2
"""Address range types (ACPI 6.5, table 15.4; multiboot uses the same numbers)."""

LOW_MEMORY_END = 0xA_0000
"""640 KiB: where a PC's conventional memory ends."""

EBDA_GPA = 0x9_FC00
"""Where the extended BIOS data area begins, the last KiB of it. Kernels look there for tables."""

HIGH_MEMORY_START = 0x10_0000
"""1 MiB. Kernels expect video memory and ROMs between the two, so RAM there is not offered to them."""

DEVICES_END = 1 << 32


class MemoryRange(NamedTuple):
    """`size` bytes from `gpa` on, of one type."""

    gpa: int
    size: int
    type: int


def memory_map(ram: Iterable[tuple[int, int]]) -> list[MemoryRange]:
    """The map for a machine whose RAM lies at (gpa, size), in the order of addresses.

    RAM is available but for the extended BIOS data area and all from there to 1 MiB. The interrupt controllers and the ROM
    below 4 GiB are reserved; what is not listed belongs to nobody, and a kernel may put devices there.
    """
    ranges = [MemoryRange(IO_WINDOW_GPA, DEVICES_END - IO_WINDOW_GPA, RESERVED)]
    for gpa, size in ram:
        end = gpa + size
        low_end = EBDA_GPA if end >= LOW_MEMORY_END else LOW_MEMORY_END
        for low, high, kind in (
            (0, low_end, AVAILABLE),
            (low_end, HIGH_MEMORY_START, RESERVED),
            (HIGH_MEMORY_START, IO_WINDOW_GPA, AVAILABLE),
            (DEVICES_END, 1 << 64, AVAILABLE),
        ):
            start, stop = max(gpa, low), min(end, high)
            if start < stop:
                ranges.append(MemoryRange(start, stop - start, kind))
    return sorted(ranges)


def lower_and_upper_kib(ranges: Iterable[MemoryRange]) -> tuple[int, int]:
    """KiB of memory from 0, at most 639, and from 1 MiB up to the first hole, as the BIOS used to tell them."""
    available = {entry.gpa: entry.size for entry in ranges if entry.type == AVAILABLE}
    return available.get(0, 0) >> 10, min(available.get(HIGH_MEMORY_START, 0) >> 10, 0xFFFF_FFFF)
