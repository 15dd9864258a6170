"""Instructions that exit and need little: INVD, XSETBV, the VMX instructions, VMCALL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.exits import ExitReason, Hypercall
from belljar.soft.hypervisor.answers import RAX, RBX, RCX, RDX, RSI, finish, in_64_bit_mode
from belljar.soft.hypervisor.events import inject
from belljar.soft.hypervisor.handlers.ends import behind
from belljar.soft.processor.fields import Field
from belljar.x86.vectors import Vector

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

KVM_EPERM = 1
"""What KVM answers to hypercalls from anywhere but CPL0 (include/uapi/linux/kvm_para.h)."""


def skip(vcpu: SoftVcpu) -> None:
    """INVD: there are no caches to lose."""
    vcpu.processor.skip_instruction()


def undefined(vcpu: SoftVcpu) -> None:
    """Instructions that the guest's CPUID does not announce."""
    inject(vcpu.processor, Vector.UD)


def hypercall(vcpu: SoftVcpu) -> ExitReason | None:
    """VMCALL: a hypercall of Hyper-V's where the guest has said that it knows them (TLFS 3.13), else of KVM's.

    What the hypervisor does not know is the machine's to answer if it asked for that; else there is no such hypercall.
    """
    processor = vcpu.processor
    partition = vcpu.shared.partition
    if partition is not None and partition.takes_hypercalls:
        from belljar.soft.hypervisor.hyperv.hypercalls import (
            hypercall as call_hyperv,  # guests without it need not wait
        )

        return call_hyperv(partition, vcpu)
    if processor.vmread(Field.GUEST_SS_RIGHTS) >> 5 & 3:
        finish(processor, ExitReason.HYPERCALL, -KVM_EPERM)
        return None
    wide = in_64_bit_mode(processor)
    mask = (1 << (64 if wide else 32)) - 1
    number, *arguments = (processor.get_gpr(register) & mask for register in (RAX, RBX, RCX, RDX, RSI))
    answer = vcpu.interfaces.hypercall(number, arguments, wide)
    if answer is not None or not vcpu.exits_on_hypercalls:
        finish(processor, ExitReason.HYPERCALL, answer)
        return behind(vcpu) if vcpu.gives_turn else None
    return vcpu.wait_for_answer(Hypercall(vcpu.index, number, tuple(arguments), wide))
