"""Kernels of our own that ask of a machine what the images of the KVM unit tests ask (docs/kvm-unit-tests.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from belljar.machine import End, Machine
from conformance.chips import chips
from conformance.kernels import kernel

__all__ = ["chips"]

PASSED = 1
"""What debug exit makes of the status 0."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def run(name: str, built: Path, options: dict[str, object], **more: object) -> list[str]:
    """What a kernel prints. One that fails on chips of the host's KVM tells something of the host, and skips the test."""
    options = {key: value for key, value in options.items() if key != "mode"} | more
    with Machine(kernel(name, built), test_device=True, **options) as machine:
        result = machine.run(timeout=30)
        lines = machine.console.decode().splitlines()
        bad = [line.removeprefix("BAD ") for line in lines if line.startswith("BAD")]
        if machine.chips.which != "user" and (bad or result.end is End.TIMEOUT):
            pytest.skip(f"the chips of this host's KVM do not: {'; '.join(bad) or 'end'}")
        assert not bad, lines
        assert (result.end, result.status) == (End.DEBUG_EXIT, PASSED), (result.message, lines[-3:])
        return lines


@pytest.mark.parametrize("cpus", [1, 2, 4, 8])
def test_a_kernel_learns_of_its_machine_and_starts_all_cpus(chips: dict[str, object], built: Path, cpus: int) -> None:
    lines = run("smp", built, chips, cpus=cpus, command_line="one  two")
    assert lines[0] == f"line {kernel('smp', built)} one  two"
    assert lines[1] == "memory 8000000 upper 1fc00 signature 554d4551"
    assert lines[-1] == f"cpus {cpus:x}"


def test_a_kernel_has_chips_without_being_given_them(engine: object, built: Path) -> None:
    assert run("smp", built, {"engine": engine}, cpus=3)[-1] == "cpus 3"


def test_memory_above_4_gib_is_told_in_full(engine: object, built: Path) -> None:
    assert run("smp", built, {"engine": engine}, memory=5 << 30)[1].startswith("memory 140000000 upper 2ffc00 ")


@pytest.mark.parametrize("cpus", [1, 4])
def test_local_apics_are_what_kernels_count_on(chips: dict[str, object], built: Path, cpus: int) -> None:
    assert "ok what has run down stays down" in run("local_apic", built, chips, cpus=cpus)


@pytest.mark.parametrize("cpus", [1, 4])
def test_the_ioapic_is_what_kernels_count_on(chips: dict[str, object], built: Path, cpus: int) -> None:
    lines = run("io_apic", built, chips, cpus=cpus)
    assert ("ok logical destination" in lines) is (cpus == 4)
