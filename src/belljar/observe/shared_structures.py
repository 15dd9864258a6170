"""Structures that a guest and its hypervisor share: where the guest's MSRs say that they lie, and what stands there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from belljar.errors import GuestMemoryError
from belljar.machine import Cpu, Machine
from belljar.observe.explain_model import SharedFacts
from belljar.observe.walk import host_address
from belljar.soft.hypervisor.hyperv.reference_time import TSC_PAGE, decode_tsc_page
from belljar.soft.hypervisor.paravirt.clock import TIME_INFO, WALL_CLOCK, decode_time_info, decode_wall_clock
from belljar.soft.hypervisor.paravirt.steal_time import STEAL_TIME, decode_steal_time
from belljar.x86.msr import Msr

PAGE_SIZE = 4096


class Structure(NamedTuple):
    """`alignment` is that of its address; the MSR's lower bits are flags, and bit 0 switches it on if `switched`."""

    name: str
    msr: Msr
    alignment: int
    size: int
    decode: Callable[[bytes], dict[str, int]]
    switched: bool = True


def _word(data: bytes) -> dict[str, int]:
    return {"may_skip_eoi": data[0] & 1}


def _page(data: bytes) -> dict[str, int]:
    return {}


STRUCTURES = (
    Structure("kvmclock", Msr.KVM_SYSTEM_TIME_NEW, 2, TIME_INFO.size, decode_time_info),
    Structure("wall clock", Msr.KVM_WALL_CLOCK_NEW, 1, WALL_CLOCK.size, decode_wall_clock, switched=False),
    Structure("steal time", Msr.KVM_STEAL_TIME, 64, STEAL_TIME.size, decode_steal_time),
    Structure("PV EOI", Msr.KVM_PV_EOI_EN, 4, 4, _word),
    Structure("Hyper-V hypercall page", Msr.HV_HYPERCALL, PAGE_SIZE, PAGE_SIZE, _page),
    Structure("Hyper-V reference TSC page", Msr.HV_REFERENCE_TSC, PAGE_SIZE, TSC_PAGE.size, decode_tsc_page),
    Structure("Hyper-V messages (SIMP)", Msr.HV_SIMP, PAGE_SIZE, PAGE_SIZE, _page),
    Structure("Hyper-V event flags (SIEFP)", Msr.HV_SIEFP, PAGE_SIZE, PAGE_SIZE, _page),
)
"""Kernel Documentation/virt/kvm/x86/msr.rst; TLFS 3.13, 11, 12.4."""


def shared_structures(machine: Machine, cpu: Cpu) -> tuple[SharedFacts, ...]:
    """Those that a vCPU's guest has switched on, by either engine's hypervisor. Not during a run."""
    values = cpu.vcpu.get_msrs([structure.msr for structure in STRUCTURES])
    found = []
    for structure in STRUCTURES:
        value = values.get(structure.msr, 0)
        if not value or (structure.switched and not value & 1):
            continue
        gpa = value & -structure.alignment
        try:
            fields = structure.decode(machine.memory.read(gpa, structure.size))
        except GuestMemoryError:
            fields = {}
        found.append(SharedFacts(structure.name, gpa, host_address(machine, gpa), fields))
    return tuple(found)
