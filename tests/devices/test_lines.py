"""Interrupt lines: levels are shared, tables route, counts and explanations tell who reached whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.devices.clock import InstructionClock
from belljar.devices.interrupt_chips import InterruptChips
from belljar.devices.lines import IoapicRoute, MsiRoute, PicRoute, PinState, Router, identity_routes, pc_routes
from belljar.errors import ConfigurationError


class Pins:
    """A chip that only remembers."""

    def __init__(self) -> None:
        self.levels: dict[int, bool] = {}
        self.calls: list[tuple[int, bool]] = []
        self.names: dict[int, str] = {}

    def set_pin(self, pin: int, level: bool) -> int:
        self.levels[pin] = level
        self.calls.append((pin, level))
        return 1

    def name_pin(self, pin: int, source: str) -> None:
        self.names[pin] = source

    def pin_state(self, pin: int) -> PinState:
        return PinState(pin, "fixed", "edge", False, ())


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_a_shared_line_is_up_while_any_source_holds_it(changes: list[tuple[int, bool]]) -> None:
    pic = Pins()
    router = Router(pic=pic)
    router.set_routes([PicRoute(5, 7)])
    lines = [router.line(5, name) for name in "abc"]
    held = [False] * 3
    for which, level in changes:
        lines[which](level)
        held[which] = level
        assert router.level(5) == any(held) == pic.levels.get(7, False)
    assert all(one[1] != other[1] for one, other in zip(pic.calls, pic.calls[1:], strict=False)), (
        "only changes are told"
    )


def test_level_may_be_a_bit_of_a_device_s_register() -> None:
    router = Router(pic=(pic := Pins()))
    router.set_routes([PicRoute(5, 7)])
    line = router.line(5, "uart")
    for level in (0x40, 1, 0, 0x80):
        line(level)
    assert pic.calls == [(7, True), (7, False), (7, True)]
    assert line.level is True
    assert line.raised == 2


def test_a_pc_has_its_timer_on_pin_0_of_the_8259_and_2_of_the_ioapic() -> None:
    routes = pc_routes()
    assert [route for route in routes if route.gsi == 0] == [PicRoute(0, 0), IoapicRoute(0, 2)]
    assert [route for route in routes if route.gsi == 2] == []
    assert [route for route in routes if route.gsi == 9] == [PicRoute(9, 9), IoapicRoute(9, 9)]
    assert [route for route in routes if route.gsi == 23] == [IoapicRoute(23, 23)]
    assert IoapicRoute(2, 2) in identity_routes()


def test_a_message_is_sent_when_the_level_rises() -> None:
    sent: list[tuple[int, int, str]] = []
    router = Router(send_msi=lambda address, data, source: sent.append((address, data, source)) or 1)
    router.set_routes([MsiRoute(30, 0xFEE00000, 0x41)])
    line = router.line(30, "disk")
    assert [line(True), line(True), line(False), line.pulse()] == [1, 0, -1, 1]
    assert sent == [(0xFEE00000, 0x41, "disk")] * 2


def test_new_routes_move_lines_that_are_up() -> None:
    pic, ioapic = Pins(), Pins()
    router = Router(pic=pic, ioapic=ioapic)
    router.set_routes([PicRoute(4, 4)])
    router.line(4, "serial")(True)
    router.set_routes([IoapicRoute(4, 20)])
    assert (pic.levels, ioapic.levels) == ({4: False}, {20: True})
    assert ioapic.names == {20: "serial"}


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ([PicRoute(1, 16)], "pin 16 of a chip that has 16"),
        ([IoapicRoute(1, 24)], "pin 24 of a chip that has 24"),
        ([PicRoute(1, 3), PicRoute(2, 3)], "used twice"),
        ([IoapicRoute(1, 3), IoapicRoute(1, 4)], "used twice"),
        ([MsiRoute(4096, 0, 0)], "no interrupt line 4096"),
    ],
)
def test_impossible_routes_are_refused(routes: list, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Router().set_routes(routes)


def test_explanations_say_which_line_reaches_which_vector_on_which_cpu() -> None:
    chips = InterruptChips(InstructionClock(), cpus=4)
    for cpu in (2, 3):
        chips.lapics[cpu].write(0x0F, 0x1FF)
    line = chips.router.line(4, "serial")
    chips.router.set_routes([*pc_routes(), MsiRoute(40, 0xFEE02000, 0x55)])
    chips.router.line(40, "nic")
    chips.ioapic.write_register(0x10 + 2 * 4, 0x31 | 1 << 15)
    chips.ioapic.write_register(0x11 + 2 * 4, 3 << 24)
    line(True)
    rows = {(row.gsi, row.chip): row for row in chips.explain()}
    row = rows[4, "ioapic"]
    assert (row.sources, row.level, row.pin) == (("serial",), True, 4)
    assert row.state == PinState(0x31, "fixed", "level", False, (3,))
    assert rows[4, "pic"].state.cpus == (0,), "only the bootstrap processor takes ExtINT"
    assert (rows[40, "msi"].state.vector, rows[40, "msi"].state.cpus) == (0x55, (2,))
    assert rows[0, "ioapic"].state.masked


def test_counts_tell_source_vector_and_latency() -> None:
    clock = InstructionClock()
    chips = InterruptChips(clock, cpus=1)
    lapic = chips.lapics[0]
    lapic.write(0x0F, 0x1FF)
    chips.ioapic.write_register(0x10 + 2 * 20, 0x61)
    line = chips.router.line(20, "disk")
    line.pulse()
    clock.advance(250)
    line.pulse()
    assert lapic.take() == 0x61
    (entry,) = chips.counts.entries()
    assert (entry.source, entry.vector, entry.count, entry.merged) == ("disk", 0x61, 1, 1)
    assert (entry.latency.sum_ns, entry.latency.max_ns, entry.by_cpu) == (250, 250, {0: 1})
