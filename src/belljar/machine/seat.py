"""One vCPU of a machine with interrupt chips of its own: what its local APIC has for it before each entry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import TYPE_CHECKING, Final

from belljar.devices.apic_message import DeliveryMode
from belljar.devices.cpu_signals import CpuSignals
from belljar.devices.lapic import Lapic
from belljar.devices.lapic_msrs import LapicMsrs
from belljar.devices.lapic_window import LapicWindow
from belljar.engine import Bus
from belljar.engine_data import LAPIC_TSC_DEADLINE, LAPIC_X2APIC
from belljar.exits import ExitReason, ReadMsr, WriteMsr
from belljar.machine.cpu import Cpu
from belljar.x86.flags import Rflags
from belljar.x86.local_apic import BASE_ENABLED, BASE_X2APIC, LVT_MASKED, MODE_MASK, MODE_SHIFT, Reg
from belljar.x86.msr import Msr
from belljar.x86.state import CpuState, Registers, Segment, SpecialRegisters

if TYPE_CHECKING:
    from belljar.platform import EntryHooks
    from belljar.x86.mp_state import MpState

RESET_RIP: Final = 0xFFF0
RESET_SELECTOR: Final = 0xF000
RESET_BASE: Final = 0xFFFF_0000
"""Where a processor starts after INIT (SDM 3A table 10-1)."""

MAYBE_NMI: Final = (DeliveryMode.NMI, DeliveryMode.SMI, DeliveryMode.INIT)
"""What a vCPU with RFLAGS.IF=0 takes."""


HLT: Final = ExitReason.HLT
IRQ_WINDOW_OPEN: Final = ExitReason.IRQ_WINDOW_OPEN


class Activity(Enum):
    """What a vCPU does (SDM 3C 25.4.2)."""

    ACTIVE = 0
    HALTED = 1
    WAIT_FOR_SIPI = 2


ACTIVE: Final = Activity.ACTIVE
HALTED: Final = Activity.HALTED
WAIT_FOR_SIPI: Final = Activity.WAIT_FOR_SIPI
"""Names of this module's own: an enum's member is dear to look up at each entry."""

UNKNOWN: Final = -1
"""No task priority."""


class GuardedWindow(LapicWindow):
    """The buses as one vCPU sees them, its local APIC's page included, under the lock of the chips.

    `follow` is called before each access: on an engine with threads the guest may have changed where the page is, or its
    task priority, without an exit of its own.
    """

    def __init__(
        self, lapic: Lapic, bus: Bus, lock: AbstractContextManager[object], follow: Callable[[], None]
    ) -> None:
        super().__init__(lapic, bus)
        self._lock = lock
        self._follow = follow

    def mmio_read(self, gpa: int, size: int) -> int:
        """A load."""
        with self._lock:
            self._follow()
            return super().mmio_read(gpa, size)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A store."""
        with self._lock:
            self._follow()
            super().mmio_write(gpa, size, value)


