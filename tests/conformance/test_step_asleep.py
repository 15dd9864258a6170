"""Stepping one vCPU of several that sleeps: an answer every time, and the machine runs on."""

from __future__ import annotations

import pytest

from belljar.errors import FeatureUnsupported
from belljar.machine import End, Machine
from common import open_or_skip
from conformance.assembly import guest


@pytest.mark.parametrize(
    ("name", "irqchip"), [("kvm", "kernel"), ("kvm", "split"), ("kvm", "user"), ("soft", "user")], ids="-".join
)
def test_step_of_a_vcpu_that_waits_for_its_start_says_so_each_time(name: str, irqchip: str) -> None:
    with open_or_skip(name) as engine:  # type: ignore[attr-defined]
        try:
            machine = Machine(guest("main:\n say 'x'\n done\n"), engine=engine, irqchip=irqchip, mode="long", cpus=2)
        except FeatureUnsupported as error:
            pytest.skip(error.message)
        with machine:
            for _ in range(3):
                assert machine.step(machine.cpus[1]).end is End.HALT
            assert machine.step(machine.cpus[0]).end is End.DEBUG
            assert machine.run(timeout=20).end is End.HALT
            assert machine.console == b"x"
            assert machine.step(machine.cpus[1]).end is End.HALT
