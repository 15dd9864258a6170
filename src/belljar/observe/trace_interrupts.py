"""Interrupts in a trace: from a device's line to the guest's end of interrupt."""

from __future__ import annotations

from belljar.devices.apic_message import ApicMessage, DeliveryMode, delivery_name
from belljar.devices.interrupt_watch import Outcome
from belljar.observe.trace_lines import NO_CPU, TraceLines

KIND = "irq"

_OUTCOMES = {
    Outcome.ACCEPTED: "requested",
    Outcome.MERGED: "merged with one that waits already",
    Outcome.REFUSED: "lost: the local APIC is off, or the vector below 16",
}


class InterruptTrace:
    """Satisfies `belljar.devices.interrupt_watch.InterruptWatch`; called under the lock of the chips."""

    def __init__(self, lines: TraceLines) -> None:
        self._lines = lines
        self._via = ""

    def line(self, gsi: int, source: str, level: bool) -> None:
        """A GSI went up or down."""
        self._lines(NO_CPU, KIND, f"gsi {gsi} {'up' if level else 'down'} ({source})")

    def held(self, gsi: int, source: str) -> None:
        """No pin let it through."""
        self._lines(
            NO_CPU, KIND, f"gsi {gsi} held back: its pins are masked, or have not finished the last one ({source})"
        )

    def pin(self, chip: str, pin: int, source: str, vector: int, outcome: Outcome) -> None:
        """A pin interrupts; an IOAPIC's is told with the message that it sends."""
        if chip == "ioapic":
            self._via = f"ioapic pin {pin}: "
        else:
            self._lines(NO_CPU, KIND, f"{chip} pin {pin}: vector {vector:#04x} {_OUTCOMES[outcome]} ({source})")

    def message(self, message: ApicMessage) -> None:
        """A message to local APICs."""
        via, self._via = self._via, ""
        what = _meaning(message)
        trigger = "level" if message.level_triggered else "edge"
        where = message.shorthand or (
            "all" if message.broadcast else f"{'logical' if message.logical else 'apic'} {message.destination:#x}"
        )
        self._lines(NO_CPU, KIND, f"{via}sends {what} {trigger} to {where} ({message.source})")

    def undelivered(self, message: ApicMessage) -> None:
        """Nobody was there."""
        self._lines(NO_CPU, KIND, f"{_meaning(message)} lost: no local APIC has that address ({message.source})")

    def request(self, cpu: int, vector: int, source: str, outcome: Outcome) -> None:
        """A local APIC got it."""
        self._lines(cpu, KIND, f"lapic: vector {vector:#04x} {_OUTCOMES[outcome]} ({source})")

    def signal(self, cpu: int, kind: str, source: str, vector: int) -> None:
        """NMI, SMI, INIT, start-up IPI or ExtINT."""
        text = f"startup at {vector << 12:#x}" if kind == "startup" else kind
        self._lines(cpu, KIND, f"lapic: {text} requested ({source})")

    def taken(self, cpu: int, chip: str, vector: int, source: str, latency_ns: int) -> None:
        """The vCPU takes it."""
        who = cpu if cpu >= 0 else NO_CPU
        how = "delivered" if cpu >= 0 else "polled"
        self._lines(who, KIND, f"{chip}: vector {vector:#04x} {how} after {latency_ns} ns ({source})")

    def spurious(self, cpu: int, chip: str, vector: int) -> None:
        """There was nothing to take any more."""
        self._lines(cpu, KIND, f"{chip}: spurious vector {vector:#04x} delivered, the request is gone")

    def ended(self, cpu: int, chip: str, vector: int) -> None:
        """End of interrupt."""
        self._lines(cpu if cpu >= 0 else NO_CPU, KIND, f"{chip}: vector {vector:#04x} ended")


def _meaning(message: ApicMessage) -> str:
    """A vector and how it is delivered, or what else the message means."""
    kind = delivery_name(message.delivery)
    if message.delivery <= DeliveryMode.LOWEST_PRIORITY:
        return f"vector {message.vector:#04x} {kind}"
    if message.delivery == DeliveryMode.STARTUP:
        return f"startup at {message.vector << 12:#x}"
    return kind if message.asserted else f"{kind} de-assert"
