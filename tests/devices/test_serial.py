"""The 16550A as a driver sees it, register by register (PC16550D data sheet)."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from belljar.devices.bus import Bus
from belljar.devices.console import BytesInput, Capture
from belljar.devices.serial import FCR_ENABLE, FIFO_SIZE, LCR_DLAB, MCR_LOOPBACK, Serial

BASE = 0x3F8


def uart(data: bytes = b"") -> tuple[Bus, Capture, list[bool]]:
    bus, capture, line = Bus(), Capture(), []
    bus.attach(Serial(capture, BytesInput(data), line=line.append))
    return bus, capture, line


def test_transmitted_bytes_come_out_in_order() -> None:
    bus, capture, _ = uart()
    for byte in b"abc":
        assert bus.port_read(BASE + 5, 1) & 0x60 == 0x60
        bus.port_write(BASE, 1, byte)
    bus.port_write_block(BASE, 1, b"def")
    assert capture.getvalue() == b"abcdef"


def test_received_bytes_are_announced_and_read_once() -> None:
    bus, _, _ = uart(b"xy")
    received = b""
    while bus.port_read(BASE + 5, 1) & 1:
        received += bytes([bus.port_read(BASE, 1)])
    assert received == b"xy"
    assert bus.port_read(BASE, 1) == 0


def test_divisor_latch_hides_data_and_interrupt_enable() -> None:
    bus, capture, _ = uart()
    bus.port_write(BASE + 1, 1, 0x05)
    bus.port_write(BASE + 3, 1, LCR_DLAB | 3)
    bus.port_write_block(BASE, 1, b"\x0c")
    bus.port_write(BASE + 1, 1, 0x01)
    assert (bus.port_read(BASE, 1), bus.port_read(BASE + 1, 1)) == (0x0C, 0x01)
    bus.port_write(BASE + 3, 1, 3)
    assert bus.port_read(BASE + 1, 1) == 0x05
    assert capture.getvalue() == b""


def test_transmitter_interrupt_rises_when_enabled_and_falls_when_identified() -> None:
    bus, _, line = uart()
    bus.port_write(BASE + 1, 1, 0x02)
    assert line == [True]
    assert bus.port_read(BASE + 2, 1) & 0x0F == 0x02
    assert line == [True, False]
    bus.port_write(BASE, 1, 0x41)
    assert line == [True, False, True]


def test_data_interrupt_stays_until_the_data_is_read() -> None:
    bus, _, line = uart(b"z")
    bus.port_write(BASE + 1, 1, 0x01)
    assert bus.port_read(BASE + 2, 1) & 0x0F == 0x04
    assert line == [True]
    assert bus.port_read(BASE, 1) == ord("z")
    assert line == [True, False]


def test_loopback_returns_what_is_sent_and_prints_nothing() -> None:
    bus, capture, _ = uart(b"host")
    bus.port_write(BASE + 4, 1, MCR_LOOPBACK | 0x0F)
    bus.port_write(BASE, 1, 0x55)
    assert bus.port_read(BASE + 5, 1) & 1
    assert bus.port_read(BASE, 1) == 0x55
    assert bus.port_read(BASE + 6, 1) & 0xF0 == 0xF0
    assert capture.getvalue() == b""


def test_overrun_is_reported_once_and_the_fifo_keeps_the_oldest() -> None:
    bus, _, _ = uart()
    bus.port_write(BASE + 2, 1, FCR_ENABLE)
    bus.port_write(BASE + 4, 1, MCR_LOOPBACK)
    for value in range(FIFO_SIZE + 1):
        bus.port_write(BASE, 1, value)
    assert bus.port_read(BASE + 5, 1) & 0x03 == 0x03
    assert bus.port_read(BASE + 5, 1) & 0x02 == 0
    assert [bus.port_read(BASE, 1) for _ in range(FIFO_SIZE)] == list(range(FIFO_SIZE))


def test_fifo_bits_tell_a_16550a() -> None:
    bus, _, _ = uart()
    assert bus.port_read(BASE + 2, 1) & 0xC0 == 0
    bus.port_write(BASE + 2, 1, 0xC7)
    assert bus.port_read(BASE + 2, 1) & 0xC0 == 0xC0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.sampled_from([1, 2, 4]), st.integers(0, 0xFFFFFFFF))))
def test_no_sequence_of_accesses_raises(accesses: list[tuple[bool, int, int, int]]) -> None:
    bus, _, line = uart(b"some input")
    for write, register, size, value in accesses:
        if write:
            bus.port_write(BASE + register, size, value & ((1 << 8 * size) - 1))
        else:
            assert 0 <= bus.port_read(BASE + register, size) < 1 << 8 * size
    assert all(a != b for a, b in itertools.pairwise(line))
