"""`belljar run`: what the guest prints is stdout, what belljar says is stderr, how it ended is the status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from belljar.engines import ENGINES
from belljar.errors import EngineUnavailable

from .conftest import Belljar, Guest, start

GREETING = "Hello, world!\n"


@pytest.mark.parametrize("name", ["hello-real", "hello-protected", "hello-compat", "hello-long"])
def test_greeting_is_all_that_a_good_run_says(belljar: Belljar, engine_name: str, name: str) -> None:
    done = belljar("run", name, "--engine", engine_name)
    assert (done.status, done.out, done.err) == (0, GREETING, "")


def test_first_guest_greets_on_stdout_and_says_nothing_else(process: Belljar, kvm: object) -> None:
    done = process("run", "hello-long")
    assert (done.status, done.out, done.err) == (0, GREETING, "")


def test_registers_reach_the_guest(belljar: Belljar, engine_name: str) -> None:
    done = belljar("run", "add", "--reg", "rax=2", "--reg=rbx=0x2", "--engine", engine_name)
    assert (done.status, done.out) == (0, "4\n")


def test_negative_register_is_its_complement(belljar: Belljar, engine_name: str) -> None:
    done = belljar("run", "add", "--reg", "al=4", "--reg", "bl=-1", "--engine", engine_name)
    assert (done.status, done.out) == (0, "3\n")


@pytest.mark.parametrize(("value", "status"), [("00", 1), ("03", 7), ("7f", 255), ("ff", 255), ("80", 1)])
def test_debug_exit_gives_the_status(belljar: Belljar, engine_name: str, guest: Guest, value: str, status: int) -> None:
    done = belljar("run", guest(f"b0 {value} e6 f4"), "--engine", engine_name)  # mov al, value; out 0xf4, al
    assert (done.status, done.err) == (status, "")


def test_time_limit_is_124(belljar: Belljar, engine_name: str) -> None:
    done = belljar("run", "spin", "--timeout", "0.05", "--engine", engine_name)
    assert done.status == 124
    assert "time limit" in done.complaint


def test_triple_fault_is_134(belljar: Belljar, engine_name: str) -> None:
    done = belljar("run", "triple-fault", "--engine", engine_name)
    assert done.status == 134
    assert "triple fault" in done.complaint


def test_instruction_that_kvm_cannot_emulate_is_named(belljar: Belljar, kvm: object, guest: Guest) -> None:
    done = belljar("run", guest("90 0f 58 c1 f4"), "--mode", "long", "--engine", "kvm")  # nop; addps xmm0, xmm1; hlt
    if done.status == 0:
        pytest.skip("this host's KVM executes SSE instructions at CPL0")
    assert done.status == 135
    assert "addps xmm0, xmm1" in done.complaint
    assert "0f 58 c1" in done.complaint


def test_giving_up_suggests_the_engine_that_does_not(
    belljar: Belljar, kvm: object, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.cli.run.ENGINES", {"kvm": "", "soft": ""})
    done = belljar("run", guest("0f 58 c1 f4"), "--mode", "long", "--engine", "kvm")
    if done.status == 0:
        pytest.skip("this host's KVM executes SSE instructions at CPL0")
    assert "--engine soft" in done.complaint


def test_auto_says_what_it_took_when_it_is_not_the_first(
    belljar: Belljar, kvm: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self) -> None:
            raise EngineUnavailable("its moon is down")

    module = ModuleType("broken_engine")
    module.Broken = Broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken_engine", module)
    engines = {"broken": "broken_engine:Broken", "kvm": ENGINES["kvm"]}
    monkeypatch.setattr("belljar.engines.ENGINES", engines)
    monkeypatch.setattr("belljar.machine.select.ENGINES", engines)
    monkeypatch.setattr("belljar.cli.run.ENGINES", engines)
    done = belljar("run", "hello-real")
    assert (done.status, done.out) == (0, GREETING)
    assert done.complaint.startswith("runs on kvm (")
    assert "its moon is down" in done.complaint


def test_output_before_a_crash_is_not_lost(belljar: Belljar, engine_name: str, guest: Guest) -> None:
    # mov ecx, 1000; mov al, 'x'; again: out 0xe9, al; loop again; ud2, without an IDT
    code = guest("b9 e8 03 00 00 b0 78 e6 e9 e2 fc 0f 0b")
    done = belljar("run", code, "--mode", "protected", "--timeout", 20, "--engine", engine_name)
    assert (done.status, done.out) == (134, "x" * 1000)


def test_stdin_is_the_serial_line(process: Belljar, kvm: object, guest: Guest) -> None:
    # again: mov dx, 0x3fd; in al, dx; test al, 1; jz again; mov dx, 0x3f8; in al, dx; out dx, al; cmp al, 10; jne again; hlt
    code = guest("ba fd 03 ec a8 01 74 f8 ba f8 03 ec ee 3c 0a 75 ef f4")
    done = process("run", code, "--timeout", 20, stdin=b"echo\n")
    assert (done.status, done.out) == (0, "echo\n")


@pytest.mark.parametrize("timeout", ["0.001", "1e8"])
def test_unusual_time_limits_are_taken(belljar: Belljar, kvm: object, timeout: str) -> None:
    assert belljar("run", "hello-real", "--timeout", timeout).status in (0, 124)


@pytest.mark.parametrize(
    ("name", "end", "status"), [("triple-fault", "crash", 134), ("spin", "timeout", 124), ("ping-pong", "halt", 0)]
)
def test_report_is_written_however_it_ends(
    belljar: Belljar, engine_name: str, tmp_path: Path, name: str, end: str, status: int
) -> None:
    path = tmp_path / "report.json"
    limit = "20" if name == "ping-pong" else "0.05"
    done = belljar("run", name, "--timeout", limit, "--report", path, "--engine", engine_name)
    report = json.loads(path.read_text())
    assert (done.status, report["status"], report["end"]) == (status, status, end)
    assert len(report["vcpus"]) == (2 if name == "ping-pong" else 1)


def test_ctrl_c_is_130_and_still_reports(tmp_path: Path, kvm: object) -> None:
    report = tmp_path / "report.json"
    code = tmp_path / "spin.bin"
    code.write_bytes(bytes.fromhex("b0 2e e6 e9 eb fe"))  # mov al, '.'; out 0xe9, al; jmp $
    with start("run", code, "--report", report, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == b"."  # now it runs
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert err.decode().splitlines() == ["belljar: interrupted (Ctrl-C)"]
    assert json.loads(report.read_text())["end"] == "stopped"


CHATTER = "b0 2e e6 e9 eb fc"
"""mov al, '.'; again: out 0xe9, al; jmp again."""


def test_reader_that_goes_away_ends_the_run_quietly(guest: Guest, kvm: object) -> None:
    with start("run", guest(CHATTER), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(1) == b"."
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(timeout=30) == 141


def test_slow_reader_does_not_hold_up_the_time_limit(guest: Guest, kvm: object) -> None:
    pipe = subprocess.PIPE
    with start("run", guest(CHATTER), "--timeout", "0.3", stdout=pipe, stderr=pipe, pipesize=4096) as child:
        assert child.wait(timeout=30) == 124  # though nobody reads stdout
        assert child.stderr is not None
        assert "dropped" in child.stderr.read().decode()


needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")


@needs_full
@pytest.mark.parametrize("option", ["--trace", "--report"])
def test_full_disk_is_one_line(belljar: Belljar, kvm: object, option: str) -> None:
    done = belljar("run", "hello-long", option, "/dev/full")
    assert done.status == 125
    assert done.out == GREETING
    assert "No space left on device" in done.complaint


@needs_full
def test_full_stdout_is_one_line(kvm: object) -> None:
    with open("/dev/full", "wb") as full, start("run", "hello-long", stdout=full, stderr=subprocess.PIPE) as child:
        _, err = child.communicate(timeout=30)
    assert child.returncode == 125
    assert err.decode().splitlines() == ["belljar: stdout: cannot write it: No space left on device"]


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_closed_standard_files_harm_nobody(fd: int, tmp_path: Path, kvm: object) -> None:
    report = tmp_path / "report.json"
    with start(
        "run", "hello-long", "--report", report, stdout=subprocess.DEVNULL, before=lambda: os.close(fd)
    ) as child:
        assert child.wait(timeout=30) == 0
    assert json.loads(report.read_text())["end"] == "halt"


def test_run_leaves_nothing_behind(belljar: Belljar, kvm: object, leaves_nothing: None) -> None:
    for arguments in (["hello-long"], ["triple-fault"], ["nosuch"], ["hello-long", "--memory", "1"], ["ping-pong"]):
        belljar("run", *arguments)


def test_test_device_is_there_when_asked_for(belljar: Belljar, guest: Guest, engine_name: str) -> None:
    code = guest("b02a e6e0 e4e8 e6f4 f4")  # mov al, 42; out 0xe0, al; in al, 0xe8; out 0xf4, al; hlt
    assert belljar("run", code, "--engine", engine_name, "--test-device").status == 42 << 1 | 1
    assert belljar("run", code, "--engine", engine_name).status == 0xFF << 1 & 0xFF | 1


def test_soft_says_whose_chips_serve(belljar: Belljar) -> None:
    done = belljar("run", "tick", "--engine", "soft", "--irqchip", "kernel")
    assert (done.status, done.out) == (0, "ttt\n")
    assert "belljar's own serve --irqchip kernel" in done.err


def test_reset_is_an_end_of_the_guests_own_will(belljar: Belljar, guest: Guest) -> None:
    code = guest("b0fe e664 ebfe")  # mov al, 0xfe; out 0x64, al; jmp $
    assert (belljar("run", code, "--engine", "soft").status, belljar("run", code, "--engine", "soft").err) == (0, "")
