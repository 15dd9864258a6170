"""Raw code: loading, placing, and every way in which a file can be no guest."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.boot import FORMATS, load, load_bytes
from belljar.boot.raw import DEFAULT_LOAD_GPA
from belljar.errors import BelljarError, ConfigurationError, LoadError
from belljar.memory import GuestMemory

PAGE = 4096


def assert_one_line(error: BelljarError) -> None:
    assert error.hint
    assert "\n" not in str(error)


def test_raw_code_lies_at_0x1000_and_starts_there(tmp_path):
    path = tmp_path / "guest.bin"
    path.write_bytes(b"\xf4")
    image = load(path)
    assert (image.format, image.entry_gva, image.mode, image.bits) == ("raw", 0x1000, "real", 16)
    assert [(s.gpa, s.data, s.memory_size) for s in image.segments] == [(DEFAULT_LOAD_GPA, b"\xf4", 1)]
    assert image.name == str(path)


def test_load_address_and_entry_can_be_chosen():
    image = load_bytes(b"\x90\x90\xf4", load_gpa=0x7C00, entry_gva=0x7C02)
    assert image.segments[0].gpa == 0x7C00
    assert image.entry_gva == 0x7C02
    assert load_bytes(b"\xf4", load_gpa=0).entry_gva == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entry_gva": 0xFFF}, "the entry 0xfff lies outside"),
        ({"entry_gva": 0x1003}, "the entry 0x1003 lies outside"),
        ({"load_gpa": 0x7C00, "entry_gva": 0x1000}, "the entry 0x1000 lies outside"),
        ({"load_gpa": (1 << 64) - 2}, "wrap past the end"),
        ({"memory_size": 2}, "3 bytes are more than the 0x2"),
    ],
)
def test_raw_code_that_cannot_be_there_is_refused(options, message):
    with pytest.raises(LoadError, match=message) as caught:
        load_bytes(b"\x90\x90\xf4", "guest.bin", **options)
    assert "guest.bin: " in caught.value.message
    assert_one_line(caught.value)


@pytest.mark.parametrize("options", [{"load_gpa": -1}, {"load_gpa": 1 << 64}, {"entry_gva": -1}, {"format": "exe"}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigurationError) as caught:
        load_bytes(b"\xf4", **options)
    assert_one_line(caught.value)


def test_image_that_does_not_fit_is_refused_before_anything_is_written():
    with GuestMemory() as memory:
        memory.add(0, 2 * PAGE)
        load_bytes(b"\xf4" * PAGE).place(memory)
        for options in ({"load_gpa": PAGE + 1}, {"load_gpa": 1 << 40}):
            image = load_bytes(b"\xcc" * PAGE, "big.bin", **options)
            with pytest.raises(LoadError, match=r"big\.bin: .* guest memory is 0x0\.\.0x1fff") as caught:
                image.place(memory)
            assert_one_line(caught.value)
        assert b"\xcc" not in memory.read(0, 2 * PAGE)
    with GuestMemory() as memory, pytest.raises(LoadError, match="nowhere"):
        load_bytes(b"\xf4").place(memory)


def test_image_goes_into_read_only_memory_too():
    with GuestMemory() as memory:
        memory.add(0xF0000, 16 * PAGE, readonly=True, name="bios")
        load_bytes(b"\xf4", load_gpa=0xF0000).place(memory)
        assert memory.read_u8(0xF0000) == 0xF4


@given(code=st.binary(min_size=1, max_size=64), load_gpa=st.integers(0, 2 * PAGE) | st.integers(0, (1 << 64) - 1))
def test_any_bytes_at_any_address_are_placed_whole_or_refused(code, load_gpa):
    with GuestMemory() as memory:
        memory.add(0, 2 * PAGE)
        try:
            load_bytes(code, load_gpa=load_gpa, format="raw").place(memory)
        except LoadError as error:
            assert_one_line(error)
            assert load_gpa + len(code) > 2 * PAGE
        else:
            assert memory.read(load_gpa, len(code)) == code


# -- files that are no guests ------------------------------------------------------------------------------------------


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def make_loop(path):
    path.symlink_to(path)


KINDS = {
    "missing": (lambda path: None, "No such file"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "directory": (lambda path: path.mkdir(), "a directory"),
    "fifo": (make_fifo, "a FIFO"),
    "socket": (make_socket, "a socket"),
    "loop": (make_loop, "symbolic links"),
    "zero": (lambda path: path.symlink_to("/dev/zero"), "a character device"),
    "terminal": (lambda path: path.symlink_to("/dev/tty"), "a character device"),
    "gap": (lambda path: path.write_bytes(b"") or os.truncate(path, 2 << 30), "0x80000000 bytes are more"),
    "huge": (lambda path: path.write_bytes(b"") or os.truncate(path, 1 << 42), "0x40000000000 bytes are more"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(20)
def test_file_that_is_no_guest_is_refused_at_once(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make, message = KINDS[kind]
    path = tmp_path / kind
    make(path.relative_to(tmp_path) if kind == "socket" else path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LoadError, match=message) as caught:
        load(path)
    assert_one_line(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before


def test_unreadable_file_is_refused(tmp_path):
    path = tmp_path / "secret.bin"
    path.write_bytes(b"\xf4")
    path.chmod(0)
    if os.geteuid() == 0:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                tmp_path.chmod(0o755)
                os.chdir(tmp_path)
                os.setuid(65534)
                load("secret.bin")
            except LoadError as error:
                status = 0 if "Permission denied" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return
    with pytest.raises(LoadError, match="Permission denied"):
        load(path)


@pytest.mark.parametrize("name", ["a\0b", "", "x" * 5000, "two\nlines", "\udcff"])
def test_impossible_names_are_refused_in_one_line(name):
    with pytest.raises(LoadError) as caught:
        load(name)
    assert_one_line(caught.value)
    str(caught.value).encode()


def test_file_that_becomes_shorter_while_it_is_read(tmp_path):
    from belljar.boot.source import open_file

    path = tmp_path / "shrinks"
    path.write_bytes(b"\xf4" * 100)
    with open_file(path) as source:
        os.truncate(path, 10)
        with pytest.raises(LoadError, match="became shorter"):
            source.read(0, source.size)


def test_formats_are_named():
    assert FORMATS == ("multiboot2", "multiboot1", "elf", "raw")
