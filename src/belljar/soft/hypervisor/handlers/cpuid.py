"""CPUID always exits (SDM 3C 26.1.2): the guest gets what the processor itself says, and what a processor alone cannot know.

That is its local APIC, if it has one, and its siblings: the vCPUs of a machine are the cores of one package, a thread each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.soft.processor.features import Feature

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

RAX, RCX, RDX, RBX = 0, 1, 2, 3
LOW32 = 0xFFFFFFFF

FEATURES = 1
APIC_ID_SHIFT, COUNT_SHIFT, APIC, HTT = 24, 16, 1 << 9, 1 << 28
"""Leaf 1: initial APIC id and how many ids the package has in EBX, features in EDX (SDM 2A CPUID)."""

BASE_ENABLED = 1 << 11
"""IA32_APIC_BASE: while it is off, leaf 1 shows no APIC (SDM 3A 11.4.3)."""

CACHES = 4
CORES_SHIFT = 26
"""Leaf 4, EAX of a cache: how many core ids the package has, less one."""

POWER = 6
ARAT = 1 << 2
"""Leaf 6, EAX: the APIC's timer always runs."""

TOPOLOGY = 0xB
THREADS, CORES = 1, 2
LEVEL_SHIFT = 8
"""Leaf 0BH: the types of a level in ECX[15:8]."""

IN_A_GUEST = 1 << 31
"""Leaf 1, ECX: 0 on every real processor."""

STRUCTURED_FEATURES, TSC_ADJUST = 7, 1 << 1
TSC_FREQUENCY, CPU_FREQUENCY = 0x15, 0x16
KHZ_PER_MHZ = 1000

HYPERVISOR, HYPERVISOR_END = 0x4000_0000, 0x4001_0000
"""Leaves that processors leave to hypervisors."""

KVM_BEHIND_HYPERV = 0x100

Answer = tuple[int, int, int, int]


def cpuid(vcpu: SoftVcpu) -> None:
    """Answer one leaf."""
    processor = vcpu.processor
    leaf = processor.get_gpr(RAX) & LOW32
    subleaf = processor.get_gpr(RCX) & LOW32
    eax, ebx, ecx, edx = processor.cpuid(leaf, subleaf)
    if vcpu.has_chips:
        if leaf == FEATURES:
            ebx |= (vcpu.index & 0xFF) << APIC_ID_SHIFT
            ecx |= vcpu.lapic_features
            if vcpu.apic_base & BASE_ENABLED:
                edx |= APIC
            if len(vcpu.siblings) > 1:
                ebx |= min(1 << _id_bits(vcpu), 0xFF) << COUNT_SHIFT
                edx |= HTT
        elif leaf == CACHES and eax:
            eax |= ((1 << min(_id_bits(vcpu), 6)) - 1) << CORES_SHIFT
        elif leaf == POWER:
            eax |= ARAT
        elif leaf == TOPOLOGY:
            eax, ebx, ecx, edx = _topology(vcpu, subleaf)
    if leaf == FEATURES:
        ecx |= IN_A_GUEST
    elif leaf == STRUCTURED_FEATURES and not subleaf:
        if processor.has(Feature.TSC):
            ebx |= TSC_ADJUST
    elif leaf == TSC_FREQUENCY:
        eax, ebx = vcpu.tsc.crystal_ratio()
    elif leaf == CPU_FREQUENCY:
        eax = ebx = min(vcpu.tsc.khz // KHZ_PER_MHZ, 0xFFFF)
    elif HYPERVISOR <= leaf < HYPERVISOR_END:
        eax, ebx, ecx, edx = _hypervisor(vcpu, leaf)
    processor.set_gpr(RAX, eax)
    processor.set_gpr(RBX, ebx)
    processor.set_gpr(RCX, ecx)
    processor.set_gpr(RDX, edx)
    processor.skip_instruction()


def _id_bits(vcpu: SoftVcpu) -> int:
    """How many bits of an APIC id tell the cores of the package apart."""
    return max(sibling.index for sibling in vcpu.siblings).bit_length()


def _topology(vcpu: SoftVcpu, subleaf: int) -> tuple[int, int, int, int]:
    """Leaf 0BH: how far to shift an x2APIC id for the next level, how many processors are below it, level, x2APIC id."""
    if subleaf == 0:
        return 0, 1, THREADS << LEVEL_SHIFT, vcpu.index
    if subleaf == 1:
        return _id_bits(vcpu), len(vcpu.siblings), 1 | CORES << LEVEL_SHIFT, vcpu.index
    return 0, 0, subleaf & 0xFF, vcpu.index


def _hypervisor(vcpu: SoftVcpu, leaf: int) -> Answer:
    """Hyper-V's leaves come first where there are both interfaces, and KVM's 100H behind them, as KVM's users have it."""
    from belljar.soft.hypervisor.paravirt import cpuid as kvm  # guests that ask nothing of it need not wait

    number = leaf - HYPERVISOR
    if vcpu.shared.partition is not None:
        import belljar.soft.hypervisor.hyperv.cpuid as hyperv

        if number < hyperv.LEAVES:
            return hyperv.leaf(vcpu, number)
        number -= KVM_BEHIND_HYPERV
    return kvm.leaf(vcpu, number) if 0 <= number < kvm.LEAVES else (0, 0, 0, 0)
