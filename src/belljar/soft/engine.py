"""The soft engine: what `belljar.engine` asks for, on the soft processor and its hypervisor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from belljar.engine import MemoryRegion
from belljar.errors import ClosedError, EngineError, FeatureUnsupported
from belljar.routes import MessageRoute, PinRoute, PinTarget
from belljar.soft.hypervisor.controls import Primary, give_turns
from belljar.soft.hypervisor.mmu.mmu import Mmu
from belljar.soft.hypervisor.msrs import bitmap_of, bitmap_of_unknown
from belljar.soft.hypervisor.requests import Requests
from belljar.soft.hypervisor.shared import Shared
from belljar.soft.hypervisor.tsc import check_khz
from belljar.soft.hypervisor.vcpu import SoftVcpu
from belljar.soft.processor._core import HostMemory
from belljar.soft.processor.features import LAPIC_FEATURES, Feature, off_mask
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.platform import HypervConnections, Platform
    from belljar.watching import ChipRegisters, ExitWatch

SPLITMIX_STEP = 0x9E3779B97F4A7C15
SPLITMIX_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


KVM_FEATURE_PREFIX = "kvm_"
"""How the names of KVM's paravirtual features begin (`belljar.x86.cpuid`)."""


def is_kvm_feature(name: str) -> bool:
    """Whether the hypervisor, not the processor, has a feature."""
    return name.lower().startswith(KVM_FEATURE_PREFIX)


