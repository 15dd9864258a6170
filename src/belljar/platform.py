"""Between a machine and an engine that serves its guests' paravirtual interfaces itself: what each needs of the other.

`Platform` and what it gives are the machine's: time, and local APICs. The soft engine's hypervisor consumes them; a machine
with interrupt chips of its own satisfies them (`belljar.machine.guest_platform`), and KVM's kernel side needs none of it.
`TimeStampCounter` and `HypervConnections` are the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Appointment(Protocol):
    """A timer on the machine's clock."""

    def cancel(self) -> None:
        """Do not run it any more. Harmless when repeated, or when it has run."""


class LocalApic(Protocol):
    """A vCPU's local APIC, as paravirtual interfaces use it."""

    settle: Callable[[], None] | None
    """Called before anybody looks at the registers, or when an interrupt comes, while what the guest did is not known yet."""

    ended: Callable[[int], None] | None
    """Called with the vector when an interrupt's service ends."""

    def end_of_interrupt(self) -> None:
        """The interrupt in service with the highest priority is finished."""

    def can_skip_eoi(self) -> bool:
        """Whether an interrupt is in service and nothing hangs on its end: none waits, and no other chip is to hear of it."""

    def raise_interrupt(self, vector: int, source: str) -> bool:
        """A fixed, edge-triggered interrupt; `source` names it in reports. False if the APIC is off or the vector illegal."""

    def read_icr(self) -> int:
        """The interrupt command register, 64 bits with the xAPIC's destination in bits 63 to 56."""

    def write_icr(self, value: int) -> None:
        """Send an IPI."""

    def read_tpr(self) -> int:
        """The task priority register."""

    def write_tpr(self, value: int) -> None:
        """Set the task priority register."""


class EntryHooks(Protocol):
    """Who wants to be told of a vCPU's runs."""

    def turn_begins(self) -> None:
        """It is the vCPU's turn to run."""

    def turn_ends(self, halted: bool) -> None:
        """It is others' turn; `halted`: not before something wakes it will it run on."""

    def before_entry(self) -> None:
        """The vCPU is about to run, and its interrupts were looked after."""

    def taken(self, vector: int) -> None:
        """Its local APIC's interrupt with this vector is injected now."""


class Platform(Protocol):
    """The machine around a VM's vCPUs."""

    @property
    def cpus(self) -> int:
        """How many vCPUs there are; a vCPU's index is its APIC id."""

    @property
    def steady(self) -> bool:
        """Whether the processors' own time-stamp counters always show `now_ns`."""

    @property
    def bus_hz(self) -> int:
        """The frequency of the local APICs' timers, undivided."""

    def now_ns(self) -> int:
        """Nanoseconds since the machine was made."""

    def wall_ns(self) -> int:
        """The time of day: nanoseconds since 1970-01-01 UTC."""

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Appointment:
        """Have `callback` called when `now_ns` has come to `deadline_ns`, between runs."""

    def local_apic(self, index: int) -> LocalApic:
        """A vCPU's local APIC."""

    def send_ipi(self, apic_id: int, vector: int, delivery: int, level_triggered: bool) -> bool:
        """An interrupt message to one local APIC, by physical id (SDM 3A 11.6.1); whether it took it."""

    def unhalt(self, index: int) -> None:
        """Have a vCPU go on behind its HLT, or not halt at the next."""

    def yield_to(self, index: int) -> bool:
        """Have a vCPU run next, when the one that runs gives its turn; False if it has nothing to run for, or is not there."""

    def watch_entries(self, index: int, hooks: EntryHooks) -> None:
        """Tell `hooks` of a vCPU's runs from now on."""

    def reset(self, index: int) -> None:
        """The guest on this vCPU asks for a reset of the machine."""


class HypervConnections(Protocol):
    """The other ends of Hyper-V's connections: which source (SINT) of which vCPU's SynIC gets what is sent there (TLFS 11.5).

    What cannot be (no such vCPU, no such source) is ignored.
    """

    def signal(self, vcpu: int, sint: int) -> None:
        """Raise a source's interrupt."""

    def connect_messages(self, connection: int, vcpu: int, sint: int) -> None:
        """Messages that guests post to `connection` go to the slot of a source."""

    def disconnect_messages(self, connection: int) -> None:
        """Not any more."""

    def connect_events(self, connection: int, vcpu: int, sint: int) -> None:
        """Events that guests signal on `connection` set the flag of that number at a source."""

    def disconnect_events(self, connection: int) -> None:
        """Not any more."""


class TimeStampCounter(Protocol):
    """What a guest sees of time by RDTSC, as a function of the machine's clock."""

    changed: list[Callable[[], None]]
    """Called when it jumps, or changes its frequency."""

    def read(self) -> int:
        """The counter now, 64 bits."""

    def ns_at(self, value: int) -> int:
        """The machine's time when it first shows `value` or more: now if it does already."""
