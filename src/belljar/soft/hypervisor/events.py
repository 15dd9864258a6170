"""Event injection: what the next VM entry delivers (SDM 3C 25.8.3, 27.6)."""

from __future__ import annotations

from enum import IntEnum

from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field

VALID = 1 << 31
HAS_ERROR = 1 << 11
KIND_SHIFT = 8
KIND_MASK = 0x700
BLOCKED_NMI = 1 << 3
"""Interruptibility (SDM 3C table 25-3)."""

CR0_PE = 1

INFO_DELIVERABLE = VALID | 0xFFF
"""Bits that IDT-vectoring information shares with VM-entry interruption information (SDM 3C tables 25-17, 25-19)."""


class Kind(IntEnum):
    """Types of events (SDM 3C table 25-17)."""

    EXTERNAL_INTERRUPT = 0
    NMI = 2
    HARDWARE_EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4
    PRIVILEGED_SOFTWARE_EXCEPTION = 5
    SOFTWARE_EXCEPTION = 6


def inject(processor: Processor, vector: int, error: int | None = None, kind: Kind = Kind.HARDWARE_EXCEPTION) -> None:
    """Deliver an event at the next VM entry, in place of one that was to be delivered. Real mode knows no error codes."""
    info = VALID | kind << KIND_SHIFT | vector
    if error is not None and processor.vmread(Field.GUEST_CR0) & CR0_PE:
        info |= HAS_ERROR
        processor.vmwrite(Field.ENTRY_EXCEPTION_ERROR, error)
    processor.vmwrite(Field.ENTRY_INTERRUPTION_INFO, info)


def block_nmis(processor: Processor) -> None:
    """An IRET that ended NMI blocking is executed again: until then it has not (SDM 3C 28.2.3)."""
    processor.vmwrite(Field.GUEST_INTERRUPTIBILITY, processor.vmread(Field.GUEST_INTERRUPTIBILITY) | BLOCKED_NMI)


def requeue(processor: Processor) -> bool:
    """If the last exit interrupted the delivery of an event, deliver it again at the next entry; whether there was one."""
    info = processor.vmread(Field.IDT_VECTORING_INFO)
    if not info & VALID:
        return False
    processor.vmwrite(Field.ENTRY_EXCEPTION_ERROR, processor.vmread(Field.IDT_VECTORING_ERROR))
    processor.vmwrite(Field.ENTRY_INSTRUCTION_LENGTH, processor.vmread(Field.EXIT_INSTRUCTION_LENGTH))
    processor.vmwrite(Field.ENTRY_INTERRUPTION_INFO, info & INFO_DELIVERABLE)
    if info & KIND_MASK == Kind.NMI << KIND_SHIFT:  # it blocks others from its delivery on (SDM 3C 27.3.1.5)
        blocking = processor.vmread(Field.GUEST_INTERRUPTIBILITY)
        processor.vmwrite(Field.GUEST_INTERRUPTIBILITY, blocking & ~BLOCKED_NMI)
    return True


def most_nmis(processor: Processor) -> int:
    """How many NMIs may wait: the one that goes next and a latched one; behind one that is served, or on its way, only that."""
    if processor.vmread(Field.GUEST_INTERRUPTIBILITY) & BLOCKED_NMI:
        return 1
    waiting = processor.vmread(Field.ENTRY_INTERRUPTION_INFO)
    return 1 if waiting & VALID and waiting & KIND_MASK == Kind.NMI << KIND_SHIFT else 2
