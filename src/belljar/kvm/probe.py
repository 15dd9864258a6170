"""What the KVM engine itself must know of this host's KVM, found out by running a few instructions: nothing else tells.

A module may accept a request and not honour it. Each probe makes a VM of its own with two pages of memory, runs a guest of
a few bytes in real mode, and closes it; none takes longer than its limit. What whoever looks on wants to know of an engine
is found out with whole machines (`belljar.observe.probes`), which come here for what stands here.
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
from belljar.x86.msr import Msr
from belljar.x86.state import CpuState, Registers, Segment, SpecialRegisters

if TYPE_CHECKING:
    from belljar.kvm.engine import KvmEngine, KvmVm
    from belljar.kvm.engine_vcpu import KvmVcpu

MEMORY = 0x2000
CODE_GPA = 0x1000
LIMIT_NS = 1_000_000_000
"""How long a probe may run; far more than any needs."""


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


def _run(vm: KvmVm, code: bytes, control: DebugControl | None = None, **registers: int) -> ExitReason:
    """Run a guest; why it ended."""
    vm.map(ProbeRegion(code))
    vcpu: KvmVcpu = vm.create_vcpu(0)
    vcpu.set_state(real_mode_state(**registers), "real")
    if control is not None:
        vcpu.raw.set_guest_debug(*debug_registers(control))
    return vcpu.run(ProbeBus(), deadline_ns=time.monotonic_ns() + LIMIT_NS)


def watchpoints_work(engine: KvmEngine) -> bool:
    """Whether a data watchpoint stops the guest's store."""
    code = b"\xa2\x00\x05\xf4"  # mov [0x500], al; hlt
    with engine.create_vm() as vm:
        return _run(vm, code, DebugControl(watchpoints=(Watchpoint(0x500, 1),))) is ExitReason.DEBUG


def filter_catches_deadlines(engine: KvmEngine) -> bool:
    """Whether KVM asks its MSR filter before it takes a write to IA32_TSC_DEADLINE for itself."""
    from belljar.kvm.msr_traffic import MsrTraffic  # which most that is probed has nothing to do with

    with engine.create_vm() as vm:
        try:
            MsrTraffic(vm).hand_over(Msr.IA32_TSC_DEADLINE)
        except (CapabilityMissing, KvmCallFailed):
            return False
        return _run(vm, b"\x0f\x30\xf4", rcx=int(Msr.IA32_TSC_DEADLINE)) is ExitReason.WRMSR  # wrmsr; hlt
