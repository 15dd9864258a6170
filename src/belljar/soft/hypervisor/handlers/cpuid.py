"""CPUID always exits (SDM 3C 26.1.2); the guest gets what the processor itself says, and of its local APIC if it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

RAX, RCX, RDX, RBX = 0, 1, 2, 3
LOW32 = 0xFFFFFFFF

FEATURES = 1
APIC_ID_SHIFT, X2APIC, APIC = 24, 1 << 21, 1 << 9
"""Leaf 1: the initial APIC id in EBX, features in ECX and EDX (SDM 2A CPUID)."""


def cpuid(vcpu: SoftVcpu) -> None:
    """Answer one leaf."""
    processor = vcpu.processor
    leaf = processor.get_gpr(RAX) & LOW32
    eax, ebx, ecx, edx = processor.cpuid(leaf, processor.get_gpr(RCX) & LOW32)
    if vcpu.has_chips and leaf == FEATURES:
        ebx |= (vcpu.index & 0xFF) << APIC_ID_SHIFT
        ecx |= X2APIC
        edx |= APIC
    processor.set_gpr(RAX, eax)
    processor.set_gpr(RBX, ebx)
    processor.set_gpr(RCX, ecx)
    processor.set_gpr(RDX, edx)
    processor.skip_instruction()
