"""Our interrupt chips against the kernel's: the same accesses, lines and acknowledgements, then the same registers.

Left out, where the kernel departs from the data sheets: poll mode (it ends the interrupt it takes) and special mask mode
(it is kept, but has no effect), single mode, level-triggered IPIs, vectors below 16, the error status register.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from belljar.devices.bus import Bus
from belljar.devices.clock import InstructionClock
from belljar.devices.i8259 import Pic
from belljar.devices.interrupt_chips import InterruptChips
from belljar.devices.lapic_window import LapicWindow
from belljar.devices.lines import identity_routes
from belljar.errors import EngineUnavailable
from belljar.kvm import Kvm
from devices.kernel_chips import IOAPIC_GPA, LAPIC_GPA, KernelChips

PPR = 0xA0
REDIRECTION_BITS = 0xFF00_0000_0001_FFFF


class OurChips:
    """Our chips, driven as `KernelChips` drives the kernel's."""

    def __init__(self) -> None:
        self.chips = InterruptChips(InstructionClock(), cmci=False)
        self.chips.router.set_routes(identity_routes())
        self.bus = Bus()
        for device in self.chips.devices():
            self.bus.attach(device)
        self.lapic_registers = self.chips.lapics[0]
        self.window = LapicWindow(self.lapic_registers, self.bus)
        self.lines = [self.chips.router.line(gsi, f"gsi {gsi}") for gsi in range(24)]

    def line(self, gsi: int, level: bool) -> None:
        self.lines[gsi](level)

    def run(self, operations: list[tuple[str, int, int]]) -> tuple[list[int], list[int]]:
        values, log = [], []
        for name, at, value in operations:
            if name == "out1":
                self.bus.port_write(at, 1, value & 0xFF)
            elif name == "in1":
                value = self.bus.port_read(at, 1)
            elif name == "take":
                if self.lapic_registers.has_interrupt():
                    log.append(self.lapic_registers.take())
            else:
                gpa = (LAPIC_GPA if name.startswith("lapic") else IOAPIC_GPA) + at
                if name.endswith("store"):
                    self.window.mmio_write(gpa, 4, value)
                else:
                    value = self.window.mmio_read(gpa, 4)
            values.append(value)
        return values, log

    def pic(self, slave: bool) -> dict[str, int]:
        chip: Pic = self.chips.pic.chips[slave]
        return {
            "irr": chip.irr, "imr": chip.imr, "isr": chip.isr, "priority_add": chip.lowest + 1 & 7, "irq_base": chip.base,
            "read_reg_select": chip.read_isr, "special_mask": chip.special_mask, "init_state": chip.expects,
            "auto_eoi": chip.auto_eoi, "rotate_on_auto_eoi": chip.rotate_auto_eoi,
            "special_fully_nested_mode": chip.special_fully_nested, "elcr": chip.elcr,
        }  # fmt: skip

    def ioapic(self) -> tuple[int, int, list[int]]:
        chip = self.chips.ioapic
        return chip.select, chip.id, list(chip.redirection)

    def lapic(self) -> bytes:
        return b"".join(
            (self.lapic_registers.read(index) or 0).to_bytes(4, "little") + bytes(12) for index in range(0x40)
        )


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelChips]:
    try:
        system = Kvm()
    except EngineUnavailable as error:
        pytest.skip(error.message)
    with system, system.create_vm() as vm:
        chips = KernelChips(vm)
        yield chips
        chips.close()


def both(kernel: KernelChips, steps: list[list[tuple]], *, put_in_service: bool = False) -> OurChips:
    """The same to both; steps are lists of operations or ("line", gsi, level)s. What is read and taken must be the same."""
    kernel.reset()
    ours = OurChips()
    for step in steps:
        pending: list[tuple[str, int, int]] = []
        for operation in [*step, ("line", -1, 0)]:
            if operation[0] != "line":
                pending.append(operation)
                continue
            if pending:
                expected = kernel.run(pending, put_in_service=put_in_service)
                assert ours.run(pending) == expected, pending
                pending = []
            if operation[1] >= 0 and kernel.levels[operation[1]] != operation[2]:
                ours.line(operation[1], bool(operation[2]))
                kernel.line(operation[1], bool(operation[2]))
    return ours


