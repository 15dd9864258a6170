"""One vCPU of a machine with interrupt chips of its own: what its local APIC has for it before each entry."""

from __future__ import annotations

from enum import Enum
from threading import RLock
from typing import TYPE_CHECKING

from belljar.devices.apic_message import DeliveryMode
from belljar.devices.lapic import Lapic
from belljar.devices.lapic_msrs import LapicMsrs
from belljar.devices.lapic_registers import LVT_MASKED, MODE_MASK, MODE_SHIFT, Reg
from belljar.devices.lapic_window import LapicWindow
from belljar.engine import Bus
from belljar.exits import ExitReason, ReadMsr, WriteMsr
from belljar.machine.cpu import Cpu
from belljar.x86.flags import Rflags
from belljar.x86.msr import Msr
from belljar.x86.state import CpuState, Registers, Segment, SpecialRegisters

if TYPE_CHECKING:
    from belljar.x86.mp_state import MpState

RESET_RIP, RESET_SELECTOR, RESET_BASE = 0xFFF0, 0xF000, 0xFFFF_0000
"""Where a processor starts after INIT (SDM 3A table 10-1)."""

MAYBE_NMI = (DeliveryMode.NMI, DeliveryMode.SMI, DeliveryMode.INIT)
"""What a vCPU with RFLAGS.IF=0 takes."""


class Activity(Enum):
    """What a vCPU does (SDM 3C 25.4.2)."""

    ACTIVE = 0
    HALTED = 1
    WAIT_FOR_SIPI = 2


