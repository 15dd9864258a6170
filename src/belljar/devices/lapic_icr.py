"""A local APIC's interrupt command register: what it sends to others (SDM 3A 11.6.1, 11.12.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from belljar.devices.apic_bus import ApicBus, LocalApic
from belljar.devices.apic_message import FIRST_VECTOR, INIT, LOWEST_PRIORITY, ApicMessage
from belljar.x86 import local_apic as regs

_LOW: Final = 0xFFFF_FFFF


class CommandRegister:
    """ICR. `value` has 64 bits, in xAPIC mode as its two halves in memory. `illegal` is told of a vector that cannot be sent."""

    def __init__(self, apic_id: int, owner: LocalApic, bus: ApicBus, illegal: Callable[[], None]) -> None:
        self._owner = owner
        self._bus = bus
        self._illegal = illegal
        self._source = f"ipi from cpu {apic_id}"
        self._last = ApicMessage(0)  # the same one is sent over and over
        self._last_command = self._last_destination = -1
        self.value = 0

    def write_high(self, value: int) -> None:
        """The half at 0x310: the destination of what is sent next."""
        self.value = self.value & _LOW | (value & regs.VECTOR_MASK << regs.XAPIC_ID_SHIFT) << 32

    def write_low(self, value: int) -> None:
        """The half at 0x300: send."""
        self.value = self.value & ~_LOW | value & regs.ICR_WRITABLE
        self._send(self.value & _LOW, self.value >> 32 + regs.XAPIC_ID_SHIFT, wide=False)

    def write(self, value: int) -> None:
        """The one register of x2APIC mode: send. Reserved bits were checked."""
        self.value = value & (_LOW << 32 | regs.ICR_WRITABLE)
        self._send(self.value & _LOW, self.value >> 32, wide=True)

    def interrupt_itself(self, vector: int) -> None:
        """The self-IPI register of x2APIC mode (SDM 3A 11.12.11)."""
        self._send(vector | regs.ICR_ASSERT | regs.SHORTHAND_SELF << regs.ICR_SHORTHAND_SHIFT, 0, wide=True)

    def _send(self, command: int, destination: int, *, wide: bool) -> None:
        message = self._last
        if command != self._last_command or destination != self._last_destination or wide != message.wide:
            vector = command & regs.VECTOR_MASK
            if command >> regs.MODE_SHIFT & regs.MODE_MASK <= LOWEST_PRIORITY and vector < FIRST_VECTOR:
                self._illegal()
                return
            message = self._last = self._message(command, destination, wide)
            self._last_command, self._last_destination = command, destination
        shorthand = command >> regs.ICR_SHORTHAND_SHIFT & 3
        if shorthand == regs.SHORTHAND_NONE:
            self._bus.deliver(message)
        elif shorthand == regs.SHORTHAND_ALL:
            self._bus.deliver_to(message, self._bus.lapics)
        elif shorthand == regs.SHORTHAND_OTHERS:
            self._bus.deliver_to(message, [lapic for lapic in self._bus.lapics if lapic is not self._owner])
        else:
            self._bus.deliver_to(message, (self._owner,))

    def _message(self, command: int, destination: int, wide: bool) -> ApicMessage:
        delivery = command >> regs.MODE_SHIFT & regs.MODE_MASK
        # SDM 3A 11.6.1: trigger mode and level mean something for INIT de-assert only
        deassert = delivery == INIT and bool(command & regs.ICR_LEVEL) and not command & regs.ICR_ASSERT
        logical = bool(command & regs.ICR_LOGICAL)
        words = regs.SHORTHANDS[command >> regs.ICR_SHORTHAND_SHIFT & 3]
        return ApicMessage(
            command & regs.VECTOR_MASK,
            delivery,
            destination,
            logical,
            False,
            not deassert,
            self._source,
            wide,
            False,
            words,
        )