def test_an_interrupt_in_service_holds_back_lower_ones_where_the_kernel_puts_any_into_service(
    kernel: KernelChips,
) -> None:
    """Hosts differ in whether there is anything in service; that the register page shows it, they must not."""
    in_service, taken = kernel.take_two()
    assert (in_service, taken) in (([0x66], [0x66]), ([], [0x66, 0x44]))
    assert kernel.ends_at_once == (in_service == [])


MASTER, SLAVE = 0x20, 0xA0
chip = st.sampled_from([MASTER, SLAVE])
byte = st.integers(0, 255)
pic_line = st.sampled_from([gsi for gsi in range(16) if gsi != 2])
TAKE = st.just([("take", 0, 0)])


def initialize(port: int, base: int, flags: int, mask: int, with_icw4: bool) -> list[tuple]:
    # The kernel's ICW1 ends some interrupts in service, the data sheet's none: leave none. It also looks for requests only
    # with the mask that follows: leave no line up. And to its master the slave's request is an edge again.
    words = [(SLAVE, 0x10), (SLAVE + 1, base), (SLAVE + 1, 2)] if port == MASTER else []
    words += [(port, 0x20)] * 8
    words += [(port, 0x10 | with_icw4), (port + 1, base), (port + 1, 4 if port == MASTER else 2)]
    words += [(port + 1, flags & 0x12 | 1)] if with_icw4 else []
    down = [("line", gsi, 0) for gsi in range(16) if gsi != 2]
    return [*down, *(("out1", at, value) for at, value in [*words, (port + 1, mask)])]


PIC_STEP = st.one_of(
    st.builds(initialize, chip, byte, byte, byte, st.booleans()),
    st.builds(lambda port, mask: [("out1", port + 1, mask)], chip, byte),
    st.builds(
        lambda port, command, pin: [("out1", port, command << 5 | pin)], chip, st.integers(0, 7), st.integers(0, 7)
    ),
    st.builds(lambda port, which: [("out1", port, 0x0A | which), ("in1", port, 0)], chip, st.booleans()),
    st.builds(lambda port: [("in1", port, 0), ("in1", port + 1, 0)], chip),
    st.builds(lambda pin, level: [("line", pin, level)], pic_line, st.booleans()),
    st.builds(lambda pin: [("line", pin, 1), ("line", pin, 0)], pic_line),
    TAKE,
)
ELCR = st.builds(lambda master, slave: [("out1", 0x4D0, master), ("out1", 0x4D1, slave)], byte, byte)
PIC_START = st.builds(
    lambda elcr, one, two: elcr + one + two,
    ELCR,
    st.builds(initialize, st.just(MASTER), byte, byte, byte, st.booleans()),
    st.builds(initialize, st.just(SLAVE), byte, byte, byte, st.booleans()),
)
# no shrinking: with a guest entry for every step it takes minutes, and failures are short enough
SETTINGS = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@SETTINGS
@given(PIC_START, st.lists(PIC_STEP, max_size=30))
def test_the_8259_pair_behaves_as_the_kernels(
    kernel: KernelChips, start: list[tuple], steps: list[list[tuple]]
) -> None:
    ours = both(kernel, [start, *steps])
    for slave in (False, True):
        assert ours.pic(slave) == kernel.pic(slave)


IOAPIC_PIN = st.integers(0, 23)
LOGICAL, LEVEL = 1 << 11, 1 << 15
VECTORS = st.integers(16, 255)
ENTRY = st.builds(
    lambda vector, mode, logical, low, level, mask: vector | mode << 8 | logical << 11 | low << 13 | level << 15 | mask << 16,
    VECTORS, st.sampled_from([0, 0, 0, 1]), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([0, 0, 1]),
)  # fmt: skip


def redirect(pin: int, low: int, high: int, high_first: bool) -> list[tuple]:
    if low & LEVEL:  # the kernel waits for the end even of a level that nobody took: let it be taken
        low, high = low & ~LOGICAL, 0xFF
    halves = [(0x10 + 2 * pin, low), (0x11 + 2 * pin, high << 24)]
    return [
        entry
        for index, value in (reversed(halves) if high_first else halves)
        for entry in (("ioapic_store", 0, index), ("ioapic_store", 0x10, value))
    ]


