"""Which engine runs a guest: the one asked for, or the first that can run it properly here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.engines import ENGINES, open_engine
from belljar.errors import EngineUnavailable, FeatureUnsupported
from belljar.machine.config import MachineConfig

if TYPE_CHECKING:
    from belljar.engine import Engine


def select_engine(config: MachineConfig) -> tuple[Engine, str]:
    """The engine, and why it was taken (empty if the caller chose). Raises EngineUnavailable, ConfigurationError."""
    wanted = config.engine
    if not isinstance(wanted, str):
        return wanted, ""
    if wanted != "auto":
        engine = open_engine(wanted, without=config.without)
        if config.clock == "instructions" and not engine.counts_instructions:
            engine.close()
            raise FeatureUnsupported(
                f"the {wanted} engine cannot count instructions", hint="--engine soft, or --clock host"
            )
        return engine, ""
    return _first(tuple(ENGINES), config, [])


def next_engine(config: MachineConfig, refused: Engine, reason: str) -> tuple[Engine, str] | None:
    """With `auto`, the next engine after one that refused the guest, and why; None if the caller chose, or none is left."""
    if config.engine != "auto":
        return None
    names = tuple(ENGINES)
    left = names[names.index(refused.name) + 1 :]
    if not left:
        return None
    return _first(left, config, [f"{refused.name}: {reason}"])


def _first(names: tuple[str, ...], config: MachineConfig, rejected: list[str]) -> tuple[Engine, str]:
    """The first of `names` that opens and can do what the configuration asks for."""
    for name in names:
        try:
            engine = open_engine(name, without=config.without)
        except (EngineUnavailable, FeatureUnsupported) as error:
            rejected.append(f"{name}: {error.message}")
            continue
        if (config.count_instructions or config.clock == "instructions") and not engine.counts_instructions:
            engine.close()
            rejected.append(f"{name}: it cannot count instructions")
            continue
        return engine, "; ".join(rejected) or f"{name} is available"
    raise EngineUnavailable(
        "no engine can run this guest here: " + "; ".join(rejected), hint="`belljar doctor` says what to do"
    )
