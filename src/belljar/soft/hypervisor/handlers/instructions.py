"""Instructions that exit and need little: INVD, XSETBV, the VMX instructions, VMCALL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.soft.hypervisor.events import inject
from belljar.soft.processor.fields import Field
from belljar.x86.vectors import Vector

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

RAX = 0
KVM_ENOSYS = 1000
KVM_EPERM = 1
"""What KVM answers to hypercalls (include/uapi/linux/kvm_para.h)."""

CODE_64 = 1 << 13
EFER_LMA = 1 << 10


def skip(vcpu: SoftVcpu) -> None:
    """INVD: there are no caches to lose."""
    vcpu.processor.skip_instruction()


def undefined(vcpu: SoftVcpu) -> None:
    """Instructions that the guest's CPUID does not announce."""
    inject(vcpu.processor, Vector.UD)


def hypercall(vcpu: SoftVcpu) -> None:
    """VMCALL: no hypercall exists yet, which is what KVM says of numbers that it does not know."""
    processor = vcpu.processor
    privileged = processor.vmread(Field.GUEST_SS_RIGHTS) >> 5 & 3 == 0
    wide = processor.vmread(Field.GUEST_EFER) & EFER_LMA and processor.vmread(Field.GUEST_CS_RIGHTS) & CODE_64
    answer = -KVM_ENOSYS if privileged else -KVM_EPERM
    processor.set_gpr(RAX, answer % (1 << (64 if wide else 32)))
    processor.skip_instruction()
