"""What multiboot kernels find at 0x400."""

from __future__ import annotations

import struct

from belljar.boot.bios_data import bios_data
from belljar.boot.image import ImageSegment

MIB = 1 << 20


def words_of(ram: int) -> tuple[int, int, int]:
    (area,) = bios_data([(0, ram)], [])
    assert (area.gpa, len(area.data), area.memory_size) == (0x400, 0x100, 0x100)
    return (
        struct.unpack_from("<H", area.data, 0x00)[0],
        struct.unpack_from("<H", area.data, 0x0E)[0],
        struct.unpack_from("<H", area.data, 0x13)[0],
    )


def test_area_names_serial_port_and_end_of_conventional_memory() -> None:
    assert words_of(16 * MIB) == (0x3F8, 0x9FC0, 639)


def test_small_machine_has_no_extended_area() -> None:
    assert words_of(256 << 10) == (0x3F8, 0, 256)


def test_kernel_that_lies_there_keeps_its_bytes() -> None:
    assert bios_data([(0, MIB)], [ImageSegment(0x4FF, b"x", 1)]) == ()
    assert bios_data([(0, MIB)], [ImageSegment(0x500, b"x", 1)])


def test_no_memory_no_area() -> None:
    assert bios_data([(MIB, MIB)], []) == ()
    assert bios_data([(0, 0x4FF)], []) == ()
