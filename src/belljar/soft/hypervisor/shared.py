"""What the vCPUs of one VM share beside its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from belljar.platform import Platform
    from belljar.soft.hypervisor.hyperv.partition import Partition
    from belljar.soft.hypervisor.mmu.mmu import Mmu


class Shared:
    """Set up by the VM before its vCPUs run. `platform` None: there is no clock but the processors', and no local APICs."""

    def __init__(self, mmu: Mmu) -> None:
        self.mmu = mmu
        self.platform: Platform | None = None
        self.wall_clock = 0
        """MSR_KVM_WALL_CLOCK, which is the whole VM's (kernel Documentation/virt/kvm/x86/msr.rst)."""
        self.features_off = 0
        """Bits of KVM's features (`paravirt.cpuid.Feature`) that guests shall not have."""
        self.lapic_features_off = 0
        """What CPUID shall not offer of local APICs (`belljar.engine_data`)."""
        self.partition: Partition | None = None
        """Hyper-V's side of the VM, where the guest is offered Hyper-V's interface."""

    def now_ns(self, processor_tsc: int) -> int:
        """The time; `processor_tsc` is what to take for it where there is no platform."""
        return processor_tsc if self.platform is None else self.platform.now_ns()
