"""Every form of the integer instruction set against independent oracles: results, flags, memory, faults, RIP.

Each test is one mnemonic in one world; a skip says why the oracle cannot answer any of its forms.
"""

from __future__ import annotations

import pytest

from oracles.cases import differences
from oracles.exam import by_mnemonic, examine, form_cases, like_unicorn
from oracles.native import like_real_cpu
from oracles.on_linux import like_process

CASES, SOAK_CASES = 12, 1500
BITS = {"real": 16, "protected": 32, "long": 64, "long-user": 64, "compat-user": 32, "compat16-user": 16}
NATIVE = ("long-user", "compat-user", "compat16-user")


def groups(*worlds):
    """One parameter for each mnemonic of each world."""
    return [
        pytest.param(world, mnemonic, id=f"{world}-{mnemonic}")
        for world in worlds
        for mnemonic in by_mnemonic(BITS[world])
    ]


def run(world, mnemonic, oracle, tested, compare, each, seed):
    """One mnemonic's forms, one after the other."""
    chosen = by_mnemonic(BITS[world])[mnemonic]
    exam = examine(form_cases(tested(world).world, chosen, each, seed), oracle(world), tested(world), compare)
    exam.verdict(pytest.skip)


@pytest.mark.parametrize(("world", "mnemonic"), groups("real", "protected", "long"))
def test_form_gives_what_unicorn_gives(world, mnemonic, tested, on_unicorn):
    run(world, mnemonic, on_unicorn, tested, like_unicorn, CASES, "unicorn")


@pytest.mark.parametrize(("world", "mnemonic"), groups("long-user"))
def test_form_gives_what_the_real_cpu_gives(world, mnemonic, tested, on_kvm):
    run(world, mnemonic, on_kvm, tested, like_real_cpu, CASES, "real cpu")


@pytest.mark.parametrize(("world", "mnemonic"), groups(*NATIVE))
def test_form_gives_what_a_process_on_the_real_cpu_gets(world, mnemonic, tested, on_linux):
    run(world, mnemonic, on_linux, tested, like_process, CASES, "process")


@pytest.mark.parametrize(("world", "mnemonic"), groups("real", "protected", "long"))
def test_form_gives_what_the_kernels_emulator_gives(world, mnemonic, tested, on_kvm):
    run(world, mnemonic, on_kvm, tested, differences, CASES, "emulator")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("world", "mnemonic"), groups("real", "protected", "long"))
def test_many_operands_give_what_unicorn_gives(world, mnemonic, seed, tested, on_unicorn):
    run(world, mnemonic, on_unicorn, tested, like_unicorn, SOAK_CASES, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("world", "mnemonic"), groups(*NATIVE))
def test_many_operands_give_what_the_real_cpu_gives(world, mnemonic, seed, tested, on_linux):
    run(world, mnemonic, on_linux, tested, like_process, SOAK_CASES, seed)
