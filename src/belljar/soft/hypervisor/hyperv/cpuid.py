"""The leaves by which a guest finds Hyper-V's interface (TLFS 2.4)."""

from __future__ import annotations

from enum import IntFlag
from struct import unpack
from typing import TYPE_CHECKING

from belljar.x86.cpuid import HYPERV_SIGNATURE

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

LEAVES = 7
FIRST_LEAF = 0x4000_0000

INTERFACE = b"Hv#1"
"""Leaf 1: the interface that the other leaves are of."""

BUILD, VERSION = 14393, 10 << 16
"""Leaf 2: what KVM says, that of Windows Server 2016 (arch/x86/kvm/hyperv.c)."""

MAX_VIRTUAL_PROCESSORS = 64
NEVER_SPIN = 0xFFFF_FFFF
"""Leaf 4, EBX: how often to try a spinlock before telling the hypervisor; all ones: never tell."""

Answer = tuple[int, int, int, int]


class Privilege(IntFlag):
    """Leaf 3, EAX and EBX (bits 32 to 63): HV_PARTITION_PRIVILEGE_MASK."""

    VP_RUNTIME = 1 << 0
    TIME_REF_COUNT = 1 << 1
    SYNIC = 1 << 2
    SYNTHETIC_TIMERS = 1 << 3
    APIC_ACCESS = 1 << 4
    HYPERCALL = 1 << 5
    VP_INDEX = 1 << 6
    RESET = 1 << 7
    REFERENCE_TSC = 1 << 9
    FREQUENCIES = 1 << 11
    POST_MESSAGES = 1 << 36
    SIGNAL_EVENTS = 1 << 37


PRIVILEGES = (
    Privilege.VP_RUNTIME
    | Privilege.TIME_REF_COUNT
    | Privilege.SYNIC
    | Privilege.SYNTHETIC_TIMERS
    | Privilege.APIC_ACCESS
    | Privilege.HYPERCALL
    | Privilege.VP_INDEX
    | Privilege.RESET
    | Privilege.REFERENCE_TSC
    | Privilege.FREQUENCIES
    | Privilege.POST_MESSAGES
    | Privilege.SIGNAL_EVENTS
)


class Feature(IntFlag):
    """Leaf 3, EDX."""

    FREQUENCIES = 1 << 8
    DIRECT_TIMERS = 1 << 19


class Recommendation(IntFlag):
    """Leaf 4, EAX."""

    APIC_BY_MSR = 1 << 3
    RESET_BY_MSR = 1 << 4
    RELAXED_TIMING = 1 << 5


RECOMMENDATIONS = Recommendation.APIC_BY_MSR | Recommendation.RESET_BY_MSR | Recommendation.RELAXED_TIMING


def leaf(vcpu: SoftVcpu, number: int) -> Answer:
    """Leaves 0 to 6 of Hyper-V's range."""
    if number == 0:
        return (FIRST_LEAF + LEAVES - 1, *unpack("<3I", HYPERV_SIGNATURE))
    if number == 1:
        return int.from_bytes(INTERFACE, "little"), 0, 0, 0
    if number == 2:
        return BUILD, VERSION, 0, 0
    if number == 3:
        return PRIVILEGES & 0xFFFF_FFFF, PRIVILEGES >> 32, 0, int(Feature.FREQUENCIES | Feature.DIRECT_TIMERS)
    if number == 4:
        return int(RECOMMENDATIONS), NEVER_SPIN, 0, 0
    if number == 5:
        return MAX_VIRTUAL_PROCESSORS, MAX_VIRTUAL_PROCESSORS, 0, 0
    return 0, 0, 0, 0