class Seat:
    """A vCPU and its local APIC. All calls under the lock of the chips, and while the vCPU does not run.

    With a `lock`, the vCPU's accesses to memory take it. `stale` is set by whoever wakes it: `prepare` has to look again.
    """

    def __init__(
        self,
        cpu: Cpu,
        lapic: Lapic,
        bus: Bus,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.cpu = cpu
        cpu.keeper = self
        self.guard: AbstractContextManager[object] = nullcontext()
        """The lock of the chips, for what the host does to this vCPU between runs."""
        self.lapic = lapic
        self.bus = LapicWindow(lapic, bus) if lock is None else GuardedWindow(lapic, bus, lock, self._follow)
        self.activity = WAIT_FOR_SIPI if cpu.index else ACTIVE
        self.stale = True
        self.stepping = False
        """It is being stepped: interrupts and NMIs end a halt, but are not taken before the next run begins."""
        self.hooks: EntryHooks | None = None
        self._unhalted = False
        self._initialized = not cpu.index
        self._sipi_vector = 0
        self.interruptible = True
        self._task_priority = UNKNOWN  # what the vCPU was entered with
        self._window_wanted = False
        lapic.task_priority_written = self._guest_wrote_task_priority
        offered = cpu.vcpu.lapic_features
        self.msrs = LapicMsrs(
            lapic, x2apic=bool(offered & LAPIC_X2APIC), tsc_deadline=bool(offered & LAPIC_TSC_DEADLINE)
        )

    def prepare(self) -> bool:
        """Before an entry: bring the vCPU what waits for it; False if it has nothing to run for."""
        vcpu, lapic = self.cpu.vcpu, self.lapic
        self.stale = False
        after_nmi = lapic.signals.pending and self._take_signals()
        if self.activity is WAIT_FOR_SIPI:
            return False
        if lapic.settle is not None:
            lapic.settle()
        if self.stepping:
            self._keep_interrupt()
        elif self._window_wanted or lapic.has_interrupt():
            self._offer_interrupt(after_nmi)
        priority = lapic.vectors.tpr >> 4
        if priority != self._task_priority:
            vcpu.task_priority = self._task_priority = priority
        if self._unhalted and self.activity is HALTED:
            self._unhalted = False
            self.activity = ACTIVE
        if self.activity is not ACTIVE:
            return False
        if self.hooks is not None:
            self.hooks.before_entry()
        return True

    def _offer_interrupt(self, after_nmi: bool) -> None:
        """Inject what the local APIC has, unless an NMI goes first (SDM 3A table 6-2), or have the vCPU say when it may come."""
        vcpu, lapic = self.cpu.vcpu, self.lapic
        # Of one that has halted the engine may not know, when the host has written its registers since.
        ready = self.interruptible if self.activity is HALTED else vcpu.ready_for_interrupt()
        vector = lapic.take() if ready and not after_nmi else -1
        if vector >= 0:
            vcpu.inject_interrupt(vector)
            self.activity = ACTIVE
            if self.hooks is not None:
                self.hooks.taken(vector)
        waiting = lapic.has_interrupt()
        if waiting or self._window_wanted:
            vcpu.request_interrupt_window(waiting)
            self._window_wanted = waiting

    def _keep_interrupt(self) -> None:
        """What else would be taken now ends a halt, and waits."""
        lapic = self.lapic
        if self.activity is HALTED and (
            (lapic.signals.nmi and not self.cpu.vcpu.nmis_blocked) or (self.interruptible and lapic.has_interrupt())
        ):
            self.activity = ACTIVE
        if self._window_wanted:
            self.cpu.vcpu.request_interrupt_window(False)
            self._window_wanted = False

    def _take_signals(self) -> bool:
        """INIT, start-up IPIs, SMIs and NMIs; whether there was an NMI."""
        signals = self.lapic.signals
        if self.lapic.accept_init():
            self._start(Segment(RESET_SELECTOR, RESET_BASE, type=11), RESET_RIP)
            self.activity = WAIT_FOR_SIPI if self.cpu.index else ACTIVE
            self._initialized = True
        vector = signals.take_sipi()
        if self.activity is WAIT_FOR_SIPI:
            if vector < 0 or not self._initialized:
                return False
            self._sipi_vector = vector
            self._start(Segment(vector << 8, vector << 12, type=11), 0)
            self.activity = ACTIVE
        if self.stepping:
            return False
        signals.take_smi()  # there is no system-management mode that it could lead to
        nmi = signals.nmi
        if nmi and self.activity is HALTED:
            if self.cpu.vcpu.nmis_blocked:
                nmi = False  # it waits for the IRET of the one that is served, and wakes nobody
            else:
                self.activity = ACTIVE
        while signals.take_nmi():
            self.cpu.vcpu.inject_nmi()
            self.lapic.nmi_taken()
        return nmi

    def start_at_once(self) -> None:
        """Do not wait for a start-up IPI."""
        self.activity = ACTIVE
        self._initialized = True

    def _start(self, cs: Segment, rip: int) -> None:
        special = SpecialRegisters(cs=cs, apic_base=self.lapic.base)
        self.cpu.vcpu.set_state(CpuState(Registers(rip=rip), special), "real")
        self._task_priority = UNKNOWN

    def _guest_wrote_task_priority(self, value: int) -> None:
        self.cpu.vcpu.kick()  # the next entry sets what it reads in CR8
        self.cpu.vcpu.wrote_task_priority()  # which is past
        self.stale = True

    def came_back(self, reason: ExitReason) -> None:
        """After a run: what the guest did to its local APIC where the engine sees it, and whether it halted."""
        if reason is HLT:
            self.halt()
        elif reason is IRQ_WINDOW_OPEN:
            self.stale = True
        self._follow()

    def _follow(self) -> None:
        """Take over what the guest did to its local APIC where the engine sees it: IA32_APIC_BASE and CR8."""
        vcpu, lapic = self.cpu.vcpu, self.lapic
        if vcpu.apic_base != lapic.base:
            self._set_base(vcpu.apic_base)
        # With the same class in both, the APIC's own register is the newer one; but CR8 has no low bits (SDM 3A 11.8.6).
        if vcpu.task_priority != self._task_priority or (lapic.vectors.tpr & 0xF and vcpu.wrote_task_priority()):
            lapic.cr8 = self._task_priority = vcpu.task_priority
            self.stale = True

    def _set_base(self, value: int) -> None:
        """IA32_APIC_BASE as it is now: the guest may have written it several times, as for the way back from x2APIC mode."""
        if not self.msrs.write_msr(Msr.IA32_APIC_BASE, value):
            off = value & ~(BASE_ENABLED | BASE_X2APIC)
            for step in (off, off | BASE_ENABLED, value):
                self.msrs.write_msr(Msr.IA32_APIC_BASE, step)

    def halt(self) -> None:
        """It has halted."""
        self.activity = HALTED
        self.interruptible = self.cpu.vcpu.ready_for_interrupt()
        self.stale |= self._unhalted or self._window_wanted
        if self.lapic.settle is not None:
            self.lapic.settle()

    def begin(self, *, again: bool) -> None:
        """A run begins; `again`: a halted vCPU goes on behind its HLT. The host may have changed its state meanwhile."""
        self.stale = True
        self.stepping = False
        if self._task_priority != UNKNOWN:
            self._follow()
        self._task_priority = UNKNOWN
        if self.activity is HALTED:
            self.interruptible = bool(self.cpu.vcpu.get_registers().rflags & Rflags.IF)
        if again:
            self.leave_halt()

    def unhalt(self) -> None:
        """Another vCPU wakes this one: go on behind the HLT, or do not halt at the next."""
        self._unhalted = self.stale = True

    def leave_halt(self) -> None:
        """Go on behind the HLT."""
        if self.activity is HALTED:
            self.activity = ACTIVE
        self.stale = True

    def retire(self) -> None:
        """The vCPU is removed: nothing will ever come for it."""
        self.hooks = None
        self.lapic.reset()
        signals = self.lapic.signals
        signals.restore(CpuSignals(lambda: None).state())
        self.activity = WAIT_FOR_SIPI
        self._initialized = False
        self.stale = False
        self._task_priority = UNKNOWN  # there is nobody to follow

    def raise_cmci(self) -> None:
        """A corrected machine check (SDM 3A 11.5.1)."""
        with self.guard:
            self.lapic.local.raise_local(Reg.LVT_CMCI)

    @property
    def mp_state(self) -> MpState:
        """What the vCPU waits for, as KVM's local APICs tell it (api.rst 4.38)."""
        from belljar.x86.mp_state import MpState  # few ask

        if self.activity is not WAIT_FOR_SIPI:
            return MpState.RUNNABLE if self.activity is ACTIVE else MpState.HALTED
        if not self._initialized:
            return MpState.UNINITIALIZED
        return MpState.INIT_RECEIVED if self.lapic.signals.sipi < 0 else MpState.SIPI_RECEIVED

    @mp_state.setter
    def mp_state(self, value: MpState) -> None:
        """SIPI_RECEIVED is that of the last start-up IPI, or of vector 0."""
        name = value.name
        self.lapic.signals.take_sipi()
        self._initialized = name != "UNINITIALIZED"
        self.interruptible = bool(self.cpu.vcpu.get_registers().rflags & Rflags.IF)
        self.activity = {"RUNNABLE": ACTIVE, "HALTED": HALTED}.get(name, WAIT_FOR_SIPI)
        self.stale = True
        if name == "SIPI_RECEIVED":
            signals = self.lapic.signals  # nobody is woken: the machine stands still
            signals.sipi, signals.pending = self._sipi_vector, True

    @property
    def wants_to_run(self) -> bool:
        """Whether there is something to run for, or something has come for it."""
        if self.activity is ACTIVE or self.lapic.signals.pending:
            return True
        if self.activity is not HALTED:
            return False
        return self._unhalted or (self.interruptible and self.lapic.has_interrupt())

    def asleep(self) -> bool:
        """Whether only another vCPU, a chip's NMI or the host could wake it."""
        if self.lapic.signals.pending or self.activity is ACTIVE:
            return False
        return self.activity is WAIT_FOR_SIPI or not (self.interruptible or self._unhalted)

    def may_get_nmi(self) -> bool:
        """Whether its LINT0 makes NMIs of what comes there (the 8254's ticks, for one)."""
        entry = self.lapic.lvt[Reg.LVT_LINT0]
        return not entry & LVT_MASKED and entry >> MODE_SHIFT & MODE_MASK in MAYBE_NMI

    def answer(self, exit: ReadMsr | WriteMsr) -> int | None:
        """RDMSR or WRMSR of one of the local APIC's registers."""
        if isinstance(exit, ReadMsr):
            return self.msrs.read_msr(exit.msr)
        self.stale = True  # its task priority may be another
        return 0 if self.msrs.write_msr(exit.msr, exit.value) else None

    def covers(self, msr: int) -> bool:
        """Whether an MSR is the local APIC's."""
        return self.msrs.covers(msr)
