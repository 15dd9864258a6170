"""The I/O APIC, behaviour by behaviour."""

from __future__ import annotations

import pytest

from belljar.devices.apic_message import ApicMessage, from_msi
from belljar.devices.ioapic import IOAPIC_GPA, MASKED, REMOTE_IRR, VERSION_WITH_EOI, IoApic
from belljar.errors import ConfigurationError

LEVEL, LOW = 1 << 15, 1 << 13


class Board:
    """An IOAPIC whose messages are kept; `takers` is how many APICs take each."""

    def __init__(self, **options: int) -> None:
        self.sent: list[ApicMessage] = []
        self.takers = 1
        self.chip = IoApic(self._deliver, **options)

    def _deliver(self, message: ApicMessage) -> int:
        self.sent.append(message)
        return self.takers

    def write(self, index: int, value: int) -> None:
        self.chip.mmio_write(IOAPIC_GPA, 4, index)
        self.chip.mmio_write(IOAPIC_GPA + 0x10, 4, value)

    def read(self, index: int) -> int:
        self.chip.mmio_write(IOAPIC_GPA, 4, index)
        return self.chip.mmio_read(IOAPIC_GPA + 0x10, 4)

    def program(self, pin: int, low: int, high: int = 0) -> None:
        self.write(0x11 + 2 * pin, high)
        self.write(0x10 + 2 * pin, low)


def test_version_is_read_only_and_the_id_has_four_bits() -> None:
    board = Board()
    assert board.read(1) == 0x00170011
    assert Board(version=VERSION_WITH_EOI).read(1) == 0x00170020
    board.write(0, 0xFFFFFFFF)
    assert (board.read(0), board.read(2)) == (0x0F000000, 0x0F000000)
    board.write(1, 0)
    assert board.read(1) == 0x00170011
    with pytest.raises(ConfigurationError, match="version 0x12"):
        Board(version=0x12)


def test_every_pin_starts_masked_and_keeps_what_may_be_written() -> None:
    board = Board()
    for pin in range(24):
        assert (board.read(0x10 + 2 * pin), board.read(0x11 + 2 * pin)) == (MASKED, 0)
        board.program(pin, 0xFFFFFFFF, 0xFFFFFFFF)
        assert board.read(0x10 + 2 * pin) == 0x1AFFF, "delivery status and remote IRR are the chip's"
        assert board.read(0x11 + 2 * pin) == 0xFF000000
    assert board.read(0x40) == 0xFFFFFFFF


def test_an_entry_becomes_a_message() -> None:
    board = Board()
    board.chip.name_pin(7, "disk")
    board.program(7, 0x45 | 1 << 8 | 1 << 11 | LOW, 0x0F000000)
    assert board.chip.set_pin(7, True) == 1
    (message,) = board.sent
    assert message[:7] == (0x45, 1, 0x0F, True, False, True, "disk")
    assert from_msi(*message.to_msi(), source="disk") == message


def test_edges_are_sent_once_and_lost_while_masked() -> None:
    board = Board()
    board.program(3, 0x33)
    board.chip.set_pin(3, True)
    board.chip.set_pin(3, True)
    assert len(board.sent) == 1
    board.chip.set_pin(3, False)
    board.program(3, 0x33 | MASKED)
    assert board.chip.set_pin(3, True) == -1
    board.program(3, 0x33)
    assert len(board.sent) == 1


def test_a_level_waits_for_the_end_of_interrupt_and_comes_again_while_up() -> None:
    board = Board()
    board.program(9, 0x50 | LEVEL)
    board.chip.set_pin(9, True)
    assert board.read(0x10 + 18) & REMOTE_IRR
    assert board.chip.set_pin(9, True) == -1
    board.chip.end_of_interrupt(0x51)
    assert len(board.sent) == 1
    board.chip.end_of_interrupt(0x50)
    assert len(board.sent) == 2
    board.chip.set_pin(9, False)
    board.chip.end_of_interrupt(0x50)
    assert (len(board.sent), board.read(0x10 + 18) & REMOTE_IRR) == (2, 0)


def test_a_masked_level_is_sent_when_it_is_unmasked() -> None:
    board = Board()
    board.program(9, 0x50 | LEVEL | MASKED)
    board.chip.set_pin(9, True)
    assert not board.sent
    board.program(9, 0x50 | LEVEL)
    assert len(board.sent) == 1


def test_a_level_that_nobody_takes_is_not_waited_for() -> None:
    board = Board()
    board.takers = 0
    board.program(9, 0x50 | LEVEL)
    board.chip.set_pin(9, True)
    assert not board.read(0x10 + 18) & REMOTE_IRR


def test_making_an_entry_edge_triggered_clears_a_stuck_remote_irr() -> None:
    board = Board()
    board.program(9, 0x50 | LEVEL)
    board.chip.set_pin(9, True)
    board.chip.set_pin(9, False)
    board.program(9, 0x50 | MASKED)
    board.program(9, 0x50 | LEVEL)
    assert not board.read(0x10 + 18) & REMOTE_IRR


def test_the_eoi_register_is_there_from_version_0x20_on() -> None:
    for version, left in ((0x11, REMOTE_IRR), (0x20, 0)):
        board = Board(version=version)
        board.program(9, 0x50 | LEVEL)
        board.chip.set_pin(9, True)
        board.chip.set_pin(9, False)
        board.chip.mmio_write(IOAPIC_GPA + 0x40, 4, 0x50)
        assert board.read(0x10 + 18) & REMOTE_IRR == left


def test_messages_to_other_addresses_are_none() -> None:
    assert from_msi(0xFED00000, 0x41) is None
    message = from_msi(0x00000100_FEE05004 | 8, 0xC131)
    assert message is not None
    assert (message.destination, message.logical, message.redirection_hint) == (0x105, True, True)
    assert (message.vector, message.delivery, message.level_triggered) == (0x31, 1, True)
