"""Which engine runs a guest: the one asked for, or the first that can run it properly here."""

from __future__ import annotations

from belljar.engine import Engine, auto, open_engine
from belljar.machine.guest import Guest


def select_engine(wanted: str | Engine, guest: Guest) -> tuple[Engine, str]:
    """The engine, and why it was taken (empty if the caller chose). Raises EngineUnavailable, ConfigurationError."""
    if not isinstance(wanted, str):
        return wanted, ""
    if wanted != "auto":
        return open_engine(wanted), ""
    choice = auto()
    return choice.engine, choice.why
