"""What this host's KVM really does, found out by running a few instructions: nothing else would tell.

A module may accept a request and not honour it, or emulate what it could run natively. Each probe makes a VM of its own
with two pages of memory, runs a guest of a few bytes in real mode, and closes it; none takes longer than its limit.
"""

from __future__ import annotations

import mmap
import time
from typing import TYPE_CHECKING

from belljar.engine_data import DebugControl, Watchpoint
from belljar.errors import CapabilityMissing, KvmCallFailed
from belljar.exits import ExitReason
from belljar.kvm import _calls
from belljar.kvm.debugging import debug_registers
from belljar.records import dataclass
from belljar.x86.msr import Msr
from belljar.x86.state import CpuState, Registers, Segment, SpecialRegisters

if TYPE_CHECKING:
    from belljar.kvm.engine import KvmEngine, KvmVm
    from belljar.kvm.engine_vcpu import KvmVcpu

MEMORY = 0x2000
CODE_GPA = 0x1000
DEFAULT_VCPUS = 4
"""How many vCPUs there can be where the kernel does not say (api.rst 4.7)."""

LIMIT_NS = 1_000_000_000
"""How long a probe may run; far more than any needs."""

NATIVE_LOOPS_PER_SECOND = 20_000_000
"""A processor does hundreds of millions of LOOPs a second, an instruction emulator two or three; a busy host is between."""


class ProbeBus:
    """Nothing answers."""

    def port_read(self, port: int, size: int) -> int:
        """All ones."""
        return (1 << 8 * size) - 1

    def port_write(self, port: int, size: int, value: int) -> None:
        """Nobody listens."""

    def port_read_block(self, port: int, size: int, count: int) -> bytes:
        """All ones."""
        return b"\xff" * size * count

    def port_write_block(self, port: int, size: int, data: bytes) -> None:
        """Nobody listens."""

    def mmio_read(self, gpa: int, size: int) -> int:
        """All ones."""
        return (1 << 8 * size) - 1

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Nobody listens."""


class ProbeRegion:
    """Two pages of anonymous memory as a memory region."""

    slot = 0
    gpa = 0
    size = MEMORY
    readonly = False
    log_dirty = False

    def __init__(self, code: bytes) -> None:
        self.mapping = mmap.mmap(-1, MEMORY)
        self.mapping[CODE_GPA : CODE_GPA + len(code)] = code
        self.hva = _calls.address_of(self.mapping)


def real_mode_state(**registers: int) -> CpuState:
    """Real mode with flat segments at `CODE_GPA`."""
    special = SpecialRegisters(cs=Segment(type=11), cr0=0x6000_0010)
    return CpuState(Registers(rip=CODE_GPA, rsp=CODE_GPA, **registers), special)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast CPL0 code runs: LOOP instructions a second, and whether that can only be a processor doing it."""

    loops_per_second: float
    native: bool


def _run(engine: KvmEngine, code: bytes, control: DebugControl, **registers: int) -> tuple[ExitReason, int]:
    """Run a guest; why it ended, and after how many nanoseconds."""
    region = ProbeRegion(code)
    vm: KvmVm
    with engine.create_vm() as vm:
        vm.map(region)
        vcpu: KvmVcpu = vm.create_vcpu(0)
        vcpu.set_state(real_mode_state(**registers), "real")
        if control.active:
            vcpu.raw.set_guest_debug(*debug_registers(control))
        started = time.monotonic_ns()
        reason = vcpu.run(ProbeBus(), deadline_ns=started + LIMIT_NS)
        return reason, time.monotonic_ns() - started


def watchpoints_work(engine: KvmEngine) -> bool:
    """Whether a data watchpoint stops the guest's store."""
    code = b"\xa2\x00\x05\xf4"  # mov [0x500], al; hlt
    reason, _ = _run(engine, code, DebugControl(watchpoints=(Watchpoint(0x500, 1),)))
    return reason is ExitReason.DEBUG


def filter_catches_deadlines(engine: KvmEngine) -> bool:
    """Whether KVM asks its MSR filter before it takes a write to IA32_TSC_DEADLINE for itself."""
    from belljar.kvm.msr_traffic import MsrTraffic  # which most that is probed has nothing to do with

    region = ProbeRegion(b"\x0f\x30\xf4")  # wrmsr; hlt
    with engine.create_vm() as vm:
        try:
            MsrTraffic(vm).hand_over_deadlines()
        except (CapabilityMissing, KvmCallFailed):
            return False
        vm.map(region)
        vcpu = vm.create_vcpu(0)
        vcpu.set_state(real_mode_state(rcx=int(Msr.IA32_TSC_DEADLINE)), "real")
        return vcpu.run(ProbeBus(), deadline_ns=time.monotonic_ns() + LIMIT_NS) is ExitReason.WRMSR


def single_step_works(engine: KvmEngine) -> bool:
    """Whether the host can step a guest instruction by instruction."""
    reason, _ = _run(engine, b"\x90\x90\xf4", DebugControl(single_step=True))  # nop; nop; hlt
    return reason is ExitReason.DEBUG


def breakpoints_work(engine: KvmEngine) -> bool:
    """Whether an execution breakpoint in a debug register stops the guest."""
    control = DebugControl(breakpoints_gva=(CODE_GPA + 1,))
    reason, _ = _run(engine, b"\x90\x90\xf4", control)
    return reason is ExitReason.DEBUG


def measure_speed(engine: KvmEngine, loops: int = 1000) -> Speed:
    """Time `loops` (to 65,535) LOOP instructions in real mode, the cost of a run that halts at once taken off."""
    halt = DebugControl()
    _run(engine, b"\xf4", halt)
    empty = min(_run(engine, b"\xf4", halt)[1] for _ in range(3))
    looped = min(_run(engine, b"\xe2\xfe\xf4", halt, rcx=loops)[1] for _ in range(3))  # loop $; hlt
    per_second = loops * 1e9 / max(looped - empty, 1)
    return Speed(per_second, per_second > NATIVE_LOOPS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a KVM engine can do on this host; sizes and counts as the kernel gives them."""

    device: str
    api_version: int
    capabilities: dict[str, int]
    recommended_vcpus: int
    most_vcpus: int
    memory_slots: int
    speed: Speed
    long_mode: bool
    five_level_paging: bool
    pages_1g: bool
    single_step: bool
    breakpoints: bool
    watchpoints: bool
    batched_writes: bool


def examine(engine: KvmEngine) -> Facts:
    """Ask and try everything; some 20 ms where CPL0 is emulated. For modes, run guests: `KvmVcpu.set_state` refuses."""
    capabilities = engine.kvm.capabilities()
    return Facts(
        engine.kvm.path,
        engine.kvm.api_version,
        capabilities,
        capabilities["KVM_CAP_NR_VCPUS"] or DEFAULT_VCPUS,
        capabilities["KVM_CAP_MAX_VCPUS"] or capabilities["KVM_CAP_NR_VCPUS"] or DEFAULT_VCPUS,
        capabilities["KVM_CAP_NR_MEMSLOTS"],
        measure_speed(engine),
        engine.cpu_model.has_long_mode,
        engine.cpu_model.has_la57,
        engine.cpu_model.has_1g_pages,
        single_step_works(engine),
        breakpoints_work(engine),
        engine.watchpoints_work,
        engine.coalesces_ports,
    )
