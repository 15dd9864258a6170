"""Interrupts counted by source and vector: what was raised was delivered, merged, lost, or still waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from belljar.devices.apic_message import ApicMessage, DeliveryMode
from belljar.devices.clock import InstructionClock
from belljar.devices.interrupt_chips import InterruptChips
from belljar.devices.interrupt_counts import MAX_ENTRIES, NO_VECTOR, OTHERS, InterruptCount, InterruptCounts
from belljar.x86.local_apic import Reg

SVR_ON = 0x1FF


def chips_of(cpus: int) -> tuple[InstructionClock, InterruptChips]:
    """Chips whose local APICs are switched on."""
    clock = InstructionClock()
    chips = InterruptChips(clock, cpus=cpus)
    for lapic in chips.lapics.values():
        lapic.write(Reg.SVR, SVR_ON)
    return clock, chips


def only(chips: InterruptChips) -> InterruptCount:
    """The one count that there is."""
    (entry,) = chips.counts.entries()
    return entry


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pulse"), st.integers(16, 23)),
        st.tuples(st.just("take"), st.integers(0, 1)),
        st.tuples(st.just("end"), st.integers(0, 1)),
        st.tuples(st.just("ipi"), st.integers(0, 255)),
        st.tuples(st.just("off"), st.integers(0, 1)),
        st.tuples(st.just("on"), st.integers(0, 1)),
        st.tuples(st.just("time"), st.integers(0, 5000)),
    ),
    max_size=60,
)


@given(STEPS)
def test_all_that_was_raised_is_accounted_for(steps: list[tuple[str, int]]) -> None:
    clock, chips = chips_of(2)
    lines = {gsi: chips.router.line(gsi, f"device {gsi}") for gsi in range(16, 24)}
    for gsi in lines:
        chips.ioapic.write_register(0x10 + 2 * gsi, 0x40 + 3 * gsi)
        chips.ioapic.write_register(0x11 + 2 * gsi, (gsi & 1) << 24)
    for what, number in steps:
        if what == "pulse":
            lines[number].pulse()
        elif what == "take" and chips.lapics[number].has_interrupt():
            chips.lapics[number].take()
        elif what == "end":
            chips.lapics[number].write(Reg.EOI, 0)
        elif what == "ipi":
            chips.deliver(ApicMessage(number, destination=0xFF, source="ipi from cpu 0"))
        elif what in ("on", "off"):
            chips.lapics[number].write(Reg.SVR, SVR_ON if what == "on" else 0xFF)
        elif what == "time":
            clock.advance(number)
    waiting = sum(lapic.vectors.irr.bit_count() for lapic in chips.lapics.values())
    entries = chips.counts.entries()
    assert sum(entry.raised for entry in entries) == waiting + sum(
        entry.count + entry.merged + entry.lost for entry in entries
    )
    assert all(entry.latency.count == entry.count for entry in entries)


def test_8259_counts_a_masked_request_when_it_is_taken() -> None:
    clock, chips = chips_of(1)
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0xFF)):
        chips.pic.port_write(port, 1, value)
    line = chips.router.line(4, "serial")
    line.pulse()
    assert chips.counts.entries() == []
    clock.advance(700)
    chips.pic.port_write(0x21, 1, 0)
    assert chips.lapics[0].take() == 0x34
    entry = only(chips)
    assert (entry.source, entry.vector, entry.raised, entry.count, entry.merged) == ("serial", 0x34, 1, 1, 0)
    assert entry.latency.max_ns == 700


def test_8259_level_that_stays_up_is_raised_again() -> None:
    _, chips = chips_of(1)
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0), (0x4D0, 0x10)):
        chips.pic.port_write(port, 1, value)
    chips.router.line(4, "serial")(True)
    for _ in range(3):
        assert chips.lapics[0].take() == 0x34
        chips.pic.port_write(0x20, 1, 0x20)
    entry = only(chips)
    assert (entry.raised, entry.count) == (3, 3)


def test_8259_polling_takes_interrupts_too() -> None:
    _, chips = chips_of(1)
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0)):
        chips.pic.port_write(port, 1, value)
    chips.router.line(4, "serial").pulse()
    chips.pic.port_write(0x20, 1, 0x0C)
    assert chips.pic.port_read(0x20, 1) == 0x84
    entry = only(chips)
    assert (entry.raised, entry.count, entry.by_cpu) == (1, 1, {-1: 1})


def test_spurious_interrupts_are_counted_by_chip() -> None:
    _, chips = chips_of(1)
    assert chips.pic.acknowledge() == 7
    entry = only(chips)
    assert (entry.source, entry.vector, entry.spurious, entry.count) == ("pic", 7, 1, 0)


def test_nmis_are_counted_when_they_are_taken() -> None:
    clock, chips = chips_of(2)
    lapic = chips.lapics[1]
    for _ in range(3):
        chips.deliver(ApicMessage(0, DeliveryMode.NMI, 1, source="watchdog"))
    clock.advance(70)
    entry = only(chips)
    assert (entry.source, entry.vector, entry.raised, entry.merged, entry.count) == ("watchdog", 2, 3, 1, 0)
    while lapic.signals.take_nmi():
        lapic.nmi_taken()
    assert (entry.by_cpu, entry.latency.min_ns, entry.latency.max_ns) == ({1: 2}, 70, 70)


def test_message_to_nobody_is_lost() -> None:
    _, chips = chips_of(1)
    assert chips.signal_msi(0xFEE0_9000, 0x50) == 0
    entry = only(chips)
    assert (entry.source, entry.vector, entry.raised, entry.lost) == ("msi", 0x50, 1, 1)


def test_counts_need_no_more_memory_than_their_limit() -> None:
    counts = InterruptCounts()
    for number in range(MAX_ENTRIES + 500):
        counts.entry(f"ipi from cpu {number // 256}", number % 256).raised += 1
    assert len(counts.entries()) == MAX_ENTRIES + 1
    assert counts.entry(OTHERS, NO_VECTOR).raised == 500
