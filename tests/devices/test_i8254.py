"""The 8254, mode by mode as its data sheet draws them; times are ticks of its input clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.devices.clock import InstructionClock
from belljar.devices.i8254 import PIT_HZ, Pit
from belljar.devices.pit_counter import PitCounter, from_bcd, to_bcd
from devices.pc import Pc

LOW, HIGH, BOTH = 1, 2, 3


def counter(mode: int, count: int, *, gate: bool = True, bcd: bool = False) -> PitCounter:
    """A counter whose count was written at tick -1, so that it is loaded at tick 0."""
    made = PitCounter(gate=gate)
    made.control(BOTH, mode, bcd)
    made.write(count & 0xFF, -1)
    made.write(count >> 8, -1)
    return made


def wave(made: PitCounter, ticks: int, start: int = 0) -> str:
    return "".join("-" if made.out(now) else "_" for now in range(start, start + ticks))


def test_mode_0_rises_at_the_terminal_count_and_goes_on_counting() -> None:
    made = counter(0, 4)
    assert wave(made, 8) == "____----"
    assert [made.value(now) for now in range(7)] == [4, 3, 2, 1, 0, 0xFFFF, 0xFFFE]


def test_mode_0_pauses_with_its_gate_and_between_two_bytes() -> None:
    made = counter(0, 4)
    made.set_gate(False, 2)
    assert (made.value(50), made.out(50)) == (2, False)
    made.set_gate(True, 100)
    assert wave(made, 4, 100) == "__--"
    made.write(9, 104)
    assert (made.out(104), made.next_change(104)) == (False, None)
    made.write(0, 110)
    assert (made.value(111), made.out(119), made.out(120)) == (9, False, True)


def test_mode_1_is_a_pulse_at_each_rise_of_the_gate() -> None:
    made = counter(1, 3, gate=False)
    assert wave(made, 3) == "---"
    made.set_gate(True, 9)
    assert wave(made, 5, 10) == "___--"
    made.set_gate(False, 20)
    made.set_gate(True, 20)
    made.set_gate(False, 21)
    made.set_gate(True, 21)
    assert wave(made, 5, 21) == "____-", "triggered again before it ended"
    made.write(6, 25)
    made.write(0, 25)
    assert made.value(25) == 0
    made.set_gate(False, 30)
    made.set_gate(True, 30)
    assert wave(made, 7, 31) == "______-"


def test_mode_1_without_a_count_ignores_its_gate() -> None:
    made = PitCounter(gate=False)
    made.control(BOTH, 1, False)
    made.set_gate(True, 5)
    assert wave(made, 5, 5) == "-----"


def test_mode_2_is_low_for_the_last_tick_of_each_cycle() -> None:
    made = counter(2, 3)
    assert wave(made, 9) == "--_--_--_"
    assert [made.value(now) for now in range(5)] == [3, 2, 1, 3, 2]
    made.set_gate(False, 5)
    assert wave(made, 3, 5) == "---"
    made.set_gate(True, 9)
    assert wave(made, 6, 10) == "--_--_"


def test_mode_2_takes_a_new_count_at_the_end_of_the_cycle() -> None:
    made = counter(2, 4)
    assert made.out(41)
    made.write(2, 41)
    made.write(0, 41)
    assert wave(made, 7, 41) == "--_-_-_"


@pytest.mark.parametrize(("count", "drawn"), [(4, "--__--__"), (5, "---__---__"), (2, "-_-_"), (3, "--_--_")])
def test_mode_3_is_high_for_the_longer_half(count: int, drawn: str) -> None:
    assert wave(counter(3, count), len(drawn)) == drawn


def test_mode_3_counts_by_two_and_takes_a_new_count_at_the_end_of_the_half() -> None:
    made = counter(3, 6)
    assert [made.value(now) for now in range(7)] == [6, 4, 2, 6, 4, 2, 6]
    made.write(4, 7)
    made.write(0, 7)
    assert wave(made, 9, 6) == "---__--__"
    made.write(8, 15)
    made.write(0, 15)
    assert wave(made, 9, 15) == "--____---"


@pytest.mark.parametrize("mode", [4, 5])
def test_strobes_are_low_for_one_tick(mode: int) -> None:
    made = counter(mode, 3, gate=mode == 4)
    if mode == 5:
        assert wave(made, 5) == "-----"
        made.set_gate(True, -1)
    assert wave(made, 7) == "---_---"


def test_modes_6_and_7_are_2_and_3() -> None:
    for mode in (6, 7):
        made = PitCounter(gate=True)
        made.control(LOW, mode, False)
        assert made.mode == mode - 4


def test_zero_is_the_largest_count_and_bcd_counts_in_tens() -> None:
    assert counter(0, 0).next_change(0) == 0x10000
    made = counter(0, 0, bcd=True)
    assert (made.next_change(0), made.value(1)) == (10_000, 0x9999)
    assert [counter(2, 0x12, bcd=True).value(now) for now in (0, 2, 3, 11)] == [0x12, 0x10, 0x09, 0x01]


@given(st.integers(0, 9999))
def test_bcd_goes_back_and_forth(value: int) -> None:
    assert from_bcd(to_bcd(value)) == value


@given(st.integers(0, 5), st.integers(2, 40), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 50)), max_size=4))
def test_the_next_change_is_where_the_output_changes_next(mode: int, count: int, writes: list[tuple[int, int]]) -> None:
    made = counter(mode, count)
    now = 0
    for step, value in writes:
        now += step
        made.write(value + 2, now)
        made.write(0, now)
    change = made.next_change(now)
    level = made.out(now)
    first = next((tick for tick in range(now + 1, now + 400) if made.out(tick) != level), None)
    if first is not None:
        assert change is not None
        assert change <= first
    if change is not None and made.running and mode in (2, 3):
        assert change > now


def chip() -> tuple[InstructionClock, Pit, list[bool]]:
    clock = InstructionClock()
    levels: list[bool] = []
    return clock, Pit(clock, levels.append), levels


def out(pit: Pit, *pairs: tuple[int, int]) -> None:
    for port, value in pairs:
        pit.port_write(port, 1, value)


def test_latches_hold_count_and_status_until_read() -> None:
    clock, pit, _ = chip()
    out(pit, (0x43, 0x34), (0x40, 0x34), (0x40, 0x12))
    clock.advance(2000)
    out(pit, (0x43, 0x00))
    clock.advance(10_000)
    out(pit, (0x43, 0x00))
    assert pit.port_read(0x40, 1) | pit.port_read(0x40, 1) << 8 == 0x1234 - 1
    out(pit, (0x43, 0xC2))
    assert pit.port_read(0x40, 1) == 0xB4, "output high, count loaded, both bytes, mode 2"
    clock.advance(1000)
    assert pit.port_read(0x40, 1) | pit.port_read(0x40, 1) << 8 == 0x1234 - 13
    assert pit.port_read(0x43, 1) == 0xFF


def test_the_status_says_that_a_count_is_not_loaded_yet() -> None:
    clock, pit, _ = chip()
    for words, null in ((((0x43, 0x30),), 0x40), (((0x40, 9), (0x40, 9)), 0x40)):
        out(pit, *words, (0x43, 0xE2))
        assert pit.port_read(0x40, 1) == null | 0x30
    clock.advance(5000)
    out(pit, (0x43, 0xE2))
    assert pit.port_read(0x40, 1) == 0x30


@pytest.mark.parametrize("bits", range(8))
def test_the_status_has_the_mode_as_it_was_written(bits: int) -> None:
    _, pit, _ = chip()
    out(pit, (0x43, 0x30 | bits << 1), (0x43, 0xE2))
    assert pit.port_read(0x40, 1) & 0x3F == 0x30 | bits << 1


def test_read_back_reaches_several_counters() -> None:
    _, pit, _ = chip()
    out(pit, (0x43, 0x16), (0x43, 0x54), (0x43, 0xE6))
    assert [pit.port_read(0x40, 1) & 0x3F, pit.port_read(0x41, 1) & 0x3F] == [0x16, 0x14]


@pytest.mark.parametrize("mode", [2, 3])
def test_counter_0_interrupts_at_its_rate(mode: int) -> None:
    clock, pit, levels = chip()
    out(pit, (0x43, 0x30 | mode << 1), (0x40, 1193 & 0xFF), (0x40, 1193 >> 8))
    for _ in range(1000):
        clock.advance(1_000_000)
    rises = sum(later and not earlier for earlier, later in zip([False, *levels], levels, strict=False))
    assert rises in range(PIT_HZ // 1193 - 2, PIT_HZ // 1193 + 2)


def test_a_rate_generators_first_ticks_come_one_period_apart() -> None:
    clock, pit, levels = chip()
    out(pit, (0x43, 0x34), (0x40, 100), (0x40, 0))
    times = []
    while len(times) < 4:
        deadline_ns = clock.next_deadline_ns()
        assert deadline_ns is not None
        clock.advance_to(deadline_ns)
        times.append(pit.now())
        assert levels == [False, True] * len(times)
    assert times == [101, 201, 301, 401]


def test_time_skipped_merges_ticks_and_costs_one_call() -> None:
    clock, pit, levels = chip()
    out(pit, (0x43, 0x14), (0x40, 2))
    clock.advance(3600 * 10**9)
    assert levels in ([False], [False, True])


def test_port_0x61_gates_counter_2_and_shows_output_and_refresh() -> None:
    pc = Pc()
    pc.out(0x61, 0x02)
    pc.out(0x43, 0xB0)
    pc.out(0x42, 100, 0)
    pc.clock.advance(10**9)
    assert pc.inb(0x61) & 0x23 == 0x02, "without its gate it does not count"
    pc.out(0x61, 0xF1)
    assert pc.inb(0x61) & 0x2F == 0x01
    pc.clock.advance(100_000)
    assert pc.inb(0x61) & 0x2F == 0x21
    seen = set()
    for _ in range(4):
        pc.clock.advance(15_000)
        seen.add(pc.inb(0x61) & 0x10)
    assert seen == {0, 0x10}
