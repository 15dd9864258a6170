"""Interrupt chips explained: where lines lead and what every chip holds, alike whoever's the chips are."""

from __future__ import annotations

import json

import pytest

from belljar.devices.apic_bus import ApicBus
from belljar.devices.clock import InstructionClock
from belljar.devices.lapic import Lapic
from belljar.devices.lapic_registers import Reg
from belljar.devices.lines import IoapicRoute, MsiRoute, PicRoute
from belljar.machine import Machine
from belljar.observe.chip_facts import chip_facts, lapic_page
from belljar.observe.explain import explain
from belljar.observe.explain_html import explain_page
from belljar.observe.explain_model import ChipFacts, Explanation
from belljar.observe.explain_text import explain_lines, interrupt_lines
from conformance.assembly import guest
from conftest import open_or_skip

CHIPS = [("kvm", "kernel"), ("kvm", "split"), ("kvm", "user"), ("soft", "user")]

PROGRAMMED = """
main:
    lapic 0x80, 0x20            # TPR
    lapic 0x320, 0x20040        # timer: periodic, vector 0x40
    lapic 0x3E0, 0x3            # divided by 16
    lapic 0x360, 0x400          # LINT1: NMI
    lapic 0x300, 0x44031        # IPI to itself, which TPR lets through when it is on, and RFLAGS.IF holds back
    redirect 4, 0xA931, 0x01000000   # COM1: lowest priority, logical, active low, level, open
    redirect 9, 0x10055
    mov al, 0x11                # 8259s: from 0x20 and 0x28, the second with automatic EOI
    out 0x20, al
    out 0xA0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xA1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xA1, al
    mov al, 1
    out 0x21, al
    mov al, 3
    out 0xA1, al
    mov al, 0xEB
    out 0x21, al
    mov al, 0xFF
    out 0xA1, al
    mov dx, 0x4D0
    mov al, 0x20
    out dx, al
    done
"""


def explained(code: object, engine: str, irqchip: str | None) -> Explanation:
    """The explanation of a run."""
    with open_or_skip(engine) as opened:  # type: ignore[attr-defined]
        return explain(code, engine=opened, irqchip=irqchip, mode="long")


def chips_at_the_end(code: object, engine: str, irqchip: str) -> ChipFacts:
    """What the guest left."""
    found = explained(code, engine, irqchip).interrupts
    assert found is not None
    return found.end


@pytest.mark.parametrize(("engine", "irqchip"), CHIPS, ids="-".join)
def test_what_a_guest_programmed_is_read_back_decoded(engine: str, irqchip: str) -> None:
    chips = chips_at_the_end(guest(PROGRAMMED), engine, irqchip)
    (lapic,) = chips.lapics
    assert (lapic.vcpu, lapic.mode, lapic.bootstrap, lapic.base_gpa, lapic.id) == (0, "xAPIC", True, 0xFEE0_0000, 0)
    assert (lapic.software_enabled, lapic.spurious_vector, lapic.tpr, lapic.ppr) == (True, 0xFF, 0x20, 0x20)
    assert (lapic.requested, lapic.in_service) == ((0x31,), ())
    assert (lapic.timer.mode, lapic.timer.initial, lapic.timer.divisor) == ("periodic", 0, 16)
    local = {entry.name: entry for entry in lapic.local}
    assert (local["timer"].vector, local["timer"].masked) == (0x40, False)
    assert (local["lint1"].delivery, local["lint1"].masked) == ("nmi", False)
    com1, acpi = chips.redirection[4], chips.redirection[9]
    assert (com1.vector, com1.delivery, com1.logical, com1.destination) == (0x31, "lowest-priority", True, 1)
    assert (com1.trigger, com1.active_low, com1.masked, com1.raw) == ("level", True, False, 0x0100_0000_0000_A931)
    assert (acpi.vector, acpi.masked) == (0x55, True)
    master, slave = chips.pics
    assert (master.base, slave.base, slave.auto_eoi, master.auto_eoi) == (0x20, 0x28, True, False)
    assert master.masked == (0, 1, 3, 5, 6, 7)
    assert (master.level_triggered, slave.masked) == ((5,), tuple(range(8)))
    line = next(line for line in chips.lines if line.gsi == 4 and line.chip == "ioapic")
    assert ("serial" in line.sources, line.pin, line.vector, line.trigger) == (True, 4, 0x31, "level")
    pic = next(line for line in chips.lines if line.gsi == 4 and line.chip == "pic")
    assert (pic.vector, pic.masked, pic.vcpus) == (0x24, False, (0,))


