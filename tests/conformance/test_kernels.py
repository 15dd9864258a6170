"""Kernels of our own that ask of a machine what the images of the KVM unit tests ask (docs/kvm-unit-tests.md)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from belljar.engine import Engine
from belljar.errors import FeatureUnsupported
from belljar.machine import End, Machine
from belljar.soft.hypervisor.charges import EXIT_NS
from conformance.chips import chips
from conformance.kernels import kernel, low_kernel, narrow_kernel, plain_kernel

__all__ = ["chips"]

PASSED = 1
"""What debug exit makes of the status 0."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def multiboot_of(code: str) -> bytes:
    """A multiboot kernel of a few instructions."""
    start = 0x10_0000
    magic, flags = 0x1BADB002, 1 << 16
    header = struct.pack("<8I", magic, flags, -magic - flags & 0xFFFF_FFFF, start, start, 0, 0, start + 32)
    return header + bytes.fromhex(code)


def run(
    name: str,
    built: Path,
    options: dict[str, object],
    *,
    of_the_host: bool = False,
    known: Sequence[str] = (),
    **more: object,
) -> list[str]:
    """What a kernel prints. `known` are the failures that there are.

    On chips of the host's KVM, and where what is tried is `of_the_host` (its processor) on KVM, a failure tells something of
    the host: the test is skipped with it.
    """
    options = {key: value for key, value in options.items() if key != "mode"} | more
    with Machine(kernel(name, built), test_device=True, **options) as machine:
        result = machine.run(timeout=30)
        lines = machine.console.decode().splitlines()
        bad = [line.removeprefix("BAD ") for line in lines if line.startswith("BAD")]
        if machine.chips.which != "user" or (of_the_host and machine.engine.name == "kvm"):
            if result.end is End.GAVE_UP:
                pytest.skip(result.message)
            if bad or result.end is End.TIMEOUT:
                pytest.skip(f"this host's KVM does not: {'; '.join(bad) or 'end'}")
        assert bad == list(known), lines
        assert result.end is End.DEBUG_EXIT, (result.message, lines[-3:])
        assert result.status == len(bad) << 1 | PASSED
        return lines


@pytest.mark.parametrize("cpus", [1, 2, 4, 8])
def test_a_kernel_learns_of_its_machine_and_starts_all_cpus(chips: dict[str, object], built: Path, cpus: int) -> None:
    lines = run("smp", built, chips, cpus=cpus, command_line="one  two")
    assert lines[0] == f"line {kernel('smp', built)} one  two"
    assert lines[1] == "memory 8000000 upper 1fc00 signature 554d4551"
    assert lines[-1] == f"cpus {cpus:x}"


def test_a_kernel_has_chips_without_being_given_them(engine: Engine, built: Path) -> None:
    assert run("smp", built, {"engine": engine}, cpus=3)[-1] == "cpus 3"


def test_memory_above_4_gib_is_told_in_full(engine: Engine, built: Path) -> None:
    assert run("smp", built, {"engine": engine}, memory=5 << 30)[1].startswith("memory 140000000 upper 2ffc00 ")


@pytest.mark.parametrize("cpus", [1, 4])
def test_local_apics_are_what_kernels_count_on(chips: dict[str, object], built: Path, cpus: int) -> None:
    assert "ok what has run down stays down" in run("local_apic", built, chips, cpus=cpus)


def test_local_apics_without_x2apic_know_destinations_by_mask_and_cluster(built: Path) -> None:
    options = {"engine": "soft", "without": ["x2apic", "tsc_deadline_timer"]}
    lines = run("local_apic", built, options, cpus=2)
    assert {"ok no x2APIC mode without x2APIC", "ok CPUs with the same id", "no deadline timer"} <= set(lines)


@pytest.mark.parametrize("cpus", [1, 4])
def test_the_ioapic_is_what_kernels_count_on(chips: dict[str, object], built: Path, cpus: int) -> None:
    lines = run("io_apic", built, chips, cpus=cpus)
    assert ("ok logical destination" in lines) is (cpus == 4)


@pytest.mark.parametrize("cpus", [1, 3])
def test_a_kernel_finds_acpi_tables_and_the_hardware_that_they_name(
    chips: dict[str, object], built: Path, cpus: int
) -> None:
    options = {key: value for key, value in chips.items() if key != "mode"}
    with Machine(kernel("acpi", built), test_device=True, cpus=cpus, **options) as machine:
        result = machine.run(timeout=30)
        lines = machine.console.decode().splitlines()
        assert [line for line in lines if line.startswith("BAD")] == []
        assert (result.end, result.status, lines[-1]) == (End.POWER_OFF, 0, "off")


