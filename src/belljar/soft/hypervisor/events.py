"""Event injection: what the next VM entry delivers (SDM 3C 25.8.3, 27.6)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from belljar.errors import EngineError
from belljar.soft.hypervisor.controls import Primary
from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field
from belljar.x86.vectors import Vector, check_exception, vector_name

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu_events import VcpuEvents

VALID: Final = 1 << 31
HAS_ERROR: Final = 1 << 11
KIND_SHIFT: Final = 8
KIND_MASK: Final = 0x700
VECTOR_MASK: Final = 0xFF
BLOCKED_NMI: Final = 1 << 3
"""Interruptibility (SDM 3C table 25-3)."""

CR0_PE: Final = 1

INFO_DELIVERABLE: Final = VALID | 0xFFF
"""Bits that IDT-vectoring information shares with VM-entry interruption information (SDM 3C tables 25-17, 25-19)."""


class Kind(IntEnum):
    """Types of events (SDM 3C table 25-17)."""

    EXTERNAL_INTERRUPT = 0
    NMI = 2
    HARDWARE_EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4
    PRIVILEGED_SOFTWARE_EXCEPTION = 5
    SOFTWARE_EXCEPTION = 6


ENTRY_INTERRUPTION_INFO: Final = int(Field.ENTRY_INTERRUPTION_INFO)
GUEST_INTERRUPTIBILITY: Final = int(Field.GUEST_INTERRUPTIBILITY)
EXCEPTION: Final = int(Kind.HARDWARE_EXCEPTION)
AN_NMI: Final = int(Kind.NMI) << KIND_SHIFT
THE_NMI: Final = VALID | AN_NMI | int(Vector.NMI)
"""By plain numbers, which are looked up faster."""


def inject(processor: Processor, vector: int, error: int | None = None, kind: int = EXCEPTION) -> None:
    """Deliver an event at the next VM entry, in place of one that was to be delivered. Real mode knows no error codes."""
    info = VALID | kind << KIND_SHIFT | vector
    if error is not None and processor.vmread(Field.GUEST_CR0) & CR0_PE:
        info |= HAS_ERROR
        processor.vmwrite(Field.ENTRY_EXCEPTION_ERROR, error)
    processor.vmwrite(ENTRY_INTERRUPTION_INFO, info)


def inject_nmi(processor: Processor) -> None:
    """`inject` for an NMI."""
    processor.vmwrite(ENTRY_INTERRUPTION_INFO, THE_NMI)


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
    if info & KIND_MASK == AN_NMI:  # it blocks others from its delivery on (SDM 3C 27.3.1.5)
        blocking = processor.vmread(Field.GUEST_INTERRUPTIBILITY)
        processor.vmwrite(Field.GUEST_INTERRUPTIBILITY, blocking & ~BLOCKED_NMI)
    return True


def most_nmis(processor: Processor) -> int:
    """How many NMIs may wait: the one that goes next and a latched one; behind one that is served, or on its way, only that."""
    if processor.vmread(GUEST_INTERRUPTIBILITY) & BLOCKED_NMI:
        return 1
    waiting = processor.vmread(ENTRY_INTERRUPTION_INFO)
    return 1 if waiting & VALID and waiting & KIND_MASK == AN_NMI else 2


def put_off(vcpu: VcpuEvents) -> int | None:
    """Make room for an exception: what the next entry was to deliver waits, or comes by itself.

    Interrupts and NMIs wait until the guest takes them again; INT n and its like are executed again. An exception cannot
    wait: its vector is returned, and it stays.
    """
    info = vcpu.processor.vmread(Field.ENTRY_INTERRUPTION_INFO)
    if not info & VALID:
        return None
    kind = (info & KIND_MASK) >> KIND_SHIFT
    if kind == Kind.HARDWARE_EXCEPTION:
        return info & VECTOR_MASK
    if kind == Kind.EXTERNAL_INTERRUPT:
        vcpu.put_off = info & VECTOR_MASK
        vcpu.want(int(Primary.INTERRUPT_WINDOW), True)
    elif kind == Kind.NMI:
        vcpu.nmis += 1
        vcpu.want(int(Primary.NMI_WINDOW), True)
    vcpu.processor.vmwrite(Field.ENTRY_INTERRUPTION_INFO, 0)
    return None


def inject_exception(vcpu: VcpuEvents, vector: int, error: int | None, payload: int | None) -> None:
    """An exception of the host's at the next VM entry (`belljar.engine.Vcpu.inject_exception`)."""
    check_exception(vector, error, payload)
    waiting = put_off(vcpu)
    if waiting is not None:
        raise EngineError(
            f"vCPU {vcpu.index} is about to take {vector_name(waiting)} already", hint="run it one instruction further"
        )
    inject(vcpu.processor, vector, error)
    vcpu.processor.set_payload(payload)


def forget(vcpu: VcpuEvents) -> None:
    """The vCPU is reset: nothing is delivered that waited for it."""
    vcpu.nmis = 0
    vcpu.put_off = None
    vcpu.want(int(Primary.NMI_WINDOW), False)
    vcpu.processor.vmwrite(Field.GUEST_INTERRUPTIBILITY, 0)
    vcpu.processor.vmwrite(Field.GUEST_PENDING_DEBUG, 0)
    vcpu.processor.vmwrite(Field.ENTRY_INTERRUPTION_INFO, 0)
    vcpu.processor.set_payload(None)
