"""The leaves by which a guest finds KVM's interface (kernel Documentation/virt/kvm/x86/cpuid.rst)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag
from struct import unpack
from typing import TYPE_CHECKING

from belljar.x86.cpuid import FEATURES, KVM_SIGNATURE, Leaf, feature

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

SIGNATURE_LEAF = 0x4000_0000
"""KVM_CPUID_SIGNATURE; another interface in this place moves it up by 100H."""

LEAVES = 2

Answer = tuple[int, int, int, int]


class Feature(IntFlag):
    """EAX of the second leaf."""

    CLOCKSOURCE = 1 << 0
    NOP_IO_DELAY = 1 << 1
    CLOCKSOURCE2 = 1 << 3
    ASYNC_PF = 1 << 4
    STEAL_TIME = 1 << 5
    PV_EOI = 1 << 6
    PV_UNHALT = 1 << 7
    PV_SEND_IPI = 1 << 11
    POLL_CONTROL = 1 << 12
    PV_SCHED_YIELD = 1 << 13
    ASYNC_PF_INT = 1 << 14
    CLOCKSOURCE_STABLE = 1 << 24


ALWAYS = (
    Feature.CLOCKSOURCE
    | Feature.NOP_IO_DELAY
    | Feature.CLOCKSOURCE2
    | Feature.ASYNC_PF
    | Feature.STEAL_TIME
    | Feature.POLL_CONTROL
    | Feature.PV_SCHED_YIELD
    | Feature.ASYNC_PF_INT
)

WITH_LOCAL_APICS = Feature.PV_EOI | Feature.PV_UNHALT | Feature.PV_SEND_IPI


OFFERED = ALWAYS | WITH_LOCAL_APICS | Feature.CLOCKSOURCE_STABLE


def mask_of(names: Iterable[str]) -> Feature:
    """The features named as in `belljar.x86.cpuid` (`kvm_steal_time`); what there is not anyway is passed over.

    Raises ConfigurationError for a name that no feature has.
    """
    off = Feature(0)
    for name in names:
        found = feature(name)
        if found.register == "eax":
            off |= Feature(1 << found.bit & OFFERED)
    return off


def names_without(off: int) -> list[str]:
    """The names of all features but those of `off`."""
    names = FEATURES[Leaf.KVM_FEATURES, 0, "eax"]
    return [name for bit, name in names.items() if OFFERED & ~off & 1 << bit]


def offered(vcpu: SoftVcpu) -> Feature:
    """What this vCPU's guest has of it."""
    features = ALWAYS
    platform = vcpu.shared.platform
    if platform is not None:
        features |= WITH_LOCAL_APICS
    if platform is None or platform.steady:
        features |= Feature.CLOCKSOURCE_STABLE
    return features & ~vcpu.shared.features_off


def leaf(vcpu: SoftVcpu, number: int) -> Answer:
    """Leaf 0 or 1 of KVM's range."""
    if number == 0:
        base = SIGNATURE_LEAF + (0x100 if vcpu.shared.partition is not None else 0)
        return (base + LEAVES - 1, *unpack("<3I", KVM_SIGNATURE))
    return int(offered(vcpu)), 0, 0, 0
