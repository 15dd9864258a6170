"""What chips do together on every engine, and on an emulator that shares no code with ours: the same program, the same lines.

The programs' expectations are the manuals'; where the emulator prints something else, its scenario says in what it departs.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.chips import chips
from oracles import (
    chip_scenarios_clocks,
    chip_scenarios_cpus,
    chip_scenarios_injection,
    chip_scenarios_registers,
    on_qemu,
)
from oracles.chip_noise import PROGRAMS, normal, write_noise
from oracles.chip_scenarios import SCENARIOS, us, write_all
from oracles.scripts import place, run_on_machine

__all__ = [
    "chip_scenarios_clocks", "chip_scenarios_cpus", "chip_scenarios_injection", "chip_scenarios_registers", "chips",
]  # fmt: skip

IDLE_TIME_US = {"soft": 100, "kvm": 10_000}
"""How long a CPU is given to come to rest: vCPUs of soft take turns, others wait for a busy host."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scripts")


def found(lines: list[str], steps: range) -> str:
    """What a scenario's steps printed."""
    numbered = (re.match(r"([0-9a-f]+)([=!].*)", line) for line in lines)
    return " ".join(match[2] for match in numbered if match and int(match[1], 16) in steps)


def differences(lines: list[str], steps: dict[str, range], cpus: int) -> dict[str, str]:
    """The scenarios that printed something else than they should, and what."""
    told = {name: found(lines, where) for name, where in steps.items()}
    return {name: text for name, text in told.items() if text != SCENARIOS[cpus][name].expected}


@pytest.mark.parametrize("cpus", sorted(SCENARIOS))
def test_every_engine_finds_what_the_manuals_say(chips: dict[str, object], built: Path, cpus: int) -> None:
    options = {key: value for key, value in chips.items() if key != "mode"}
    engine = options["engine"].name  # type: ignore[attr-defined]
    script, steps = write_all(cpus, us(IDLE_TIME_US[engine]), kernel=chips["irqchip"] != "user", exact=engine == "soft")
    path = place(script, built, f"{engine}-{chips['irqchip']}-{cpus}")
    lines = run_on_machine(path, script, **options)
    assert (differences(lines, steps, cpus), lines[-1]) == ({}, ".")


@pytest.fixture(scope="module")
def qemu() -> None:
    if on_qemu.missing():
        pytest.skip(on_qemu.missing())


@pytest.mark.usefixtures("qemu")
@pytest.mark.parametrize("cpus", sorted(SCENARIOS))
def test_another_emulator_finds_it_too_unless_it_is_known_not_to(built: Path, cpus: int) -> None:
    script, steps = write_all(cpus, us(10_000))
    lines = on_qemu.run_on_qemu(place(script, built, f"qemu-{cpus}"), script)
    assert lines[-1] == "."
    assert set(differences(lines, steps, cpus)) <= {name for name, one in SCENARIOS[cpus].items() if one.qemu}


@pytest.mark.usefixtures("qemu")
@pytest.mark.parametrize("name", PROGRAMS)
def test_noise_on_the_chips_leaves_what_it_leaves_elsewhere(built: Path, name: str) -> None:
    compare_noise(built, name, range(12))


@pytest.mark.soak
@pytest.mark.usefixtures("qemu")
@pytest.mark.parametrize("name", PROGRAMS)
def test_much_noise_on_the_chips_leaves_what_it_leaves_elsewhere(built: Path, name: str) -> None:
    for first in range(100, 1300, 12):
        compare_noise(built, name, range(first, first + 12))


def compare_noise(built: Path, name: str, seeds: range) -> None:
    script = write_noise(name, seeds)
    path = place(script, built, f"{name}-{seeds.start}")
    mine, theirs = run_on_machine(path, script, engine="soft"), on_qemu.run_on_qemu(path, script)
    path.unlink()
    assert normal(mine, script) == normal(theirs, script)