LAPIC_STORE = {
    0x80: st.integers(0, 255),
    0xD0: st.sampled_from([0x01000000, 0x10000000, 0xFF000000, 0x21000000]),
    0xE0: st.sampled_from([0xFFFFFFFF, 0x0FFFFFFF, 0xF0000000, 0]),
    0xF0: st.sampled_from([0x1FF, 0x1FF, 0x1FF, 0x3FF, 0xFF, 0x1EF]),
    0x310: st.sampled_from([0, 0, 0xFF000000, 0x01000000]),
    0x320: st.builds(lambda vector: vector | 1 << 16, VECTORS),
    0x330: st.builds(lambda vector, mode: vector | mode << 8 | 1 << 16, VECTORS, st.integers(0, 7)),
    0x340: st.builds(lambda vector, mode: vector | mode << 8 | 1 << 16, VECTORS, st.integers(0, 7)),
    0x350: st.sampled_from([0x700, 0x10700, 0x10000, 0x12745]),
    0x360: st.builds(lambda vector, bits: vector | bits << 8 & 0x1A700 | 1 << 16, VECTORS, st.integers(0, 0x1FF)),
    0x370: st.builds(lambda vector: vector | 1 << 16, VECTORS),
    0x3E0: st.integers(0, 0xF),
    0x380: st.just(0),
}
IPI = st.builds(
    lambda vector, mode, logical, shorthand, high: [
        ("lapic_store", 0x310, high),
        ("lapic_store", 0x300, vector | mode << 8 | logical << 11 | 1 << 14 | shorthand << 18),
    ],
    VECTORS, st.sampled_from([0, 0, 1]), st.booleans(), st.integers(0, 3), st.sampled_from([0, 0xFF000000, 0x01000000]),
)  # fmt: skip
LAPIC_READABLE = [
    0x20, 0x30, 0x80, 0x90, 0xA0, 0xD0, 0xE0, 0xF0, *range(0x100, 0x280, 0x10), 0x300, 0x310, 0x320, 0x330, 0x340, 0x350,
    0x360, 0x370, 0x380, 0x390, 0x3E0,
]  # fmt: skip
APIC_STEP = st.one_of(
    st.builds(redirect, IOAPIC_PIN, ENTRY, st.sampled_from([0, 0, 0xFF, 1]), st.booleans()),
    st.builds(lambda index: [("ioapic_store", 0, index), ("ioapic_load", 0x10, 0)], st.integers(0, 3)),
    st.builds(lambda value: [("ioapic_store", 0, 0), ("ioapic_store", 0x10, value)], st.integers(0, (1 << 32) - 1)),
    st.builds(lambda pin, level: [("line", pin, level)], IOAPIC_PIN.filter(lambda pin: pin != 2), st.booleans()),
    st.builds(lambda pin: [("line", pin, 1), ("line", pin, 0)], IOAPIC_PIN.filter(lambda pin: pin != 2)),
    st.sampled_from(sorted(LAPIC_STORE)).flatmap(
        lambda offset: LAPIC_STORE[offset].map(lambda value: [("lapic_store", offset, value)])
    ),
    IPI,
    st.builds(lambda offset: [("lapic_load", offset, 0)], st.sampled_from(LAPIC_READABLE)),
    st.just([("lapic_store", 0xB0, 0)]),
    st.just([("take", 0, 0)]),
    st.just([("take", 0, 0), ("lapic_store", 0xB0, 0)]),
)
APIC_START = [
    ("out1", 0x21, 0xFF),
    ("out1", 0xA1, 0xFF),
    ("lapic_store", 0xF0, 0x1FF),
    ("lapic_store", 0xD0, 0x01000000),
]


@SETTINGS
@given(st.lists(APIC_STEP, max_size=40))
def test_ioapic_and_local_apic_behave_as_the_kernels(kernel: KernelChips, steps: list[list[tuple]]) -> None:
    ours = both(kernel, [APIC_START, *steps, [("lapic_load", PPR, 0)]], put_in_service=True)
    select, number, entries = kernel.ioapic()
    assert ours.ioapic() == (select, number, [entry & REDIRECTION_BITS for entry in entries])
    theirs, mine = kernel.lapic(), ours.lapic()
    for offset in LAPIC_READABLE:
        if offset == PPR:
            continue  # the kernel brings it up to date when it is read
        assert mine[offset : offset + 4] == theirs[offset : offset + 4], hex(offset)
