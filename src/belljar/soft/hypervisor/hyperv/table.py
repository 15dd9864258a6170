"""The parts of Hyper-V's interface. What is in this table exists."""

from __future__ import annotations

from belljar.soft.hypervisor.hyperv.apic import ApicAccess
from belljar.soft.hypervisor.hyperv.hypercall_page import HypercallPage
from belljar.soft.hypervisor.hyperv.identity import Identity
from belljar.soft.hypervisor.hyperv.reference_time import ReferenceTime
from belljar.soft.hypervisor.hyperv.stimer import SyntheticTimers
from belljar.soft.hypervisor.hyperv.synic import SynIc
from belljar.soft.hypervisor.paravirt.part import Part

PARTS: tuple[type[Part], ...] = (Identity, HypercallPage, ReferenceTime, ApicAccess, SynIc, SyntheticTimers)
