"""Random programs for the interrupt chips, made so that two emulators can be compared: what they know to do is left in.

Left out is what QEMU does not do as the manuals say: an 8259 in service behind its special mask, automatic ends of interrupt
in a slave, lines that rise while their IOAPIC pin is masked or level-triggered later, logical broadcasts to clusters, lowest
priority, vectors below 16, table entries of a local APIC that is off. Two NMIs on the way count as one or two.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from .chip_scenarios import ESR, ICR, ICR_HIGH, LDR, LINES, LVT_LINT0, MASKED, SVR, TPR, begin, ipi, us
from .scripts import DELAY, LAPIC, WINDOW, WRITE_CR8, Script

VECTORS = (0x30, 0x31, 0x3F, 0x40, 0x41, 0x55, 0x5F, 0x60, 0x81, 0x90, 0xA1, 0xC3, 0xE0, 0xEF, 0xF1, 0xFE)
POLL = "poll"
NMI_US = 500
"""How long an NMI has to arrive: four CPUs of soft have turns of up to 100 us of the guest's time, of which looking at a clock
takes one each time."""
ALL_BUT_0 = 0xFE
"""There is a timer on the master's pin 0, and firmware has left it running."""


def normal(lines: list[str], script: Script) -> list[str]:
    """Lines without what is not defined: how often a level that stays up interrupts, which pin a poll for nothing finds."""
    polls = {f"{step:x}=0": f"{step:x}=7" for step, name in script.names.items() if name == POLL}
    return [re.sub(r"( .+?)\1+", r"\1", re.sub(r"/\w+$", "", polls.get(line, line))) for line in lines]


# -- the 8259s ---------------------------------------------------------------------------------------------------------


def _pic_handler(kind: int, vector: int) -> Script | None:
    """No end of interrupt, one of each kind, or one that looks first."""
    slave, handler = vector >= 0x28, Script()
    ports = (0xA0, 0x20) if slave else (0x20,)
    if kind == 0:
        return None
    if kind in (1, 4):
        if kind == 4:
            for port in (0x20, 0xA0):
                handler.out(port, 0x0B)
                handler.inp(port, ALL_BUT_0)
        for port in ports:
            handler.out(port, 0x20)
    elif kind == 3:
        for port in (0x20, 0xA0):
            handler.out(port, 0xA0)
    else:
        command = 0x60 if kind == 2 else 0xE0
        for port in ports:
            handler.out(port, command | (2 if slave and port == 0x20 else vector & 7))
    return handler


def _pic_reset(s: Script) -> None:
    s.out(0x43, 0x30)
    s.out(0x64, 0xAD)
    s.silent_in(0x60)
    s.apic(LVT_LINT0, 0x700)
    for gsi in LINES:
        s.line(gsi, 0)
    for port in (0x4D0, 0x4D1):
        s.out(port, 0)
    for port, base, wiring in ((0xA0, 0x28, 2), (0x20, 0x20, 4)):
        s.out(port, 0x48, *[0x20] * 8, 0x11)
        s.out(port + 1, base, wiring, 1, 0xFF)
        s.out(port, 0x00, 0x4B, 0x0A)


def _pic_step(s: Script, chance: random.Random, special: bool) -> None:
    port, gsi = chance.choice((0x20, 0xA0)), chance.choice(LINES)
    what = chance.randrange(12)
    if what < 3:
        s.line(gsi, chance.getrandbits(1))
    elif what == 3:
        s.line(gsi, 1)
        s.line(gsi, 0)
    elif what == 4:
        s.out(port + 1, chance.getrandbits(8) & ~4 | 3 if port == 0x20 else chance.getrandbits(8) | 1)
    elif what == 5:
        s.out(port, chance.choice((0, 2, 3, 4, 6, 7) if special else range(8)) << 5 | chance.randrange(8))
    elif what == 6:
        s.out(port, 8 | chance.choice((2, 3, 0x40, 0x60, 0x62, 0x63) if special else (2, 3)))
    elif what == 7:
        s.inp(port, ALL_BUT_0)
        s.inp(port + 1)
    elif what == 8:
        s.out(port, 0x0C)
        s.name = POLL
        s.inp(port)
        s.name = ""
        s.out(port, 0x0B)
        s.inp(port, ALL_BUT_0)
    else:
        s.window()


