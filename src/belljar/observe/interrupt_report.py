"""The interrupts of a run as plain data: who raised which, what became of them, and how long they waited."""

from __future__ import annotations

from typing import Any

from belljar.devices.interrupt_counts import NO_VECTOR, InterruptCount
from belljar.devices.latency import LatencyHistogram
from belljar.machine import Machine
from belljar.machine.interrupts import EngineInterrupts

NOT_KNOWN_KERNEL = (
    "the chips are the kernel's: belljar knows what its own devices raised and how many interrupts each vCPU was given, "
    "not which, nor how long they waited"
)
NOT_KNOWN_SPLIT = (
    "the local APICs are the kernel's: what was delivered, merged and how long it waited is known only of interrupts that "
    "the 8259 pair gave out"
)


def interrupt_report(machine: Machine) -> dict[str, Any] | None:
    """Lines, interrupts by source and by vector, latencies in nanoseconds of the machine's clock; None without chips.

    In `by_source` and `by_vector`, `raised` is what became `delivered`, `merged` (with one that still waited) or `lost` (no
    local APIC took it), or waits at the end; `spurious` are vectors given for nothing. `by_vcpu` says who took how many.
    `not_known` says what the engine does not tell, empty if it tells all; numbers it leaves open are null.
    """
    interrupts = machine.interrupts
    if interrupts is None:
        return None
    lines = [{"gsi": line.gsi, "source": line.source, "raised": line.raised} for line in interrupts.lines]
    engine = {str(cpu.index): found for cpu in machine.cpus if (found := cpu.vcpu.interrupt_statistics())}
    for index, gone in machine.removed_cpus.items():
        if gone.interrupts:
            engine.setdefault(str(index), gone.interrupts)
    report: dict[str, Any] = {"chips": machine.chips.which, "not_known": "", "lines": lines}
    if isinstance(interrupts, EngineInterrupts):
        return {
            **report,
            "not_known": NOT_KNOWN_KERNEL,
            "messages": interrupts.messages,
            "engine": engine,
            "by_source": [],
            "by_vector": [],
        }
    split = not interrupts.chips.lapics
    entries = interrupts.chips.counts.entries()
    return {
        **report,
        "not_known": NOT_KNOWN_SPLIT if split else "",
        "engine": engine,
        "by_source": [
            {"source": entry.source, "vector": _vector(entry.vector), **_counts([entry], split)} for entry in entries
        ],
        "by_vector": [
            {
                "vector": _vector(vector),
                "sources": [entry.source for entry in entries if entry.vector == vector],
                **_counts([entry for entry in entries if entry.vector == vector], split),
            }
            for vector in sorted({entry.vector for entry in entries})
        ],
    }


def _vector(vector: int) -> int | None:
    return None if vector == NO_VECTOR else vector


def _counts(entries: list[InterruptCount], split: bool) -> dict[str, Any]:
    latency = LatencyHistogram()
    by_vcpu: dict[str, int] = {}
    for entry in entries:
        latency.merge(entry.latency)
        for cpu, count in sorted(entry.by_cpu.items()):
            name = str(cpu) if cpu >= 0 else "polled"
            by_vcpu[name] = by_vcpu.get(name, 0) + count
    known = not split or bool(by_vcpu)
    return {
        "raised": sum(entry.raised for entry in entries),
        "delivered": sum(by_vcpu.values()) if known else None,
        "merged": sum(entry.merged for entry in entries) if known else None,
        "lost": sum(entry.lost for entry in entries),
        "spurious": sum(entry.spurious for entry in entries),
        "by_vcpu": by_vcpu,
        "latency": latency.as_dict(),
    }
