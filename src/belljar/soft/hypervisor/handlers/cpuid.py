"""CPUID always exits (SDM 3C 26.1.2); the guest gets what the processor itself says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

RAX, RCX, RDX, RBX = 0, 1, 2, 3
LOW32 = 0xFFFFFFFF


def cpuid(vcpu: SoftVcpu) -> None:
    """Answer one leaf."""
    processor = vcpu.processor
    eax, ebx, ecx, edx = processor.cpuid(processor.get_gpr(RAX) & LOW32, processor.get_gpr(RCX) & LOW32)
    processor.set_gpr(RAX, eax)
    processor.set_gpr(RBX, ebx)
    processor.set_gpr(RCX, ecx)
    processor.set_gpr(RDX, edx)
    processor.skip_instruction()
