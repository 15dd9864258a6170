"""Kernels made by gcc, started on every engine as the multiboot specifications say, tell what they were handed."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from multiboot_kernels import KINDS, kernel

from belljar.engine import Engine
from belljar.machine import End, Machine
from belljar.observe.explain import explain

MAGIC = {1: 0x2BADB002, 2: 0x36D76289}
G = 1 << 30


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def run(path: Path, engine: Engine, **options: object) -> list[str]:
    with Machine(path, engine=engine, **options) as machine:
        assert machine.run(timeout=20).end is End.HALT
        return machine.console.decode().splitlines()


def checksum(data: bytes) -> int:
    total = 0
    for byte in data:
        total = (total * 31 + byte) & 0xFFFFFFFF
    return total


def module_line(data: bytes, text: str) -> str:
    return f"module size={len(data):x} unaligned=0 sum={checksum(data):x} '{text}'"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", [1, 2])
def test_kernel_finds_what_it_was_handed(
    engine: Engine, built: Path, tmp_path: Path, version: int, kind: str, leaves_nothing: None
) -> None:
    one, two = bytes(range(256)) * 40, b"\xff"
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "two").write_bytes(two)
    (tmp_path / "three").write_bytes(b"")
    lines = run(
        kernel(version, kind, built),
        engine,
        command_line="root=/dev/sda  quiet é",
        modules=[(tmp_path / "one", "first module=1"), (str(tmp_path / "two"), ""), (tmp_path / "three", "empty")],
    )
    assert lines[0] == f"entry magic={MAGIC[version]:x} pe=1 pg=0 if=0 vm=0 a20=1 bss=0 aligned=0"
    assert "memory lower=27f upper=3c00" in lines
    assert [line for line in lines if line.startswith("range")] == [
        "range gpa=0 size=9fc00 type=1",
        "range gpa=9fc00 size=60400 type=2",
        "range gpa=100000 size=f00000 type=1",
        "range gpa=fec00000 size=1400000 type=2",
    ]
    assert [line for line in lines if line.startswith("module")] == [
        module_line(one, "first module=1"),
        module_line(two, ""),
        module_line(b"", "empty"),
    ]
    assert "command line 'root=/dev/sda  quiet é'" in lines
    assert "loader 'belljar'" in lines
    assert lines[1 if version == 1 else -1] == ("flags =24d" if version == 1 else "total left=0 reserved=0")
    rsdps = [] if version == 1 else ["tag type=e", "tag type=f"]
    assert [line for line in lines if line.startswith("tag")] == rsdps


@pytest.mark.parametrize("version", [1, 2])
def test_memory_map_leaves_the_hole_below_4_gib_out(engine: Engine, built: Path, version: int) -> None:
    lines = run(kernel(version, "elf32", built), engine, memory=5 * G)
    assert [line for line in lines if line.startswith("range")] == [
        "range gpa=0 size=9fc00 type=1",
        "range gpa=9fc00 size=60400 type=2",
        "range gpa=100000 size=bff00000 type=1",
        "range gpa=fec00000 size=1400000 type=2",
        "range gpa=100000000 size=80000000 type=1",
    ]
    assert "memory lower=27f upper=2ffc00" in lines
    assert "command line ''" in lines


@pytest.mark.parametrize("version", [1, 2])
def test_start_state_is_what_the_specification_says(engine: Engine, built: Path, version: int) -> None:
    with Machine(kernel(version, "elf64", built), engine=engine) as machine:
        cpu, special = machine.cpu, machine.cpu.special
        assert cpu["eax"] == MAGIC[version]
        info = next(part for part in machine.guest.image.segments if part.name == "multiboot information")
        assert cpu["ebx"] == info.gpa
        assert (special.cs.base, special.cs.limit, special.cs.type & 8, special.cs.db) == (0, 0xFFFFFFFF, 8, 1)
        for name in ("ds", "es", "fs", "gs", "ss"):
            segment = getattr(special, name)
            assert (segment.base, segment.limit, segment.type & 10, segment.db) == (0, 0xFFFFFFFF, 2, 1), name
        assert special.cr0 & (1 << 31 | 1) == 1
        assert special.efer == 0
        assert cpu.rflags & (1 << 17 | 1 << 9) == 0


@pytest.mark.parametrize(
    ("preference", "base"),
    [(0, 0x40_0000), (1, 0x40_0000), (2, 0x80_0000 - 0x1_0000)],
    ids=["none", "lowest", "highest"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_relocatable_kernel_goes_where_it_prefers(
    engine: Engine, built: Path, preference: int, base: int, kind: str
) -> None:
    path = kernel(2, kind, built, f"RELOCATABLE={preference}")
    with Machine(path, engine=engine) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == base.to_bytes(4, "big") * 2


def test_relocatable_kernel_goes_where_asked(engine: Engine, built: Path) -> None:
    with Machine(kernel(2, "elf32", built, "RELOCATABLE=2"), engine=engine, load_gpa=0x50_0000) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == (0x50_0000).to_bytes(4, "big") * 2


def test_explanation_shows_where_everything_lies(built: Path, tmp_path: Path, kvm: Engine) -> None:
    module = tmp_path / "disk"
    module.write_bytes(b"x" * 5000)
    found = explain(kernel(1, "elf32", built), engine=kvm, modules=[(module, "")])
    places = {place.name: place for place in found.places}
    assert places["multiboot information"].gpa == 0x1_0000
    assert places[f"module {module}"].size == 5000
    assert places["multiboot information"].note == "handed to the guest, multiboot1"
    assert any(place.kind == "code" for place in found.places)
    ranges = sorted((place.gpa, place.gpa + place.size) for place in found.places)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))


def test_plain_elf_and_forced_formats_stay_as_they_were(engine: Engine, built: Path) -> None:
    with Machine(kernel(1, "elf32", built), engine=engine, format="elf", mode="protected") as machine:
        assert machine.guest.image.format == "elf"
        assert machine.cpu.rax == 0
    with Machine(kernel(1, "flat", built), engine=engine, format="raw") as machine:
        assert (machine.guest.image.format, machine.guest.mode) == ("raw", "real")


def belljar(*arguments: object) -> tuple[int, str, str]:
    words = [sys.executable, "-m", "belljar", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.usefixtures("kvm")
def test_command_line_hands_over_text_and_modules(built: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"abc")
    module = f"{tmp_path / 'disk'}=ro size=3"
    path = kernel(2, "elf64", built)
    status, out, complaint = belljar(
        "run", path, "--append", "a=1 b", "--module", module, "--module", tmp_path / "disk"
    )
    assert (status, complaint) == (0, "")
    assert "command line 'a=1 b'" in out
    assert [line for line in out.splitlines() if line.startswith("module")] == [
        module_line(b"abc", "ro size=3"),
        module_line(b"abc", ""),
    ]
    status, out, complaint = belljar("run", path, "--format", "multiboot1")
    assert (status, out) == (125, "")
    assert complaint.count("\n") == 1
    assert "there is no multiboot header" in complaint
    assert belljar("run", path, "--module", "=x")[0] == 125
