"""The report's interrupts: by source and vector, who took them, how long they waited, and what is not known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from belljar.devices.apic_message import ApicMessage
from belljar.engine import Engine
from belljar.errors import FeatureUnsupported
from belljar.machine import Machine
from belljar.machine.own_interrupts import OwnInterrupts
from belljar.observe.report import run_report
from belljar.observe.report_text import report_lines

VECTOR = 0x40


def report_of(engine: Engine, irqchip: str | None) -> dict[str, Any]:
    """The report of three ticks."""
    try:
        machine = Machine("tick", engine=engine, irqchip=irqchip)
    except FeatureUnsupported as error:
        pytest.skip(str(error))
    with machine:
        if irqchip not in (None, machine.chips.which):
            pytest.skip(machine.chips.reason)
        result = machine.run(timeout=10)
        return run_report(machine, result)


def test_own_chips_tell_everything(engine: Engine) -> None:
    found = report_of(engine, "user")["interrupts"]
    assert (found["chips"], found["not_known"]) == ("user", "")
    assert {"gsi": 0, "source": "pit", "raised": 3} in found["lines"]
    (by_source,) = [entry for entry in found["by_source"] if entry["source"] == "pit"]
    assert (by_source["vector"], by_source["raised"], by_source["delivered"]) == (VECTOR, 3, 3)
    assert (by_source["merged"], by_source["lost"], by_source["spurious"]) == (0, 0, 0)
    assert by_source["by_vcpu"] == {"0": 3}
    latency = by_source["latency"]
    assert latency["count"] == 3
    assert 0 <= latency["min_ns"] <= latency["p50_ns"] <= latency["p99_ns"] <= latency["max_ns"]
    (by_vector,) = found["by_vector"]
    assert (by_vector["vector"], by_vector["sources"], by_vector["delivered"]) == (VECTOR, ["pit"], 3)


def test_kernels_chips_say_what_is_not_known(engine: Engine) -> None:
    found = report_of(engine, "kernel")["interrupts"]
    assert "not which" in found["not_known"]
    assert found["by_source"] == []
    if found["engine"]:
        assert found["engine"]["0"]["irq_injections"] == 3


def test_split_chips_know_what_was_sent(engine: Engine) -> None:
    found = report_of(engine, "split")["interrupts"]
    (entry,) = found["by_source"]
    assert (entry["source"], entry["vector"], entry["raised"], entry["delivered"]) == ("pit", VECTOR, 3, None)
    assert "local APICs are the kernel's" in found["not_known"]


def test_machine_without_chips_has_no_interrupts(engine: Engine) -> None:
    with Machine("hello-long", engine=engine) as machine:
        report = run_report(machine, machine.run(timeout=10))
    if machine.interrupts is None:
        assert report["interrupts"] is None
        assert "no interrupt chips" in report_lines(report)[-1]


@pytest.mark.parametrize("irqchip", ["user", "kernel", "split", None])
def test_every_report_can_be_written(engine: Engine, irqchip: str | None) -> None:
    report = report_of(engine, irqchip)
    assert json.loads(json.dumps(report)) == report
    lines = report_lines(report)
    assert lines[0].startswith(f"tick on {engine.name}, mode long: halt")
    assert all(line == line.rstrip() for line in lines)


def test_sources_of_one_vector_are_told_together_and_apart() -> None:
    with Machine("tick", engine="soft", irqchip="user") as machine:
        result = machine.run(timeout=10)
        interrupts = machine.interrupts
        assert isinstance(interrupts, OwnInterrupts)
        with interrupts.lock:
            interrupts.chips.deliver(ApicMessage(VECTOR, source="disk"))
        report = run_report(machine, result)
    (by_vector,) = report["interrupts"]["by_vector"]
    assert by_vector["sources"] == ["disk", "pit"]
    assert (by_vector["raised"], by_vector["delivered"]) == (4, 3)
    text = "\n".join(report_lines(report))
    assert "disk, pit" in text
