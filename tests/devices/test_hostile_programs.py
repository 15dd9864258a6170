"""Guests that program the chips with nonsense: nothing raises, nothing hangs, and what a chip shows stays possible."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.x86.msr import Msr
from devices.pc import Pc

PORTS = [
    *range(0x20, 0x22), *range(0xA0, 0xA2), *range(0x4D0, 0x4D2), *range(0x40, 0x44), 0x60, 0x61, 0x64, *range(0x70, 0x74),
    0x92, *range(0xCF8, 0xD00), *range(0xE0, 0xEC), 0x510, 0x511, *range(0x608, 0x60C), *range(0x2000, 0x2018),
]  # fmt: skip
RTC_REGISTERS = [*range(0x0E), 0x32, 0x80 | 0x0B]
MMIO = [
    *(0xFEC00000 + at for at in (0, 0x10, 0x40, 3)), *(0xFED00000 + at for at in (0, 0x10, 0x14, 0x20, 0xF0, 0xF4)),
    *(0xFED00000 + 0x100 + 0x20 * t + at for t in range(4) for at in (0, 4, 8, 12, 16, 20, 24)),
    0xFF000000, 0xFF00FFFF, *(0xFEE00000 + 16 * index for index in range(0x48)), 0xFEE00083, 0xFEE00FF0,
]  # fmt: skip
MSRS = [Msr.IA32_APIC_BASE, Msr.IA32_TSC_DEADLINE, *range(0x800, 0x844), 0x8FF]
BASES = [0xFEE00000 | bits for bits in (0, 0x100, 0x800, 0x900, 0xC00, 0xD00, 0x400)] + [
    0xFE000800,
    1 << 52,
    0xFEE00A00,
]

byte = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 0x10, 0x11, 0x20, 0x30, 0x34, 0x36, 0x80, 0xFF]))
wide = st.one_of(
    st.integers(0, (1 << 32) - 1),
    st.sampled_from([0, 1, 3, 0x1FF, 0x4E, 0x2A0C, 0x20040, 0x40040, 0xFF, 1 << 31]),
    byte,
)
cpu = st.integers(0, 1)
step_ns = st.one_of(
    st.integers(0, 5_000), st.integers(0, 10_000_000), st.integers(0, 3 * 10**9), st.just(10**9), st.integers(0, 10**18)
)
OPERATIONS = st.one_of(
    st.tuples(st.just("out"), st.sampled_from(PORTS), byte),
    st.tuples(st.just("out32"), st.sampled_from(PORTS), wide),
    st.tuples(st.just("in"), st.sampled_from(PORTS), st.sampled_from([1, 2, 4])),
    st.tuples(st.just("rtc"), st.sampled_from(RTC_REGISTERS), byte),
    st.tuples(st.just("select"), st.integers(0, 0x40), wide),
    st.tuples(st.just("store"), cpu, st.sampled_from(MMIO), st.sampled_from([1, 2, 4, 8]), wide),
    st.tuples(st.just("load"), cpu, st.sampled_from(MMIO), st.sampled_from([1, 2, 4, 8])),
    st.tuples(st.just("wrmsr"), cpu, st.sampled_from(MSRS), st.one_of(wide, st.integers(0, (1 << 64) - 1))),
    st.tuples(st.just("base"), cpu, st.sampled_from(BASES)),
    st.tuples(st.just("rdmsr"), cpu, st.sampled_from(MSRS)),
    st.tuples(st.just("line"), st.integers(0, 23), st.booleans()),
    st.tuples(st.just("msi"), st.one_of(st.integers(0, (1 << 64) - 1), st.just(0xFEE00000)), wide),
    st.tuples(st.just("take"), cpu),
    st.tuples(st.just("init"), cpu),
    st.tuples(st.just("key"), st.binary(max_size=30)),
    st.tuples(st.just("time"), step_ns),
)


def perform(pc: Pc, operation: tuple) -> object:
    """One step; what the guest would see of it."""
    match operation:
        case ("out", port, value):
            pc.bus.port_write(port, 1, value)
        case ("out32", port, value):
            pc.bus.port_write(port, 4, value)
        case ("in", port, size):
            value = pc.bus.port_read(port, size)
            assert 0 <= value < 1 << 8 * size
            return value
        case ("rtc", register, value):
            pc.out(0x70, register)
            pc.out(0x71, value)
            return pc.inb(0x71)
        case ("select", register, value):
            pc.bus.mmio_write(0xFEC00000, 4, register)
            pc.bus.mmio_write(0xFEC00010, 4, value)
            return pc.bus.mmio_read(0xFEC00010, 4)
        case ("store", number, gpa, size, value):
            pc.windows[number].mmio_write(gpa, size, value & (1 << 8 * size) - 1)
        case ("load", number, gpa, size):
            value = pc.windows[number].mmio_read(gpa, size)
            assert 0 <= value < 1 << 8 * size
            return value
        case ("wrmsr", number, msr, value):
            return pc.msrs[number].write_msr(msr, value)
        case ("base", number, value):
            return pc.msrs[number].write_msr(Msr.IA32_APIC_BASE, value)
        case ("rdmsr", number, msr):
            value = pc.msrs[number].read_msr(msr)
            assert value is None or 0 <= value < 1 << 64
            return value
        case ("line", number, level):
            pc.bus.port_write(0x2000 + number, 1, level)
        case ("msi", address, data):
            return pc.chips.signal_msi(address, data)
        case ("take", number):
            return take(pc, number)
        case ("init", number):
            return pc.lapics[number].accept_init(), pc.lapics[number].signals.take_sipi()
        case ("key", codes):
            return pc.keyboard.type_scancodes(codes)
        case ("time", ns):
            pc.clock.advance(ns)
    return None


def take(pc: Pc, number: int) -> object:
    lapic = pc.lapics[number]
    before = lapic.vectors.ppr
    extint = lapic.has_extint()
    if not lapic.has_interrupt():
        return None
    vector = lapic.take()
    assert 0 <= vector <= 255
    if not extint:
        assert vector & 0xF0 > before & 0xF0
        assert lapic.vectors.isr >> vector & 1
    return vector


def check(pc: Pc) -> None:
    """What must hold whatever a guest did."""
    for chip in pc.chips.pic.chips:
        assert all(0 <= bits <= 0xFF for bits in (chip.irr, chip.isr, chip.imr, chip.elcr, chip.base))
        assert 0 <= chip.lowest <= 7
    assert pc.chips.pic.output_level == (pc.chips.pic.chips[0].request() >= 0)
    for lapic in pc.lapics:
        assert all(0 <= bits < 1 << 256 for bits in (lapic.vectors.irr, lapic.vectors.isr, lapic.vectors.tmr))
        assert not lapic.vectors.irr & 0xFFFF, "illegal vectors are never accepted"
        assert lapic.vectors.ppr & 0xF0 >= max(lapic.vectors.isr.bit_length() - 1, 0) & 0xF0
        assert 0 <= lapic.timer.current() <= 0xFFFF_FFFF
        if not lapic.present:
            assert not lapic.vectors.irr
    for counter in pc.pit.counters:
        assert 0 <= counter.value(pc.pit.now()) <= 0xFFFF
    pc.chips.explain()
    pc.chips.counts.entries()


@settings(max_examples=600, deadline=None)
@given(st.lists(OPERATIONS, max_size=60))
def test_no_sequence_of_accesses_raises_or_breaks_what_must_hold(operations: list[tuple]) -> None:
    pc = Pc(eoi_suppression=len(operations) % 2 == 0)
    for operation in operations:
        perform(pc, operation)
        check(pc)
    for _ in range(50):
        deadline_ns = pc.clock.next_deadline_ns()
        if deadline_ns is None:
            break
        now_ns = pc.clock.now_ns()
        pc.clock.advance_to(max(deadline_ns, now_ns))
        later_ns = pc.clock.next_deadline_ns()
        assert later_ns is None or later_ns > pc.clock.now_ns() or deadline_ns <= now_ns, "time would stand still"
    check(pc)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPERATIONS, max_size=40), st.lists(OPERATIONS, max_size=25))
def test_a_restored_machine_goes_on_as_the_one_that_was_saved(before: list[tuple], after: list[tuple]) -> None:
    first = Pc()
    for operation in before:
        perform(first, operation)
    second = Pc()
    second.restore(first.state())
    assert second.state() == first.state()
    for operation in after:
        assert perform(second, operation) == perform(first, operation), operation
    second_state, first_state = second.state(), first.state()
    assert second_state == first_state
