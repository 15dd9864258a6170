"""Guests from valid to pure noise, with system state to match: Python never raises, never hangs, and memory stays bounded."""

from __future__ import annotations

import random
import resource
import time
from collections import Counter

import pytest

from belljar.errors import BelljarError
from belljar.exits import ExitReason
from oracles import hostile
from oracles.on_engine import PlainRegion, RecordingBus
from oracles.worlds import CODE, world

WORLDS = ("real", "protected16", "protected", "long", "long-user", "compat-user", "compat16-user")
COUNT, SOAK_COUNT = 400, 200_000
BUDGET = 3000
DEADLINE_NS = 20_000_000
"""For what a budget of instructions does not bound: one REP OUTS may be 2**64 port writes long."""
LATE_SECONDS = 5
GROWTH_KIB = 64 << 10
"""How much the process may grow over a whole test: a leak of one page a guest would show in the long test."""


class QuietBus(RecordingBus):
    """Answers like the recording bus and forgets."""

    def port_read(self, port, size):
        self.log.clear()
        return super().port_read(port, size)

    def port_write(self, port, size, value):
        self.log.clear()

    def port_read_block(self, port, size, count):
        assert count * size <= 1 << 20
        return bytes(size * count)

    def port_write_block(self, port, size, data):
        assert len(data) % size == 0


def run_guests(engine, name, count, seed, make):
    """Run `count` guests in fresh VMs (every tenth) or in the same; how they ended."""
    place = world(name)
    ends = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        rng = random.Random(f"{seed} {name} {number}")
        image, state = make(place, rng)
        vm = engine.create_vm()
        try:
            region = PlainRegion(0, len(image))
            region.view[:] = image
            vm.map(region)
            vcpu = vm.create_vcpu(0)
            try:
                vcpu.set_special(state.special)
                vcpu.set_registers(state.registers)
            except BelljarError:
                ends["refused"] += 1
                continue
            bus, began = QuietBus(), time.monotonic()
            try:
                for _ in range(3):  # what a guest did to itself must not matter to the next run either
                    reason = vcpu.run(bus, instructions=BUDGET, deadline_ns=time.monotonic_ns() + DEADLINE_NS)
                    ends[reason.name] += 1
                    if reason not in (ExitReason.HLT, ExitReason.INSTRUCTION_LIMIT, ExitReason.INTERRUPTED):
                        break
            except BelljarError as error:
                ends[type(error).__name__] += 1
            assert time.monotonic() - began < LATE_SECONDS, (name, number, seed)
            vcpu.get_registers()
            vcpu.get_special()
        finally:
            vm.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{name}: {dict(ends)}, grown {grown} KiB")
    assert grown < GROWTH_KIB, f"{grown} KiB more after {count} guests"
    assert sum(ends.values()) >= count


def system_guest(place, rng):
    """Spoilt tables, system code, a spoilt start state."""
    return hostile.memory(place, rng), hostile.state(place, rng)


def noise_guest(place, rng):
    """The world as it should be, and noise for code."""
    image = bytearray(place.memory)
    at = place.bases["cs"] + CODE
    image[at : at + 256] = rng.randbytes(256)
    return bytes(image), place.state


@pytest.mark.parametrize("name", WORLDS)
def test_random_system_programs_end_and_nothing_else(name, soft_engine):
    run_guests(soft_engine, name, COUNT, "system", system_guest)


@pytest.mark.parametrize("name", WORLDS)
def test_pure_noise_ends_and_nothing_else(name, soft_engine):
    run_guests(soft_engine, name, COUNT, "noise", noise_guest)


@pytest.mark.soak
@pytest.mark.parametrize("make", [system_guest, noise_guest])
@pytest.mark.parametrize("name", WORLDS)
def test_many_hostile_guests_end_properly(name, make, soft_engine):
    run_guests(soft_engine, name, SOAK_COUNT, "soak", make)
