"""What a PC's chips do together, scenario by scenario, and what the manuals have a program find: oracles.scripts' programs.

Each scenario begins with the same chips (`quiet`), so that all of one number of CPUs make one program. Where the other
emulator departs from the manual, `qemu` says in what, and the expectation is the manual's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .scripts import DELAY, HPET, WAIT, WINDOW, Script

ID, TPR, PPR, EOI, LDR, SVR, ESR = 0x20, 0x80, 0xA0, 0xB0, 0xD0, 0xF0, 0x280
ICR, ICR_HIGH, LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR = 0x300, 0x310, 0x320, 0x350, 0x360, 0x370
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0
"""Offsets in the local APIC's page (SDM 3A table 11-1)."""

MASKED = 1 << 16
LINES = (3, 5, 6, 7, 10, 11, 12, 13, 14, 15)
"""Interrupt lines of an ISA bus that nothing else is on."""

APIC_BASE = 0x1B
PM_TICKS_PER_US = 3.579545


@dataclass
class Scenario:
    """`write` adds its steps; `expected` is what they print, less their numbers; `qemu` is why QEMU prints something else."""

    write: Callable[[Script], None]
    expected: str
    qemu: str
    exact: bool
    """Whether it depends on the instruction between which and the next something happens: not all of KVM's hosts are exact."""
    kernel: bool
    """Whether it is asked of the kernel's chips, too: not where they depart from the manual, nor twice of our slow devices."""


SCENARIOS: dict[int, dict[str, Scenario]] = {1: {}, 4: {}}
"""By the number of CPUs."""


def scenario(
    expected: str, *, cpus: int = 1, qemu: str = "", exact: bool = False, kernel: bool = True
) -> Callable[[Callable[[Script], None]], Callable[[Script], None]]:
    """Put a function into the table."""

    def add(write: Callable[[Script], None]) -> Callable[[Script], None]:
        SCENARIOS[cpus][write.__name__] = Scenario(write, expected, qemu, exact, kernel)
        return write

    return add


def us(microseconds: float) -> int:
    """Ticks of the ACPI timer."""
    return int(microseconds * PM_TICKS_PER_US)


def then_eoi(*steps: Callable[[Script], None]) -> Script:
    """A handler that ends its interrupt at the local APIC."""
    handler = Script()
    for step in steps:
        step(handler)
    handler.apic(EOI, 0)
    return handler


def then_pic_eoi(vector: int) -> Script:
    """A handler that ends its interrupt at the 8259s."""
    handler = Script()
    if vector >= 0x28:
        handler.out(0xA0, 0x20)
    handler.out(0x20, 0x20)
    return handler


def initialize_pics(s: Script, master_mask: int, slave_mask: int = 0xFF) -> None:
    """Vectors from 0x20 and 0x28. The slave first, so that its INT is low when the master waits for an edge."""
    for port, base, wiring in ((0xA0, 0x28, 2), (0x20, 0x20, 4)):
        s.out(port, 0x48, 0x11)
        s.out(port + 1, base, wiring, 1)
    s.out(0x21, master_mask)
    s.out(0xA1, slave_mask)


def quiet(s: Script) -> None:
    """No chip wants anything, whatever was before."""
    s.out(0x43, 0x30)
    s.out(0x64, 0xAD)
    s.out(0x70, 0x0B)
    s.out(0x71, 2)
    s.store(HPET + 0x10, 0)
    for gsi in LINES:
        s.line(gsi, 0)
    s.out(0x4D0, 0)
    s.out(0x4D1, 0)
    initialize_pics(s, 0xFF)
    for pin in range(16):
        s.redirect(pin, MASKED)
    s.apic(SVR, 0x1FF)
    for register in (LVT_TIMER, 0x330, 0x340, LVT_LINT0, LVT_LINT1, LVT_ERROR):
        s.apic(register, MASKED)
    s.apic(INITIAL, 0)
    s.apic(TPR, 0)
    for vector in (2, 0x20, 0x28, 0x2F, 0x40, 0x41, 0x42, 0x47, 0x48, 0x50, 0x51, 0x61):
        s.handler(vector, None)
    s.op(WINDOW, 4)
    for _ in range(4):
        s.apic(EOI, 0)
    for register in (ESR, ESR):
        s.apic(register, 0)


def ipi(s: Script, vector: int, cpu: int = 0) -> None:
    """To oneself."""
    s.apic(ICR, 0x44000 | vector, cpu=cpu)


def begin(s: Script, cpus: int) -> None:
    """Start the others: INIT, start-up at 0x8000."""
    s.apic(SVR, 0x1FF)
    if cpus == 1:
        return
    s.apic(ICR, 0xC4500)
    s.op(DELAY, us(100))
    s.apic(ICR, 0xC4608)
    for cpu in range(1, cpus):
        s.op(WAIT, 0, 1, cpu=cpu)
        s.apic(SVR, 0x1FF, cpu=cpu)
    for cpu in range(cpus):
        s.apic(LDR, 1 << 24 + cpu, cpu=cpu)


def write_all(cpus: int, pace: int, *, kernel: bool = False, exact: bool = True) -> tuple[Script, dict[str, range]]:
    """One program of all scenarios, or of those for a `kernel`'s chips or for hosts that are not `exact`; whose its steps are."""
    s, steps = Script(cpus=cpus, pace=pace), {}
    begin(s, cpus)
    for name, entry in SCENARIOS[cpus].items():
        if (kernel and not entry.kernel) or (entry.exact and not exact):
            continue
        quiet(s)
        s.flush()
        first = len(s.ops)
        entry.write(s)
        s.flush()
        steps[name] = range(first, len(s.ops))
    return s, steps
