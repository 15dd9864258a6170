"""The BIOS data area: what a PC's firmware leaves at 0x400 for whom it starts, and kernels still read.

Kernels that come up through a boot loader look here for the end of conventional memory, to put the code below it that
other processors start with.
"""

from __future__ import annotations

from collections.abc import Iterable

from belljar.boot.image import ImageSegment, SegmentFlags
from belljar.boot.memory_map import EBDA_GPA, LOW_MEMORY_END

BIOS_DATA_GPA = 0x400
BIOS_DATA_SIZE = 0x100

COM1_PORT = 0x3F8

_SERIAL_PORTS = 0x00
"""Port numbers of four serial ports, 16 bits each."""

_EBDA_SEGMENT = 0x0E
"""Real-mode segment of the extended BIOS data area."""

_CONVENTIONAL_KIB = 0x13
"""KiB of memory from 0 up to the extended area."""


def bios_data(ram: Iterable[tuple[int, int]], kernel: Iterable[ImageSegment]) -> tuple[ImageSegment, ...]:
    """The area as a segment, for a PC whose RAM lies at (gpa, size); none where the kernel itself, or no RAM, lies there.

    With less than 640 KiB of RAM there is no extended area, and the end of conventional memory is the end of RAM.
    """
    end = BIOS_DATA_GPA + BIOS_DATA_SIZE
    low = next((gpa + size for gpa, size in ram if gpa == 0), 0)
    if low < end or any(segment.gpa < end and segment.end_gpa > BIOS_DATA_GPA for segment in kernel):
        return ()
    data = bytearray(BIOS_DATA_SIZE)
    data[_SERIAL_PORTS : _SERIAL_PORTS + 2] = COM1_PORT.to_bytes(2, "little")
    if low >= LOW_MEMORY_END:
        low = EBDA_GPA
        data[_EBDA_SEGMENT : _EBDA_SEGMENT + 2] = (EBDA_GPA >> 4).to_bytes(2, "little")
    data[_CONVENTIONAL_KIB : _CONVENTIONAL_KIB + 2] = (low >> 10).to_bytes(2, "little")
    flags = SegmentFlags.READ | SegmentFlags.WRITE
    return (ImageSegment(BIOS_DATA_GPA, bytes(data), len(data), flags, "BIOS data area"),)
