"""The 8259 pair, behaviour by behaviour as its data sheet lists them."""

from __future__ import annotations

import pytest

from belljar.devices.clock import InstructionClock
from belljar.devices.i8259 import PicPair

MASTER, SLAVE, ELCR = 0x20, 0xA0, 0x4D0
EOI, ROTATE_EOI, SPECIFIC, ROTATE_SPECIFIC, SET_PRIORITY = 0x20, 0xA0, 0x60, 0xE0, 0xC0
AUTO_EOI, NESTED_SPECIALLY = 0x02, 0x10


class Board:
    """A pair whose INT level is kept, initialized as PCs do: vectors 0x20 and 0x28, nothing masked."""

    def __init__(self, *, icw4: int = 0, latch_edges: bool = True) -> None:
        self.int = False
        self.pair = PicPair(self._level, clock=InstructionClock(), latch_edges=latch_edges)
        for port, base, wiring in ((MASTER, 0x20, 4), (SLAVE, 0x28, 2)):
            self.write(port, 0x11)
            for word in (base, wiring, icw4 | 1):
                self.write(port + 1, word)

    def _level(self, level: bool) -> None:
        self.int = level

    def write(self, port: int, *values: int) -> None:
        for value in values:
            self.pair.port_write(port, 1, value)

    def read(self, port: int) -> int:
        return self.pair.port_read(port, 1)

    def isr(self, port: int) -> int:
        self.write(port, 0x0B)
        return self.read(port)

    def irr(self, port: int) -> int:
        self.write(port, 0x0A)
        return self.read(port)

    def pulse(self, *pins: int) -> None:
        for pin in pins:
            self.pair.set_pin(pin, True)
            self.pair.set_pin(pin, False)

    def take(self) -> int:
        assert self.int
        return self.pair.acknowledge()


def test_an_edge_is_requested_acknowledged_served_and_ended() -> None:
    board = Board()
    board.pair.set_pin(4, True)
    assert (board.irr(MASTER), board.int) == (0x10, True)
    assert board.take() == 0x24
    assert (board.irr(MASTER), board.isr(MASTER), board.int) == (0, 0x10, False)
    board.write(MASTER, EOI)
    assert (board.isr(MASTER), board.int) == (0, False), "the level that stays up is no new edge"


def test_lower_priorities_wait_and_higher_ones_interrupt() -> None:
    board = Board()
    board.pulse(4)
    assert board.take() == 0x24
    board.pulse(6)
    assert not board.int
    board.pulse(1)
    assert board.take() == 0x21
    board.write(MASTER, EOI)
    assert board.isr(MASTER) == 0x10
    board.write(MASTER, EOI)
    assert board.take() == 0x26


def test_a_masked_request_waits_for_the_mask() -> None:
    board = Board()
    board.write(MASTER + 1, 0xFF)
    assert board.pair.set_pin(3, True) == -1
    assert (board.int, board.irr(MASTER), board.read(MASTER + 1)) == (False, 8, 0xFF)
    board.write(MASTER + 1, 0xF7)
    assert board.take() == 0x23


def test_the_slave_comes_through_pin_2_and_both_want_an_end_of_interrupt() -> None:
    board = Board()
    board.pulse(12)
    assert board.irr(MASTER) == 4
    assert board.take() == 0x2C
    assert (board.isr(MASTER), board.isr(SLAVE)) == (4, 0x10)
    board.pulse(14)
    board.write(MASTER, EOI)
    assert not board.int, "the slave still serves pin 12"
    board.write(SLAVE, EOI)
    assert board.take() == 0x2E


def test_special_fully_nested_mode_lets_the_slave_interrupt_itself() -> None:
    for icw4, expected in ((0, False), (NESTED_SPECIALLY, True)):
        board = Board(icw4=icw4)
        board.pulse(12)
        board.take()
        board.pulse(9)
        assert board.int == expected


def test_automatic_end_of_interrupt_leaves_nothing_in_service() -> None:
    board = Board(icw4=AUTO_EOI)
    board.pulse(3, 5)
    assert [board.take(), board.take()] == [0x23, 0x25]
    assert board.isr(MASTER) == 0


def test_rotation_in_automatic_mode_shares_fairly() -> None:
    board = Board(icw4=AUTO_EOI)
    board.write(MASTER, 0x80)
    board.pulse(0, 1)
    assert board.take() == 0x20
    board.pulse(0)
    assert board.take() == 0x21, "pin 0 was served last and is lowest now"
    assert board.take() == 0x20
    board.write(MASTER, 0x00)
    board.pulse(0, 1)
    assert board.take() == 0x21, "priorities stay as they were turned"


def test_rotating_end_of_interrupt_makes_the_served_pin_lowest() -> None:
    board = Board()
    board.pulse(2 + 1)
    board.take()
    board.write(MASTER, ROTATE_EOI)
    board.pulse(3, 7)
    assert board.take() == 0x27
    board.write(MASTER, EOI)
    assert board.take() == 0x23


