"""Each engine with each kind of interrupt chips that it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from belljar.errors import FeatureUnsupported
from belljar.machine import Machine
from common import open_or_skip

CHIPS = [("kvm", "kernel"), ("kvm", "split"), ("kvm", "user"), ("soft", "user")]


@contextmanager
def options_for(name: str, irqchip: str | None) -> Iterator[dict[str, object]]:
    """The options for a machine on an engine with these chips; a skip where the host does not have them."""
    with open_or_skip(name) as engine:  # type: ignore[attr-defined]
        try:
            Machine(b"\xf4", engine=engine, irqchip=irqchip).close()
        except FeatureUnsupported as error:
            pytest.skip(error.message)
        yield {"engine": engine, "irqchip": irqchip, "mode": "long"}


@pytest.fixture(params=CHIPS, ids="-".join)
def chips(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """The options for a machine with each kind of chips."""
    with options_for(*request.param) as options:
        yield options
