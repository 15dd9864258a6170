"""Walks against KVM_TRANSLATE and against the bytes of memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from belljar import Machine
from belljar.errors import ModeUnsupported
from belljar.observe.walk import walk_address
from belljar.observe.walk_text import walk_dict, walk_lines

ACCESSED = 0x20
"""Set by KVM_TRANSLATE as by a processor (SDM 3A 4.8)."""

MODES = [
    ("real", None),
    ("protected", None),
    ("compat", 2 << 20),
    ("long", 4096),
    ("long", 2 << 20),
    ("paged", 4096),
    ("pae", 2 << 20),
]


@pytest.fixture(params=MODES, ids=lambda value: f"{value[0]}-{value[1]}")
def machine(request: pytest.FixtureRequest, kvm: object) -> Iterator[Machine]:
    """A machine in each mode."""
    mode, page_size = request.param
    try:
        opened = Machine(b"\xf4", mode=mode, page_size=page_size)
    except ModeUnsupported as error:
        pytest.skip(str(error))
    with opened:
        yield opened


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gva=st.one_of(st.integers(0, 1 << 25), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 47) - 1)))
def test_walk_agrees_with_kvm_translate(machine: Machine, gva: int) -> None:
    found = walk_address(machine, gva)
    assert found.agrees in (True, None), walk_lines(found)
    if found.agrees is None:
        assert gva >= 1 << 32
        assert machine.guest.mode != "long"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gva=st.integers(0, (16 << 20) - 8), value=st.binary(min_size=1, max_size=1))
def test_host_address_is_where_the_byte_lies(machine: Machine, gva: int, value: bytes) -> None:
    found = walk_address(machine, gva)
    assert found.walk.gpa is not None
    assert found.hva is not None
    assert found.region == "ram"
    for step in found.steps:
        assert step.entry_hva is not None
        assert step.step.raw is not None
        raw = int.from_bytes(ctypes.string_at(step.entry_hva, step.step.entry_size), "little")
        assert raw | ACCESSED == step.step.raw | ACCESSED
    before = machine.memory.read(found.walk.gpa, 1)
    machine.memory.write(found.walk.gpa, value)
    assert ctypes.string_at(found.hva, 1) == value
    machine.memory.write(found.walk.gpa, before)


def test_address_that_is_not_canonical_is_not_compared(kvm: object) -> None:
    with Machine("hello-long") as machine:
        found = walk_address(machine, 1 << 47)
        assert found.agrees is None
        assert not found.walk.ok
        assert any("not canonical" in line for line in walk_lines(found))


def test_mapped_address_without_memory_has_no_host_address(kvm: object) -> None:
    with Machine("hello-long") as machine:
        found = walk_address(machine, 0xFEDF0000)
        assert found.walk.gpa == 0xFEDF0000
        assert found.hva is None
        assert any("MMIO exit" in line for line in walk_lines(found))


def test_plain_data_holds_every_step(kvm: object) -> None:
    with Machine("hello-long") as machine:
        found = walk_address(machine, 0x1000)
        plain = walk_dict(found)
    assert [step["level"] for step in plain["steps"]] == ["PML4", "PDPT", "PD"]
    assert all({"P", "RW"} <= set(step["bits"]) for step in plain["steps"])
    assert plain["steps"][-1]["page_size"] == plain["page_size"] == 2 << 20
    assert plain["agrees"] is True


def test_walking_changes_nothing_but_accessed_bits(kvm: object) -> None:
    with Machine("hello-long") as machine:
        tables = [place for place in machine.setup.placements if place.kind == "page-table"]

        def entries() -> list[int]:
            return [
                int.from_bytes(machine.memory.read(gpa, 8), "little") | ACCESSED
                for place in tables
                for gpa in range(place.gpa, place.gpa + place.size, 8)
            ]

        before = entries()
        registers, special = machine.cpu.registers, machine.cpu.special
        for gva in range(0, 1 << 24, 0x10_0000):
            walk_address(machine, gva)
        assert entries() == before
        assert (machine.cpu.registers, machine.cpu.special) == (registers, special)
