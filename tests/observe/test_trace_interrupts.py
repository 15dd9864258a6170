"""A trace of interrupts says what became of each: requested, merged, held back, lost, spurious, polled, delivered, ended."""

from __future__ import annotations

from typing import Any

import pytest

from belljar.devices.apic_message import ApicMessage, DeliveryMode
from belljar.devices.clock import InstructionClock
from belljar.devices.interrupt_chips import InterruptChips
from belljar.observe.trace_interrupts import InterruptTrace
from belljar.x86.local_apic import Reg


class Board:
    """Chips of two CPUs whose local APICs are on, and what is said of them."""

    def __init__(self) -> None:
        self.clock = InstructionClock()
        self.chips = InterruptChips(self.clock, cpus=2)
        for lapic in self.chips.lapics.values():
            lapic.write(Reg.SVR, 0x1FF)
        self.said: list[tuple[int, str]] = []
        lines: Any = self._line
        self.chips.counts.watch = InterruptTrace(lines)

    def _line(self, cpu: int, kind: str, text: str) -> None:
        assert kind == "irq"
        self.said.append((cpu, text))

    @property
    def texts(self) -> list[str]:
        """What was said, without who did it."""
        return [text for _, text in self.said]

    def open_pin(self, pin: int, low: int, high: int = 0) -> None:
        """Program an entry of the IOAPIC's table."""
        self.chips.ioapic.write_register(0x11 + 2 * pin, high)
        self.chips.ioapic.write_register(0x10 + 2 * pin, low)


@pytest.fixture
def board() -> Board:
    """A new one."""
    return Board()


def test_second_request_merges_with_one_that_waits(board: Board) -> None:
    board.open_pin(20, 0x61)
    line = board.chips.router.line(20, "disk")
    line.pulse()
    board.clock.advance(250)
    line.pulse()
    board.chips.lapics[0].take()
    board.chips.lapics[0].write(Reg.EOI, 0)
    sends = "ioapic pin 20: sends vector 0x61 fixed edge to apic 0x0 (disk)"
    assert board.said == [
        (-1, "gsi 20 up (disk)"),
        (-1, sends),
        (0, "lapic: vector 0x61 requested (disk)"),
        (-1, "gsi 20 down (disk)"),
        (-1, "gsi 20 up (disk)"),
        (-1, sends),
        (0, "lapic: vector 0x61 merged with one that waits already (disk)"),
        (-1, "gsi 20 down (disk)"),
        (0, "lapic: vector 0x61 delivered after 250 ns (disk)"),
        (0, "lapic: vector 0x61 ended"),
    ]


def test_line_that_no_pin_lets_through_is_held_back(board: Board) -> None:
    board.chips.router.line(20, "disk")(True)
    assert board.texts == [
        "gsi 20 up (disk)",
        "gsi 20 held back: its pins are masked, or have not finished the last one (disk)",
    ]


def test_level_that_stays_up_is_sent_again_at_its_end(board: Board) -> None:
    board.open_pin(20, 0x8061, 1 << 24)
    board.chips.router.line(20, "disk")(True)
    board.chips.lapics[1].take()
    board.said.clear()
    board.chips.lapics[1].write(Reg.EOI, 0)
    assert board.texts == [
        "lapic: vector 0x61 ended",
        "ioapic pin 20: sends vector 0x61 fixed level to apic 0x1 (disk)",
        "lapic: vector 0x61 requested (disk)",
    ]


def test_what_nobody_takes_is_lost(board: Board) -> None:
    board.chips.lapics[1].write(Reg.SVR, 0xFF)
    board.chips.signal_msi(0xFEE0_1000, 0x50, "nic")
    board.chips.signal_msi(0xFEE0_9000, 0x50, "nic")
    assert board.said == [
        (-1, "sends vector 0x50 fixed edge to apic 0x1 (nic)"),
        (1, "lapic: vector 0x50 lost: the local APIC is off, or the vector below 16 (nic)"),
        (-1, "sends vector 0x50 fixed edge to apic 0x9 (nic)"),
        (-1, "vector 0x50 fixed lost: no local APIC has that address (nic)"),
    ]


def test_messages_that_are_no_interrupts_say_what_they_are(board: Board) -> None:
    for delivery, vector in (
        (DeliveryMode.NMI, 0),
        (DeliveryMode.INIT, 0),
        (DeliveryMode.STARTUP, 8),
        (DeliveryMode.SMI, 0),
    ):
        board.chips.deliver(ApicMessage(vector, delivery, 1, source="host"))
    assert board.texts == [
        "sends nmi edge to apic 0x1 (host)",
        "lapic: nmi requested (host)",
        "sends init edge to apic 0x1 (host)",
        "lapic: init requested (host)",
        "sends startup at 0x8000 edge to apic 0x1 (host)",
        "lapic: startup at 0x8000 requested (host)",
        "sends smi edge to apic 0x1 (host)",
        "lapic: smi requested (host)",
    ]


def test_reserved_delivery_mode_is_lost_without_harm(board: Board) -> None:
    board.chips.deliver(ApicMessage(0x40, DeliveryMode.RESERVED, 1, source="host"))
    assert board.texts == ["sends reserved edge to apic 0x1 (host)"]


def test_shorthands_of_ipis_say_whom_they_mean(board: Board) -> None:
    for shorthand in (1, 2, 3):
        board.chips.lapics[0].write(Reg.ICR, 0x4040 | shorthand << 18)
    sent = [text for text in board.texts if text.startswith("sends")]
    assert sent == [
        f"sends vector 0x40 fixed edge to {whom} (ipi from cpu 0)" for whom in ("itself", "all", "all others")
    ]


def test_logical_destinations_and_broadcasts_are_told_apart(board: Board) -> None:
    board.chips.deliver(ApicMessage(0x40, DeliveryMode.LOWEST_PRIORITY, 3, logical=True, source="host"))
    board.chips.deliver(ApicMessage(0x41, destination=0xFF, source="host"))
    sent = [text for text in board.texts if text.startswith("sends")]
    assert sent == [
        "sends vector 0x40 lowest-priority edge to logical 0x3 (host)",
        "sends vector 0x41 fixed edge to all (host)",
    ]


def test_spurious_and_polled_interrupts(board: Board) -> None:
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0)):
        board.chips.pic.port_write(port, 1, value)
    board.chips.pic.acknowledge(0)
    board.chips.router.line(4, "serial").pulse()
    board.chips.pic.port_write(0x20, 1, 0x0C)
    board.chips.pic.port_read(0x20, 1)
    board.chips.pic.port_write(0x20, 1, 0x20)
    assert board.said == [
        (0, "pic: spurious vector 0x37 delivered, the request is gone"),
        (-1, "gsi 4 up (serial)"),
        (-1, "pic pin 4: vector 0x34 requested (serial)"),
        (-1, "gsi 4 down (serial)"),
        (-1, "pic: vector 0x34 polled after 0 ns (serial)"),
        (-1, "pic: vector 0x34 ended"),
    ]
