"""A virtual machine: vCPUs, capabilities, and what only x86 has. Memory and interrupts are rooms of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.flags import KVM_PMU_EVENT_ALLOW
from belljar.kvm.abi.structs import kvm_clock_data, kvm_create_device, kvm_pmu_event_filter
from belljar.kvm.device import Attributes, Device
from belljar.kvm.stats import Statistics
from belljar.kvm.vcpu import Vcpu
from belljar.kvm.vm_interrupts import VmInterrupts
from belljar.kvm.vm_memory import VmMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from belljar.kvm._batcher import WriteBatcher
    from belljar.kvm.msrs import MsrFilter
    from belljar.kvm.system import Kvm


class Vm(VmMemory, VmInterrupts, Attributes):
    """One virtual machine of KVM. Made by `Kvm.create_vm`; the kernel keeps it until its vCPUs are closed, too."""

    what = "this VM"

    def __init__(self, kvm: Kvm, fd: int) -> None:
        super().__init__(fd)
        self.kvm = kvm

    def create_vcpu(self, index: int = 0, *, batcher: WriteBatcher | None = None) -> Vcpu:
        """A vCPU in the state after reset; `index` becomes its APIC id (KVM_CREATE_VCPU, api.rst 4.7).

        `batcher` is for an engine that has its run loop collect port writes.
        """
        return Vcpu(self, index, self.call(ioctls.KVM_CREATE_VCPU, index), self.kvm.vcpu_mmap_size, batcher)

    def set_boot_cpu(self, index: int) -> None:
        """Which vCPU is the bootstrap processor; before any is made (KVM_SET_BOOT_CPU_ID, api.rst 4.41)."""
        self.call(ioctls.KVM_SET_BOOT_CPU_ID, index, needs=caps.KVM_CAP_SET_BOOT_CPU_ID)

    def create_device(self, kind: int, *, test: bool = False) -> Device | None:
        """An in-kernel device, such as the VFIO one (KVM_CREATE_DEVICE, api.rst 4.79); `test` only asks, and gives None."""
        request = kvm_create_device(type=kind, flags=int(test))
        self.call(ioctls.KVM_CREATE_DEVICE, request, needs=caps.KVM_CAP_DEVICE_CTRL)
        return None if test else Device(request.fd)

    def statistics(self) -> Statistics:
        """The VM's binary statistics (KVM_GET_STATS_FD, api.rst 4.133)."""
        return Statistics(self.call(ioctls.KVM_GET_STATS_FD, needs=caps.KVM_CAP_BINARY_STATS_FD))

    # -- time ----------------------------------------------------------------------------------------------------

    def get_clock(self) -> kvm_clock_data:
        """The paravirtual clock: nanoseconds, and with `flags` saying so the host's times (api.rst 4.29)."""
        clock = kvm_clock_data()
        self.call(ioctls.KVM_GET_CLOCK, clock, needs=caps.KVM_CAP_ADJUST_CLOCK)
        return clock

    def set_clock(self, clock: kvm_clock_data) -> None:
        """Set the paravirtual clock (api.rst 4.30)."""
        self.call(ioctls.KVM_SET_CLOCK, clock, needs=caps.KVM_CAP_ADJUST_CLOCK)

    def get_tsc_khz(self) -> int:
        """The TSC frequency in kHz that new vCPUs get (api.rst 4.56)."""
        return self.call(ioctls.KVM_GET_TSC_KHZ, needs=caps.KVM_CAP_VM_TSC_CONTROL)

    def set_tsc_khz(self, khz: int) -> None:
        """Set the TSC frequency in kHz for vCPUs made from now on (api.rst 4.55)."""
        self.call(ioctls.KVM_SET_TSC_KHZ, khz, needs=caps.KVM_CAP_VM_TSC_CONTROL)

    # -- what leaves to user space ---------------------------------------------------------------------------------

    def exit_on_msr(self, reasons: int) -> None:
        """Which failed MSR accesses leave with an exit instead of #GP: KVM_MSR_EXIT_REASON_* (KVM_CAP_X86_USER_SPACE_MSR)."""
        self.enable(caps.KVM_CAP_X86_USER_SPACE_MSR, reasons)

    def set_msr_filter(self, filter: MsrFilter) -> None:
        """Which MSRs the guest may touch (KVM_X86_SET_MSR_FILTER, api.rst 4.97)."""
        self.call(ioctls.KVM_X86_SET_MSR_FILTER, filter.structure, needs=caps.KVM_CAP_X86_MSR_FILTER)

    def exit_on_hypercalls(self, numbers: Sequence[int]) -> None:
        """Which KVM hypercalls leave with an exit (KVM_CAP_EXIT_HYPERCALL, api.rst section 8); KVM_HC_MAP_GPA_RANGE (12) can."""
        self.enable(caps.KVM_CAP_EXIT_HYPERCALL, sum(1 << number for number in set(numbers)))

    def exit_on_emulation_failure(self, enabled: bool = True) -> None:
        """Whether every failed emulation leaves with an internal error and the instruction's bytes (api.rst section 7)."""
        self.enable(caps.KVM_CAP_EXIT_ON_EMULATION_FAILURE, int(enabled))

    def exit_on_bus_locks(self, mode: int) -> None:
        """KVM_BUS_LOCK_DETECTION_OFF or _EXIT (api.rst section 7)."""
        self.enable(caps.KVM_CAP_X86_BUS_LOCK_EXIT, mode)

    def notify_window(self, cycles: int, flags: int) -> None:
        """Leave when the guest opens no event window for `cycles`; KVM_X86_NOTIFY_VMEXIT_* flags (api.rst section 7)."""
        self.enable(caps.KVM_CAP_X86_NOTIFY_VMEXIT, cycles << 32 | flags)

    def disable_exits(self, kinds: int) -> None:
        """Let the guest do MWAIT, HLT, PAUSE or C-states itself: KVM_X86_DISABLE_EXITS_* (api.rst section 7)."""
        self.enable(caps.KVM_CAP_X86_DISABLE_EXITS, kinds)

    def disable_quirks(self, quirks: int) -> None:
        """Turn off KVM_X86_QUIRK_* behaviours (KVM_CAP_DISABLE_QUIRKS2, api.rst section 7)."""
        self.enable(caps.KVM_CAP_DISABLE_QUIRKS2, quirks)

    def set_pmu_event_filter(
        self, events: Sequence[int], *, action: int = KVM_PMU_EVENT_ALLOW, fixed_counters: int = 0, flags: int = 0
    ) -> None:
        """Which performance events the guest may count (KVM_SET_PMU_EVENT_FILTER, api.rst 4.120)."""
        table = kvm_pmu_event_filter.with_tail(
            b"".join(event.to_bytes(8, "little") for event in events),
            action=action,
            nevents=len(events),
            fixed_counter_bitmap=fixed_counters,
            flags=flags,
        )
        self.call(ioctls.KVM_SET_PMU_EVENT_FILTER, table, needs=caps.KVM_CAP_PMU_EVENT_FILTER)

    def disable_pmu(self) -> None:
        """Give vCPUs made from now on no performance monitoring unit (KVM_CAP_PMU_CAPABILITY, api.rst section 8)."""
        self.enable(caps.KVM_CAP_PMU_CAPABILITY, 1)

    # -- addresses that Intel processors without unrestricted guests need ------------------------------------------------

    def set_tss_address(self, gpa: int) -> None:
        """Three pages of guest-physical space, below 4 GiB, for a TSS of KVM's own (KVM_SET_TSS_ADDR, api.rst 4.36)."""
        self.call(ioctls.KVM_SET_TSS_ADDR, gpa, needs=caps.KVM_CAP_SET_TSS_ADDR)

    def set_identity_map_address(self, gpa: int) -> None:
        """A page, below 4 GiB, for an identity map of KVM's own; before any vCPU is made (api.rst 4.40)."""
        self.call(
            ioctls.KVM_SET_IDENTITY_MAP_ADDR,
            bytearray(gpa.to_bytes(8, "little")),
            needs=caps.KVM_CAP_SET_IDENTITY_MAP_ADDR,
        )
