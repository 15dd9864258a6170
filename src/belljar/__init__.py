"""belljar: the hypervisor you can see into.

The names below are the package's face; each is imported when it is first used, so that `import belljar` costs nothing.
`belljar.kvm`, the bare KVM interface, stands alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from belljar.devices.console import BytesInput, Capture, FileInput, FileOutput
    from belljar.engine_data import DebugControl, EngineTranslation, Watchpoint
    from belljar.engines import open_engine
    from belljar.errors import (
        BelljarError,
        CapabilityMissing,
        ClosedError,
        ConfigurationError,
        EngineError,
        EngineUnavailable,
        FeatureUnsupported,
        GuestMemoryError,
        KvmCallFailed,
        KvmIncompatible,
        KvmMissing,
        KvmPermissionDenied,
        LoadError,
        ModeUnsupported,
        TranslationError,
    )
    from belljar.exits import ExitReason
    from belljar.machine import Cpu, End, Machine, MachineConfig, RunResult
    from belljar.memory import GuestMemory
    from belljar.observe.explain import explain
    from belljar.observe.report import run_report
    from belljar.observe.trace import Trace
    from belljar.observe.walk import walk_address

__version__ = "0.1.0"

_HOMES = {
    "belljar.devices.console": ("BytesInput", "Capture", "FileInput", "FileOutput"),
    "belljar.engine_data": ("DebugControl", "EngineTranslation", "Watchpoint"),
    "belljar.engines": ("open_engine",),
    "belljar.errors": (
        "BelljarError", "CapabilityMissing", "ClosedError", "ConfigurationError", "EngineError", "EngineUnavailable",
        "FeatureUnsupported", "GuestMemoryError", "KvmCallFailed", "KvmIncompatible", "KvmMissing",
        "KvmPermissionDenied", "LoadError", "ModeUnsupported", "TranslationError",
    ),
    "belljar.exits": ("ExitReason",),
    "belljar.machine": ("Cpu", "End", "Machine", "MachineConfig", "RunResult"),
    "belljar.memory": ("GuestMemory",),
    "belljar.observe.explain": ("explain",),
    "belljar.observe.report": ("run_report",),
    "belljar.observe.trace": ("Trace",),
    "belljar.observe.walk": ("walk_address",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BelljarError",
    "BytesInput",
    "CapabilityMissing",
    "Capture",
    "ClosedError",
    "ConfigurationError",
    "Cpu",
    "DebugControl",
    "End",
    "EngineError",
    "EngineTranslation",
    "EngineUnavailable",
    "ExitReason",
    "FeatureUnsupported",
    "FileInput",
    "FileOutput",
    "GuestMemory",
    "GuestMemoryError",
    "KvmCallFailed",
    "KvmIncompatible",
    "KvmMissing",
    "KvmPermissionDenied",
    "LoadError",
    "Machine",
    "MachineConfig",
    "ModeUnsupported",
    "RunResult",
    "Trace",
    "TranslationError",
    "Watchpoint",
    "__version__",
    "explain",
    "open_engine",
    "run_report",
    "walk_address",
]


def __getattr__(name: str) -> Any:
    """Import a public name's home when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'belljar' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