def _pic_program(s: Script, chance: random.Random) -> None:
    """Lines, masks, commands, polls and windows; then all registers."""
    _pic_reset(s)
    kind = chance.randrange(6)
    special = kind in (2, 5) and chance.random() < 0.5
    for vector in range(0x20, 0x30):
        other = not special and chance.random() < 0.2
        s.handler(vector, _pic_handler(chance.randrange(6) if other else kind, vector))
    s.out(0x4D0, chance.choice((0, 0, chance.getrandbits(8) & 0xE8)))
    s.out(0x4D1, chance.choice((0, 0, chance.getrandbits(8) & 0xDC)))
    if chance.random() < 0.3:
        s.out(0xA0, 0x11)
        s.out(0xA1, 0x28, 2, chance.choice((1, 0x11)))
        s.out(0x20, 0x11)
        s.out(0x21, 0x20, 4, chance.choice((1, 3, 0x11, 0x13)))
    s.out(0x21, chance.choice((3, 3, chance.getrandbits(8) & ~4 | 3)))
    s.out(0xA1, chance.choice((3, 1, chance.getrandbits(8) | 3)))
    for _ in range(chance.randrange(5, 30)):
        _pic_step(s, chance, special)
    s.window()
    for port in (0x20, 0xA0):
        for command in (0x0A, 0x0B):
            s.out(port, command)
            s.inp(port, ALL_BUT_0)
        s.inp(port + 1)


# -- local APICs and the IOAPIC ----------------------------------------------------------------------------------------


