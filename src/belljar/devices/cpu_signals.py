"""What may wait for a vCPU beside maskable interrupts: NMI, SMI, INIT and start-up IPIs.

The local APIC sets them, the vCPU takes them between instructions: INIT first, then a start-up IPI (which counts only while
waiting for one: a vCPU in any other state takes it and does nothing, SDM 3A 9.4.1), SMI, NMI (held back while NMIs are
blocked, SDM 3A 6.7.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

NO_SIPI: Final = -1
NMIS_BLOCKED: Final = 1
NMIS_OPEN: Final = 2
"""How many NMIs wait at most: one while NMIs are blocked; else two, of which the first is as good as taken (as KVM has it)."""


class CpuSignals:
    """The latches of one vCPU. `wake` is called for every new one: look before the next instruction, leave HLT if need be.

    The vCPU keeps `nmi_blocked` up to date, from the delivery of an NMI to the IRET that ends it.
    """

    __slots__ = ("_wake", "init", "nmi_blocked", "nmis", "pending", "sipi", "smi")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.nmis = 0
        self.nmi_blocked = self.smi = self.init = False
        self.sipi = NO_SIPI
        """The vector of a start-up IPI (start at `vector << 12`), or `NO_SIPI`."""
        self.pending = False
        """Whether anything waits."""

    def _settle(self) -> None:
        self.pending = self.nmis > 0 or self.smi or self.init or self.sipi >= 0

    @property
    def nmi(self) -> bool:
        """Whether an NMI waits."""
        return self.nmis > 0

    def raise_nmi(self) -> None:
        """Latch an NMI; more than can wait are lost."""
        self.nmis = min(self.nmis + 1, NMIS_BLOCKED if self.nmi_blocked else NMIS_OPEN)
        self.pending = True
        self._wake()

    def raise_smi(self) -> None:
        """Latch a system-management interrupt."""
        self.smi = True
        self.pending = True
        self._wake()

    def raise_init(self) -> None:
        """Latch INIT; a start-up IPI that came before it is forgotten."""
        self.init = True
        self.sipi = NO_SIPI
        self.pending = True
        self._wake()

    def raise_sipi(self, vector: int) -> None:
        """Latch a start-up IPI."""
        self.sipi = vector
        self.pending = True
        self._wake()

    def take_nmi(self) -> bool:
        """Whether an NMI waited; it does not any more, another may."""
        waited = self.nmis > 0
        self.nmis -= waited
        self._settle()
        return waited

    def take_smi(self) -> bool:
        """Whether an SMI waited; it does not any more."""
        waited, self.smi = self.smi, False
        self._settle()
        return waited

    def take_init(self) -> bool:
        """Whether INIT waited; it does not any more."""
        waited, self.init = self.init, False
        self._settle()
        return waited

    def take_sipi(self) -> int:
        """The vector of a start-up IPI that waited, or `NO_SIPI`; it does not any more."""
        vector, self.sipi = self.sipi, NO_SIPI
        self._settle()
        return vector

    def state(self) -> dict[str, Any]:
        """The latches."""
        return {
            "nmis": self.nmis,
            "nmi_blocked": int(self.nmi_blocked),
            "smi": int(self.smi),
            "init": int(self.init),
            "sipi": self.sipi,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back; nobody is woken."""
        self.nmis, self.nmi_blocked = state["nmis"], bool(state["nmi_blocked"])
        self.smi, self.init = bool(state["smi"]), bool(state["init"])
        self.sipi = state["sipi"]
        self._settle()
