"""The engines there are, by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from belljar.errors import ConfigurationError

if TYPE_CHECKING:
    from belljar.engine import Engine

ENGINES: dict[str, str] = {
    "kvm": "belljar.kvm.engine:KvmEngine",
    "soft": "belljar.soft.engine:SoftEngine",
}
"""Every engine by name, as `module:class`, in the order in which `auto` tries them."""


def open_engine(name: str, *, without: Sequence[str] = ()) -> Engine:
    """Open the engine called `name`; its guests shall not have the CPU features of `without`.

    Raises ConfigurationError for an unknown name, EngineUnavailable if it cannot run here, FeatureUnsupported if it cannot
    take one of the features away.
    """
    if name not in ENGINES:
        known = ", ".join(ENGINES)
        raise ConfigurationError(f"there is no engine called {name!r}", hint=f"engines: auto, {known}")
    module, _, attribute = ENGINES[name].partition(":")
    make = getattr(import_module(module), attribute)
    engine: Engine = make(without=without) if without else make()
    return engine
