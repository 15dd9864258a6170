"""Every listing is what its bytes are, and every sample is found by its name."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module

import pytest

from belljar import samples
from belljar.errors import ConfigurationError
from belljar.memory import GuestMemory
from belljar.x86.disassembly import disassemble_all
from belljar.x86.state import GENERAL_REGISTERS


@pytest.mark.parametrize("name", samples.NAMES)
def test_listing_is_what_the_disassembler_reads_in_the_bytes(name):
    sample = samples.get(name)
    code = b"".join(line.bytes for line in sample.listing if not line.is_data)
    assert sample.code.startswith(code), "data lies behind the code"
    read = [(insn.gva, insn.code, insn.text) for insn in disassemble_all(code, sample.entry_gva, sample.bits)]
    written = [(gva, line.bytes, line.text) for gva, line in sample.addressed() if not line.is_data]
    assert read == written


@pytest.mark.parametrize("name", samples.NAMES)
def test_data_lines_say_their_bytes(name):
    for line in samples.get(name).listing:
        if line.is_data:
            items = ast.literal_eval(f"[{line.text.removeprefix('db ')}]")
            said = b"".join(item.encode() if isinstance(item, str) else bytes([item]) for item in items)
            assert line.bytes == said


@pytest.mark.parametrize("name", samples.NAMES)
def test_sample_is_complete(name):
    sample = samples.get(name)
    assert sample.name == name
    assert sample.summary
    assert "\n" not in sample.summary
    assert any(line.why for line in sample.listing) or name == "spin"
    assert len(sample.registers) in (0, 1, sample.cpus)
    assert all(set(registers) <= set(GENERAL_REGISTERS) for registers in sample.registers)
    assert all(0x1000 <= gva < 0x1000 + len(sample.code) for gva in sample.idt_handlers.values())
    module = import_module(f"belljar.samples.{name.replace('-', '_')}")
    assert module.__doc__


@pytest.mark.parametrize("name", samples.NAMES)
def test_image_of_a_sample_fits_the_smallest_machine(name):
    image = samples.get(name).image()
    assert image.entry_gva == 0x1000
    assert image.format == "sample"
    with GuestMemory() as memory:
        memory.add(0, 64 << 10)
        image.place(memory)
        assert memory.read(0x1000, image.size) == samples.get(name).code
        assert memory.read(0, 0x1000) == bytes(0x1000)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hello-lon", "hello-long"),
        ("pingpong", "ping-pong"),
        ("HELLO-LONG", ""),
        ("", "belljar samples"),
        ("no such thing", "belljar samples"),
    ],
)
def test_unknown_name_gets_names_that_look_like_it(name, hint):
    with pytest.raises(ConfigurationError) as caught:
        samples.get(name)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_only_the_sample_asked_for_is_imported():
    code = (
        "import sys; from belljar import samples; samples.get('spin'); "
        "print(sorted(m for m in sys.modules if m.startswith('belljar.samples.')), 'difflib' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = "['belljar.samples.registry', 'belljar.samples.sample', 'belljar.samples.spin']"
    assert answer.stdout.strip() == f"{modules} False"