def test_priorities_can_be_set_and_interrupts_ended_by_number() -> None:
    board = Board()
    board.write(MASTER, SET_PRIORITY | 4)
    board.pulse(0, 5)
    assert board.take() == 0x25
    board.pulse(6)
    assert not board.int
    board.write(MASTER, SPECIFIC | 5)
    assert board.take() == 0x26
    board.write(MASTER, ROTATE_SPECIFIC | 6)
    assert board.take() == 0x20


def test_special_mask_mode_lets_lower_priorities_through_a_masked_service() -> None:
    board = Board()
    board.pulse(1)
    board.take()
    board.write(MASTER + 1, 0x02)
    board.pulse(6)
    assert not board.int
    board.write(MASTER, 0x68)
    assert board.take() == 0x26
    board.write(MASTER, EOI)
    assert board.isr(MASTER) == 0x02, "a masked level in service is not ended without its number"
    board.write(MASTER, 0x48)
    board.write(MASTER, EOI)
    assert board.isr(MASTER) == 0


def test_polling_takes_the_request_as_an_acknowledgement_would() -> None:
    board = Board()
    board.pulse(5)
    board.write(MASTER, 0x0C)
    assert board.read(MASTER) == 0x85
    assert (board.isr(MASTER), board.irr(MASTER)) == (0x20, 0)
    board.write(MASTER, 0x0C)
    assert not board.read(MASTER) & 0x80
    assert board.read(MASTER) == 0, "only the first read after the command polls"


def test_a_master_that_is_polled_has_the_slaves_request_once_until_the_slave_is_polled_too() -> None:
    board = Board()
    board.pulse(12, 15)
    board.write(MASTER, 0x0C)
    assert board.read(MASTER) == 0x82
    assert (board.irr(MASTER), board.isr(MASTER)) == (0, 4)
    board.write(MASTER, EOI)
    assert (board.irr(MASTER), board.int) == (0, False)  # the slave's INT has not fallen, so there is no edge
    board.write(SLAVE, 0x0C)
    assert board.read(SLAVE) == 0x84
    board.write(SLAVE, EOI)
    assert (board.irr(MASTER), board.int) == (4, True)


def test_a_level_is_requested_again_until_it_falls() -> None:
    board = Board()
    board.write(ELCR, 0x20)
    assert board.read(ELCR) == 0x20
    board.pair.set_pin(5, True)
    assert board.take() == 0x25
    assert (board.irr(MASTER), board.int) == (0x20, False)
    board.write(MASTER, EOI)
    assert board.take() == 0x25
    board.pair.set_pin(5, False)
    board.write(MASTER, EOI)
    assert not board.int


def test_elcr_keeps_system_pins_edge_triggered_and_follows_the_pin_when_it_changes() -> None:
    board = Board()
    board.write(ELCR, 0xFF)
    board.write(ELCR + 1, 0xFF)
    assert (board.read(ELCR), board.read(ELCR + 1)) == (0xF8, 0xDE)
    board.write(ELCR, 0)
    board.pulse(3)
    board.write(ELCR, 0x08)
    assert (board.irr(MASTER), board.int) == (0, False), "the edge is gone with the pin low"


@pytest.mark.parametrize(("pin", "vector"), [(5, 0x27), (13 - 1, 0x2F)])
def test_a_level_that_falls_before_it_is_taken_gives_the_spurious_vector(pin: int, vector: int) -> None:
    board = Board()
    board.write(ELCR, 0xF8, 0xF8)
    board.write(ELCR + 1, 0xDE)
    board.pair.set_pin(pin, True)
    assert board.int
    board.pair.set_pin(pin, False)
    assert board.pair.acknowledge() == vector
    assert board.isr(MASTER) == (4 if pin > 7 else 0), "the master does not know that its slave had nothing"
    assert board.isr(SLAVE) == 0


def test_without_latching_an_edge_that_falls_early_is_spurious_too() -> None:
    board = Board(latch_edges=False)
    board.pulse(3)
    assert not board.int
    assert board.pair.acknowledge() == 0x27


def test_icw1_resets_edges_masks_and_priorities() -> None:
    board = Board(icw4=AUTO_EOI)
    board.write(MASTER, SET_PRIORITY | 3, 0x0B)
    board.write(MASTER + 1, 0xFF)
    board.pair.set_pin(1, True)
    board.write(MASTER, 0x10)
    for word in (0x43, 0x04):
        board.write(MASTER + 1, word)
    assert (board.read(MASTER), board.read(MASTER + 1), board.int) == (0, 0, False)
    board.pair.set_pin(1, False)
    board.pulse(1, 0)
    assert board.take() == 0x40, "the base's low three bits are the pin's"
    assert board.isr(MASTER) == 1, "ICW4 was not announced: its functions are off"


def test_single_mode_has_no_icw3_and_no_slave() -> None:
    board = Board()
    board.write(MASTER, 0x13)
    for word in (0x30, 0x01, 0xFA):
        board.write(MASTER + 1, word)
    assert board.read(MASTER + 1) == 0xFA
    board.pulse(9)
    assert board.take() == 0x32
