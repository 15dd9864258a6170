"""One vCPU whose local APIC is the engine's, beside chips that are the machine's: what they have for it before each entry."""

from __future__ import annotations

from belljar.devices.interrupt_chips import InterruptChips
from belljar.engine import Bus, Vm
from belljar.exits import ExitReason, IoapicEoi, ReadMsr, WriteMsr
from belljar.machine.cpu import Cpu
from belljar.machine.seat import ACTIVE


class SplitSeat:
    """As `Seat`, where the engine keeps INIT, start-up IPIs, NMIs and halted vCPUs to itself."""

    wants_to_run = True
    interruptible = True

    activity = ACTIVE
    """As far as anybody here can tell."""

    def __init__(self, cpu: Cpu, chips: InterruptChips, bus: Bus, vm: Vm) -> None:
        self.cpu = cpu
        self.bus = bus
        self._chips = chips
        self._vm = vm
        self.lint0_rose = False
        """The 8259's output went up: the local APIC may make something else of it than to ask for a vector."""
        self.stale = True
        """Set by who wakes it, for nobody: it looks before each entry."""
        self.stepping = False
        """It is being stepped: interrupts are not taken before the next run begins."""
        self._acknowledged: int | None = None  # by the 8259, and not taken by the engine yet

    def prepare(self) -> bool:
        """The 8259's interrupts go to vCPU 0, when its LINT0 lets them through, which the engine knows."""
        if self.lint0_rose:
            self.lint0_rose = False
            self._vm.raise_lint0(self.cpu.index)
        if self.stepping:
            self.cpu.vcpu.request_interrupt_window(False)
        elif self.cpu.index == 0:
            vcpu, pic = self.cpu.vcpu, self._chips.pic
            if vcpu.ready_for_interrupt():
                if self._acknowledged is None and pic.output_level:
                    self._acknowledged = pic.acknowledge()
                if self._acknowledged is not None and vcpu.inject_interrupt(self._acknowledged):
                    self._acknowledged = None
            vcpu.request_interrupt_window(pic.output_level or self._acknowledged is not None)
        return True

    def came_back(self, reason: ExitReason) -> None:
        """The end of a level-triggered interrupt is the IOAPIC's to know."""
        if reason is ExitReason.IOAPIC_EOI:
            exit = self.cpu.vcpu.last_exit()
            if isinstance(exit, IoapicEoi):
                self._chips.ioapic.end_of_interrupt(exit.vector)

    def begin(self, *, again: bool) -> None:
        """The engine has a halted vCPU go on."""
        self.stepping = False

    def start_at_once(self) -> None:
        """The engine's local APICs wait in any case."""

    def asleep(self) -> bool:
        """The engine knows."""
        return False

    def may_get_nmi(self) -> bool:
        """The engine knows."""
        return False

    def covers(self, msr: int) -> bool:
        """All MSRs are the engine's."""
        return False

    def answer(self, exit: ReadMsr | WriteMsr) -> int | None:
        """No MSR is."""
        return None
