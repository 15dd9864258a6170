"""Random programs of many instructions (arithmetic, memory, stack, branches, loops) against the real CPU and Unicorn."""

from __future__ import annotations

import random

import pytest

from oracles.exam import examine, like_unicorn
from oracles.forms import words
from oracles.on_linux import like_process
from oracles.on_unicorn import CANNOT
from oracles.sequences import Sequencer

COUNT, SOAK_COUNT = 300, 100_000
NOT_ON_UNICORN = frozenset(CANNOT) | words("NEG XCHG TEST POPCNT MOVBE CMPXCHG BT BTS BTR BTC")
"""Besides what Unicorn cannot do at all: what it gets wrong in some form or mode, and bit strings, which reach beyond its
memory and beyond canonical addresses.
"""


def programs(place, seed, count, without=frozenset()):
    """Programs of 5 to 120 instructions."""
    for number in range(count):
        rng = random.Random(f"{seed} {place.name} {number}")
        yield Sequencer(place, rng, without=without).case(rng.choice((5, 20, 60, 120)))


@pytest.mark.parametrize("world", ["long-user", "compat-user", "compat16-user"])
def test_sequence_gives_what_the_real_cpu_gives(world, tested, on_linux):
    examine(programs(tested(world).world, 0, COUNT), on_linux(world), tested(world), like_process).verdict(pytest.skip)


@pytest.mark.parametrize("world", ["real", "protected", "long"])
def test_sequence_gives_what_unicorn_gives(world, tested, on_unicorn):
    cases = programs(tested(world).world, 0, COUNT, NOT_ON_UNICORN)
    examine(cases, on_unicorn(world), tested(world), like_unicorn).verdict(pytest.skip)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("world", ["long-user", "compat-user", "compat16-user"])
def test_many_sequences_give_what_the_real_cpu_gives(world, seed, tested, on_linux):
    examine(programs(tested(world).world, seed, SOAK_COUNT), on_linux(world), tested(world), like_process).verdict(
        pytest.skip
    )
