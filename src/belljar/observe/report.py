"""The report of a run as plain data, fit for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from belljar import __version__
from belljar.machine import Machine, RunResult
from belljar.observe.interrupt_report import interrupt_report

SCHEMA = 1
"""Counts up when a key changes its meaning or goes away."""


def run_report(machine: Machine, result: RunResult, *, status: int | None = None) -> dict[str, Any]:
    """What happened: engine, end, exit status, exits by reason, interrupts, every vCPU's registers, memory, timings (ns).

    `exits` and `interrupts` count those of vCPUs that were removed meanwhile, too.
    `status` is the process's exit status where it differs from the guest's own. Numbers are plain integers.
    """
    by_vcpu = {cpu.index: exit_counts(cpu.vcpu.exit_counts()) for cpu in machine.cpus}
    removed = {index: exit_counts(gone.exits) for index, gone in sorted(machine.removed_cpus.items())}
    total: dict[str, int] = {}
    for counts in (*by_vcpu.values(), *removed.values()):
        for reason, count in counts.items():
            total[reason] = total.get(reason, 0) + count
    return {
        "schema": SCHEMA,
        "belljar": __version__,
        "guest": machine.guest.name,
        "engine": machine.engine.name,
        "engine_reason": machine.engine_reason,
        "irqchip_reason": machine.chips.reason,
        "mode": machine.guest.mode,
        "end": result.end.value,
        "message": result.message,
        "status": result.status if status is None else status,
        "guest_status": result.status,
        "ended_by_vcpu": result.vcpu,
        "exits": total,
        "batched_writes": machine.vm.batched_writes() if machine.vm is not None else 0,
        "unclaimed_accesses": machine.bus.unclaimed,
        "interrupts": interrupt_report(machine),
        "vcpus": [
            {
                "index": cpu.index,
                "halted": cpu.halted,
                "exits": by_vcpu[cpu.index],
                "registers": cpu.as_dict(),
                "special": asdict(cpu.special),
            }
            for cpu in machine.cpus
        ],
        "removed_vcpus": [{"index": index, "exits": counts} for index, counts in removed.items()],
        "memory": memory_report(machine),
        "timings": {f"{name}_ns": value for name, value in machine.timings_ns.items()},
    }


def exit_counts(counts: Any) -> dict[str, int]:
    """Exit counts by the reasons' labels, most frequent first."""
    return {reason.label: count for reason, count in sorted(counts.items(), key=lambda item: -item[1])}


def memory_report(machine: Machine) -> dict[str, Any]:
    """Guest memory: its size, and each region with both its addresses and the calls it was obtained with."""
    return {
        "size": machine.memory.size,
        "regions": [
            {
                "name": region.name,
                "slot": region.slot,
                "gpa": region.gpa,
                "hva": region.hva,
                "size": region.size,
                "readonly": region.readonly,
                "allocated": region.allocated,
                "obtained": region.obtained,
            }
            for region in machine.memory.regions
        ],
    }
