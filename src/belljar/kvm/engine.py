"""The KVM engine: what `belljar.engine` asks for, on the kernel's KVM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.engine_data import MACHINE_CHECK_BANKS, MCG_CAP_OFFERED
from belljar.errors import (
    BelljarError,
    CapabilityMissing,
    ClosedError,
    ConfigurationError,
    EngineError,
    FeatureUnsupported,
    KvmCallFailed,
)
from belljar.kvm import _calls
from belljar.kvm._batcher import WriteBatcher
from belljar.kvm.abi import caps
from belljar.kvm.abi.flags import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
from belljar.kvm.cpu_model import CpuModel
from belljar.kvm.engine_vcpu import KvmVcpu
from belljar.kvm.system import DEVICE, Kvm
from belljar.kvm.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from belljar.engine import MemoryRegion
    from belljar.kvm.chips import KernelChips
    from belljar.kvm.facts import Facts
    from belljar.kvm.msr_traffic import MsrTraffic
    from belljar.platform import HypervConnections, Platform
    from belljar.routes import MessageRoute, PinRoute, PinTarget
    from belljar.watching import ChipRegisters, ExitWatch

_cpu_models: dict[str, CpuModel] = {}
"""By device: what KVM_GET_SUPPORTED_CPUID said the first time. It asks the processor for every leaf, which costs more
than all else that makes a VM, and its answer does not change while a process lives."""

_let_go_of_deadlines: dict[str, bool] = {}
"""By device: `KvmEngine.lets_go_of_deadlines`. To find out takes milliseconds."""


class KvmEngine:
    """Runs machines on /dev/kvm, each vCPU on a host thread of its own.

    Raises KvmMissing, KvmPermissionDenied or KvmIncompatible (all EngineUnavailable). `kvm` is the system underneath.

    `without` names CPU features whose bits guests shall not find in CPUID (KVM_SET_CPUID2, api.rst 4.82). The kernel then
    refuses their control bits and MSRs; instructions that only the processor executes, without a control bit, still work.
    """

    name = "kvm"
    threaded = True
    counts_instructions = False
    chips = ("kernel", "split", "user")

    def __init__(self, path: str = DEVICE, *, without: Sequence[str] = ()) -> None:
        self.path = path
        self.kvm = Kvm(path)
        self._without = tuple(without)
        self._cpu_model: CpuModel | None = None
        if self._without:
            try:
                self._cpu_model = self.cpu_model
            except BaseException:
                self.close()
                raise
        self._coalesces_ports: bool | None = None
        self._watchpoints_work: bool | None = None
        self._mcg_cap: int | None = None

    @property
    def cpu_model(self) -> CpuModel:
        """What guests see of the processor."""
        if self._cpu_model is None:
            self._cpu_model = _cpu_models.get(self.path) or CpuModel(self.kvm.supported_cpuid_table())
            _cpu_models[self.path] = self._cpu_model
            if self._without:
                self._cpu_model = self._cpu_model.without(self._without)
        return self._cpu_model

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """Those that CPUID tells its guests of, by the names of /proc/cpuinfo."""
        return self.cpu_model.features

    @property
    def coalesces_ports(self) -> bool:
        """Whether the kernel can collect port writes (KVM_CAP_COALESCED_PIO); asked once."""
        if self._coalesces_ports is None:
            self._coalesces_ports = bool(self.kvm.check(caps.KVM_CAP_COALESCED_PIO))
        return self._coalesces_ports

    @property
    def mcg_cap(self) -> int:
        """IA32_MCG_CAP of guests: what belljar offers and KVM has; 0 without machine checks. Asked once."""
        if self._mcg_cap is None:
            banks = min(self.kvm.check(caps.KVM_CAP_MCE), MACHINE_CHECK_BANKS)
            self._mcg_cap = banks and self.kvm.mce_capabilities() & MCG_CAP_OFFERED | banks
        return self._mcg_cap

    @property
    def lets_go_of_deadlines(self) -> bool:
        """Whether an MSR filter catches IA32_TSC_DEADLINE; found out once a process, by a guest of two instructions."""
        if self.path not in _let_go_of_deadlines:
            from belljar.kvm import probe  # only chips outside the kernel want it, and traces

            _let_go_of_deadlines[self.path] = probe.filter_catches_deadlines(self)
        return _let_go_of_deadlines[self.path]

    @property
    def watchpoints_work(self) -> bool:
        """Whether data watchpoints stop a guest here; found out once, by a guest of two instructions."""
        if self._watchpoints_work is None:
            from belljar.kvm import probe  # a millisecond that only a debugger and a doctor should pay

            self._watchpoints_work = probe.watchpoints_work(self)
        return self._watchpoints_work

    def describe(self) -> Facts:
        """What the kernel says of its KVM. What that does, guests tell (`belljar.observe.doctor.examine`)."""
        from belljar.kvm.facts import ask  # as above

        return ask(self.kvm)

    def create_vm(self) -> KvmVm:
        """A VM without memory and vCPUs. Raises EngineError if the kernel refuses, ClosedError after `close`."""
        try:
            return KvmVm(self, self.kvm.create_vm())
        except KvmCallFailed as error:
            raise EngineError(str(error)) from None

    def close(self) -> None:
        """Give /dev/kvm back; its VMs live on. Harmless when repeated."""
        self.kvm.close()

    def __enter__(self) -> KvmEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class KvmVm:
    """A virtual machine of the KVM engine. `raw` is the kernel's VM underneath, with everything it can do."""

    def __init__(self, engine: KvmEngine, vm: Vm) -> None:
        self.engine = engine
        self.raw = vm
        self.vcpus: list[KvmVcpu] = []
        self._retired: dict[int, KvmVcpu] = {}
        self._regions: dict[int, MemoryRegion] = {}
        self._batcher: WriteBatcher | None = None
        self.chips: KernelChips | None = None
        self.tsc_khz: int | None = None
        """The frequency of the time-stamp counters of vCPUs made from now on; None: the host's."""
        self.host_tsc_khz: int | None = None
        """The host's own, where `tsc_khz` is another."""
        self.tells_priority = False
        """Whether runs return when a guest changes CR8."""
        self.tells_deadlines = False
        """Whether they return when a guest reads or writes IA32_TSC_DEADLINE."""
        self.msr_traffic: MsrTraffic | None = None
        """Which MSRs are filtered, if any."""
        self.cpu_model_with_hyperv: CpuModel | None = None
        """What vCPUs made from now on are told, if Hyper-V's interface is part of it."""

    def map(self, region: MemoryRegion) -> None:
        """Make a region guest-physical memory. Raises EngineError if it overlaps another or the kernel refuses it."""
        flags = KVM_MEM_READONLY * region.readonly | KVM_MEM_LOG_DIRTY_PAGES * region.log_dirty
        try:
            self.raw.set_memory_region(region.slot, region.gpa, region.size, region.hva, flags)
        except ClosedError:
            raise
        except BelljarError as error:
            where = f"{region.size:#x} bytes at guest-physical {region.gpa:#x}"
            raise EngineError(f"KVM refuses the memory region of {where}: {error}") from None
        self._regions[region.slot] = region

    def unmap(self, region: MemoryRegion) -> None:
        """Take it away again. Harmless if it is not mapped."""
        if self._regions.get(region.slot) is region:
            self.raw.delete_memory_region(region.slot)
            del self._regions[region.slot]

    @property
    def regions(self) -> tuple[MemoryRegion, ...]:
        """What is mapped."""
        return tuple(self._regions.values())

    def read(self, gpa: int, size: int) -> bytes:
        """Bytes of guest-physical memory, from one region; empty where there is none."""
        for region in self._regions.values():
            if region.gpa <= gpa and gpa + size <= region.gpa + region.size:
                return _calls.read_memory(region.hva + gpa - region.gpa, size)
        return b""

    def write(self, gpa: int, data: bytes) -> None:
        """Bytes to guest-physical memory, to one region; nothing where there is none, or one that is read-only."""
        for region in self._regions.values():
            if region.gpa <= gpa and gpa + len(data) <= region.gpa + region.size and not region.readonly:
                _calls.write_memory(region.hva + gpa - region.gpa, data)

    def create_vcpu(self, index: int) -> KvmVcpu:
        """A vCPU in the state after reset, with every CPUID feature that KVM supports here.

        KVM gives a vCPU's number only once: one that was retired is taken again.
        """
        retired = self._retired.pop(index, None)
        if retired is not None:
            from belljar.kvm.parking import unpark  # few machines lose vCPUs

            unpark(retired.raw, has_lapic=self.chips is not None)
            return self._in_service(retired)
        try:
            vcpu = KvmVcpu(self, self.raw.create_vcpu(index, batcher=self._write_batcher()))
        except KvmCallFailed as error:
            raise EngineError(f"vCPU {index} cannot be made: {error}") from None
        if index and self.chips is not None:
            vcpu.raw.set_lapic(vcpu.raw.get_lapic())  # else messages do not find one that is made while others run
        return self._in_service(vcpu)

    def _in_service(self, vcpu: KvmVcpu) -> KvmVcpu:
        self.vcpus.append(vcpu)
        if self.chips is not None:
            self.chips.vcpus.append(vcpu.raw)
        return vcpu

    def retire_vcpu(self, index: int) -> None:
        """Switch a vCPU's local APIC off, and keep the vCPU for `create_vcpu`."""
        from belljar.kvm.parking import park  # as above

        for vcpu in self.vcpus:
            if vcpu.index == index:
                self.vcpus.remove(vcpu)
                if self.chips is not None:
                    self.chips.vcpus.remove(vcpu.raw)
                park(vcpu.raw, has_lapic=self.chips is not None)
                self._retired[index] = vcpu
                return

    def use_chips(self, which: str) -> None:
        """Interrupt chips in the kernel, or none there, before any vCPU is made (`belljar.engine.Vm.use_chips`)."""
        if which in ("kernel", "split"):
            from belljar.kvm.chips import KernelChips  # machines without chips start without it

            self.chips = KernelChips(self.raw, split=which == "split")
        elif which == "user":
            self.tells_priority = True
            self._take_lapic_msrs()
        else:
            raise FeatureUnsupported(f"the KVM engine has no interrupt chips called {which!r}")

    def _own_chips(self) -> KernelChips:
        if self.chips is None:
            raise EngineError("this VM has no interrupt chips of the kernel's")
        return self.chips

    def set_line(self, gsi: int, level: bool) -> None:
        """Drive a line of the kernel's chips. From any thread."""
        self._own_chips().set_line(gsi, level)

    def signal_message(self, gpa: int, data: int) -> int:
        """Send a message-signalled interrupt; above 0 if a local APIC took it. From any thread."""
        return self._own_chips().signal_message(gpa, data)

    def set_routes(self, routes: Sequence[PinRoute | MessageRoute]) -> None:
        """Replace the table of where lines lead. Raises ConfigurationError for what the kernel refuses."""
        self._own_chips().set_routes(routes)

    def connect_eventfd(self, eventfd: int, gsi: int) -> None:
        """One edge on a line whenever a host eventfd is signalled."""
        self._own_chips().connect_eventfd(eventfd, gsi)

    def pin_target(self, chip: str, pin: int) -> PinTarget:
        """What a pin of the kernel's `pic` or `ioapic` is programmed to."""
        return self._own_chips().pin_target(chip, pin)

    def connect_timer(self, connected: bool) -> None:
        """Whether the kernel's 8254 drives its line."""
        self._own_chips().connect_timer(connected)

    def flush_page(self, gpa: int) -> None:
        """Nothing to do: what the host's own tables lose (`GuestMemory.flush_page`), KVM is told to forget by the kernel."""

    def message_cpus(self, gpa: int, data: int) -> tuple[int, ...]:
        """Which vCPUs a message would reach now."""
        return self._own_chips().message_cpus(gpa, data)

    def chip_registers(self) -> ChipRegisters:
        """What KVM_GET_LAPIC and KVM_GET_IRQCHIP say."""
        return self._own_chips().registers()

    def pic_cpus(self) -> tuple[int, ...]:
        """Which vCPUs' local APICs let an 8259's interrupts through."""
        return self._own_chips().pic_cpus()

    def raise_lint0(self, index: int) -> None:
        """An edge at LINT0 of a kernel's local APIC, which has no such pin."""
        self._own_chips().raise_lint0(index)

    def use_platform(self, platform: Platform) -> None:
        """Nothing to do: the kernel has time and serves KVM's paravirtual interface."""

    def use_hyperv(self) -> None:
        """Offer Hyper-V's interface, which needs local APICs in the kernel (KVM_CAP_HYPERV_SYNIC2, api.rst 6.4)."""
        from belljar.kvm.hyperv import cpuid_table  # others need not wait for it

        if self.chips is None:
            raise FeatureUnsupported(
                "Hyper-V's synthetic interrupts need the kernel's local APICs", hint="--irqchip kernel or split"
            )
        model = self.engine.cpu_model
        self.cpu_model_with_hyperv = CpuModel(cpuid_table(self.engine.kvm, model.table))

    def hyperv_connections(self) -> HypervConnections:
        """Raises FeatureUnsupported: what guests post or signal is answered with HV_STATUS_INVALID_CONNECTION_ID."""
        raise FeatureUnsupported("Hyper-V's connections are not served on KVM", hint="`--engine soft` has them")

    def set_tsc_khz(self, khz: int) -> None:
        """KVM_SET_TSC_KHZ for the VM, or else for each vCPU (api.rst 4.55)."""
        from belljar.kvm.guest_tsc import no_frequency  # few want another

        if not 0 < khz < 1 << 31:
            raise ConfigurationError(f"a time-stamp counter of {khz} kHz will not do")
        self.tsc_khz = khz
        if not self.raw.check(caps.KVM_CAP_VM_TSC_CONTROL):
            self.tells_deadlines = False  # nobody says how the guest's counter follows the host's
        else:
            try:
                self.host_tsc_khz = self.raw.get_tsc_khz()
                self.raw.set_tsc_khz(khz)
            except KvmCallFailed as error:
                raise no_frequency(khz, error) from None

    def _take_lapic_msrs(self) -> None:
        """IA32_APIC_BASE and IA32_TSC_DEADLINE are for chips outside the kernel, as far as this host's KVM lets go of them."""
        from belljar.x86.msr import Msr  # dear to import

        self.tells_deadlines = self.engine.lets_go_of_deadlines
        deadlines = [Msr.IA32_TSC_DEADLINE] if self.tells_deadlines else []
        try:
            self._traffic().hand_over(Msr.IA32_APIC_BASE, *deadlines)
        except (CapabilityMissing, KvmCallFailed):
            self.msr_traffic = None  # there what the guest did to IA32_APIC_BASE is found out at its exits

    def _traffic(self) -> MsrTraffic:
        if self.msr_traffic is None:
            from belljar.kvm.msr_traffic import MsrTraffic  # few machines filter anything

            self.msr_traffic = MsrTraffic(self)
        return self.msr_traffic

    def watch_msrs(self, watch: ExitWatch) -> str:
        """By a filter (KVM_X86_SET_MSR_FILTER, api.rst 4.97): of those that are the same for guests and for hosts."""
        from belljar.kvm.msr_traffic import ONLY_REFUSED, UNSEEN, UNSEEN_DEADLINE  # as above

        try:
            self._traffic().watch(watch)
        except (CapabilityMissing, KvmCallFailed):
            self.exit_on_msrs()
            return ONLY_REFUSED
        return UNSEEN if self.engine.lets_go_of_deadlines else UNSEEN + UNSEEN_DEADLINE

    def exit_on_msrs(self, only: range | None = None) -> None:
        """MSRs that KVM does not know, values that it does not take, what a filter forbids: to whoever runs the vCPU.

        All of them, for KVM does not choose by number.
        """
        from belljar.kvm.msr_traffic import ALL_REASONS  # as above

        try:
            self.raw.exit_on_msr(ALL_REASONS)
        except (CapabilityMissing, KvmCallFailed) as error:
            raise FeatureUnsupported(f"this host's KVM hands no MSR accesses over: {error}") from None

    def exit_on_hypercalls(self) -> None:
        """The hypercalls that KVM can hand over, which are few (KVM_CAP_EXIT_HYPERCALL)."""
        numbers = self.raw.check(caps.KVM_CAP_EXIT_HYPERCALL)
        try:
            self.raw.exit_on_hypercalls([number for number in range(numbers.bit_length()) if numbers >> number & 1])
        except (CapabilityMissing, KvmCallFailed) as error:
            raise FeatureUnsupported(f"this host's KVM hands no hypercalls over: {error}") from None

    def _write_batcher(self) -> WriteBatcher | None:
        if self._batcher is None and self.engine.coalesces_ports:
            self._batcher = WriteBatcher(self.raw.fd)
        return self._batcher

    def batch_writes(self, port: int) -> None:
        """Let KVM collect single-byte writes to `port` once a guest makes many (coalesced PIO, api.rst 4.116)."""
        batcher = self._write_batcher()
        if batcher is not None:
            batcher.watch(port)

    def batched_writes(self) -> int:
        """How many writes arrived without an exit of their own."""
        return 0 if self._batcher is None else self._batcher.collected

    def close(self) -> None:
        """Give everything back, vCPUs first. Harmless when repeated."""
        for vcpu in (*self.vcpus, *self._retired.values()):
            vcpu.close()
        if self._batcher is not None:
            self._batcher.close()
        self.raw.close()
        self._regions.clear()

    def __enter__(self) -> KvmVm:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
