"""The part of a local APIC that orders interrupts: IRR, ISR, TMR, TPR and PPR (SDM 3A 11.8)."""

from __future__ import annotations

from typing import Any, Final

CLASS_MASK: Final = 0xF0
"""The upper half of a vector is its priority class (SDM 3A 11.8.3)."""

_BYTES: Final = 32


def _vectors(bits: int) -> list[int]:
    """The numbers of the bits that are set, ascending."""
    return [vector for vector in range(8 * _BYTES) if bits >> vector & 1]


class VectorState:
    """Requests, interrupts in service, their trigger modes, and the priorities that decide between them.

    What is requested and in service is kept as short lists of vectors, ascending: the registers mostly have one bit or none,
    and numbers below 257 are objects that are there already.
    """

    __slots__ = ("_requested", "_serving", "ppr", "tmr", "tpr")

    def __init__(self) -> None:
        self._requested: list[int] = []
        self._serving: list[int] = []
        self.tmr = 0
        self.tpr = self.ppr = 0

    def clear(self) -> None:
        """As after reset."""
        self._requested.clear()
        self._serving.clear()
        self.tmr = self.tpr = self.ppr = 0

    @property
    def irr(self) -> int:
        """The interrupt request register, 256 bits."""
        return sum(1 << vector for vector in self._requested)

    @property
    def isr(self) -> int:
        """The in-service register, 256 bits."""
        return sum(1 << vector for vector in self._serving)

    def waits(self) -> bool:
        """Whether any request is set, whatever its priority."""
        return len(self._requested) > 0

    def serving(self) -> int:
        """The most urgent that is in service, or -1."""
        serving = self._serving
        return serving[-1] if serving else -1

    def request(self, vector: int, level_triggered: bool) -> bool:
        """Set a request; False if one was waiting already."""
        if level_triggered:
            self.tmr |= 1 << vector
        elif self.tmr:
            self.tmr &= ~(1 << vector)
        requested = self._requested
        place = len(requested)
        while place and requested[place - 1] >= vector:
            place -= 1
            if requested[place] == vector:
                return False
        requested.insert(place, vector)
        return True

    def deliverable(self) -> int:
        """The most urgent request above the processor's priority, or -1."""
        requested = self._requested
        if not requested:
            return -1
        vector = requested[-1]
        return vector if vector & CLASS_MASK > self.ppr & CLASS_MASK else -1

    def take(self) -> int:
        """The most urgent request above the processor's priority goes into service: its vector, or -1.

        Its class is above that of all that are in service: it is the last of them, too.
        """
        vector = self.deliverable()
        if vector >= 0:
            self._requested.pop()
            self._serving.append(vector)
            self.update_ppr()
        return vector

    def end(self) -> int:
        """The highest in service is finished: its vector, or -1 if there is none."""
        if not self._serving:
            return -1
        vector = self._serving.pop()
        self.update_ppr()
        return vector

    def set_tpr(self, value: int) -> None:
        """The task's priority."""
        self.tpr = value
        self.update_ppr()

    def update_ppr(self) -> None:
        """The processor's priority: the task's, or that of the highest in service (SDM 3A 11.8.3.1)."""
        serving = self._serving[-1] & CLASS_MASK if self._serving else 0
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
        irr, isr, self.tmr = (int.from_bytes(state[name], "little") for name in ("irr", "isr", "tmr"))
        self._requested, self._serving = _vectors(irr), _vectors(isr)
        self.set_tpr(state["tpr"])
