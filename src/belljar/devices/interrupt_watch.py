"""What somebody who looks on is told of interrupts, from a device's line to the end of interrupt.

`InterruptCounts.watch` holds the one who looks on, else None: then an event costs the chips a look at it.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from belljar.devices.apic_message import ApicMessage


class Outcome(Enum):
    """What became of a request at a chip."""

    ACCEPTED = "accepted"
    MERGED = "merged"
    """One was waiting already; they became one."""
    REFUSED = "refused"
    """The local APIC is off, or the vector illegal."""


class InterruptWatch(Protocol):
    """Told of everything, in order, while it happens; it must not touch the chips. `cpu` is a vCPU's index, -1 unknown."""

    def line(self, gsi: int, source: str, level: bool) -> None:
        """A GSI goes up or down because `source` drove its line."""

    def held(self, gsi: int, source: str) -> None:
        """A line went up, and every pin that it leads to is masked or has not finished its last interrupt."""

    def pin(self, chip: str, pin: int, source: str, vector: int, outcome: Outcome) -> None:
        """A pin of the `pic` or `ioapic` interrupts, with the vector that it is programmed for."""

    def message(self, message: ApicMessage) -> None:
        """A message goes to the local APICs: from an IOAPIC's pin, a device (MSI) or another local APIC (IPI)."""

    def undelivered(self, message: ApicMessage) -> None:
        """No local APIC took it."""

    def request(self, cpu: int, vector: int, source: str, outcome: Outcome) -> None:
        """A local APIC got a fixed interrupt."""

    def signal(self, cpu: int, kind: str, source: str, vector: int) -> None:
        """A local APIC got `nmi`, `smi`, `init`, `startup` or `extint`."""

    def taken(self, cpu: int, chip: str, vector: int, source: str, latency_ns: int) -> None:
        """A vCPU acknowledged an interrupt of its `lapic` or the `pic`, which waited so long."""

    def spurious(self, cpu: int, chip: str, vector: int) -> None:
        """A vCPU wanted an interrupt that was gone meanwhile, and got the spurious vector."""

    def ended(self, cpu: int, chip: str, vector: int) -> None:
        """The guest ended an interrupt at its `lapic` or the `pic`."""
