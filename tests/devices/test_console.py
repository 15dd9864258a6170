"""Console ends and the two small debug devices."""

from __future__ import annotations

import os
import threading

import pytest

from belljar.devices.bus import Bus
from belljar.devices.console import BytesInput, Capture, FileInput, FileOutput
from belljar.devices.debug_console import DebugConsole
from belljar.devices.debug_exit import DebugExit


def test_capture_keeps_the_first_bytes_and_counts_the_rest() -> None:
    capture = Capture(limit=4)
    for part in (b"ab", b"cde", b"f"):
        capture.write(part)
    assert capture.getvalue() == b"abcd"
    assert capture.dropped == 2


def test_file_output_writes_more_than_a_pipe_holds() -> None:
    reader, writer = os.pipe()
    data = os.urandom(300_000)
    thread = threading.Thread(target=FileOutput(writer).write, args=(data,))
    thread.start()
    received = b""
    while len(received) < len(data):
        received += os.read(reader, 65536)
    thread.join()
    os.close(reader)
    os.close(writer)
    assert received == data


def test_file_output_gives_up_on_a_reader_who_stopped() -> None:
    reader, writer = os.pipe()
    output = FileOutput(writer, give_up=lambda: True)
    output.write(bytes(1 << 20))
    assert 0 < output.dropped < 1 << 20
    os.close(reader)
    os.close(writer)


def test_file_input_never_waits_and_is_silent_at_the_end() -> None:
    reader, writer = os.pipe()
    source = FileInput(reader)
    assert source.read(5) == b""
    os.write(writer, b"hello!")
    assert source.read(5) == b"hello"
    os.close(writer)
    assert source.read(5) == b"!"
    assert source.read(5) == b""
    os.close(reader)
    assert source.read(5) == b""


def test_bytes_input_ends() -> None:
    source = BytesInput(b"abc")
    assert (source.read(2), source.read(2), source.read(2)) == (b"ab", b"c", b"")


def test_debug_console_prints_all_bytes_of_a_wide_write_and_reads_as_its_port() -> None:
    bus, capture = Bus(), Capture()
    bus.attach(DebugConsole(capture))
    bus.port_write(0xE9, 4, int.from_bytes(b"abcd", "little"))
    bus.port_write_block(0xE9, 1, b"ef")
    bus.port_write_block(0xE9, 2, b"ghij")
    assert capture.getvalue() == b"abcdefghij"
    assert bus.port_read(0xE9, 1) == 0xE9


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (0x10, 0x21), (0xFFFFFFFF, 0x1FFFFFFFF)])
def test_debug_exit_status_is_twice_the_value_plus_one(value: int, status: int) -> None:
    statuses: list[int] = []
    bus = Bus()
    bus.attach(DebugExit(statuses.append))
    bus.port_write(0xF4, 4, value)
    assert statuses == [status]
    assert bus.port_read(0xF4, 4) == 0
