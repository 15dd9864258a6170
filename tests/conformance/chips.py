"""Each engine with each kind of interrupt chips that it has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from belljar.errors import FeatureUnsupported
from belljar.machine import Machine
from conftest import open_or_skip

CHIPS = [("kvm", "kernel"), ("kvm", "split"), ("kvm", "user"), ("soft", "user")]


@pytest.fixture(params=CHIPS, ids="-".join)
def chips(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """The options for a machine with each kind of chips."""
    name, irqchip = request.param
    with open_or_skip(name) as engine:  # type: ignore[attr-defined]
        try:
            Machine(b"\xf4", engine=engine, irqchip=irqchip).close()
        except FeatureUnsupported as error:
            pytest.skip(error.message)
        yield {"engine": engine, "irqchip": irqchip, "mode": "long"}
