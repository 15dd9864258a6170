"""The part of a KVM vCPU that is about events and time: halts, interrupts, NMIs, exceptions, machine checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from errno import EEXIST
from operator import attrgetter
from typing import TYPE_CHECKING

from belljar.engine_data import LAPIC_TSC_DEADLINE, LAPIC_X2APIC
from belljar.errors import CapabilityMissing, EngineError, FeatureUnsupported, KvmCallFailed
from belljar.kvm.abi import ioctls
from belljar.kvm.abi.flags import (
    KVM_MP_STATE_HALTED,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_UNINITIALIZED,
)
from belljar.kvm.cpu_model import LEAF_FEATURES
from belljar.x86.flags import Rflags

if TYPE_CHECKING:
    from belljar.engine import MsrDevice
    from belljar.kvm._loop import RunLoop
    from belljar.kvm.cpu_model import CpuModel
    from belljar.kvm.engine import KvmVm
    from belljar.kvm.guest_tsc import KvmTsc
    from belljar.kvm.vcpu import Vcpu
    from belljar.platform import TimeStampCounter
    from belljar.x86.machine_check import Consequence
    from belljar.x86.mp_state import MpState
    from belljar.x86.state import Registers

NO_COUNTING = "KVM cannot count a guest's instructions"
USE_SOFT = "`--engine soft` can"


class KvmVcpuEvents(ABC):
    """What `KvmVcpu` has of it."""

    index: int
    raw: Vcpu
    _vm: KvmVm
    _loop: RunLoop
    _model: CpuModel
    _tsc: KvmTsc | None

    @abstractmethod
    def _settle(self) -> None:
        """Before state is looked at."""

    @abstractmethod
    def _finish(self) -> None:
        """Before state is changed."""

    @abstractmethod
    def get_registers(self) -> Registers:
        """The general registers, RIP and RFLAGS."""

    # -- sleeping --------------------------------------------------------------------------------------------------

    @property
    def sleeps(self) -> bool:
        """Whether HLT waits in the kernel (`belljar.engine.Vcpu.sleeps`)."""
        return self._loop.sleeps

    def asleep(self) -> bool:
        """Whether nothing but another vCPU or the host will ever wake this one."""
        self._loop.asleep = self._sleeps_for_good()
        return self._loop.asleep

    def _sleeps_for_good(self) -> bool:
        chips = self._vm.chips
        if chips is None or self._loop.busy:
            return False
        state = self.raw.get_mp_state()  # takes INIT and SIPI that have come
        if state in (KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED):
            return True
        if state != KVM_MP_STATE_HALTED or self.get_registers().rflags & Rflags.IF:
            return False
        events = self.raw.get_events()
        if events.nmi.injected or (events.nmi.pending and not events.nmi.masked):
            return False
        if events.smi.pending or events.smi.latched_init:
            return False
        return not chips.may_send_nmi(self.raw)

    def leave_halt(self) -> None:
        """Have a halted vCPU go on behind its HLT with the next `run`."""
        if self._loop.sleeps and self.raw.get_mp_state() == KVM_MP_STATE_HALTED:
            self.raw.set_mp_state(KVM_MP_STATE_RUNNABLE)
            self._loop.asleep = False

    @property
    def mp_state(self) -> MpState:
        """KVM_GET_MP_STATE (api.rst 4.38)."""
        from belljar.x86.mp_state import MpState  # few ask

        self._settle()
        return MpState(self.raw.get_mp_state())

    @mp_state.setter
    def mp_state(self, value: MpState) -> None:
        """KVM_SET_MP_STATE (api.rst 4.39)."""
        self._finish()
        try:
            self.raw.set_mp_state(value)
        except (CapabilityMissing, KvmCallFailed) as error:
            raise FeatureUnsupported(f"KVM does not take this state for vCPU {self.index}: {error}") from None
        self._loop.asleep = False

    # -- interrupts from the machine's own chips -------------------------------------------------------------------

    def inject_interrupt(self, vector: int) -> bool:
        """KVM_INTERRUPT (api.rst 4.16); False if the kernel's local APIC has not taken the last one yet."""
        if self._loop.busy or self._loop.pending:
            self._settle()
        refused = self._loop.interrupt(vector)
        if refused and refused != EEXIST:
            error = self.raw.failure(ioctls.KVM_INTERRUPT, refused)
            raise EngineError(f"KVM does not take interrupt {vector:#x}: {error}")
        return not refused

    # These are asked for around every interrupt, most often after a sleep, with cold caches, when a call of a Python
    # function costs a microsecond: the compiled loop answers by itself.

    ready_for_interrupt: Callable[[], bool]
    """Whether the guest, as the last `run` left it, takes an interrupt."""

    request_interrupt_window: Callable[[bool], None]
    """Whether `run` is to return IRQ_WINDOW_OPEN as soon as the guest is ready for an interrupt."""

    def _set_task_priority(self, value: int) -> None:
        self._loop.task_priority = value

    task_priority = property(attrgetter("_loop.task_priority"), _set_task_priority)
    """CR8, which lies in the run page (api.rst section 5): what the guest reads there from the next entry on."""

    def wrote_task_priority(self) -> bool:
        """Never: KVM_EXIT_SET_TPR comes for a lower CR8 only (`handle_set_cr8`, arch/x86/kvm), the run page has the value."""
        return False

    apic_base = property(attrgetter("_loop.apic_base"))
    """IA32_APIC_BASE as the guest last left it."""

    def inject_nmi(self) -> None:
        """KVM_NMI (api.rst 4.64); with the kernel's chips a message to the vCPU's local APIC, which nothing masks.

        KVM_NMI would wait for KVM_RUN to return, and a pulse at LINT1 is what it makes then.
        """
        if self._vm.chips is not None:
            self._vm.chips.send_nmi(self.index)
            return
        self._settle()
        try:
            self.raw.nmi()
        except (CapabilityMissing, KvmCallFailed) as error:
            raise FeatureUnsupported(f"this host's KVM has no NMIs: {error}") from None

    @property
    def nmis_blocked(self) -> bool:
        """KVM_GET_VCPU_EVENTS (api.rst 4.31)."""
        self._settle()
        return bool(self.raw.get_events().nmi.masked)

    @property
    def tsc(self) -> TimeStampCounter:
        """Where chips outside the kernel have a use for it (`KvmVm.tells_deadlines`); else FeatureUnsupported."""
        if self._tsc is None:
            raise FeatureUnsupported("time-stamp counters are the kernel's on this KVM", hint=USE_SOFT)
        return self._tsc

    @property
    def lapic_features(self) -> int:
        """Where the kernel has no chips; deadlines where it tells of the counter that they are on."""
        offered = self._model.leaf(LEAF_FEATURES)[2] & LAPIC_X2APIC
        deadlines = self._tsc is not None and not self._model.no_deadlines
        return offered | (LAPIC_TSC_DEADLINE if deadlines else 0)

    @property
    def clock_ns(self) -> int:
        """Raises FeatureUnsupported: a guest's time-stamp counter follows the host's."""
        raise FeatureUnsupported(NO_COUNTING, hint=USE_SOFT)

    @clock_ns.setter
    def clock_ns(self, value: int) -> None:
        """Raises FeatureUnsupported."""
        raise FeatureUnsupported(NO_COUNTING, hint=USE_SOFT)

    def serve_msrs(self, device: MsrDevice) -> None:
        """Raises FeatureUnsupported: they all end the run."""
        raise FeatureUnsupported("KVM hands an MSR access over by the end of a run only", hint="Vcpu.answer")

    def follow_host_clock(self, offset_ns: int | None) -> None:
        """Raises FeatureUnsupported: it always does."""
        raise FeatureUnsupported(NO_COUNTING, hint=USE_SOFT)

    def inject_exception(self, vector: int, error_code: int | None = None, payload: int | None = None) -> None:
        """KVM_SET_VCPU_EVENTS (`belljar.engine.Vcpu.inject_exception`)."""
        from belljar.kvm.injection import inject_exception  # few guests are given any

        self._finish()
        inject_exception(self.raw, vector, error_code, payload)

    def inject_machine_check(
        self, bank: int, status: int, mcg_status: int = 0, address: int = 0, misc: int = 0
    ) -> Consequence:
        """KVM_X86_SET_MCE (api.rst 4.106; `belljar.engine.Vcpu.inject_machine_check`)."""
        from belljar.kvm.machine_checks import inject_machine_check  # as above

        self._finish()
        if not self._vm.engine.mcg_cap:
            raise FeatureUnsupported("this host's KVM has no machine checks", hint="`--engine soft` has them")
        return inject_machine_check(self.raw, bank, status, mcg_status, address, misc)
