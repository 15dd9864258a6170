"""A local APIC's local vector table: what becomes of its pins LINT0 and LINT1, and of its own events (SDM 3A 11.5.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from belljar.devices import apic_message as modes
from belljar.devices.apic_message import ApicMessage
from belljar.x86.local_apic import (
    LVT_LEVEL,
    LVT_MASKED,
    LVT_NAMES,
    LVT_REMOTE_IRR,
    LVT_WRITABLE,
    MODE_MASK,
    MODE_SHIFT,
    VECTOR_MASK,
    Reg,
)

_LINT0: Final = int(Reg.LVT_LINT0)
_LINTS: Final = (Reg.LVT_LINT0, Reg.LVT_LINT1)
_END: Final = 1 + int(max(LVT_WRITABLE))


class LocalVectors:
    """The table, and the levels of the pins. `registers` are the entries that this APIC has.

    `accept(vector, level_triggered, source)` takes a fixed interrupt, and `receive` one of another mode; `raise_nmi` is what
    LINT1 does while the APIC is switched off. `wake` is called when the 8259 may have something for the vCPU.
    """

    def __init__(
        self,
        registers: tuple[Reg, ...],
        *,
        accept: Callable[[int, bool, str], bool],
        receive: Callable[[ApicMessage], bool],
        raise_nmi: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self.registers = registers
        self._accept = accept
        self._receive = receive
        self._raise_nmi = raise_nmi
        self._wake = wake
        self.present = True
        """Whether the APIC is switched on; if not, LINT0 and LINT1 are INTR and NMI pins (SDM 3A 11.4.3)."""
        self.entries = [LVT_MASKED] * _END
        """By register number; other places mean nothing. Always this list."""
        self.levels = [False, False]
        """Of LINT0 and LINT1. Always this list."""

    def reset(self, *, virtual_wire: bool) -> None:
        """All entries masked; with `virtual_wire`, LINT0 lets the 8259's interrupts through. The pins keep their levels."""
        for register in self.registers:
            self.entries[register] = LVT_MASKED
        if virtual_wire:
            self.entries[_LINT0] = modes.EXTINT << MODE_SHIFT

    def mask_all(self) -> None:
        """The APIC was switched off by software."""
        for register in self.registers:
            self.entries[register] |= LVT_MASKED

    def write(self, register: Reg, value: int, *, masked: bool) -> None:
        """Set an entry; `masked`: its mask bit cannot be cleared."""
        entry = value & LVT_WRITABLE[register] | self.entries[register] & LVT_REMOTE_IRR
        if masked:
            entry |= LVT_MASKED
        if not entry & LVT_LEVEL:
            entry &= ~LVT_REMOTE_IRR
        self.entries[register] = entry
        if register == Reg.LVT_LINT0 and self.levels[0] and (entry & LVT_LEVEL or self.accepts_extint):
            self._wake() if self.accepts_extint else self.raise_local(register)

    @property
    def accepts_extint(self) -> bool:
        """Whether LINT0 passes the 8259's interrupts on."""
        if not self.present:
            return True
        entry = self.entries[_LINT0]
        return not entry & LVT_MASKED and entry >> MODE_SHIFT & MODE_MASK == modes.EXTINT

    def set_lint(self, pin: int, level: bool) -> None:
        """Drive LINT0 (on a PC the 8259's INT) or LINT1 (NMI)."""
        if level == self.levels[pin]:
            return
        self.levels[pin] = level
        if not level:
            return
        if not self.present:
            self._wake() if pin == 0 else self._raise_nmi()
        elif pin == 0 and self.accepts_extint:
            self._wake()
        else:
            self.raise_local(_LINTS[pin])

    def raise_local(self, register: Reg) -> None:
        """An event with an entry in the table, such as `Reg.LVT_PERF`, `LVT_THERMAL` or `LVT_CMCI`."""
        entry = self.entries[register]
        if entry & LVT_MASKED or not self.present:
            return
        delivery = entry >> MODE_SHIFT & MODE_MASK
        if register == Reg.LVT_PERF:  # SDM 3A 11.5.1: the counters must not interrupt again before it is cleared
            self.entries[register] |= LVT_MASKED
        if delivery == modes.FIXED:
            level_triggered = register == Reg.LVT_LINT0 and bool(entry & LVT_LEVEL)
            if level_triggered and entry & LVT_REMOTE_IRR:
                return
            if self._accept(entry & VECTOR_MASK, level_triggered, LVT_NAMES[register]) and level_triggered:
                self.entries[register] |= LVT_REMOTE_IRR
        elif delivery in (modes.NMI, modes.SMI, modes.INIT, modes.EXTINT):
            self._receive(ApicMessage(entry & VECTOR_MASK, delivery, source=LVT_NAMES[register]))

    def end(self, vector: int) -> None:
        """The service of a level-triggered interrupt has ended: if it was LINT0's, that may raise it again."""
        entry = self.entries[_LINT0]
        if entry & LVT_REMOTE_IRR and entry & VECTOR_MASK == vector:
            self.entries[_LINT0] = entry & ~LVT_REMOTE_IRR
            if self.levels[0]:
                self.raise_local(Reg.LVT_LINT0)

    def state(self) -> dict[str, list[int]]:
        """The pins' levels, and the entries in the order of `registers`."""
        return {
            "lint": [int(level) for level in self.levels],
            "lvt": [self.entries[register] for register in self.registers],
        }

    def restore(self, lint: list[int], lvt: list[int]) -> None:
        """Take them back; nothing is raised."""
        self.levels[:] = [bool(level) for level in lint]
        for register, entry in zip(self.registers, lvt, strict=True):
            self.entries[register] = entry
