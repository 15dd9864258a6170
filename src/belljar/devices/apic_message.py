"""What travels between APICs: an interrupt message, and its form as a memory write (MSI, SDM 3A 11.11)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

MSI_ADDRESS_BASE: Final = 0xFEE
"""Bits 31 to 20 of a message address (SDM 3A 11.11.1)."""

BROADCAST_XAPIC: Final = 0xFF
BROADCAST_X2APIC: Final = 0xFFFF_FFFF
"""The destinations that mean every APIC (SDM 3A 11.6.2.1, 11.12.9)."""

FIRST_VECTOR: Final = 16
"""Fixed interrupts with a vector below are illegal (SDM 3A 11.5.2)."""

_MSI_LOGICAL: Final = 1 << 2
_MSI_REDIRECTION_HINT: Final = 1 << 3
_MSI_ASSERT: Final = 1 << 14
_MSI_LEVEL: Final = 1 << 15
_EXTENDED_DESTINATION: Final = 0xFFFF_FF00


class DeliveryMode(IntEnum):
    """How a message is to be taken (SDM 3A 11.6.1; 82093AA 3.2.4). 3 is reserved."""

    FIXED = 0
    LOWEST_PRIORITY = 1
    SMI = 2
    RESERVED = 3
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7


FIXED: Final = int(DeliveryMode.FIXED)
LOWEST_PRIORITY: Final = int(DeliveryMode.LOWEST_PRIORITY)
SMI: Final = int(DeliveryMode.SMI)
NMI: Final = int(DeliveryMode.NMI)
INIT: Final = int(DeliveryMode.INIT)
STARTUP: Final = int(DeliveryMode.STARTUP)
EXTINT: Final = int(DeliveryMode.EXTINT)
"""The same as plain numbers, which compare faster."""


def delivery_name(delivery: int) -> str:
    """A delivery mode as reports spell it: `lowest-priority`."""
    return DeliveryMode(delivery).name.lower().replace("_", "-")


class ApicMessage(NamedTuple):
    """One interrupt message. `destination` is an APIC id, or with `logical` a set of logical ids.

    `asserted` False only ever means INIT level de-assert. `source` is who raised it, for reports. `wide` says that the
    destination has 32 bits (from an x2APIC); else 0xFF is a broadcast to every APIC.
    """

    vector: int
    delivery: int = DeliveryMode.FIXED
    destination: int = 0
    logical: bool = False
    level_triggered: bool = False
    asserted: bool = True
    source: str = ""
    wide: bool = False
    redirection_hint: bool = False
    shorthand: str = ""
    """Whom an IPI's shorthand means, in words, for reports; the destination then says nothing."""

    @property
    def lowest_priority(self) -> bool:
        """Whether only one of the destinations is to get it."""
        return self.delivery == LOWEST_PRIORITY or self.redirection_hint

    @property
    def broadcast(self) -> bool:
        """Whether the destination is every APIC."""
        return self.destination == (BROADCAST_X2APIC if self.wide else BROADCAST_XAPIC)

    def names_xapic(self, logical_id: int, *, flat: bool) -> bool:
        """Whether a logical destination has an xAPIC's 8-bit id: a set of eight, or clusters of four (SDM 3A 11.6.2.2)."""
        if flat:
            return bool(logical_id & self.destination)
        return logical_id >> 4 == self.destination >> 4 and bool(logical_id & self.destination & 0xF)

    def names_x2apic(self, logical_id: int) -> bool:
        """The same for the 32-bit id of an x2APIC: clusters of sixteen (SDM 3A 11.12.10.1)."""
        return logical_id >> 16 == self.destination >> 16 and bool(logical_id & self.destination & 0xFFFF)

    def to_msi(self) -> tuple[int, int]:
        """The address and data of the memory write that means the same, as KVM_SIGNAL_MSI takes them."""
        gpa = MSI_ADDRESS_BASE << 20 | (self.destination & 0xFF) << 12
        gpa |= (self.destination & _EXTENDED_DESTINATION) << 32
        gpa |= _MSI_LOGICAL if self.logical else 0
        gpa |= _MSI_REDIRECTION_HINT if self.redirection_hint else 0
        data = self.vector | self.delivery << 8 | (_MSI_ASSERT if self.asserted else 0)
        return gpa, data | (_MSI_LEVEL if self.level_triggered else 0)


def from_msi(gpa: int, data: int, source: str = "msi") -> ApicMessage | None:
    """The message that a device's write means; None if the address is none of an APIC's.

    Bits 63 to 40 of the address carry bits 31 to 8 of a long destination, as with KVM_X2APIC_API_USE_32BIT_IDS
    (api.rst 7.7).
    """
    if (gpa >> 20) & 0xFFF != MSI_ADDRESS_BASE:
        return None
    extended = gpa >> 32 & _EXTENDED_DESTINATION
    return ApicMessage(
        vector=data & 0xFF,
        delivery=data >> 8 & 7,
        destination=(gpa >> 12 & 0xFF) | extended,
        logical=bool(gpa & _MSI_LOGICAL),
        level_triggered=bool(data & _MSI_LEVEL),
        source=source,
        wide=bool(extended),
        redirection_hint=bool(gpa & _MSI_REDIRECTION_HINT),
    )
