"""A host's health as lines of plain text; lines that start without a space are headings."""

from __future__ import annotations

from textwrap import wrap

from belljar.observe.doctor_model import EngineHealth, FeatureProbe, Health, ModeProbe, SpeedProbe
from belljar.observe.words import data_size


def health_lines(health: Health) -> list[str]:
    """All of it."""
    host = health.host
    lines = [f"belljar {health.belljar} on {host['kernel']}, {host['processor']}, Python {host['python']}"]
    for engine in health.engines:
        lines += ["", *_engine(engine)]
    advice = [item for engine in health.engines for item in engine.advice]
    if advice:
        lines += ["", "What to do", *(f"  {item}" for item in advice)]
    return lines


def _engine(engine: EngineHealth) -> list[str]:
    if not engine.available:
        return [f"engine {engine.name}: not available", f"  {engine.why_not}"]
    lines = [f"engine {engine.name}: available"]
    facts = engine.facts
    if facts:
        there = sum(1 for value in facts["capabilities"].values() if value)
        lines += [
            f"  {facts['device']} opens, API version {facts['api_version']}; "
            f"{there} of the {len(facts['capabilities'])} capabilities that belljar knows",
            f"  up to {facts['max_vcpus']} vCPUs and {facts['memory_slots']} memory slots a VM; "
            f"a run page is {data_size(facts['run_page_size'])}",
        ]
    lines += [_speed(speed) for speed in engine.speeds]
    lines += ["  modes, each tried by running a guest", *_modes(engine.modes)]
    lines += ["  features, each tried", *_features(engine.features)]
    lines += ["  instructions at CPL0, each tried", *_features(engine.instructions)]
    lines += ["  CPU features of its guests; --without takes any of them away"]
    return lines + wrap(" ".join(engine.cpu_features), 110, initial_indent="    ", subsequent_indent="    ")


def _speed(speed: SpeedProbe) -> str:
    if speed.per_second is None:
        return f"  CPL{speed.cpl} code: not measured, {speed.why_not}"
    how = "native" if speed.native else "emulated"
    return f"  CPL{speed.cpl} code: {how}, {_millions(speed.per_second)} million instructions/s (a LOOP in mode {speed.mode})"


def _millions(per_second: float) -> str:
    millions = per_second / 1e6
    return f"{millions:.1f}" if millions < 100 else f"{millions:.0f}"


def _modes(modes: tuple[ModeProbe, ...]) -> list[str]:
    """A line for each mode and page size, both privilege levels in it."""
    lines = []
    done = set()
    for probe in modes:
        key = (probe.mode, probe.page_size)
        if key in done:
            continue
        done.add(key)
        same = [other for other in modes if (other.mode, other.page_size) == key]
        name = f"{probe.mode} {probe.page_size or ''}".strip()
        works = "  ".join(f"CPL{other.cpl} {_yes(other.works)}" for other in same)
        why = next((f"  {other.why_not}" for other in same if not other.works), "")
        lines.append(f"    {name:<14} {works}{why}")
    return lines


def _features(features: tuple[FeatureProbe, ...]) -> list[str]:
    width = max(len(item.name) for item in features)
    return [
        f"    {item.name:<{width}} {_yes(item.works)}{'  ' + item.detail if item.detail else ''}" for item in features
    ]


def _yes(works: bool) -> str:
    return "yes" if works else "no "