def test_all_chips_are_told_alike() -> None:
    found = {chips: chips_at_the_end(guest(PROGRAMMED), *chips) for chips in CHIPS}
    own = found["soft", "user"]
    for chips in found.values():
        assert chips.redirection == own.redirection
        assert [(pic.base, pic.masked, pic.level_triggered, pic.auto_eoi) for pic in chips.pics] == [
            (pic.base, pic.masked, pic.level_triggered, pic.auto_eoi) for pic in own.pics
        ]
        assert [line[:1] for line in (([each.gsi, each.chip, each.pin],) for each in chips.lines)] == [
            line[:1] for line in (([each.gsi, each.chip, each.pin],) for each in own.lines)
        ]
        for one, other in zip(chips.lapics, own.lapics, strict=True):
            assert (one.tpr, one.ppr, one.requested, one.timer.mode) == (
                other.tpr, other.ppr, other.requested, other.timer.mode,
            )  # fmt: skip


@pytest.mark.parametrize(("engine", "irqchip"), CHIPS, ids="-".join)
def test_text_and_html_show_the_same_tables(engine: str, irqchip: str) -> None:
    found = explained("tick", engine, irqchip)
    text = "\n".join(interrupt_lines(found))
    assert f"Interrupts at the start, chips: {irqchip}" in text
    assert "Interrupts at the end" in text
    assert "0x0000000000010040" in text
    assert text in "\n".join(explain_lines(found))
    page = explain_page(found)
    for words in ("Where lines lead", "Local APICs", "IOAPIC, redirection table", "8259 pair", "0x0000000000010040"):
        assert words in page
        assert words in text
    assert json.loads(json.dumps(found.as_dict()))["interrupts"]["chips"] == irqchip


def test_a_guest_that_leaves_the_chips_alone_is_told_once() -> None:
    lines = interrupt_lines(explained("hello-long", "soft", "user"))
    assert "Interrupts at the end: as they were" in lines
    assert sum("Local APICs" in line for line in lines) == 1


def test_machine_without_chips_has_no_such_section() -> None:
    found = explained("hello-long", "kvm", None)
    assert found.interrupts is None
    assert "no interrupt chips" in interrupt_lines(found)[0]
    assert not any(line.startswith("Interrupts") for line in explain_lines(found))
    assert "Where lines lead" not in explain_page(found)


def test_routes_to_messages_are_shown() -> None:
    with Machine("tick", engine="soft", irqchip="user") as machine:
        assert machine.interrupts is not None
        machine.interrupts.set_routes([PicRoute(0, 0), IoapicRoute(0, 2), MsiRoute(40, 0xFEE0_0000, 0x77)])
        machine.interrupts.line(40, "nic")
        facts = chip_facts(machine)
    assert facts is not None
    (line,) = [line for line in facts.lines if line.gsi == 40]
    assert (line.sources, line.chip, line.pin, line.vector) == (("nic",), "msi", None, 0x77)
    assert (line.message_gpa, line.message_data, line.vcpus) == (0xFEE0_0000, 0x77, (0,))


def test_lapic_page_lies_as_the_manual_has_it() -> None:
    lapic = Lapic(3, ApicBus(), InstructionClock())
    lapic.write(Reg.SVR, 0x1AB)
    lapic.accept(0x91, True, "test")
    page = lapic_page(lapic)
    assert len(page) == 1024
    assert page[0x20:0x24] == bytes([0, 0, 0, 3])
    assert page[0xF0:0xF4] == bytes([0xAB, 1, 0, 0])
    assert page[0x240:0x244] == (1 << 0x11).to_bytes(4, "little")
