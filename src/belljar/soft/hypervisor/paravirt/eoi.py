"""PV EOI: a guest ends an interrupt by clearing a bit in its memory, without an exit (MSR_KVM_PV_EOI_EN, kernel msr.rst)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.hypervisor.paravirt.cpuid import Feature
from belljar.soft.hypervisor.paravirt.part import ENABLED, Part, Register
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

ALIGNMENT = 4
MAY_SKIP = 1
"""Bit 0 of the word in the guest's memory."""


class PvEoi(Part):
    """The MSR, and an end of interrupt that the guest may have made.

    The bit stands until somebody looks at the local APIC, or an interrupt comes.
    """

    name = "pv_eoi"
    feature = Feature.PV_EOI

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        self.value = 0
        self.gpa: int | None = None
        """Where the word is, if there is one; Hyper-V's assist page has one too."""
        self.offered = False

    @classmethod
    def fits(cls, vcpu: SoftVcpu) -> bool:
        """It is about the machine's local APIC."""
        return vcpu.shared.platform is not None

    def msrs(self) -> Mapping[int, Register]:
        """One."""
        return {Msr.KVM_PV_EOI_EN: Register(lambda: self.value, self._write)}

    def _write(self, value: int) -> bool:
        gpa = value & ~ENABLED
        if gpa % ALIGNMENT or (value & ENABLED and memory.host_address(self.vcpu.mmu, gpa, ALIGNMENT) is None):
            return False
        self.use(gpa if value & ENABLED else None)
        self.value = value
        return True

    def use(self, gpa: int | None) -> None:
        """Have the word at `gpa`, which is RAM, or none."""
        self.settle()
        self.gpa = gpa
        if gpa is not None:
            self.vcpu.interfaces.watch(self)

    def before_entry(self) -> None:
        """Offer it where an interrupt is in service whose end nothing waits for."""
        platform = self.vcpu.shared.platform
        if self.gpa is None or platform is None or self.offered:
            return
        lapic = platform.local_apic(self.vcpu.index)
        if lapic.can_skip_eoi():
            word = memory.read_u32(self.vcpu.mmu, self.gpa)
            if word is not None and memory.write_u32(self.vcpu.mmu, self.gpa, word | MAY_SKIP):
                self.offered = True
                lapic.settle = self.settle

    def settle(self) -> None:
        """Find out whether the guest has taken the offer; if not, it is withdrawn."""
        platform = self.vcpu.shared.platform
        if not self.offered or self.gpa is None or platform is None:
            return
        self.offered = False
        lapic = platform.local_apic(self.vcpu.index)
        lapic.settle = None
        word = memory.read_u32(self.vcpu.mmu, self.gpa)
        if word is not None and word & MAY_SKIP:
            memory.write_u32(self.vcpu.mmu, self.gpa, word & ~MAY_SKIP)
        else:
            lapic.end_of_interrupt()

    def reset(self) -> None:
        """As a local APIC's reset does in KVM."""
        self.settle()
        self.value, self.gpa = 0, None

    def decode(self) -> dict[str, Any]:
        """Where the word is, and what it says."""
        if self.gpa is None:
            return {}
        return {"gpa": self.gpa, "word": memory.read_u32(self.vcpu.mmu, self.gpa), "offered": self.offered}

    def state(self) -> dict[str, Any]:
        """Between runs nothing is offered."""
        self.settle()
        return {"value": self.value, "gpa": self.gpa}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.value, self.gpa = state["value"], state["gpa"]
        if self.gpa is not None:
            self.vcpu.interfaces.watch(self)
