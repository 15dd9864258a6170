"""KVM's hypercalls (kernel Documentation/virt/kvm/x86/hypercalls.rst; include/uapi/linux/kvm_para.h).

A handler gets the vCPU, the arguments and whether they have 64 bits; what it returns is the guest's RAX, below 0 an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING

from belljar.engine_data import GAVE_TURN
from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.hypervisor.paravirt.cpuid import Feature

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

Handler = Callable[["SoftVcpu", Sequence[int], bool], int]


class Number(IntEnum):
    """KVM_HC_*."""

    VAPIC_POLL_IRQ = 1
    KICK_CPU = 5
    CLOCK_PAIRING = 9
    SEND_IPI = 10
    SCHED_YIELD = 11


KVM_EFAULT, KVM_EINVAL, KVM_EOPNOTSUPP = 14, 22, 95
"""Error numbers, as Linux's."""

ICR_VECTOR, ICR_MODE, ICR_MODE_SHIFT = 0xFF, 7, 8
ICR_LOGICAL, ICR_ASSERT, ICR_LEVEL, ICR_SHORTHAND = 1 << 11, 1 << 14, 1 << 15, 3 << 18
"""A local APIC's interrupt command register (SDM 3A figure 11-12)."""

CLOCK_PAIRING = Struct("<qqQI36x")
"""struct kvm_clock_pairing: sec, nsec, tsc, flags."""

WALLCLOCK = 0
"""KVM_CLOCK_PAIRING_WALLCLOCK."""

NS_PER_SECOND = 1_000_000_000


def poll_interrupts(vcpu: SoftVcpu, arguments: Sequence[int], wide: bool) -> int:
    """KVM_HC_VAPIC_POLL_IRQ: the exit is all there is to it."""
    return 0


def kick_cpu(vcpu: SoftVcpu, arguments: Sequence[int], wide: bool) -> int:
    """KVM_HC_KICK_CPU: wake the vCPU whose APIC id is the second argument from its HLT; 0 also if there is none."""
    platform = vcpu.shared.platform
    if platform is not None and arguments[1] < platform.cpus:
        platform.unhalt(arguments[1])
    return 0


def pair_clocks(vcpu: SoftVcpu, arguments: Sequence[int], wide: bool) -> int:
    """KVM_HC_CLOCK_PAIRING: the time of day and the time-stamp counter of one moment, stored at the first argument."""
    gpa, clock = arguments[:2]
    platform = vcpu.shared.platform
    if clock != WALLCLOCK or platform is None or not platform.steady:
        return -KVM_EOPNOTSUPP
    seconds, ns = divmod(platform.wall_ns(), NS_PER_SECOND)
    data = CLOCK_PAIRING.pack(seconds, ns, vcpu.tsc.at(platform.now_ns()), 0)
    return 0 if memory.write(vcpu.mmu, gpa, data) else -KVM_EFAULT


def send_ipi(vcpu: SoftVcpu, arguments: Sequence[int], wide: bool) -> int:
    """KVM_HC_SEND_IPI: one interrupt to every vCPU of a bitmap of APIC ids; how many took it."""
    low, high, first, icr = arguments
    platform = vcpu.shared.platform
    if platform is None or icr & (ICR_LOGICAL | ICR_SHORTHAND):
        return -KVM_EINVAL
    bits = low | high << (64 if wide else 32)
    delivery, level = icr >> ICR_MODE_SHIFT & ICR_MODE, bool(icr & ICR_LEVEL)
    if level and not icr & ICR_ASSERT:
        return 0
    taken = 0
    for apic_id in range(first, min(first + bits.bit_length(), platform.cpus)):
        if bits >> apic_id - first & 1:
            taken += platform.send_ipi(apic_id, icr & ICR_VECTOR, delivery, level)
    return taken


def yield_to(vcpu: SoftVcpu, arguments: Sequence[int], wide: bool) -> int:
    """KVM_HC_SCHED_YIELD: the vCPU whose APIC id is the first argument runs next, if it has something to run for."""
    platform = vcpu.shared.platform
    if platform is not None and arguments[0] != vcpu.index and platform.yield_to(arguments[0]):
        vcpu.gives_turn = GAVE_TURN
    return 0


TABLE: dict[int, tuple[Handler, int]] = {
    Number.VAPIC_POLL_IRQ: (poll_interrupts, 0),
    Number.KICK_CPU: (kick_cpu, Feature.PV_UNHALT),
    Number.CLOCK_PAIRING: (pair_clocks, 0),
    Number.SEND_IPI: (send_ipi, Feature.PV_SEND_IPI),
    Number.SCHED_YIELD: (yield_to, Feature.PV_SCHED_YIELD),
}
"""The table: number -> handler, and the feature that it comes with. All other numbers are the machine's
(`Machine(..., hypercall_handler=...)`)."""


def handlers(offered: Feature) -> dict[int, Handler]:
    """Those that there are with the features `offered`."""
    return {number: handler for number, (handler, feature) in TABLE.items() if not feature or feature & offered}
