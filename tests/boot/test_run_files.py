"""Files of every format run on every engine, from the file to the halt."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from elf_files import ET_DYN, ET_EXEC, Elf, Program

from belljar.engine import Engine
from belljar.errors import ConfigurationError, LoadError
from belljar.machine import End, Machine


def code64(text: bytes) -> bytes:
    """Prints one byte that lies behind the code, addressed relative to RIP, so that it runs anywhere."""
    return bytes.fromhex("8a0503000000 e6e9 f4") + text  # mov al, [rel text]; out 0xe9, al; hlt; text


@pytest.mark.parametrize(
    ("elf", "entry"),
    [
        (Elf([Program(0x1000, b"\x90" + code64(b"A"), memsz=4096)], entry=0x1001), 0x1001),
        (Elf([Program(0xFFFF_FFFF_8100_0000, code64(b"A"), paddr=0x20_0000)], entry=0xFFFF_FFFF_8100_0000), 0x20_0000),
        (Elf([Program(0, code64(b"A"), align=4096)], entry=0, type=ET_DYN), 0x10_0000),
        (Elf([Program(0x3000, bytes.fromhex("b041 e6e9 f4"))], bits=32, entry=0x3000, type=ET_EXEC), 0x3000),
    ],
    ids=["64", "high", "pie", "32"],
)
def test_elf_file_runs_from_its_entry(engine: Engine, tmp_path: Path, elf: Elf, entry: int) -> None:
    path = tmp_path / "guest"
    path.write_bytes(elf.pack())
    with Machine(path, engine=engine) as machine:
        assert machine.cpu.rip == entry
        assert machine.run(timeout=10).end is End.HALT
        assert machine.console == b"A"


@pytest.mark.parametrize("mode", ["real", "protected16", "protected", "compat", "long"])
def test_raw_file_runs_in_the_mode_asked_for(engine: Engine, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "guest"
    path.write_bytes(bytes.fromhex("b041 e6e9 f4"))  # mov al, 'A'; out 0xe9, al; hlt: the same in every mode
    with Machine(path, engine=engine, mode=mode, load_gpa=0x7C00) as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert machine.console == b"A"


def test_file_that_does_not_fit_is_refused_and_leaves_nothing(
    engine: Engine, tmp_path: Path, leaves_nothing: None
) -> None:
    path = tmp_path / "guest"
    for data, error in (
        (Elf([Program(0x1000, memsz=1 << 30)]).pack(), LoadError),
        (Elf([Program(1 << 40)], entry=1 << 40).pack(), (LoadError, ConfigurationError)),
        (b"\xf4" * (1 << 20), LoadError),
    ):
        path.write_bytes(data)
        with pytest.raises(error) as caught:
            Machine(path, engine=engine, memory=1 << 20)
        assert "\n" not in str(caught.value)
