"""Names of CPU features that a machine can be without."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from belljar.errors import ConfigurationError
from belljar.soft.processor.features import Feature
from belljar.x86.cpuid import all_feature_names

if TYPE_CHECKING:
    from belljar.engine import Engine

MOST_NEAR = 5


def check_features(names: Sequence[str], engine: str | Engine) -> None:
    """Raise ConfigurationError for a name that no processor's feature has, or if the engine is open already."""
    known = {*all_feature_names(), *(feature.label for feature in Feature)}
    for name in names:
        if name.lower() not in known:
            near = get_close_matches(name.lower(), sorted(known), MOST_NEAR)
            raise ConfigurationError(
                f"there is no CPU feature {name!r}",
                hint=f"near it: {', '.join(near)}" if near else "`belljar doctor` lists those that can be switched off",
            )
    if not isinstance(engine, str):
        raise ConfigurationError("an engine that is open has its CPU features", hint="open it with without=...")
