"""The I/O APIC (Intel 82093AA data sheet, 290566-001; later ones: ICH9 data sheet 13.5): 24 pins, each sending a message.

Version 0x11 is what KVM shows; version 0x20 adds an EOI register, by which a guest that keeps local APICs from broadcasting
ends of interrupt sends them itself (SDM 3A 11.8.5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from belljar.devices.apic_message import ApicMessage, DeliveryMode, delivery_name
from belljar.devices.interrupt_counts import InterruptCounts
from belljar.devices.interrupt_watch import Outcome
from belljar.devices.lines import IOAPIC_PINS, PinState
from belljar.errors import ConfigurationError

IOAPIC_GPA: Final = 0xFEC0_0000
IOAPIC_SIZE: Final = 0x1000
VERSION_82093AA: Final = 0x11
VERSION_WITH_EOI: Final = 0x20

SELECT: Final = 0x00
WINDOW: Final = 0x10
EOI: Final = 0x40
"""Offsets of the registers that a processor sees."""

REG_ID: Final = 0x00
REG_VERSION: Final = 0x01
REG_ARBITRATION: Final = 0x02
REG_REDIRECTION: Final = 0x10
"""What the select register may name; two for each redirection entry."""

_ID_MASK: Final = 0x0F00_0000

VECTOR: Final = 0xFF
DELIVERY_SHIFT: Final = 8
DELIVERY_MASK: Final = 7
LOGICAL: Final = 1 << 11
DELIVERY_PENDING: Final = 1 << 12
ACTIVE_LOW: Final = 1 << 13
REMOTE_IRR: Final = 1 << 14
LEVEL: Final = 1 << 15
MASKED: Final = 1 << 16
DESTINATION_SHIFT: Final = 56
"""A redirection entry (82093AA 3.2.4)."""

_WRITABLE_LOW: Final = 0x1_AFFF
_WRITABLE_HIGH: Final = 0xFF00_0000
_READ_ONLY: Final = DELIVERY_PENDING | REMOTE_IRR


class IoApic:
    """The chip. `deliver` takes each message and says how many APICs took it.

    `changed` is told which pin's entry was written: with a split irqchip the kernel wants to know each pin's message, for the
    ends of interrupt.
    Pins carry levels of the meaning "asserted": the polarity bit is kept and shown, and already in the wires.
    """

    def __init__(
        self,
        deliver: Callable[[ApicMessage], int],
        *,
        gpa: int = IOAPIC_GPA,
        apic_id: int = 0,
        version: int = VERSION_82093AA,
        cpus_of: Callable[[ApicMessage], tuple[int, ...]] | None = None,
        changed: Callable[[int], None] | None = None,
        counts: InterruptCounts | None = None,
    ) -> None:
        if version not in (VERSION_82093AA, VERSION_WITH_EOI):
            raise ConfigurationError(f"there is no IOAPIC of version {version:#x}", hint="0x11 or 0x20")
        self.mmio = range(gpa, gpa + IOAPIC_SIZE)
        self.version = version
        self.id = apic_id & 0xF
        self.select = 0
        self.redirection = [MASKED] * IOAPIC_PINS
        self.pins = 0
        self._deliver = deliver
        self._cpus_of = cpus_of
        self._changed = changed
        self._counts = counts
        self._names = [f"ioapic pin {pin}" for pin in range(IOAPIC_PINS)]
        self._messages: list[ApicMessage | None] = [None] * IOAPIC_PINS
        """What pins send, where nothing has changed since it was last put together."""

    def mmio_read(self, gpa: int, size: int) -> int:
        """A register; narrower reads see its low bytes, what lies between registers reads as 0."""
        offset = gpa - self.mmio.start & 0xFF
        if offset == SELECT:
            value = self.select
        elif offset == WINDOW:
            value = self.read_register(self.select)
        else:
            value = 0
        return value & (1 << 8 * size) - 1

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Choose a register, write the chosen one, or end an interrupt."""
        offset = gpa - self.mmio.start & 0xFF
        if offset == SELECT:
            self.select = value & 0xFF
        elif offset == WINDOW:
            self.write_register(self.select, value & 0xFFFF_FFFF)
        elif offset == EOI and self.version >= VERSION_WITH_EOI:
            self.end_of_interrupt(value & VECTOR)

    def read_register(self, index: int) -> int:
        """A register by its index; all ones beyond the last, as KVM has it."""
        if index == REG_VERSION:
            return IOAPIC_PINS - 1 << 16 | self.version
        if index in (REG_ID, REG_ARBITRATION):
            return self.id << 24
        pin, high = divmod(index - REG_REDIRECTION, 2)
        if not 0 <= pin < IOAPIC_PINS:
            return 0xFFFF_FFFF
        return self.redirection[pin] >> 32 * high & 0xFFFF_FFFF

    def write_register(self, index: int, value: int) -> None:
        """Set a register; version and arbitration are read-only, so are reserved bits."""
        if index == REG_ID:
            self.id = (value & _ID_MASK) >> 24
            return
        pin, high = divmod(index - REG_REDIRECTION, 2)
        if not 0 <= pin < IOAPIC_PINS:
            return
        entry = self.redirection[pin]
        if high:
            entry = entry & 0xFFFF_FFFF | (value & _WRITABLE_HIGH) << 32
        else:
            entry = entry & ~0xFFFF_FFFF | value & _WRITABLE_LOW | entry & _READ_ONLY
            if not entry & LEVEL:
                entry &= ~REMOTE_IRR  # guests clear a stuck one by making the entry edge-triggered for a moment
        self.redirection[pin] = entry
        self._messages[pin] = None
        if self._changed is not None:
            self._changed(pin)
        if entry & LEVEL and self.pins & 1 << pin:
            self._service(pin)

    def set_pin(self, pin: int, level: bool) -> int:
        """Drive a pin; above 0 how many APICs took the interrupt, 0 if nothing changed, below 0 if it is masked or waits."""
        bit = 1 << pin
        if not level:
            self.pins &= ~bit
            return 0
        if self.pins & bit and not self.redirection[pin] & LEVEL:
            return 0
        self.pins |= bit
        return self._service(pin)

    def name_pin(self, pin: int, source: str) -> None:
        """Who drives a pin, for reports."""
        if self._names[pin] != source:
            self._names[pin] = source
            self._messages[pin] = None

    def message(self, pin: int) -> ApicMessage:
        """What a pin sends when it interrupts, as it is programmed now."""
        message = self._messages[pin]
        if message is None:
            entry = self.redirection[pin]
            message = self._messages[pin] = ApicMessage(
                entry & VECTOR,
                entry >> DELIVERY_SHIFT & DELIVERY_MASK,
                entry >> DESTINATION_SHIFT,
                bool(entry & LOGICAL),
                bool(entry & LEVEL),
                True,
                self._names[pin],
            )
        return message

    def _service(self, pin: int) -> int:
        entry = self.redirection[pin]
        if entry & MASKED or (entry & LEVEL and entry & REMOTE_IRR):
            return -1
        if self._counts is not None and self._counts.watch is not None:
            self._counts.watch.pin("ioapic", pin, self._names[pin], entry & VECTOR, Outcome.ACCEPTED)
        taken = self._deliver(self.message(pin))
        if taken and entry & LEVEL and entry >> DELIVERY_SHIFT & DELIVERY_MASK <= DeliveryMode.LOWEST_PRIORITY:
            self.redirection[pin] |= REMOTE_IRR
        return taken

    def end_of_interrupt(self, vector: int) -> None:
        """A level-triggered interrupt was finished: pins with this vector that are still up interrupt again."""
        for pin, entry in enumerate(self.redirection):
            if entry & VECTOR == vector and entry & LEVEL and entry & REMOTE_IRR:
                self.redirection[pin] = entry & ~REMOTE_IRR
                if self.pins & 1 << pin:
                    self._service(pin)

    def pin_state(self, pin: int) -> PinState:
        """What an interrupt on a pin would become now."""
        entry = self.redirection[pin]
        message = self.message(pin)
        return PinState(
            message.vector,
            delivery_name(message.delivery),
            "level" if entry & LEVEL else "edge",
            bool(entry & MASKED),
            self._cpus_of(message) if self._cpus_of is not None else (),
        )

    def state(self) -> dict[str, Any]:
        """Registers and pin levels."""
        return {"id": self.id, "select": self.select, "redirection": list(self.redirection), "pins": self.pins}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back; nothing is sent."""
        self.id, self.select, self.pins = state["id"], state["select"], state["pins"]
        self.redirection = list(state["redirection"])
        self._messages = [None] * IOAPIC_PINS
