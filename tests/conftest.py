"""What tests share: which engines this host has, and the promise that a test leaves nothing behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from belljar.engine import Engine
from belljar.engines import ENGINES
from common import open_or_skip

# `make test` tries the same examples every time, so that a red run is about the change; `make soak` goes searching.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("searching", derandomize=False, max_examples=2_000)
settings.load_profile("repeatable")


SOURCES = Path(__file__).parents[1] / "src"


def pytest_configure() -> None:
    """A compiled module that is older than its source would be tested instead of it."""
    unit = max((path.stat().st_mtime for path in SOURCES.glob("belljar/_interrupts__mypyc*.so")), default=None)
    for extension in SOURCES.rglob("*.so"):
        source = extension.with_name(extension.name.partition(".")[0] + ".py")
        by_mypyc = source.parent.name != "kvm" and source.name != "_core.py"
        built = unit if by_mypyc and unit is not None else extension.stat().st_mtime
        if source.exists() and source.stat().st_mtime > built:
            pytest.exit(f"{extension.relative_to(SOURCES)} is older than its source: run `make hello`", returncode=2)


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine in turn."""
    opened = open_or_skip(request.param)
    yield opened
    opened.close()


@pytest.fixture
def kvm() -> Iterator[Engine]:
    """The KVM engine."""
    opened = open_or_skip("kvm")
    yield opened
    opened.close()


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """File descriptors, threads and mappings of guest memory are as many after the test as before."""
    before = _possessions()
    yield
    assert _possessions() == before


def _possessions() -> tuple[int, int, int]:
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), maps.count("memfd:")
