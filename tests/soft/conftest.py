"""The engine whose processor is on trial, and the oracles, each opened once a module and world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest

from belljar.engine import Engine
from belljar.engines import open_engine
from belljar.errors import BelljarError
from oracles.cases import Unsupported
from oracles.exam import Oracle
from oracles.native import Trusted
from oracles.on_engine import EngineOracle
from oracles.on_linux import LinuxOracle
from oracles.on_unicorn import UnicornOracle

INSTRUCTIONS = 200_000
"""What one case may execute on an engine that counts."""


def open_or_skip(name: str, without: Sequence[str] = ()) -> Engine:
    """The engine, or a skip that says why it is not there."""
    try:
        return open_engine(name, without=without)
    except (BelljarError, ImportError) as error:
        pytest.skip(f"no engine {name}: {error}")


@pytest.fixture(scope="module")
def soft_engine() -> Iterator[Engine]:
    """The engine on trial."""
    engine = open_or_skip("soft")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def kvm_engine() -> Iterator[Engine]:
    """The engine that is the real CPU at CPL 3 and the kernel's emulator at CPL 0."""
    engine = open_or_skip("kvm")
    yield engine
    engine.close()


def host_has(feature: str) -> bool:
    """Whether the host's processor has a feature, by its name in /proc/cpuinfo."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return any(line.startswith("flags") and feature in line.split() for line in lines)


@pytest.fixture(scope="module")
def tested() -> Iterator[Callable[[str], EngineOracle]]:
    """The engine on trial by world name, with linear addresses as wide as the host's: what WRFSBASE and its like go by."""
    engine = open_or_skip("soft", without=() if host_has("la57") else ("la57",))
    yield from _keep(lambda world: EngineOracle(engine, world, instructions=INSTRUCTIONS).__enter__())
    engine.close()


@pytest.fixture(scope="module")
def on_kvm(kvm_engine: Engine) -> Iterator[Callable[[str], Trusted]]:
    """KVM by world name."""

    def make(world: str) -> Trusted:
        oracle = EngineOracle(kvm_engine, world).__enter__()
        try:
            return Trusted(oracle, LinuxOracle(world))
        except Unsupported:  # another CPL than 3, or no tracing here
            return Trusted(oracle)

    yield from _keep(make)


@pytest.fixture(scope="module")
def on_linux() -> Iterator[Callable[[str], LinuxOracle]]:
    """The real CPU through a traced process, by world name."""
    yield from _keep(LinuxOracle)


@pytest.fixture(scope="module")
def on_unicorn() -> Iterator[Callable[[str], UnicornOracle]]:
    """Unicorn by world name."""
    yield from _keep(UnicornOracle)


Kept = TypeVar("Kept", bound=Oracle)


def _keep(make: Callable[[str], Kept]) -> Iterator[Callable[[str], Kept]]:
    """Make each world once, close all at the end; a world that cannot be had is a skip with its reason."""
    kept: dict[str, Kept | Unsupported] = {}

    def get(world: str) -> Kept:
        if world not in kept:
            try:
                kept[world] = make(world)
            except Unsupported as reason:
                kept[world] = reason
        found = kept[world]
        if isinstance(found, Unsupported):
            pytest.skip(str(found))
        return found

    yield get
    for oracle in kept.values():
        if not isinstance(oracle, Unsupported):
            oracle.close()
