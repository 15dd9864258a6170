"""Every sample on every engine: the same console, the same end, the same registers."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from belljar import samples
from belljar.engines import ENGINES
from belljar.errors import BelljarError, EngineUnavailable, ModeUnsupported
from belljar.machine import End, Machine

REGISTERS = {"add": {"rax": 2, "rbx": 2}}
ENDLESS = {"spin"}
RFLAGS_RESUME = 1 << 16
"""RF: the exit of an instruction may leave it or not (SDM 3B 18.3.1.1); nothing depends on it behind a HLT."""


def outcome(name: str, engine: str) -> dict[str, object]:
    """Run a sample to its end."""
    timeout = 0.1 if name in ENDLESS else 20
    with Machine(name, engine=engine, registers=REGISTERS.get(name, {})) as machine:
        result = machine.run(timeout=timeout)
        found: dict[str, object] = {"end": result.end, "status": result.status, "console": machine.console}
        found["memory"] = machine.memory.read(0x400, 256)
        for cpu in machine.cpus:
            registers = asdict(cpu.registers)
            registers["rflags"] &= ~RFLAGS_RESUME
            found[f"vcpu{cpu.index}"] = registers
    return found


@pytest.mark.parametrize("name", samples.NAMES)
def test_sample_runs_on_soft_in_its_mode(name: str) -> None:
    found = outcome(name, "soft")
    if name.startswith("hello-"):
        assert found["console"] == b"Hello, world!\n"
        assert found["end"] is End.HALT
        assert found["vcpu0"]["rax"] == 42  # type: ignore[index]
        assert found["memory"][0] == 42  # type: ignore[index]
    if name == "add":
        assert found["console"] == b"4\n"
    if name == "ping-pong":
        assert found["console"] == b"ping\npong\n" * 5
    if name in ENDLESS:
        assert found["end"] is End.TIMEOUT


@pytest.mark.parametrize("other", [name for name in ENGINES if name != "soft"])
@pytest.mark.parametrize("name", samples.NAMES)
def test_sample_is_the_same_on_another_engine(name: str, other: str) -> None:
    try:
        theirs = outcome(name, other)
    except (ModeUnsupported, EngineUnavailable) as error:
        pytest.skip(error.message)
    ours = outcome(name, "soft")
    if len([key for key in ours if key.startswith("vcpu")]) > 1 or name in ENDLESS:
        # Where two vCPUs stand when the last one halts, and how far a loop came, is a matter of time.
        for found in (ours, theirs):
            for key in [key for key in found if key.startswith("vcpu")]:
                del found[key]
    assert ours == theirs


@pytest.mark.parametrize("name", [name for name in samples.NAMES if name not in ENDLESS])
def test_two_runs_on_soft_are_identical_to_the_instruction(name: str) -> None:
    counts = []
    for _ in range(2):
        with Machine(name, engine="soft") as machine:
            machine.run(timeout=20)
            counts.append([(cpu.vcpu.instructions_retired(), asdict(cpu.registers)) for cpu in machine.cpus])
    assert counts[0] == counts[1]


def test_auto_takes_an_engine_that_runs_the_guest_and_says_why() -> None:
    for name in ("hello-real", "hello-paged", "hello-la57"):
        with Machine(name) as machine:
            result = machine.run(timeout=20)
            assert (result.end, machine.console) == (End.HALT, b"Hello, world!\n")
            assert machine.engine_reason
            if machine.engine.name != "kvm":
                assert "kvm:" in machine.engine_reason


def test_auto_takes_an_engine_that_counts_when_asked_to() -> None:
    with Machine("spin", count_instructions=True) as machine:
        assert machine.run(instructions=1234, timeout=20).end is End.INSTRUCTION_LIMIT
        assert machine.cpu.vcpu.instructions_retired() == 1234


def test_auto_does_not_hide_a_mistake_behind_another_engine() -> None:
    with pytest.raises(BelljarError):
        Machine("hello-long", memory=12345)
