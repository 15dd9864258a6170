"""A machine's watchpoints: what stops at them, and what they may be."""

from __future__ import annotations

import pytest

from belljar.engine import Engine
from belljar.errors import ConfigurationError, FeatureUnsupported
from belljar.machine import End, Machine

CODE = bytes.fromhex(
    "c60500300000 01"  # mov byte ptr [0x3000], 1
    "a000300000"  # mov al, [0x3000]
    "c60500300000 02"  # mov byte ptr [0x3000], 2
    "f4"
)
WRITTEN, READ, WRITTEN_AGAIN = 0x1007, 0x100C, 0x1013
"""Behind each of the three."""


def stops(machine: Machine) -> list[int]:
    """Where it stops on its way to its end."""
    places = []
    while machine.run(timeout=20).end is End.DEBUG:
        places.append(machine.cpu.rip)
    assert machine.result is not None
    assert machine.result.end is End.HALT
    return places


@pytest.mark.parametrize(
    ("on_read", "expected"), [(False, [WRITTEN, WRITTEN_AGAIN]), (True, [WRITTEN, READ, WRITTEN_AGAIN])]
)
def test_run_stops_behind_each_access_that_is_watched(engine: Engine, on_read: bool, expected: list[int]) -> None:
    with Machine(CODE, engine=engine, mode="protected") as machine:
        try:
            machine.add_watchpoint(0x3000, on_read=on_read)
        except FeatureUnsupported as error:
            pytest.skip(error.message)
        assert stops(machine) == expected


def test_watchpoint_that_was_taken_away_stops_nobody(engine: Engine) -> None:
    with Machine(CODE, engine=engine, mode="protected") as machine:
        try:
            machine.add_watchpoint(0x3000)
        except FeatureUnsupported as error:
            pytest.skip(error.message)
        assert machine.run(timeout=20).end is End.DEBUG
        machine.remove_watchpoint(0x3000)
        assert stops(machine) == []


@pytest.mark.parametrize(("gva", "size"), [(0x3001, 2), (0x3004, 8), (0x3000, 3), (0x3000, 0)])
def test_watchpoint_of_an_impossible_size_or_place_is_refused(engine: Engine, gva: int, size: int) -> None:
    with Machine(CODE, engine=engine, mode="protected") as machine, pytest.raises(ConfigurationError, match="aligned"):
        machine.add_watchpoint(gva, size)
