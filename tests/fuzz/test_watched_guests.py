"""Watching changes nothing: random guests end in the same state with every kind of trace as without, and nothing is raised."""

from __future__ import annotations

import random

import pytest

from belljar.engine import Engine
from belljar.engines import open_engine
from belljar.errors import FeatureUnsupported
from belljar.machine import End, Machine, RunResult
from belljar.machine.config import IRQCHIPS
from belljar.observe.chip_facts import chip_facts
from belljar.observe.report import run_report
from belljar.observe.trace_kinds import KINDS, KindTrace
from fuzz.test_random_chips import program
from fuzz.test_random_guests import MODES, noise

COUNT = 250
INSTRUCTIONS = 150
STEPS = 20_000
TIMEOUT = 0.5
"""Seconds. Runs that need them (a long REP OUTS, a timer that can never wake a halted guest) are not compared."""

PIECES = (b"\x0f\x32", b"\x0f\x30", b"\x0f\xa2", b"\x0f\x22\xe0", b"\x0f\x20\xc0", b"\xe4\x40", b"\xe6\x43")
"""RDMSR, WRMSR, CPUID, MOV to CR4, MOV from CR0, IN, OUT."""

MSRS = (0x10, 0x1B, 0x174, 0x277, 0x1D9, 0xC0000080, 0xC0000081, 0xC0000100, 0x802, 0x4B564D00, 0x40000000, 0x12345)


def outcome(machine: Machine, result: RunResult) -> tuple[object, ...]:
    """Everything that a run left, but times of the host's."""
    cpus = [
        (cpu.as_dict(), cpu.special, cpu.vcpu.instructions_retired(), cpu.vcpu.exit_counts()) for cpu in machine.cpus
    ]
    report = run_report(machine, result)
    return result.end, result.message, cpus, machine.console, report["interrupts"], report["unclaimed_accesses"]


def run(code: bytes, kinds: frozenset[str], **options: object) -> tuple[tuple[object, ...], list[str]]:
    """What the guest left, and the trace."""
    instructions = options.pop("instructions", None)
    timeout = 60 if options.pop("patient", False) else TIMEOUT
    with Machine(code, engine="soft", format="raw", **options) as machine:
        written: list[str] = []
        trace = KindTrace(machine, kinds, written.append) if kinds else None
        result = machine.run(
            timeout=timeout,
            instructions=instructions,
            observer=trace.observe if trace else None,  # type: ignore[arg-type]
        )
        if trace:
            trace.finish()
        return outcome(machine, result), written


@pytest.mark.parametrize("seed", range(4))
def test_random_guests_are_the_same_watched(seed: int) -> None:
    rng = random.Random(seed)
    compared = 0
    for _ in range(COUNT // 4):
        mode = rng.choice(MODES)
        code = b"".join(rng.choice((noise(rng), rng.choice(PIECES))) for _ in range(4))
        registers = {name: rng.getrandbits(rng.choice((8, 16, 32))) for name in ("rax", "rdx", "rsi", "rdi")}
        registers["rcx"] = rng.choice((*MSRS, rng.getrandbits(8)))
        options = {"mode": mode, "registers": registers, "instructions": INSTRUCTIONS, "memory": 16 << 20}
        bare, _ = run(code, frozenset(), **options)
        if bare[0] is End.TIMEOUT:
            continue
        compared += 1
        wanted = frozenset(rng.sample(KINDS, rng.randint(1, len(KINDS))))
        once, one = run(code, wanted, **options, patient=True)
        again, other = run(code, wanted, **options, patient=True)
        assert once == again == bare, (code.hex(), mode, registers, wanted)
        assert one == other
    assert compared > COUNT // 8


@pytest.mark.parametrize("seed", range(8))
def test_random_chips_are_the_same_watched(seed: int) -> None:
    options = {"mode": "long", "irqchip": "user", "cpus": 1 + seed % 2, "instructions": STEPS}
    bare, _ = run(program(seed), frozenset(), **options)
    if bare[0] is End.TIMEOUT:
        pytest.skip("this one sleeps for ever")
    watched, written = run(program(seed), frozenset(KINDS) - {"insn"}, **options, patient=True)
    assert watched == bare
    assert written


@pytest.mark.parametrize("irqchip", IRQCHIPS)
@pytest.mark.parametrize("seed", range(3))
def test_random_chips_on_kvm_are_watched_without_harm(kvm: Engine, irqchip: str, seed: int) -> None:
    try:
        machine = Machine(program(seed), engine=kvm, mode="long", irqchip=irqchip, cpus=1 + seed % 2)
    except FeatureUnsupported as error:
        pytest.skip(error.message)
    with machine:
        written: list[str] = []
        trace = KindTrace(machine, frozenset(KINDS) - {"insn"}, written.append)
        result = machine.run(timeout=0.05, observer=trace.observe)
        trace.finish()
        assert chip_facts(machine) is not None
        assert run_report(machine, result)["interrupts"]["chips"] == irqchip


def test_engines_that_are_the_callers_can_be_watched() -> None:
    with open_engine("soft") as engine, Machine("tick", engine=engine) as machine:  # type: ignore[attr-defined]
        written: list[str] = []
        trace = KindTrace(machine, frozenset({"exit"}), written.append)
        machine.run(timeout=20, observer=trace.observe)
        trace.finish()
    assert written
