"""All that a guest finds on a vCPU beside a processor: which MSR is whose, which hypercalls there are.

Adding a part is a file, and its class in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.paravirt import hypercalls
from belljar.soft.hypervisor.paravirt.async_page_faults import AsyncPageFaults
from belljar.soft.hypervisor.paravirt.clock import KvmClock
from belljar.soft.hypervisor.paravirt.cpuid import offered
from belljar.soft.hypervisor.paravirt.eoi import PvEoi
from belljar.soft.hypervisor.paravirt.part import Part, Register
from belljar.soft.hypervisor.paravirt.poll_control import PollControl
from belljar.soft.hypervisor.paravirt.steal_time import StealTime
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

PARTS: tuple[type[Part], ...] = (KvmClock, StealTime, PvEoi, PollControl, AsyncPageFaults)


class Interfaces:
    """One vCPU's. Made when its guest first asks for something of it."""

    def __init__(self, vcpu: SoftVcpu) -> None:
        self.vcpu = vcpu
        vcpu.interfaces_made = self
        classes: list[type[Part]] = list(PARTS)
        if vcpu.shared.partition is not None:
            from belljar.soft.hypervisor.hyperv.table import PARTS as HYPERV_PARTS  # only where it was asked for

            classes += HYPERV_PARTS
        there = offered(vcpu)
        classes = [each for each in classes if each.fits(vcpu) and (not each.feature or each.feature & there)]
        self.parts: dict[str, Part] = {each.name: each(vcpu) for each in classes}
        self.msrs: dict[int, Register] = {
            Msr.IA32_TIME_STAMP_COUNTER: Register(vcpu.tsc.read, vcpu.tsc.write),
            Msr.IA32_TSC_ADJUST: Register(lambda: vcpu.tsc.adjust, vcpu.tsc.write_adjust),
        }
        for part in self.parts.values():
            self.msrs.update((int(number), register) for number, register in part.msrs().items())
        self.hypercalls = hypercalls.handlers(there)
        self._watching: list[Part] = []

    def watch(self, part: Part) -> None:
        """Have a part told of the vCPU's runs from now on."""
        if part in self._watching:
            return
        self._watching.append(part)
        platform = self.vcpu.shared.platform
        if platform is not None:
            platform.watch_entries(self.vcpu.index, self)

    def turn_begins(self) -> None:
        """As `belljar.platform.EntryHooks`."""
        for part in self._watching:
            part.turn_begins()

    def turn_ends(self, halted: bool) -> None:
        """The same."""
        for part in self._watching:
            part.turn_ends(halted)

    def before_entry(self) -> None:
        """The same."""
        for part in self._watching:
            part.before_entry()

    def taken(self, vector: int) -> None:
        """The same."""
        for part in self._watching:
            part.taken(vector)

    def hypercall(self, number: int, arguments: Sequence[int], wide: bool) -> int | None:
        """What a hypercall of KVM's answers; None if there is none of that number."""
        handler = self.hypercalls.get(number)
        return None if handler is None else handler(self.vcpu, arguments, wide)

    def reset(self) -> None:
        """The vCPU is reset."""
        for part in self.parts.values():
            part.reset()

    def decode(self) -> dict[str, dict[str, Any]]:
        """What is switched on, by part, with the structures in the guest's memory decoded."""
        decoded = {name: part.decode() for name, part in self.parts.items()}
        return {name: what for name, what in decoded.items() if what}

    def state(self) -> dict[str, Any]:
        """Plain data, by part."""
        return {name: part.state() for name, part in self.parts.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        for name, part in self.parts.items():
            part.restore(state[name])