@pytest.mark.parametrize("cpus", [1, 3])
def test_a_kernel_suspends_to_memory_until_an_alarm_wakes_it(chips: dict[str, object], built: Path, cpus: int) -> None:
    options = {key: value for key, value in chips.items() if key != "mode"}
    with Machine(kernel("suspend", built), test_device=True, cpus=cpus, **options) as machine:
        result = machine.run(timeout=30)
        assert machine.console == b"ok FACS\nsleep\nw!"
        assert (result.end, result.status) == (End.DEBUG_EXIT, PASSED)


def test_a_kernel_that_suspends_with_nothing_to_wake_it_ends() -> None:
    """It halts in firmware, and the machine finds that it does so for good; chips of the kernel are always waited for."""
    code = multiboot_of("66ba0406 66b80024 66ef ebfe")  # mov dx, 0x604; mov ax, S3; out dx, ax; jmp $
    with Machine(code, engine="soft") as machine:
        result = machine.run(timeout=20)
        assert (result.end, result.status) == (End.HALT, 0)


def test_events_survive_faults_of_the_hypervisors_in_their_delivery(chips: dict[str, object], built: Path) -> None:
    assert "ok an NMI in an NMI" in run("events", built, chips, cpus=1)


def test_software_events_reach_kernels_as_they_expect(engine: Engine, built: Path) -> None:
    lines = run("events", built, {"engine": engine}, command_line="+", of_the_host=True)
    assert lines[-1] == "ok a gate whose segment is not present"


def test_processors_are_what_kernels_count_on(engine: Engine, built: Path) -> None:
    assert "ok D by a write" in run("processor", built, {"engine": engine}, of_the_host=True)


def test_processors_have_what_they_announce(engine: Engine, built: Path) -> None:
    # Fences are SSE's, which soft does not announce yet; it has them all the same.
    lines = run("processor", built, {"engine": engine}, command_line="+", of_the_host=True, known=["SFENCE", "MFENCE"])
    assert "ok CLWB of a register" in lines


def test_a_processor_without_fences_announces_none(built: Path) -> None:
    run("processor", built, {"engine": "soft"}, command_line="+", without=["fence"])


def test_a_kernel_that_asks_little_gets_it(engine: Engine, built: Path) -> None:
    memory = 128 << 20 if engine.name == "soft" else 16 << 20  # KVM here takes its time
    assert "ok one page under many addresses" in run("plain", built, {"engine": engine}, memory=memory)


def test_accesses_to_pages_are_what_their_entries_allow(engine: Engine, built: Path) -> None:
    # Some 9,600 of the 19 million ways: all of them take minutes.
    lines = run("access", built, {"engine": engine}, of_the_host=True)
    levels = 2 if "ok five levels" in lines else 1
    assert engine.name == "kvm" or levels == 2
    assert lines.count("ok every access as it must be") == levels
    assert all(int(line.split()[1], 16) > 9000 for line in lines if line.startswith("tried"))


def test_debug_exceptions_are_what_kernels_count_on(engine: Engine, built: Path) -> None:
    assert "ok INT3: one of each" in run("debug", built, {"engine": engine}, of_the_host=True)


def test_what_supervisors_keep_from_users_is_kept(engine: Engine, built: Path) -> None:
    lines = run("privileges", built, {"engine": engine}, of_the_host=True)
    assert lines[-1] == "ok and none"


def test_a_processor_of_four_levels_has_canonical_addresses_of_48_bits(built: Path) -> None:
    lines = run("privileges", built, {"engine": "soft"}, without=["la57"])
    assert lines[-1] == "ok and none"


def test_tagged_addresses_are_none(engine: Engine, built: Path) -> None:
    lines = run("privileges", built, {"engine": engine}, command_line="-", of_the_host=True)
    assert "linear-address masking" in lines or "ok a tagged address" in lines


@pytest.mark.parametrize("clock", ["instructions", "host"])
@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_hypervs_interface_is_what_kernels_count_on(engine: Engine, built: Path, cpus: int, clock: str) -> None:
    if engine.name == "kvm" and clock == "instructions":
        pytest.skip("KVM's time is the host's")
    time = {} if engine.name == "kvm" else {"clock": clock}
    try:
        lines = run("hyperv", built, {"engine": engine}, cpus=cpus, hyperv=True, of_the_host=True, **time)
    except FeatureUnsupported as error:
        pytest.skip(f"this host's KVM: {error.message}")
    if engine.name == "kvm" and lines[-1].startswith("no "):
        pytest.skip(f"this host's KVM has {lines[-1]}")
    assert lines[-1] == "ok one that is there already"


