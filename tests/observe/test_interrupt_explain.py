"""Interrupt chips explained: where lines lead and what every chip holds, alike whoever's the chips are."""

from __future__ import annotations

import json

import pytest

from belljar.devices.apic_bus import ApicBus
from belljar.devices.clock import InstructionClock
from belljar.devices.lapic import Lapic
from belljar.devices.lines import IoapicRoute, MsiRoute, PicRoute
from belljar.machine import End, Machine
from belljar.observe.chip_facts import chip_facts, lapic_page
from belljar.observe.explain import explain
from belljar.observe.explain_html import explain_page
from belljar.observe.explain_model import ChipFacts, Explanation
from belljar.observe.explain_text import explain_lines, interrupt_lines
from belljar.x86.local_apic import Reg
from common import open_or_skip
from conformance.assembly import guest

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
    assert (line.message_gpa, line.message_data) == (0xFEE0_0000, 0x77)
    assert (line.delivery, line.vcpus) == ("fixed", ()), "a local APIC is off until software switches it on"


def test_lapic_page_lies_as_the_manual_has_it() -> None:
    lapic = Lapic(3, ApicBus(), InstructionClock())
    lapic.write(Reg.SVR, 0x1AB)
    lapic.accept(0x91, True, "test")
    page = lapic_page(lapic)
    assert len(page) == 1024
    assert page[0x20:0x24] == bytes([0, 0, 0, 3])
    assert page[0xF0:0xF4] == bytes([0xAB, 1, 0, 0])
    assert page[0x240:0x244] == (1 << 0x11).to_bytes(4, "little")


MODES = r"""
.set AP, 0x2000
.set COUNT, 0x5000
.macro start id
    lapic 0x310, \id << 24
    lapic 0x300, 0x4500
    lapic 0x300, 0x4600 | AP >> 12
.endm
main:
    mov rsi, offset trampoline
    mov rdi, AP
    mov ecx, trampoline_end - trampoline
    rep movsb
    lapic 0xD0, 0x01000000              # logical destination 1, flat
    lapic 0x350, 0x700                  # LINT0: what the 8259s have
    start 1
    start 2
wait:
    pause
    cmp byte ptr [COUNT], 2
    jne wait
    redirect 5, 0x0455, 0x01000000      # NMI to APIC 1
    redirect 6, 0x0956, 0x03000000      # lowest priority to logical 3: both
    redirect 7, 0x0057, 0x02000000      # fixed to APIC 2, which is off
    redirect 8, 0x0058, 0xFF000000      # to all
    redirect 9, 0x0859, 0x02000000      # to logical 2: APIC 1 as an x2APIC
    redirect 10, 0x005A, 0x07000000     # to nobody
    mov al, 0
    out 0xF4, al                        # who halts may be woken by an NMI
.code16
trampoline:
    xor ax, ax
    mov ds, ax
    mov ecx, 0x1B
    rdmsr
    or ax, 0xC00                        # x2APIC
    wrmsr
    mov ecx, 0x802
    rdmsr
    cmp eax, 2
    je on
    mov ecx, 0x80F
    mov eax, 0x1FF                      # the second is switched on, the third not
    xor edx, edx
    wrmsr
on: lock inc byte ptr [COUNT]
    cli
1:  hlt
    jmp 1b
trampoline_end:
"""

MESSAGES = {
    40: (0xFEE0_0000, 0x0071), 41: (0xFEE0_1000, 0x0472), 42: (0xFEE0_2000, 0x0073), 43: (0xFEE0_2000, 0x0400),
    44: (0xFEEF_F000, 0xC074), 45: (0xFEE0_300C, 0x0175), 46: (0x1234_0000, 0x0076), 47: (0xFEE0_7000, 0x0077),
}  # fmt: skip
"""GSI: address and data."""


@pytest.mark.parametrize(("engine", "irqchip"), CHIPS, ids="-".join)
def test_routes_lead_where_the_guest_and_the_host_have_put_them(engine: str, irqchip: str) -> None:
    pins = [IoapicRoute(gsi + 20, gsi) for gsi in range(5, 11)]
    messages = [MsiRoute(gsi, *message) for gsi, message in MESSAGES.items()]
    opened = open_or_skip(engine)
    with opened, Machine(guest(MODES), engine=opened, irqchip=irqchip, cpus=3, mode="long") as machine:  # type: ignore[attr-defined]
        assert machine.interrupts is not None
        machine.interrupts.set_routes([*pins, PicRoute(3, 9), *messages])
        machine.line(25, "watchdog")
        assert machine.run(timeout=20).end is End.DEBUG_EXIT
        facts = chip_facts(machine)
    assert facts is not None
    assert [(lapic.mode, lapic.id, lapic.software_enabled) for lapic in facts.lapics] == [
        ("xAPIC", 0, True), ("x2APIC", 1, True), ("x2APIC", 2, False),
    ]  # fmt: skip
    found = {line.gsi: (line.delivery, line.trigger, line.vcpus) for line in facts.lines if line.chip == "ioapic"}
    assert found == {
        25: ("nmi", "edge", (1,)), 26: ("lowest-priority", "edge", (0, 1)), 27: ("fixed", "edge", ()),
        28: ("fixed", "edge", (0, 1)), 29: ("fixed", "edge", (1,)), 30: ("fixed", "edge", ()),
    }  # fmt: skip
    found = {line.gsi: (line.delivery, line.trigger, line.vcpus) for line in facts.lines if line.chip == "msi"}
    assert found == {
        40: ("fixed", "edge", (0,)), 41: ("nmi", "edge", (1,)), 42: ("fixed", "edge", ()), 43: ("nmi", "edge", (2,)),
        44: ("fixed", "level", (0, 1)), 45: ("lowest-priority", "edge", (0, 1)), 46: ("fixed", "edge", ()),
        47: ("fixed", "edge", ()),
    }  # fmt: skip
    (pic,) = [line for line in facts.lines if line.chip == "pic"]
    assert (pic.gsi, pic.pin, pic.masked, pic.vcpus) == (3, 9, True, (0,))
    (watchdog,) = [line for line in facts.lines if line.gsi == 25]
    assert (watchdog.sources, watchdog.pin, watchdog.vector) == (("watchdog",), 5, 0x55)
