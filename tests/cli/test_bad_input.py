"""Whatever is wrong with a command line or a guest file: status 125, one line on stderr, nothing on stdout, no traceback."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from belljar.kvm.engine import KvmEngine

from .conftest import Belljar

HLT = b"\xf4"


def elf(
    *,
    machine: int = 62,
    entry: int = 0x1000,
    segments: tuple[tuple[int, int, int], ...] = ((0x1000, 1, 1),),
    kind: int = 2,
) -> bytes:
    """An ELF64 file (System V gABI 4.1); `segments` are (address, bytes in the file, bytes in memory)."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, entry, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
    offset = 64 + 56 * len(segments)
    table, data = b"", b""
    for address, file_size, memory_size in segments:
        table += struct.pack("<IIQQQQQQ", 1, 7, offset + len(data), address, address, file_size, memory_size, 4096)
        data += HLT * min(file_size, 1 << 16)
    return header + table + data


BAD_FILES = {
    "empty": b"",
    "truncated ELF header": elf()[:40],
    "truncated ELF segment": elf(segments=((0x1000, 100, 100),))[:-1],
    "ELF for ARM": elf(machine=183),
    "ELF without segments": elf(segments=()),
    "ELF relocatable object": elf(kind=1),
    "overlapping segments": elf(segments=((0x1000, 32, 32), (0x1010, 32, 32))),
    "entry outside memory": elf(entry=0xFFFF_0000_0000),
    "entry outside every segment": elf(entry=0x9000),
    "segment beyond memory": elf(entry=0x4000_0000, segments=((0x4000_0000, 1, 1),)),
    "segment that wraps": elf(entry=0xFFFF_FFFF_FFFF_F000, segments=((0xFFFF_FFFF_FFFF_F000, 1, 0x2000),)),
    "segment larger than memory": elf(segments=((0x1000, 1, 1 << 40),)),
    "larger than memory": HLT * ((1 << 20) + 1),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_bad_guest_file_is_one_line_and_125(belljar: Belljar, tmp_path: Path, what: str) -> None:
    path = tmp_path / "guest"
    path.write_bytes(BAD_FILES[what])
    done = belljar("run", path, "--memory", "1M", "--timeout", 5)
    assert (done.status, done.out) == (125, ""), what
    assert done.complaint


def make_directory(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [make_directory, os.mkfifo, make_loop, make_dangling, make_nothing])
def test_guest_that_is_no_file(belljar: Belljar, tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "guest"
    make(path)
    done = belljar("run", path, "--timeout", 5)
    assert (done.status, done.out) == (125, "")
    assert done.complaint


@pytest.mark.parametrize(
    "name", ["", ".", "/", "nosuch", "hello-lnog", "x" * 5000, "a\nb", "\x1b[31m", "\udcff", "a\0b", "/dev/null"]
)
def test_guest_names_that_cannot_be(belljar: Belljar, name: str) -> None:
    done = belljar("run", name, "--timeout", 5)
    assert (done.status, done.out) == (125, "")
    assert done.complaint.isprintable()


def test_misspelt_sample_gets_a_hint(belljar: Belljar) -> None:
    assert "hello-long" in belljar("run", "hello-lnog").complaint


@pytest.mark.parametrize(
    "options",
    [
        ["--engine", "nosuch"],
        ["--mode", "nosuch"],
        ["--mode", "long"],
        ["--mode=real", "--page-size=2M"],
        ["--page-size", "8K"],
        ["--page-size", "4M"],
        ["--cpl", "1"],
        ["--cpl", "3"],
        ["--memory", "0"],
        ["--memory", "1"],
        ["--memory", "4097"],
        ["--memory", "-1"],
        ["--memory", "1X"],
        ["--memory", ""],
        ["--memory", "9999999999G"],
        ["--memory", "9" * 5000],
        ["--cpus", "0"],
        ["--cpus", "-3"],
        ["--cpus", "100000"],
        ["--cpus", "two"],
        ["--pin", "one"],
        ["--pin", "-1"],
        ["--pin", "0,"],
        ["--pin", "0,0"],  # for one vCPU
        ["--pin", "8191"],
        ["--pin", "9" * 30],
        ["--load", "0x1000"],
        ["--entry", "0x1000"],
        ["--reg", "rax"],
        ["--reg", "=1"],
        ["--reg", "rax="],
        ["--reg", "nosuch=1"],
        ["--reg", "rax=1.5"],
        ["--reg", "rax=0x1ffffffffffffffff"],
        ["--reg", "al=256"],
        ["--reg", "ax=-40000"],
        ["--reg", "rax=" + "9" * 5000],
        ["--timeout", "0"],
        ["--timeout", "-1"],
        ["--timeout", "nan"],
        ["--timeout", "inf"],
        ["--timeout", "1e400"],
        ["--timeout", "soon"],
        ["--instructions", "0"],
        ["--instructions", "-1"],
        ["--nosuch"],
        ["--report"],
        ["second-guest"],
        ["--"],
    ],
)  # fmt: skip
def test_bad_options_are_one_line_and_125(belljar: Belljar, options: list[str]) -> None:
    done = belljar("run", "hello-real", *options)
    if options == ["--"]:
        assert done.status == 0  # the end of options, and nothing behind it
        return
    assert (done.status, done.out) == (125, "")
    assert done.complaint


@pytest.mark.parametrize(
    "options",
    [
        ["--load", "0x100000"],  # beyond memory
        ["--load", "0xfffffffffffffff8"],  # wraps
        ["--load", "0x10000000000000000"],
        ["--load", "-1"],
        ["--entry", "0xffffffffffffffff"],
        ["--mode", "long", "--entry", "0x800000000000"],  # not canonical
        ["--mode", "protected", "--entry", "0x100000000"],
        ["--mode", "real", "--entry", "0x200000"],
        ["--mode", "long", "--load", "0xff000"],  # where the page tables are
        ["--mode", "paged", "--page-size", "1G"],
        ["--mode", "real", "--cpl", "3"],
    ],
)
def test_impossible_places_and_modes(belljar: Belljar, tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "guest"
    path.write_bytes(HLT * 64)
    done = belljar("run", path, "--memory", "1M", "--timeout", 5, *options)
    assert (done.status, done.out) == (125, "")
    assert done.complaint


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["run"],
        ["walk", "hello-real"],
        ["walk", "hello-real", "x"],
        ["walk", "hello-real", "-1"],
        ["walk", "hello-real", "0x10000000000000000"],
        ["walk", "hello-real", "0", "--vcpu", "1"],
        ["walk", "nosuch", "0"],
        ["explain"],
        ["explain", "nosuch"],
        ["explain", "hello-real", "--limit", "-1"],
        ["explain", "hello-real", "--limit", "99999999999"],
        ["explain", "hello-real", "--html", "/nosuch/file"],
        ["samples", "--show", "nosuch"],
        ["samples", "extra"],
        ["doctor", "extra"],
        ["--nosuch"],
        [""],
    ],
)
def test_other_commands_complain_in_one_line_too(belljar: Belljar, arguments: list[str]) -> None:
    done = belljar(*arguments)
    assert (done.status, done.out) == (125, "")
    assert done.complaint


def test_process_complains_like_the_function(process: Belljar) -> None:
    done = process("run", "hello-real", "--memory", "1")
    assert (done.status, done.out) == (125, "")
    assert done.complaint


def test_missing_kvm_says_what_to_do(belljar: Belljar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KvmEngine.__init__, "__defaults__", ("/dev/nosuch-kvm",))
    done = belljar("run", "hello-real", "--engine", "kvm")
    assert done.status == 125
    assert "there is no /dev/nosuch-kvm (" in done.complaint
