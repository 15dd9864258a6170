"""The part of a local APIC that orders interrupts: IRR, ISR, TMR as 256-bit numbers, TPR and PPR (SDM 3A 11.8)."""

from __future__ import annotations

from typing import Any, Final

CLASS_MASK: Final = 0xF0
"""The upper half of a vector is its priority class (SDM 3A 11.8.3)."""

_BYTES: Final = 32


class VectorState:
    """Requests, interrupts in service, their trigger modes, and the priorities that decide between them."""

    __slots__ = ("irr", "isr", "ppr", "tmr", "tpr")

    def __init__(self) -> None:
        self.irr = self.isr = self.tmr = 0
        self.tpr = self.ppr = 0

    def clear(self) -> None:
        """As after reset."""
        self.irr = self.isr = self.tmr = self.tpr = self.ppr = 0

    def request(self, vector: int, level_triggered: bool) -> bool:
        """Set a request; False if one was waiting already."""
        bit = 1 << vector
        if level_triggered:
            self.tmr |= bit
        elif self.tmr & bit:
            self.tmr &= ~bit
        if self.irr & bit:
            return False
        self.irr |= bit
        return True

    def deliverable(self) -> int:
        """The most urgent request above the processor's priority, or -1."""
        vector = self.irr.bit_length() - 1
        return vector if vector & CLASS_MASK > self.ppr & CLASS_MASK and vector >= 0 else -1

    def take(self) -> int:
        """The most urgent request above the processor's priority goes into service: its vector, or -1."""
        vector = self.deliverable()
        if vector >= 0:
            bit = 1 << vector
            self.irr ^= bit
            self.isr |= bit
            self.update_ppr()
        return vector

    def end(self) -> int:
        """The highest in service is finished: its vector, or -1 if there is none."""
        vector = self.isr.bit_length() - 1
        if vector >= 0:
            self.isr ^= 1 << vector
            self.update_ppr()
        return vector

    def set_tpr(self, value: int) -> None:
        """The task's priority."""
        self.tpr = value
        self.update_ppr()

    def update_ppr(self) -> None:
        """The processor's priority: the task's, or that of the highest in service (SDM 3A 11.8.3.1)."""
        serving = self.isr.bit_length() - 1 & CLASS_MASK if self.isr else 0
        self.ppr = self.tpr if self.tpr & CLASS_MASK >= serving else serving

    def word(self, which: int, index: int) -> int:
        """32 bits of ISR (0), TMR (1) or IRR (2)."""
        bits = (self.isr, self.tmr, self.irr)[which]
        return bits >> 32 * index & 0xFFFF_FFFF

    def state(self) -> dict[str, Any]:
        """Everything; the 256-bit registers as 32 bytes, lowest vectors first."""
        return {
            "irr": self.irr.to_bytes(_BYTES, "little"),
            "isr": self.isr.to_bytes(_BYTES, "little"),
            "tmr": self.tmr.to_bytes(_BYTES, "little"),
            "tpr": self.tpr,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.irr, self.isr, self.tmr = (int.from_bytes(state[name], "little") for name in ("irr", "isr", "tmr"))
        self.set_tpr(state["tpr"])