class SoftEngine:
    """Runs machines on a processor in software: on every host, in every mode, deterministically.

    All vCPUs of a machine run on one thread, in turn; machines may run on threads of their own. `without` names features
    (`belljar.soft.processor.features.Feature`) that its processors shall not have (`off_mask` says what it raises), or of
    KVM's paravirtual interface (`kvm_steal_time`). `seed`, any number, decides what RDRAND and RDSEED give: other numbers on
    each vCPU, the same in every run.
    """

    name = "soft"
    threaded = False
    counts_instructions = True
    chips = ("user",)

    def __init__(self, *, without: Iterable[str] = (), seed: int = 0) -> None:
        names = tuple(without)
        self._features_off = off_mask(name for name in names if not is_kvm_feature(name))
        self._lapic_features_off = sum({LAPIC_FEATURES.get(name.lower(), 0) for name in names})
        self._kvm_features_off = 0
        if any(map(is_kvm_feature, names)):
            from belljar.soft.hypervisor.paravirt.cpuid import mask_of  # few ask

            self._kvm_features_off = mask_of(filter(is_kvm_feature, names))
        self._seed = seed
        self._closed = False

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """Those that its processors have, by the names of /proc/cpuinfo, and KVM's paravirtual ones."""
        from belljar.soft.hypervisor.paravirt.cpuid import names_without  # few ask

        own = (feature.label for feature in Feature if not self._features_off >> feature & 1)
        lapic = (name for name, bit in LAPIC_FEATURES.items() if not self._lapic_features_off & bit)
        return tuple(sorted((*own, *lapic, *names_without(self._kvm_features_off))))

    def create_vm(self) -> SoftVm:
        """A VM without memory and vCPUs. Raises ClosedError after `close`."""
        if self._closed:
            raise ClosedError("this engine is closed")
        vm = SoftVm(self._features_off, self._seed)
        vm.shared.features_off = self._kvm_features_off
        vm.shared.lapic_features_off = self._lapic_features_off
        return vm

    def close(self) -> None:
        """Nothing is held; VMs live on. Harmless when repeated."""
        self._closed = True

    def __enter__(self) -> SoftEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class SoftVm:
    """A virtual machine of the soft engine: a host-physical address space in which guest memory and EPT tables lie."""

    def __init__(self, features_off: int = 0, seed: int = 0) -> None:
        self._features_off = features_off
        self._seed = seed
        self.memory = HostMemory()
        self.mmu = Mmu(self.memory)
        self.vcpus: list[SoftVcpu] = []
        self.requests = Requests(self.vcpus)
        self._msr_bitmap_hpa = self.mmu.pool.take()
        self.memory.write(self._msr_bitmap_hpa, bitmap_of(frozenset()))
        self.shared = Shared(self.mmu)
        self._tsc_khz: int | None = None
        self._has_chips = False
        self._closed = False

    def map(self, region: MemoryRegion) -> None:
        """Make a region guest-physical memory. Raises EngineError if it overlaps another or lies too high."""
        self._check_open()
        self.requests.perform(lambda: self.mmu.add(region))

    def unmap(self, region: MemoryRegion) -> None:
        """Take it away again. Harmless if it is not mapped."""
        self._check_open()
        self.requests.perform(lambda: self.mmu.remove(region))

    def create_vcpu(self, index: int) -> SoftVcpu:
        """A vCPU in the state after reset, with every feature of the soft processor that is not switched off."""
        self._check_open()
        vcpu = SoftVcpu(index, self.mmu, self._msr_bitmap_hpa, self.shared)
        if self._features_off:
            vcpu.processor.switch_features(self._features_off)
        vcpu.processor.seed_random(random_state(self._seed, index))
        vcpu.siblings = self.vcpus
        vcpu.requests = self.requests
        if self._has_chips:
            vcpu.has_chips = True
            vcpu.want(Primary.CR8_LOAD, True)
        if self.shared.platform is not None:
            vcpu.tsc.now = self.shared.platform.now_ns
        if self._tsc_khz is not None:
            vcpu.tsc.set_khz(self._tsc_khz)
        if self.vcpus:  # one that is added later is as the others
            first = self.vcpus[0]
            vcpu.exiting_msrs, vcpu.exits_on_hypercalls = first.exiting_msrs, first.exits_on_hypercalls
            if self.shared.platform is not None:
                vcpu.tsc.now = self.shared.platform.now_ns
        self.vcpus.append(vcpu)
        if len(self.vcpus) > 1:
            for each in self.vcpus:
                give_turns(each.processor)
        return vcpu

    def retire_vcpu(self, index: int) -> None:
        """Give a vCPU back."""
        self._check_open()
        for vcpu in self.vcpus:
            if vcpu.index == index:
                if vcpu.interfaces_made is not None:
                    vcpu.interfaces_made.reset()  # their timers are the machine's
                self.vcpus.remove(vcpu)
                vcpu.close()
                return

    def use_chips(self, which: str) -> None:
        """`user` only. Raises FeatureUnsupported for others: there is no kernel beneath whose chips could be used."""
        self._check_open()
        if which != "user":
            raise FeatureUnsupported(f"the soft engine has no interrupt chips called {which!r}", hint="--irqchip user")
        self._has_chips = True

    def use_platform(self, platform: Platform) -> None:
        """The machine's time and local APICs, for what the hypervisor itself offers to guests; before the first run."""
        self._check_open()
        self.shared.platform = platform
        for vcpu in self.vcpus:
            vcpu.tsc.now = platform.now_ns

    def use_hyperv(self) -> None:
        """Offer Hyper-V's interface too; before the first run, and only with interrupt chips."""
        self._check_open()
        if not self._has_chips:
            raise FeatureUnsupported("Hyper-V's interface needs local APICs", hint="--irqchip user")
        from belljar.soft.hypervisor.hyperv.partition import Partition  # guests without it need not wait

        self.shared.partition = Partition(self.shared)

    def hyperv_connections(self) -> HypervConnections:
        """To the vCPUs' SynICs. Raises FeatureUnsupported without `use_hyperv`."""
        from belljar.soft.hypervisor.hyperv.connections import Connections  # as above

        if self.shared.partition is None:
            raise FeatureUnsupported("this machine has no Hyper-V interface", hint="--hyperv")
        return Connections(self.shared.partition, self.vcpus)

    def set_tsc_khz(self, khz: int) -> None:
        """How fast vCPUs made from now on count time. Raises ConfigurationError."""
        check_khz(khz)
        self._tsc_khz = khz

    def set_line(self, gsi: int, level: bool) -> None:
        """Raises EngineError, as do all calls about chips: there are none."""
        raise _no_chips()

    def connect_eventfd(self, eventfd: int, gsi: int) -> None:
        """Raises EngineError."""
        raise _no_chips()

    def signal_message(self, gpa: int, data: int) -> int:
        """Raises EngineError."""
        raise _no_chips()

    def set_routes(self, routes: Sequence[PinRoute | MessageRoute]) -> None:
        """Raises EngineError."""
        raise _no_chips()

    def connect_timer(self, connected: bool) -> None:
        """Raises EngineError."""
        raise _no_chips()

    def flush_page(self, gpa: int) -> None:
        """Take the page, or the large one that it is part of, out of the EPT tables."""
        self._check_open()

        def forget() -> None:
            """While no vCPU executes."""
            self.mmu.forget(gpa)
            self._forget_translations()

        self.requests.perform(forget)

    def flush(self) -> None:
        """What the host wrote into page tables and code is seen before every vCPU's next instruction. From any thread."""
        self._check_open()
        self.requests.perform(self._forget_translations)

    def _forget_translations(self) -> None:
        self.memory.host_changed()
        for vcpu in self.vcpus:
            vcpu.processor.invept()

    def pin_target(self, chip: str, pin: int) -> PinTarget:
        """Raises EngineError."""
        raise _no_chips()

    def message_cpus(self, gpa: int, data: int) -> tuple[int, ...]:
        """Raises EngineError."""
        raise _no_chips()

    def chip_registers(self) -> ChipRegisters:
        """Raises EngineError."""
        raise _no_chips()

    def pic_cpus(self) -> tuple[int, ...]:
        """Raises EngineError."""
        raise _no_chips()

    def raise_lint0(self, index: int) -> None:
        """Raises EngineError."""
        raise _no_chips()

    def exit_on_msrs(self, only: range | None = None) -> None:
        """MSRs that the processor does not have leave through the MSR bitmap (SDM 3C 25.6.9); after the vCPUs are made.

        With interrupt chips, so do IA32_APIC_BASE and IA32_TSC_DEADLINE, which the local APIC knows.
        """
        self._check_open()
        if not self.vcpus:
            return
        others = (Msr.IA32_APIC_BASE, Msr.IA32_TSC_DEADLINE) if self._has_chips else ()
        page = (
            bitmap_of_unknown(self.vcpus[0].processor, others)
            if only is None
            else bitmap_of(frozenset((*others, *only)))
        )

        def change() -> None:
            """As above."""
            self.memory.write(self._msr_bitmap_hpa, page)
            for vcpu in self.vcpus:
                vcpu.exiting_msrs = range(1 << 32) if only is None else frozenset((*others, *only))

        self.requests.perform(change)

    def watch_msrs(self, watch: ExitWatch) -> str:
        """Every vCPU tells of all (`SoftVcpu.watch_exits`)."""
        self._check_open()
        for vcpu in self.vcpus:
            vcpu.watch_exits(watch, msrs=True)
        return ""

    def exit_on_hypercalls(self) -> None:
        """Every VMCALL at CPL0."""
        self._check_open()
        for vcpu in self.vcpus:
            vcpu.exits_on_hypercalls = True

    def batch_writes(self, port: int) -> None:
        """Nothing to do: an exit costs less than collecting would."""

    def batched_writes(self) -> int:
        """None ever."""
        return 0

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this VM is closed")

    def close(self) -> None:
        """Give everything back, vCPUs first. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        for vcpu in self.vcpus:
            vcpu.close()
        self.vcpus.clear()
        self.memory.close()

    def __enter__(self) -> SoftVm:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def random_state(seed: int, index: int) -> int:
    """Where vCPU `index` begins in its random numbers: SplitMix64 (Steele, Lea, Flood 2014) of the seed, a step a vCPU."""
    x = (seed + (index + 1) * SPLITMIX_STEP) % (1 << 64)
    for shift, factor in SPLITMIX_ROUNDS:
        x = (x ^ x >> shift) * factor % (1 << 64)
    return x ^ x >> 31


def _no_chips() -> EngineError:
    return EngineError("the soft engine has no interrupt chips of its own")
