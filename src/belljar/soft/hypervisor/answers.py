"""Instructions that wait for the machine's word: RDMSR, WRMSR and VMCALL that were handed over (`Vcpu.answer`)."""

from __future__ import annotations

from typing import Final

from belljar.exits import ExitReason
from belljar.soft.hypervisor.events import inject
from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field
from belljar.x86.vectors import Vector

RAX: Final = 0
RCX: Final = 1
RDX: Final = 2
RBX: Final = 3
RSI: Final = 6
"""Numbers of the registers (SDM 2A table 3-1)."""

KVM_ENOSYS: Final = 1000
"""What a guest gets for a hypercall that nobody knows (include/uapi/linux/kvm_para.h)."""

KVM_MSR_EXIT_REASON_UNKNOWN: Final = 2
"""api.rst section 5, KVM_EXIT_X86_RDMSR."""

CODE_64: Final = 1 << 13
EFER_LMA: Final = 1 << 10

HYPERCALL: Final = ExitReason.HYPERCALL
RDMSR: Final = ExitReason.RDMSR
"""Names of this module's own: an enum's member is dear to look up once an exit."""


def in_64_bit_mode(processor: Processor) -> bool:
    """Whether the guest executes 64-bit code."""
    return bool(processor.vmread(Field.GUEST_EFER) & EFER_LMA and processor.vmread(Field.GUEST_CS_RIGHTS) & CODE_64)


def finish(processor: Processor, reason: ExitReason, value: int | None) -> None:
    """Carry the instruction out with the answer, or refuse it."""
    if reason is HYPERCALL:
        width = 64 if in_64_bit_mode(processor) else 32
        processor.set_gpr(RAX, (-KVM_ENOSYS if value is None else value) % (1 << width))
    elif value is None:
        inject(processor, Vector.GP, 0)
        return
    elif reason is RDMSR:
        processor.set_gpr(RAX, value & 0xFFFF_FFFF)
        processor.set_gpr(RDX, value >> 32 & 0xFFFF_FFFF)
    processor.skip_instruction()
