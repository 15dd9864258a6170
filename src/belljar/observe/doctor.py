"""Is there an engine here, what does it do, and what is to be done about what it does not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from belljar import __version__
from belljar.engine import Engine
from belljar.engines import ENGINES, open_engine
from belljar.errors import EngineUnavailable
from belljar.observe import probes
from belljar.observe.doctor_model import EngineHealth, FeatureProbe, Health, ModeProbe, SpeedProbe

WANTED_CAPABILITIES = {
    "KVM_CAP_USER_MEMORY": "guest memory",
    "KVM_CAP_IMMEDIATE_EXIT": "ending a run from another thread",
    "KVM_CAP_COALESCED_PIO": "fast console output",
    "KVM_CAP_READONLY_MEM": "read-only guest memory",
    "KVM_CAP_SET_GUEST_DEBUG": "single-stepping and breakpoints",
    "KVM_CAP_IRQCHIP": "the kernel's interrupt chips",
    "KVM_CAP_SPLIT_IRQCHIP": "the local APIC in the kernel, the rest outside",
    "KVM_CAP_IRQFD": "interrupts by file descriptor",
    "KVM_CAP_IOEVENTFD": "port and memory writes by file descriptor",
    "KVM_CAP_X86_USER_SPACE_MSR": "MSR exits",
    "KVM_CAP_DIRTY_LOG_RING": "the dirty ring",
    "KVM_CAP_GUEST_MEMFD": "guest_memfd",
    "KVM_CAP_BINARY_STATS_FD": "statistics",
}
"""What belljar makes use of, and for what."""


def examine() -> Health:
    """Open every engine and probe it. Takes some tenths of a second; raises nothing for what a host may lack."""
    return Health(__version__, _host(), tuple(_examine(name) for name in ENGINES))


def _host() -> dict[str, str]:
    system = os.uname()
    return {
        "kernel": f"{system.sysname} {system.release}",
        "machine": system.machine,
        "processor": _processor(),
        "python": sys.version.split()[0],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def _examine(name: str) -> EngineHealth:
    try:
        engine = open_engine(name)
    except EngineUnavailable as error:
        return EngineHealth(name, False, error.message, advice=(error.hint,) if error.hint else ())
    except ImportError as error:
        return EngineHealth(name, False, str(error), advice=("`make hello` compiles the package's modules",))
    try:
        facts = _kvm_facts(engine) if name == "kvm" else {}
        speeds = tuple(probes.speed_probe(engine, cpl) for cpl in (0, 3))
        modes = tuple(probes.mode_probes(engine))
        features = tuple(probes.feature_probes(engine))
        instructions = tuple(probes.instruction_probes(engine))
        cpu_features = engine.cpu_features
    finally:
        engine.close()
    advice = tuple(_advice(name, speeds, modes, features + instructions, facts))
    return EngineHealth(name, True, "", facts, speeds, modes, features, instructions, advice, cpu_features)


def _kvm_facts(engine: Engine) -> dict[str, Any]:
    """What the kernel says of its KVM."""
    from belljar.kvm.engine import KvmEngine

    if not isinstance(engine, KvmEngine):
        return {}
    facts = asdict(engine.describe())
    capabilities = facts["capabilities"]
    facts["missing"] = {name: use for name, use in WANTED_CAPABILITIES.items() if not capabilities.get(name)}
    return facts


def _advice(
    name: str,
    speeds: tuple[SpeedProbe, ...],
    modes: tuple[ModeProbe, ...],
    features: tuple[FeatureProbe, ...],
    facts: dict[str, Any],
) -> Iterator[str]:
    other = "use --engine soft for them" if "soft" in ENGINES and name != "soft" else ""
    if name == "kvm" and speeds[0].native is False:
        yield (
            "CPL0 code runs in KVM's instruction emulator: fine for small guests, far too slow for a kernel; "
            + ("for those use --engine soft, or " if "soft" in ENGINES and name != "soft" else "for those use ")
            + "a host whose KVM has VT-x or SVM"
        )
    refused = sorted({mode.mode for mode in modes if not mode.works and _refused_everywhere(mode.mode, modes)})
    if refused:
        yield f"modes that do not run here: {', '.join(refused)}" + (
            f"; {other}" if other else "; another host may have them"
        )
    if any(not feature.works and feature.name.endswith("CPL0") for feature in features):
        yield (
            "the soft engine has no x87, SSE and AVX yet, at no CPL; CPUID says so to its guests"
            if name == "soft"
            else "some instructions do not execute at CPL0, though at CPL3 they may; --engine soft has all integer ones"
        )
    if facts.get("missing"):
        yield "a newer kernel would bring: " + ", ".join(facts["missing"].values())


def _refused_everywhere(mode: str, modes: tuple[ModeProbe, ...]) -> bool:
    return not any(probe.works for probe in modes if probe.mode == mode)
