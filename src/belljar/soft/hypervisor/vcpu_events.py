"""The part of a vCPU that is about events: interrupts, NMIs, exceptions, machine checks, and what it waits for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from belljar.errors import FeatureUnsupported
from belljar.exits import Exit, ExitReason
from belljar.soft.hypervisor.controls import Primary
from belljar.soft.hypervisor.events import BLOCKED_NMI, GUEST_INTERRUPTIBILITY, inject_exception, most_nmis
from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field

if TYPE_CHECKING:
    from belljar.soft.hypervisor.machine_checks import MachineChecks
    from belljar.x86.machine_check import Consequence
    from belljar.x86.mp_state import MpState

PRIMARY_CONTROLS: Final = int(Field.PRIMARY_CONTROLS)
ENTRY_INTERRUPTION_INFO: Final = int(Field.ENTRY_INTERRUPTION_INFO)
INTERRUPT_WINDOW: Final = int(Primary.INTERRUPT_WINDOW)
NMI_WINDOW: Final = int(Primary.NMI_WINDOW)
"""By plain numbers, which are looked up faster."""

CPUID_MCA: Final = 1 << 14
"""Leaf 1, EDX (SDM 2A CPUID)."""


class VcpuEvents(ABC):
    """What `SoftVcpu` has of it."""

    index: int
    processor: Processor
    nmis: int
    """How many wait for their window."""
    put_off: int | None
    """The vector of an interrupt that an exception of the host's came before."""
    gives_turn: int
    cr8_written: bool
    _machine_checks: MachineChecks | None
    _waiting: ExitReason | None

    @abstractmethod
    def _open(self) -> Processor:
        """The processor, unless the vCPU is closed."""

    @abstractmethod
    def _refuse_waiting(self) -> None:
        """Nobody answers what the last run returned with."""

    @abstractmethod
    def end_next(self, exit: Exit) -> None:
        """The next run ends at once, with `exit`."""

    # -- what it waits for -----------------------------------------------------------------------------------------

    @property
    def sleeps(self) -> bool:
        """Never: HLT is an exit."""
        return False

    def asleep(self) -> bool:
        """Never: HLT is an exit."""
        return False

    def leave_halt(self) -> None:  # noqa: B027  (nothing, and so for all)
        """Nothing to do: RIP is behind the HLT."""

    @property
    def mp_state(self) -> MpState:
        """RUNNABLE: the local APICs, which know of INIT and HLT, are the machine's."""
        from belljar.x86.mp_state import MpState  # few ask

        self._open()
        return MpState.RUNNABLE

    @mp_state.setter
    def mp_state(self, value: MpState) -> None:
        """Raises FeatureUnsupported for any but RUNNABLE."""
        if value is not self.mp_state:
            raise FeatureUnsupported(
                "the soft engine has no local APICs of its own", hint="Cpu.mp_state, --irqchip user"
            )

    def inject_interrupt(self, vector: int) -> bool:
        """An external interrupt with the next VM entry; False if that delivers something already (SDM 3C 25.8.3)."""
        return self.put_off is None and self.processor.inject_interrupt(vector)

    def ready_for_interrupt(self) -> bool:
        """Whether RFLAGS.IF is set, and neither a shadow nor another event is in the way."""
        return self.processor.interruptible and self._waiting is None

    def request_interrupt_window(self, wanted: bool) -> None:
        """Interrupt-window exiting (SDM 3C table 25-6)."""
        self.want(INTERRUPT_WINDOW, wanted or self.put_off is not None)

    def gave_turn(self) -> int:
        """Whether the last run ended in a loop that waits for another vCPU, and since when; said once."""
        gave, self.gives_turn = self.gives_turn, 0
        return gave

    def wait_out(self, wanted: bool) -> None:
        """Whether to go round in such loops until the turn is used up."""
        self.processor.wait_out(wanted)

    def want(self, control: int, wanted: bool) -> None:
        """Switch a primary processor-based control."""
        before = self.processor.vmread(PRIMARY_CONTROLS)
        after = before | control if wanted else before & ~control
        if after != before:
            self.processor.vmwrite(PRIMARY_CONTROLS, after)

    @property
    def task_priority(self) -> int:
        """CR8."""
        return self.processor.cr8

    @task_priority.setter
    def task_priority(self, value: int) -> None:
        """As MOV to CR8, which no guest executes: nobody is told."""
        self.processor.cr8 = value

    def wrote_task_priority(self) -> bool:
        """Whether the guest has written CR8, be it with what was there; said once."""
        wrote, self.cr8_written = self.cr8_written, False
        return wrote

    @property
    def apic_base(self) -> int:
        """IA32_APIC_BASE."""
        return self.processor.apic_base

    def inject_nmi(self) -> None:
        """An NMI as soon as none blocks it; one may wait behind another that is served, or about to be (SDM 3A 6.7.1)."""
        if self.nmis < most_nmis(self._open()):
            self.nmis += 1
        self.want(NMI_WINDOW, True)

    @property
    def nmis_blocked(self) -> bool:
        """Whether an NMI is being served (SDM 3C table 25-3)."""
        return bool(self.processor.vmread(GUEST_INTERRUPTIBILITY) & BLOCKED_NMI)

    def inject_exception(self, vector: int, error_code: int | None = None, payload: int | None = None) -> None:
        """An exception at the next VM entry, with its payload (`belljar.engine.Vcpu.inject_exception`)."""
        self._open()
        self._refuse_waiting()
        inject_exception(self, vector, error_code, payload)

    # -- machine checks ----------------------------------------------------------------------------------------------

    @property
    def has_machine_checks(self) -> bool:
        """Whether the feature MCA is not switched off."""
        return bool(self.processor.cpuid(1, 0)[3] & CPUID_MCA)

    @property
    def machine_checks(self) -> MachineChecks:
        """The banks, made when somebody first looks at them."""
        if self._machine_checks is None:
            from belljar.soft.hypervisor.machine_checks import MachineChecks  # few ever do

            self._machine_checks = MachineChecks()
        return self._machine_checks

    def inject_machine_check(
        self, bank: int, status: int, mcg_status: int = 0, address: int = 0, misc: int = 0
    ) -> Consequence:
        """An error of the host's making (`belljar.engine.Vcpu.inject_machine_check`)."""
        from belljar.soft.hypervisor.machine_checks import inject_machine_check  # as above

        self._open()
        if not self.has_machine_checks:
            raise FeatureUnsupported("this machine's processors have no machine checks", hint="leave out --without mca")
        self._refuse_waiting()
        return inject_machine_check(self, bank, status, mcg_status, address, misc)
