"""samples, walk, explain, doctor, help, version, completion: that each does its job from a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from belljar import samples
from belljar.cli.main import COMMANDS
from belljar.engines import open_engine
from belljar.observe.probes import speed_probe

from .conftest import SOURCE, Belljar


def test_samples_lists_all(process: Belljar) -> None:
    done = process("samples")
    assert (done.status, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()] == list(samples.NAMES)


@pytest.mark.parametrize("name", samples.NAMES)
def test_listing_shows_every_line(belljar: Belljar, name: str) -> None:
    done = belljar("samples", "--show", name)
    assert done.status == 0
    for line in samples.get(name).listing:
        assert line.text in done.out
        assert line.why in done.out


def test_walk_shows_the_way(process: Belljar, kvm: object) -> None:
    done = process("walk", "hello-long", "0x1000")
    assert done.status == 0
    assert re.search(r"^  PML4 .* -> table 0x", done.out, re.MULTILINE)
    assert re.search(r"^gpa 0x1000, in a 2M page", done.out, re.MULTILINE)
    assert "KVM_TRANSLATE: gpa 0x1000, which agrees" in done.out


def test_walk_of_an_unmapped_address_is_1(belljar: Belljar, kvm: object) -> None:
    done = belljar("walk", "hello-long", "0x700000000000")
    assert done.status == 1
    assert "not mapped: PML4E" in done.out
    assert "which agrees" in done.out


def test_walk_after_exits_sees_what_the_guest_did(belljar: Belljar, kvm: object) -> None:
    before = json.loads(belljar("walk", "hello-long", "0x1000", "--json").out)
    after = json.loads(belljar("walk", "hello-long", "0x1000", "--json", "--after", "3").out)
    assert (before["exits_before"], after["exits_before"]) == (0, 3)
    assert after["mapped"]
    assert after["agrees"]


def test_walk_after_more_exits_than_there_are_says_so(belljar: Belljar, kvm: object) -> None:
    done = belljar("walk", "hello-real", "0x1000", "--after", "99")
    assert done.status == 0
    assert "only 15 of 99 exits happened" in done.complaint


def test_explain_text_is_readable_in_a_pipe(process: Belljar, kvm: object) -> None:
    done = process("explain", "hello-long")
    assert (done.status, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert "Console: 14 bytes took 14 exits" in done.out
    assert "KVM_SET_REGS: rip=0x1000" in done.out


@pytest.mark.parametrize("name", ["hello-real", "fault", "triple-fault", "ping-pong", "mmio"])
def test_explain_html_is_self_contained(belljar: Belljar, kvm: object, tmp_path: Path, name: str) -> None:
    page = tmp_path / "page.html"
    done = belljar("explain", name, "--html", page)
    assert (done.status, done.out, done.err) == (0, "", "")
    text = page.read_text()
    assert "<svg" in text
    assert not re.search(r"https?://|src=|@import|url\((?!#)", text)


def test_doctor_knows_what_runs_here(process: Belljar, kvm: object) -> None:
    done = process("doctor", "--json")
    assert (done.status, done.err) == (0, "")
    health = json.loads(done.out)
    engine = next(engine for engine in health["engines"] if engine["name"] == "kvm")
    assert engine["available"]
    assert engine["facts"]["api_version"] == 12
    assert engine["facts"]["capabilities"]["KVM_CAP_USER_MEMORY"]
    works = {(mode["mode"], mode["cpl"]) for mode in engine["modes"] if mode["works"]}
    assert ("real", 0) in works
    assert all(mode["why_not"] for mode in engine["modes"] if not mode["works"])
    assert engine["speeds"][0]["per_second"] > 100_000


def test_doctor_in_words(belljar: Belljar, kvm: object) -> None:
    done = belljar("doctor")
    assert done.status == 0
    assert "engine kvm: available" in done.out
    assert re.search(r"CPL0 code: (native|emulated), [0-9.]+ million instructions/s", done.out)
    features = done.out.partition("features, each tried\n")[2].partition("  instructions at")[0].splitlines()
    assert len({line.index(" yes" if " yes" in line else " no ") for line in features}) == 1, "one column"


def test_doctor_does_not_take_a_processor_in_software_for_a_real_one() -> None:
    with closing(open_engine("soft")) as engine:
        assert speed_probe(engine, 0).native is False


def test_bare_belljar_is_help(process: Belljar) -> None:
    done = process()
    assert (done.status, done.err) == (0, "")
    assert all(name in done.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples(belljar: Belljar, name: str) -> None:
    done = belljar(name, "--help")
    assert (done.status, done.err) == (0, "")
    assert f"belljar {name}" in done.out
    assert "Examples:" in done.out
    if name == "run":
        assert all(status in done.out for status in ("124", "125", "130", "134", "135"))


def test_version_is_one_line_on_stdout(process: Belljar) -> None:
    done = process("--version")
    assert (done.status, done.out) == (0, "belljar 0.1.0\n")


@pytest.mark.parametrize(("words", "wanted"), [("belljar r", "run"), ("belljar run hello-l", "hello-long")])
def test_shell_completes_commands_and_samples(words: str, wanted: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "_BELLJAR_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    command = [sys.executable, "-c", "from belljar.cli.main import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert f"plain,{wanted}" in done.stdout.splitlines()


def test_explain_what_interrupts_tells_only_of_them(belljar: Belljar) -> None:
    done = belljar("explain", "tick", "--engine", "soft", "--irqchip", "user", "--what", "interrupts")
    assert done.status == 0
    assert done.out.startswith("Interrupts at the start, chips: user\n")
    assert "Where lines lead" in done.out
    assert "Guest memory" not in done.out
    done = belljar("explain", "tick", "--engine", "soft", "--irqchip", "user", "--what", "interrupts", "--json")
    assert json.loads(done.out)["interrupts"]["chips"] == "user"
    assert list(json.loads(done.out)) == ["interrupts"]
    assert belljar("explain", "tick", "--what", "nothing").status == 125
