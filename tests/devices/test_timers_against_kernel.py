"""Our 8254 and local APIC timer against the kernel's: the same accesses, the same registers; the same counts at the same time.

The kernel's clock is the host's, so counts are compared with what ours would show at the earliest and the latest moment
at which the kernel's can have been read. Left out, where the kernel departs from the data sheet: BCD counting, the
output of modes 2, 4 and 5 in the status byte (the kernel shows a pulse that is high), and modes written as 6 and 7 (it
shows 2 and 3).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from belljar.devices.clock import InstructionClock
from belljar.devices.i8254 import Pit
from belljar.devices.lapic_timer import ApicTimer
from belljar.devices.pit_counter import BOTH_BYTES
from belljar.devices.port61 import SystemControlB
from belljar.errors import EngineUnavailable
from belljar.kvm import Kvm
from devices.kernel_chips import KernelChips

SLACK_TICKS = 3
"""Rounding, and the tick with which our counter is loaded."""

SETTINGS = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelChips]:
    try:
        system = Kvm()
    except EngineUnavailable as error:
        pytest.skip(error.message)
    with system, system.create_vm() as vm:
        chips = KernelChips(vm, pit=True)
        yield chips
        chips.close()


byte = st.integers(0, 255)
counter = st.integers(0, 2)


def control(c: int, access: int, mode: int) -> list[tuple[str, int, int]]:
    """A control word; the kernel's leaves latched bytes to be read, the data sheet's does not: leave none."""
    return [("in1", 0x40 + c, 0)] * 3 + [("out1", 0x43, c << 6 | access << 4 | mode << 1)]


PIT_STEP = st.one_of(
    st.builds(control, counter, st.integers(1, 3), st.integers(0, 5)),
    st.builds(lambda c: [("out1", 0x43, c << 6)], counter),
    st.builds(lambda bits: [("out1", 0x43, 0xC0 | bits & 0x3E)], byte),
    st.builds(lambda c, value: [("out1", 0x40 + c, value)], counter, byte),
    st.builds(lambda c: [("in1", 0x40 + c, 0)], counter),
    st.builds(lambda value: [("out1", 0x61, value & 3)], byte),
)


def describe(pit: Pit) -> list[dict[str, int]]:
    """Our counters by the kernel's names."""
    return [
        {
            "count": one.reload or 0x10000,
            "rw_mode": one.access,
            "mode": one.mode,
            "bcd": one.bcd,
            "gate": one.gate,
            "write_state": one.access + one.write_high if one.access == BOTH_BYTES else one.access,
            "read_state": one.access + one.read_high if one.access == BOTH_BYTES else one.access,
            "count_latched": (one.access + one.latch_left - 2 if one.access == BOTH_BYTES else one.access)
            * (one.latched >= 0),
            "status_latched": one.status >= 0,
        }
        for one in pit.counters
    ]


@SETTINGS
@given(st.lists(PIT_STEP, max_size=50))
def test_the_8254_is_programmed_as_the_kernels(kernel: KernelChips, steps: list[list[tuple[str, int, int]]]) -> None:
    clock = InstructionClock()
    pit = Pit(clock)
    port61 = SystemControlB(clock, pit)
    operations = [("out1", 0x61, 0)]
    for c in range(3):
        operations += [*control(c, BOTH_BYTES, 2), ("out1", 0x40 + c, 0), ("out1", 0x40 + c, 0)]
    operations += [operation for step in steps for operation in step]
    values, _ = kernel.run(operations)
    for (name, port, value), theirs in zip(operations, values, strict=True):
        if name == "in1":
            status_read = pit.counters[port - 0x40].status >= 0
            mine = pit.port_read(port, 1)
            if status_read:
                assert mine & 0x3F == theirs & 0x3F
        elif port == 0x61:
            port61.port_write(port, 1, value)
        else:
            pit.port_write(port, 1, value)
    state = kernel.vm.get_pit()
    for mine, theirs in zip(describe(pit), state.channels, strict=True):
        assert mine == {name: getattr(theirs, name) for name in mine}


@pytest.mark.parametrize("mode", [0, 2, 3, 4])
def test_the_8254_counts_as_the_kernels(kernel: KernelChips, mode: int) -> None:
    load = [("out1", 0x61, 1), *control(2, BOTH_BYTES, mode), ("out1", 0x42, 0xFE), ("out1", 0x42, 0xFF)]
    t0 = time.monotonic_ns()
    kernel.run(load)
    t1 = time.monotonic_ns()
    kernel.run([])
    t2 = time.monotonic_ns()
    (_, low, high), _ = kernel.run([("out1", 0x43, 0x80), ("in1", 0x42, 0), ("in1", 0x42, 0)])
    t3 = time.monotonic_ns()

    def ours(elapsed_ns: int) -> int:
        clock = InstructionClock()
        pit = Pit(clock)
        pit.set_speaker_gate(True)
        for name, port, value in load[1:]:
            if name == "out1":
                pit.port_write(port, 1, value)
        clock.advance(elapsed_ns)
        return pit.counters[2].value(pit.now())

    assert ours(t3 - t0) - SLACK_TICKS <= low | high << 8 <= ours(t2 - t1) + SLACK_TICKS


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("divide", [0x0, 0x3, 0xB, 0xA])
def test_the_local_apic_timer_counts_as_the_kernels(kernel: KernelChips, mode: int, divide: int) -> None:
    initial = 0xFFFF_0000
    load = [
        ("lapic_store", 0xF0, 0x1FF),
        ("lapic_store", 0x320, mode << 17 | 1 << 16 | 0x40),
        ("lapic_store", 0x3E0, divide),
        ("lapic_store", 0x380, initial),
    ]
    t0 = time.monotonic_ns()
    kernel.run(load)
    t1 = time.monotonic_ns()
    kernel.run([])
    t2 = time.monotonic_ns()
    (count,), _ = kernel.run([("lapic_load", 0x390, 0)])
    t3 = time.monotonic_ns()
    kernel.run([("lapic_store", 0x380, 0)])

    def ours(elapsed_ns: int) -> int:
        clock = InstructionClock()
        timer = ApicTimer(clock, lambda: None)
        timer.set_mode(mode, audible=False)
        timer.write_divide(divide)
        timer.write_initial(initial)
        clock.advance(elapsed_ns)
        return timer.current()

    assert ours(t3 - t0) - SLACK_TICKS <= count <= ours(t2 - t1) + SLACK_TICKS