class _ApicNoise:
    """One program; `levels` are the lines whose pins are level-triggered, `up` those that are up."""

    def __init__(self, s: Script, chance: random.Random) -> None:
        self.s, self.chance = s, chance
        self.levels = [gsi for gsi in LINES if chance.random() < 0.5]
        self.up: set[int] = set()

    def reset(self) -> None:
        s = self.s
        s.out(0x43, 0x30)
        s.out(0x64, 0xAD)
        for port in (0x21, 0xA1):
            s.out(port, 0xFF)
        for vector in (2, 0xFF, *VECTORS):
            s.handler(vector, None)
        for gsi in LINES:
            s.line(gsi, 0)
        for pin in (2, *LINES):
            s.redirect(pin, MASKED)
        for cpu in range(s.cpus):
            s.apic(SVR, 0x1FF, cpu=cpu)
            s.apic(TPR, 0, cpu=cpu)
            s.end_all(cpu)
            ipi(s, 0xFE, cpu)
            s.op(WINDOW, 20, cpu=cpu)
            s.end_all(cpu)
            for register in (0x320, 0x330, 0x340, 0x350, 0x360, 0x370):
                s.apic(register, MASKED, cpu=cpu)
            s.apic(0xE0, 0xFFFFFFFF, cpu=cpu)
            s.apic(LDR, 1 << 24 + cpu, cpu=cpu)
            for _ in range(2):
                s.apic(ESR, 0, cpu=cpu)
        s.flush()
        for gsi in self.levels:
            s.redirect(gsi, 0x18000)

    def handler(self, kind: int) -> Script | None:
        """Nothing, an end of interrupt, or one after something more."""
        if kind == 0:
            return None
        handler = Script()
        if kind == 2:
            handler.op(WINDOW, 2)
        elif kind == 3:
            handler.load(LAPIC + 0xA0)
        elif kind == 5:
            ipi(handler, self.chance.choice(VECTORS))
            handler.op(WINDOW, 2)
        handler.apic(0xB0, 0)
        return handler

    def state(self, cpu: int) -> None:
        words = (0x100 + 0x80 * which + 0x10 * word for which in range(3) for word in (1, 2, 4, 5, 7))
        for register in (TPR, 0xA0, *words):
            self.s.load(LAPIC + register, cpu=cpu)

    def pin(self, gsi: int) -> None:
        choice, level = self.chance.choice, gsi in self.levels
        low = choice(VECTORS) | choice((0, 0, 0, 0, MASKED))
        if level:
            self.s.redirect(gsi, low | 0x8000, 0)
        else:
            low |= choice((0, 0, 0, 0, 0x400)) | choice((0, 0x800))
            self.s.redirect(gsi, low, choice((0, 1, 2, 3, 0xFF, 5, 0xC, 8)))

    def ipi(self, cpu: int) -> None:
        choice, nmi = self.chance.choice, self.chance.random() < 0.15
        self.s.apic(ICR_HIGH, choice((0, 0, 1, 2, 3, self.chance.randrange(255))) << 24, cpu=cpu)
        where = choice((0, 0, 0x40000, 0x80000, 0xC0000, 0x800))
        self.s.apic(ICR, choice(VECTORS) | 0x4000 | where | nmi << 10, cpu=cpu)
        if nmi:
            self.s.op(DELAY, us(NMI_US))
            self.s.flush()

    def line(self, gsi: int, level: bool) -> None:
        if level != (gsi in self.up):
            self.up ^= {gsi}
            self.s.line(gsi, level)

    def step(self) -> None:
        s, chance = self.s, self.chance
        what, cpu, gsi = chance.randrange(15), chance.randrange(s.cpus), chance.choice(LINES)
        if what < 2:
            self.pin(gsi)
        elif what == 2:
            self.line(gsi, bool(chance.getrandbits(1)))
        elif what == 3 and gsi not in self.up:
            self.line(gsi, True)
            self.line(gsi, False)
        elif what == 4:
            s.apic(TPR, chance.choice((0, 0x30, 0x40, 0x80, 0xF0)), cpu=cpu)
        elif what == 5:
            s.apic(0xB0, 0, cpu=cpu)
        elif what == 6:
            self.ipi(cpu)
        elif what == 7:
            s.entry(gsi, 0xFFFFEFFF)
        elif what == 8:
            register = chance.choice((0x20, TPR, 0xA0, LDR, 0xE0, SVR, ICR, ICR_HIGH, 0x350, 0x360, 0x370))
            s.load(LAPIC + register, 0xFFFFEFFF, cpu=cpu)
        elif what == 9:
            self.state(cpu)
        elif what == 10:
            s.apic(LDR, chance.choice((1, 2, 4, 8, 3, 0xF, 0x11, 0x21, 0x14)) << 24, cpu=cpu)
        elif what == 11 and chance.random() < 0.3:
            s.op(WRITE_CR8, 0, chance.randrange(16))
            s.load(LAPIC + TPR)
        else:
            s.window(4, cpu=cpu)


def _apic_program(s: Script, chance: random.Random) -> None:
    """Pins, lines, IPIs, priorities and windows; then all registers."""
    noise = _ApicNoise(s, chance)
    noise.reset()
    kind = chance.randrange(6)
    for vector in VECTORS:
        s.handler(vector, noise.handler(kind if chance.random() < 0.7 else chance.randrange(6)))
    for _ in range(chance.randrange(5, 40)):
        noise.step()
    for cpu in range(s.cpus):
        noise.state(cpu)
        s.window(4, cpu=cpu)
    for gsi in LINES:
        s.entry(gsi, 0xFFFFEFFF)


PROGRAMS: dict[str, tuple[int, int, Callable[[Script, random.Random], None]]] = {
    "8259": (1, 12, _pic_program),
    "apics": (1, 12, _apic_program),
    "apics-of-four": (4, 4, _apic_program),
}
"""How many CPUs, how many seeds fit a program, and what writes one."""


def write_noise(name: str, seeds: range) -> Script:
    """One program, of as many seeds as fit."""
    cpus, fit, write = PROGRAMS[name]
    s = Script(cpus=cpus)
    begin(s, cpus)
    for seed in seeds[:fit]:
        write(s, random.Random(f"{name} {seed}"))
    return s