class GuardedWindow:
    """The buses as one vCPU sees them, its local APIC's page included, under the lock of the chips."""

    def __init__(self, cpu: Cpu, lapic: Lapic, bus: Bus, lock: RLock) -> None:
        self._cpu = cpu
        self._lapic = lapic
        self._window = LapicWindow(lapic, bus)
        self._lock = lock
        self.port_read = bus.port_read
        self.port_write = bus.port_write
        self.port_read_block = bus.port_read_block
        self.port_write_block = bus.port_write_block

    def mmio_read(self, gpa: int, size: int) -> int:
        """A load."""
        with self._lock:
            return self._window.mmio_read(gpa, size)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A store."""
        with self._lock:
            before = self._lapic.cr8
            self._window.mmio_write(gpa, size, value)
            if self._lapic.cr8 != before:
                self._cpu.vcpu.kick()  # the next entry sets what it reads in CR8


class Seat:
    """A vCPU and its local APIC. All calls under the lock of the chips, and while the vCPU does not run."""

    def __init__(self, cpu: Cpu, lapic: Lapic, bus: Bus, lock: RLock) -> None:
        self.cpu = cpu
        cpu.keeper = self
        self.lapic = lapic
        self.bus = GuardedWindow(cpu, lapic, bus, lock)
        self.activity = Activity.WAIT_FOR_SIPI if cpu.index else Activity.ACTIVE
        self._initialized = not cpu.index
        self._sipi_vector = 0
        self._interruptible = True
        self._task_priority = 0  # what the vCPU was entered with
        # Not the TSC deadline timer: without a local APIC of its own KVM takes that MSR for itself, and CPUID has no such timer.
        self._msrs = LapicMsrs(lapic, tsc_deadline=False)

    def prepare(self) -> bool:
        """Before an entry: bring the vCPU what waits for it; False if it has nothing to run for."""
        vcpu, lapic = self.cpu.vcpu, self.lapic
        if lapic.accept_init():
            self._start(Segment(RESET_SELECTOR, RESET_BASE, type=11), RESET_RIP)
            self.activity = Activity.WAIT_FOR_SIPI if self.cpu.index else Activity.ACTIVE
            self._initialized = True
        vector = lapic.signals.take_sipi()
        if self.activity is Activity.WAIT_FOR_SIPI:
            if vector < 0 or not self._initialized:
                return False
            self._sipi_vector = vector
            self._start(Segment(vector << 8, vector << 12, type=11), 0)
            self.activity = Activity.ACTIVE
        lapic.signals.take_smi()  # there is no system-management mode that it could lead to
        while lapic.signals.take_nmi():
            vcpu.inject_nmi()
            self.activity = Activity.ACTIVE
        if lapic.has_interrupt() and vcpu.ready_for_interrupt():
            vcpu.inject_interrupt(lapic.acknowledge())
            self.activity = Activity.ACTIVE
        vcpu.request_interrupt_window(lapic.has_interrupt())
        if vcpu.task_priority != lapic.cr8:
            vcpu.task_priority = lapic.cr8
        self._task_priority = lapic.cr8
        return self.activity is Activity.ACTIVE

    def _start(self, cs: Segment, rip: int) -> None:
        special = SpecialRegisters(cs=cs, apic_base=self.lapic.base)
        self.cpu.vcpu.set_state(CpuState(Registers(rip=rip), special), "real")

    def came_back(self, reason: ExitReason) -> None:
        """After a run: what the guest did to its local APIC where the engine sees it, and whether it halted."""
        vcpu, lapic = self.cpu.vcpu, self.lapic
        if vcpu.apic_base != lapic.base:
            self._msrs.write_msr(Msr.IA32_APIC_BASE, vcpu.apic_base)
        if vcpu.task_priority != self._task_priority:  # else the APIC's own register is the newer one
            lapic.cr8 = vcpu.task_priority
        if reason is ExitReason.HLT:
            self.activity = Activity.HALTED
            self._interruptible = bool(vcpu.get_registers().rflags & Rflags.IF)

    def leave_halt(self) -> None:
        """Go on behind the HLT."""
        if self.activity is Activity.HALTED:
            self.activity = Activity.ACTIVE

    @property
    def mp_state(self) -> MpState:
        """What the vCPU waits for, as KVM's local APICs tell it (api.rst 4.38)."""
        from belljar.x86.mp_state import MpState  # few ask

        if self.activity is not Activity.WAIT_FOR_SIPI:
            return MpState.RUNNABLE if self.activity is Activity.ACTIVE else MpState.HALTED
        if not self._initialized:
            return MpState.UNINITIALIZED
        return MpState.INIT_RECEIVED if self.lapic.signals.sipi < 0 else MpState.SIPI_RECEIVED

    @mp_state.setter
    def mp_state(self, value: MpState) -> None:
        """SIPI_RECEIVED is that of the last start-up IPI, or of vector 0."""
        name = value.name
        self.lapic.signals.take_sipi()
        self._initialized = name != "UNINITIALIZED"
        self._interruptible = bool(self.cpu.vcpu.get_registers().rflags & Rflags.IF)
        self.activity = {"RUNNABLE": Activity.ACTIVE, "HALTED": Activity.HALTED}.get(name, Activity.WAIT_FOR_SIPI)
        if name == "SIPI_RECEIVED":
            self.lapic.signals.sipi = self._sipi_vector

    @property
    def wants_to_run(self) -> bool:
        """Whether there is something to run for, or something has come for it."""
        if self.activity is Activity.ACTIVE or self.lapic.signals.pending:
            return True
        return self.activity is Activity.HALTED and self._interruptible and self.lapic.has_interrupt()

    def asleep(self) -> bool:
        """Whether only another vCPU, a chip's NMI or the host could wake it."""
        if self.lapic.signals.pending or self.activity is Activity.ACTIVE:
            return False
        return self.activity is Activity.WAIT_FOR_SIPI or not self._interruptible

    def may_get_nmi(self) -> bool:
        """Whether its LINT0 makes NMIs of what comes there (the 8254's ticks, for one)."""
        entry = self.lapic.lvt[Reg.LVT_LINT0]
        return not entry & LVT_MASKED and entry >> MODE_SHIFT & MODE_MASK in MAYBE_NMI

    def answer(self, exit: ReadMsr | WriteMsr) -> int | None:
        """RDMSR or WRMSR of one of the local APIC's registers."""
        if isinstance(exit, ReadMsr):
            return self._msrs.read_msr(exit.msr)
        return 0 if self._msrs.write_msr(exit.msr, exit.value) else None

    def covers(self, msr: int) -> bool:
        """Whether an MSR is the local APIC's."""
        return self._msrs.covers(msr)
