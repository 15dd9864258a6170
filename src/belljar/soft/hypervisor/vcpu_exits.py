"""The part of a vCPU that is about its exits: what they mean for the run, who is told of them, what they are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from belljar.errors import ConfigurationError, EngineError
from belljar.exits import Exit, ExitReason, Hlt, InternalError, WriteMsr
from belljar.soft.hypervisor.answers import finish
from belljar.soft.hypervisor.exit_log import ExitLog
from belljar.soft.hypervisor.mmu.mmu import Mmu
from belljar.soft.hypervisor.vcpu_state import VcpuState
from belljar.x86.msr import Msr

HLT: Final = int(ExitReason.HLT)
HLT_EXIT: Final = ExitReason.HLT
"""Names of this module's own: an enum's member is dear to look up once an exit."""

KVM_INTERNAL_ERROR_EMULATION: Final = 1
KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: Final = 4
"""api.rst 5, KVM_EXIT_INTERNAL_ERROR."""

INSTRUCTION_BYTES: Final = 15


class VcpuExits(VcpuState):
    """What `SoftVcpu` has of it. `reporting`: somebody wants to see every exit of this run."""

    def __init__(self, index: int, mmu: Mmu, msr_bitmap_hpa: int) -> None:
        super().__init__(index, mmu, msr_bitmap_hpa)
        self.log = ExitLog(index)
        self.reporting = False
        self.halted = Hlt(index)
        """What ends most runs, made once: exits never change."""
        self._observer: Callable[[Exit], None] | None = None
        self._single_exit = False
        self._backlog: list[Exit] = []
        self._port_accesses = 0

    def report(self) -> ExitReason | None:
        """After an exit was served, if `reporting`: tell the observer; the reason if the run ends with it."""
        exit = self.log.last()
        if self._observer is not None:
            self._observer(exit)
        return exit.reason if self._single_exit else None

    def report_access(self) -> None:
        """The same in the middle of an instruction, which is finished first."""
        exit = self.log.last()
        if self._single_exit:
            self._backlog.append(exit)
        if self._observer is not None:
            self._observer(exit)

    def _next_of_backlog(self) -> ExitReason:
        exit = self._backlog.pop(0)
        self.log.show(exit)
        return exit.reason

    def end(self, exit: Exit) -> ExitReason:
        """The run ends with `exit`."""
        self.log.end(exit)
        if self._observer is not None:
            self._observer(exit)
        return exit.reason

    def end_halted(self) -> ExitReason:
        """The run ends with a HLT, as most do."""
        halted = self.halted
        self.log.ended(HLT, halted)
        if self._observer is not None:
            self._observer(halted)
        return HLT_EXIT

    def wait_for_answer(self, exit: Exit) -> ExitReason:
        """The run ends in the middle of an instruction, which `answer` finishes."""
        self.log.end(exit)
        self._waiting = exit.reason
        return exit.reason

    def answer(self, value: int | None) -> None:
        """Finish the RDMSR, WRMSR or VMCALL that the last `run` returned with (`belljar.engine.Vcpu.answer`)."""
        processor = self._open()
        if self._waiting is None:
            raise EngineError(f"vCPU {self.index} waits for no answer")
        if value is not None and not -(1 << 63) <= value < 1 << 64:
            raise ConfigurationError(f"the answer {value:#x} does not fit 64 bits")
        reason, self._waiting = self._waiting, None
        written = self.log.last()
        if value is not None and isinstance(written, WriteMsr) and written.msr == Msr.IA32_APIC_BASE:
            processor.apic_base = written.value
        finish(processor, reason, value)

    def end_next(self, exit: Exit) -> None:
        """The next run ends at once, with `exit`."""
        self.log.counts[exit.reason] += 1
        self._backlog.append(exit)

    def _refuse_waiting(self) -> None:
        if self._waiting is not None:
            self.answer(None)

    def cannot_emulate(self) -> ExitReason:
        """An instruction that cannot be fetched from memory, or whose event cannot be delivered: as KVM gives up on it."""
        code = b""
        found = self.translate(self.pc_gva())
        if found.valid:
            code = self.mmu.read(found.gpa, min(INSTRUCTION_BYTES, 4096 - found.gpa % 4096))
        return self.end(InternalError(self.index, KVM_INTERNAL_ERROR_EMULATION, (), code))

    def _unexpected(self, reason: int) -> ExitReason:
        return self.end(InternalError(self.index, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, (reason,)))

    def last_exit(self) -> Exit:
        """The exit that ended the last `run`, whole."""
        return self.log.last()

    def last_exit_name(self) -> str:
        """None of its own: `watch_exits` tells of VM exits by the SDM's names."""
        return ""

    def interrupt_statistics(self) -> dict[str, int]:
        """Nothing: the machine's chips have brought every interrupt, and counted it."""
        return {}

    def exit_counts(self) -> dict[ExitReason, int]:
        """How often this vCPU came back, by reason, since it was made; zero counts left out."""
        return self.log.by_reason(self._port_accesses if self._closed else self.processor.port_accesses)

    def close(self) -> None:
        """Give everything back. Harmless when repeated."""
        if not self._closed:
            self._port_accesses = self.processor.port_accesses
            super().close()