@pytest.mark.parametrize("clock", ["instructions", "host"])
@pytest.mark.parametrize("cpus", [1, 4])
def test_kvms_clock_never_goes_back(engine: Engine, built: Path, cpus: int, clock: str) -> None:
    time = {} if engine.name == "kvm" else {"clock": clock}  # KVM's is the host's
    lines = run("clocks", built, {"engine": engine}, command_line="5000", cpus=cpus, **time)
    assert "ok never back" in lines
    assert "ok the time of day" in lines


MAKE_NO_EXIT = ("nothing", "mov from cr8")


@pytest.mark.parametrize("clock", ["instructions", "host"])
@pytest.mark.parametrize("cpus", [1, 2])
def test_a_kernel_that_times_exits_comes_to_its_end(built: Path, cpus: int, clock: str) -> None:
    """KVM's costs are the host's, where one of the developers' executes no VMCALL."""
    lines = run("exits", built, {"engine": "soft"}, cpus=cpus, clock=clock, command_line="21")
    costs = {name: int(cost, 16) for name, _, cost in (line.rpartition(" ") for line in lines)}
    assert len(lines) == 15 + cpus
    if clock == "instructions":
        assert {name for name, cost in costs.items() if cost < EXIT_NS} == set(MAKE_NO_EXIT)
        assert max(cost for name, cost in costs.items() if not name.startswith("an ipi")) < 3 * EXIT_NS


def test_instructions_do_to_io_memory_what_they_do_to_ram(engine: Engine, built: Path) -> None:
    all_of_them = "+" if engine.name == "soft" else ""
    lines = run("emulated", built, {"engine": engine}, command_line=all_of_them, of_the_host=True)
    assert lines[-1] == ("ok wide exchanges" if all_of_them else "ok across pages")


def test_a_kernel_of_real_mode_finds_its_vectors_ports_and_memory(engine: Engine, built: Path) -> None:
    with Machine(low_kernel("real", built), engine=engine, test_device=True) as machine:
        result = machine.run(timeout=30)
        if engine.name == "kvm" and result.end is End.CRASH and machine.console == b"po":
            pytest.skip("this host's KVM does not execute INT n at CPL 0")
        assert (result.end, result.status, machine.console) == (End.DEBUG_EXIT, PASSED, b"poiubdsrt\n")


def test_a_kernel_of_32_bits_switches_tasks(engine: Engine, built: Path) -> None:
    with Machine(plain_kernel("tasks", built), engine=engine, test_device=True) as machine:
        result = machine.run(timeout=30)
        if engine.name == "kvm" and result.end is End.CRASH and not machine.console:
            pytest.skip("this host's KVM has no paging outside long mode")
        assert (result.end, result.status, machine.console) == (End.DEBUG_EXIT, PASSED, b"pcCinsdjv\n")


def test_a_kernel_of_32_bits_starts_another_cpu(engine: Engine, built: Path) -> None:
    with Machine(plain_kernel("protected", built), engine=engine, test_device=True, cpus=2) as machine:
        result = machine.run(timeout=30)
        if engine.name == "kvm" and result.end is End.CRASH and not machine.console:
            pytest.skip("this host's KVM has no paging outside long mode")
        assert (result.end, result.status, machine.console) == (End.DEBUG_EXIT, PASSED, b"pgoicClhrL\n")


def test_a_kernel_of_32_bits_has_events_faults_and_users_kept_apart(engine: Engine, built: Path) -> None:
    with Machine(narrow_kernel("narrow", built), engine=engine, test_device=True) as machine:
        result = machine.run(timeout=30)
        if engine.name == "kvm" and result.end is End.CRASH and not machine.console:
            pytest.skip("this host's KVM has no paging outside long mode")
        lines = machine.console.decode().splitlines()
        assert [line for line in lines if line.startswith("BAD")] == []
        assert (result.end, result.status) == (End.DEBUG_EXIT, PASSED)
        assert lines[-1] == "ok with SMAP, without CR0.WP not even read"


def test_code_without_a_header_may_have_the_test_device_too(engine: Engine) -> None:
    code = bytes.fromhex("b83412 e7e0 e5e8 e6f4 f4")  # mov ax, 0x1234; out 0xe0, ax; in ax, 0xe8; out 0xf4, al; hlt
    with Machine(code, engine=engine, test_device=True) as machine:
        assert machine.run(timeout=20).status == 0x34 << 1 | 1
