"""What `belljar doctor` finds out, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from belljar.records import dataclass, field


@dataclass(frozen=True, slots=True)
class ModeProbe:
    """Whether a guest in this mode, with these pages, at this privilege level got through; else why not."""

    mode: str
    title: str
    page_size: str | None
    cpl: int
    works: bool
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class FeatureProbe:
    """Whether something works, tried; `detail` says why not."""

    name: str
    works: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SpeedProbe:
    """LOOP instructions a second at this privilege level; `native` whether only a processor can be that fast."""

    cpl: int
    mode: str
    per_second: float | None
    native: bool | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """One engine: whether it can be had here, and if so all that its probes said.

    `advice` is a list of things to do, `cpu_features` what `--without` can take away.
    """

    name: str
    available: bool
    why_not: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    speeds: tuple[SpeedProbe, ...] = ()
    modes: tuple[ModeProbe, ...] = ()
    features: tuple[FeatureProbe, ...] = ()
    instructions: tuple[FeatureProbe, ...] = ()
    advice: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """The whole host. `host` tells kernel, processor and Python."""

    belljar: str
    host: dict[str, str]
    engines: tuple[EngineHealth, ...]

    @property
    def usable(self) -> bool:
        """Whether any engine can run any guest."""
        return any(mode.works for engine in self.engines for mode in engine.modes)

    def as_dict(self) -> dict[str, Any]:
        """It as plain data for JSON."""
        return {**asdict(self), "usable": self.usable}
