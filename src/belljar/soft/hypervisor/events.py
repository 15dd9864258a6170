"""Event injection: what the next VM entry delivers (SDM 3C 25.8.3, 27.6)."""

from __future__ import annotations

from enum import IntEnum

from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field

VALID = 1 << 31
HAS_ERROR = 1 << 11
KIND_SHIFT = 8
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


def requeue(processor: Processor) -> bool:
    """If the last exit interrupted the delivery of an event, deliver it again at the next entry; whether there was one."""
    info = processor.vmread(Field.IDT_VECTORING_INFO)
    if not info & VALID:
        return False
    processor.vmwrite(Field.ENTRY_EXCEPTION_ERROR, processor.vmread(Field.IDT_VECTORING_ERROR))
    processor.vmwrite(Field.ENTRY_INSTRUCTION_LENGTH, processor.vmread(Field.EXIT_INSTRUCTION_LENGTH))
    processor.vmwrite(Field.ENTRY_INTERRUPTION_INFO, info & INFO_DELIVERABLE)
    return True
