"""`--trace` and `--report`: what they hold, and where they go."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from .conftest import Belljar, Guest

GREETING = "Hello, world!\n"


def test_trace_to_stderr_has_a_line_for_every_exit(belljar: Belljar, engine_name: str) -> None:
    done = belljar("run", "hello-real", "--trace", "--engine", engine_name)
    lines = done.err.splitlines()
    assert done.out == GREETING
    assert len(lines) == len(GREETING) + 1
    for number, (line, letter) in enumerate(zip(lines, GREETING, strict=False), 1):
        start = rf" *{number} vcpu0 rip=0x[0-9a-f]+ io write port=0xe9 size=1 value={ord(letter):#x}"
        assert re.fullmatch(start + ("" if letter == "\n" else f" {re.escape(repr(letter))}"), line), line
    assert re.fullmatch(r" *15 vcpu0 rip=0x[0-9a-f]+ hlt", lines[-1])


def test_trace_of_a_long_output_misses_nothing(
    belljar: Belljar, engine_name: str, guest: Guest, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    code = guest("b9 d0 07 b0 78 e6 e9 e2 fc f4")  # mov cx, 2000; mov al, 'x'; again: out 0xe9, al; loop again; hlt
    done = belljar("run", code, f"--trace={trace}", "--engine", engine_name)
    assert (done.status, done.out, done.err) == (0, "x" * 2000, "")
    assert len(trace.read_text().splitlines()) == 2001


def test_trace_shows_memory_accesses(belljar: Belljar, engine_name: str) -> None:
    done = belljar("run", "mmio", "--trace", "--engine", engine_name)
    assert "mmio write gpa=0xfedf0000 size=1 value=0x11" in done.err
    assert "mmio read gpa=0xfedf0018 size=8 value=0xffffffffffffffff" in done.err


def test_trace_of_two_vcpus_numbers_every_exit_once(belljar: Belljar, engine_name: str) -> None:
    done = belljar("run", "ping-pong", "--trace", "--engine", engine_name)
    numbers = [int(line.split()[0]) for line in done.err.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {line.split()[1] for line in done.err.splitlines()} == {"vcpu0", "vcpu1"}


def test_trace_without_a_value_may_stand_before_the_guest(belljar: Belljar, kvm: object) -> None:
    done = belljar("run", "--trace", "hello-real")
    assert (done.status, done.out) == (0, GREETING)
    assert len(done.err.splitlines()) == 15


def test_report_says_what_happened(belljar: Belljar, engine_name: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = belljar("run", "hello-long", "--report", path, "--memory", "8M", "--engine", engine_name)
    report = json.loads(path.read_text())
    assert done.status == 0
    assert report["engine"] == engine_name
    assert (report["end"], report["status"]) == ("halt", 0)
    assert report["exits"] == {"io": len(GREETING), "hlt": 1}
    assert [vcpu["registers"]["rax"] for vcpu in report["vcpus"]] == [42]
    assert report["memory"]["size"] == 8 << 20
    assert sum(region["size"] for region in report["memory"]["regions"]) == 8 << 20
    assert report["timings"]["create_ns"] > 0
    assert report["timings"]["run_ns"] > 0


def test_report_of_a_debug_exit_keeps_the_guests_own_status(belljar: Belljar, kvm: object, guest: Guest) -> None:
    done = belljar("run", guest("66 b8 00 01 00 00 66 e7 f4"), "--report", "-")  # mov eax, 0x100; out 0xf4, eax
    report = json.loads(done.out)
    assert (report["end"], report["guest_status"], report["status"]) == ("debug-exit", 0x201, 1)
    assert done.status == 1


def test_report_replaces_a_longer_file(belljar: Belljar, kvm: object, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("x" * 100_000)
    assert belljar("run", "hello-long", "--report", path).status == 0
    assert json.loads(path.read_text())["end"] == "halt"


def test_failed_start_leaves_old_files_alone_and_makes_no_new_ones(belljar: Belljar, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("keep")
    assert belljar("run", "nosuch", "--report", old, "--trace", new).status == 125
    assert old.read_text() == "keep"
    assert not new.exists()


@pytest.mark.parametrize("option", ["--trace", "--report"])
@pytest.mark.parametrize("place", ["/", "/nosuch/file", "", "\0", "x" * 300, "/dev/null/x"])
def test_file_that_cannot_be_written_is_refused_before_the_guest_runs(
    belljar: Belljar, option: str, place: str
) -> None:
    done = belljar("run", "hello-real", f"{option}={place}")
    assert (done.status, done.out) == (125, "")
    assert "cannot write it" in done.complaint


@pytest.mark.parametrize("option", ["--trace", "--report"])
def test_fifo_that_nobody_reads_is_refused_instead_of_waited_for(belljar: Belljar, tmp_path: Path, option: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = belljar("run", "hello-real", option, fifo)
    assert done.status == 125
    assert "nobody reads" in done.complaint


def test_trace_and_report_in_one_file_are_refused(belljar: Belljar, tmp_path: Path) -> None:
    path = tmp_path / "both"
    path.write_text("keep")
    done = belljar("run", "hello-real", "--trace", path, "--report", path)
    assert done.status == 125
    assert "same file" in done.complaint
    assert path.read_text() == "keep"


def test_trace_insn_goes_to_stderr_or_a_file_and_is_the_same_twice(belljar: Belljar, tmp_path: Path) -> None:
    done = belljar("run", "hello-real", "--engine", "soft", "--trace", "insn")
    assert done.status == 0
    lines = done.err.splitlines()
    assert "mov al, [si]" in lines[1]
    trace = tmp_path / "trace"
    assert belljar("run", "hello-real", "--engine", "soft", f"--trace=insn:{trace}").status == 0
    assert trace.read_text().splitlines() == lines


def test_report_as_text_goes_to_stderr_or_a_file(belljar: Belljar, engine_name: str, tmp_path: Path) -> None:
    path = tmp_path / "report"
    done = belljar("run", "hello-long", "--engine", engine_name, "--report", "text")
    assert (done.status, done.out) == (0, GREETING)
    assert f"hello-long on {engine_name}, mode long: halt, the guest halted (status 0)" in done.err
    assert belljar("run", "hello-long", "--engine", engine_name, "--report", f"text:{path}").err == ""
    assert path.read_text().splitlines()[3:] == done.err.splitlines()[3:], "but for the times"
    assert GREETING in belljar("run", "hello-long", "--engine", engine_name, "--report", "text:-").out


def test_trace_of_kinds_goes_to_stderr_or_a_file(belljar: Belljar, engine_name: str, tmp_path: Path) -> None:
    done = belljar("run", "hello-real", "--engine", engine_name, "--trace", "io,mmio")
    lines = done.err.splitlines()
    assert (done.status, done.out, len(lines)) == (0, GREETING, len(GREETING))
    assert re.fullmatch(
        r" +1 \[\d\.\d{9}\] vcpu0 io    write port=0xe9 size=1 value=0x48 'H' \(debug console\)", lines[0]
    )
    path = tmp_path / "trace"
    assert belljar("run", "hello-real", "--engine", engine_name, f"--trace=io,mmio:{path}").err == ""
    assert len(path.read_text().splitlines()) == len(GREETING)


def test_trace_of_kinds_is_the_same_twice_on_soft(belljar: Belljar) -> None:
    everything = "irq,timer,io,mmio,msr,cpuid,exit,insn"
    one, other = (
        belljar("run", "tick", "--engine", "soft", "--irqchip", "user", "--trace", everything) for _ in range(2)
    )
    assert (one.status, one.out) == (0, "ttt\n")
    assert one.err == other.err
    assert len(one.err.splitlines()) > 60


def test_trace_says_what_it_cannot_show(belljar: Belljar, kvm: object) -> None:
    done = belljar("run", "hello-long", "--engine", "kvm", "--trace", "cpuid")
    assert (done.status, done.out) == (125, "")
    assert "nothing to trace: cpuid: kvm answers it without telling anybody" in done.complaint
    done = belljar("run", "hello-long", "--engine", "kvm", "--trace", "cpuid,io")
    assert (done.status, done.out) == (0, GREETING)
    assert (
        done.err.splitlines()[0]
        == "belljar: trace of cpuid: kvm answers it without telling anybody, and has no exit for it"
    )


def test_trace_of_a_kind_that_is_none_is_refused(belljar: Belljar, tmp_path: Path) -> None:
    done = belljar("run", "hello-real", "--trace", "io,irqs")
    assert (done.status, done.out) == (125, "")
    assert "irqs is nothing that can be traced" in done.complaint
    assert "./io,irqs" in done.complaint
