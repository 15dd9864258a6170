"""Whole programs: what gcc makes of C for every mode gives what the same C gives natively; boot code finds its own way."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine
from programs.build import LEVELS, PROGRAMS, boot_sector, guest_program

MODES = {
    "real": 16, "protected16": 16, "protected": 32, "paged": 32, "pae": 32, "compat": 32, "long": 64, "la57": 64,
}  # fmt: skip
LOW, HIGH = 0x1000, 0x100000
"""Where 16-bit and other programs are linked to run."""
LIMIT = 200_000_000
"""Instructions; the longest program needs a tenth."""


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Where compiled programs are kept for the session."""
    return tmp_path_factory.mktemp("programs")


def run_program(engine, program, mode, *, cpl=0, page_size=None, instructions=LIMIT):
    """The console after the program asked to end."""
    with Machine(
        program.image,
        engine=engine,
        mode=mode,
        cpl=cpl,
        page_size=page_size,
        load_gpa=program.origin_gva,
        memory=4 << 20,
    ) as machine:
        result = machine.run(timeout=60, instructions=instructions)
        assert result.end is End.DEBUG_EXIT, (result, machine.console[-200:])
        return machine.console


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "protected16"])
def test_program_prints_what_it_prints_natively(mode, name, level, built, soft_engine):
    bits = MODES[mode]
    program = guest_program(name, bits, level, LOW if bits == 16 else HIGH, built)
    assert run_program(soft_engine, program, mode) == program.output


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("mode", ["protected", "paged", "pae", "compat", "long", "la57"])
def test_program_at_cpl3_prints_what_it_prints_natively(mode, name, built, soft_engine):
    program = guest_program(name, MODES[mode], "-O2", HIGH, built, newer=True)
    assert (
        run_program(soft_engine, program, mode, cpl=3, page_size=None if mode == "protected" else 4096)
        == program.output
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_on_the_real_cpu_prints_what_it_prints_natively(name, built, kvm_engine):
    """The programs themselves are sound as guests: 64-bit code at CPL 3 is what every KVM runs on the CPU."""
    program = guest_program(name, 64, "-O2", HIGH, built)
    assert run_program(kvm_engine, program, "long", cpl=3, instructions=None) == program.output


@pytest.mark.parametrize("name", ["sieve", "sha256"])
def test_two_runs_execute_the_same_instructions(name, built, soft_engine):
    """Stopping after n instructions gives the same registers every time, and going on gives the whole output."""
    program = guest_program(name, 64, "-O2", HIGH, built)
    seen = []
    for _ in range(2):
        with Machine(program.image, engine=soft_engine, mode="long", load_gpa=HIGH, memory=4 << 20) as machine:
            stops = []
            for step in (1, 2, 3, 1000, 12_345):
                result = machine.run(timeout=60, instructions=step)
                assert result.end is End.INSTRUCTION_LIMIT, result
                stops.append(machine.cpu.as_dict())
            result = machine.run(timeout=60, instructions=LIMIT)
            assert result.end is End.DEBUG_EXIT
            assert machine.console == program.output
            seen.append(stops)
    assert seen[0] == seen[1]


def test_boot_sector_enters_protected_and_long_mode_by_itself(built, soft_engine):
    with Machine(boot_sector(built), engine=soft_engine, mode="real", load_gpa=0x7C00, memory=4 << 20) as machine:
        result = machine.run(timeout=60, instructions=100_000)
        assert result.end is End.HALT, result
        assert machine.console == b"real protected long\n"
        assert machine.cpu.rax == 42
        special = machine.cpu.special
        assert special.cs.l == 1
        assert special.efer & 0x500 == 0x500
        assert special.cr0 & 0x80000001 == 0x80000001
