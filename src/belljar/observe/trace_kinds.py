"""A trace of chosen kinds of events, in the order in which they happen, on whatever engine."""

from __future__ import annotations

from collections.abc import Callable

from belljar.errors import FeatureUnsupported
from belljar.exits import Exit
from belljar.machine import Cpu, Machine
from belljar.machine.own_interrupts import OwnInterrupts
from belljar.observe.instruction_trace import trace_cpu
from belljar.observe.trace import cpu_of
from belljar.observe.trace_accesses import IO, MMIO, TracedVcpu
from belljar.observe.trace_exits import CPUID, EXIT, MSR, ExitTrace
from belljar.observe.trace_interrupts import InterruptTrace
from belljar.observe.trace_lines import TraceLines
from belljar.observe.trace_timers import TimerTrace

IRQ, TIMER, INSN = "irq", "timer", "insn"

KINDS = (IRQ, TIMER, IO, MMIO, MSR, CPUID, EXIT, INSN)
"""What a trace can be of, as `--trace` spells it."""

NO_CHIPS = "this machine has no interrupt chips"
KERNELS_CHIPS = "the chips are the kernel's"


class KindTrace:
    """Traces from when it is made on. Hand `observe` to `Machine.run`, and call `finish` behind it.

    `kinds` are some of `KINDS`. `notes` says of each kind that this machine can show in part or not at all what is missing;
    FeatureUnsupported if it can show none of them.
    """

    def __init__(self, machine: Machine, kinds: frozenset[str], write: Callable[[str], object]) -> None:
        self.notes: list[str] = []
        self._shown = 0
        self._machine = machine
        self._kinds = kinds
        self._lines = lines = TraceLines(machine, write)
        self._exits = ExitTrace(machine, kinds, lines)
        self._attached: set[int] = set()
        for cpu in machine.cpus:
            self._exits.attach(cpu)
        if IRQ in kinds:
            self._trace_interrupts(lines)
        if TIMER in kinds:
            self._trace_timers(lines)
        if kinds & {CPUID, MSR}:
            self._look_into_the_engine(kinds)
        self._shown += len(kinds & {IO, MMIO, EXIT, INSN})
        if not self._shown:
            raise FeatureUnsupported(f"nothing to trace: {'; '.join(self.notes)}", hint=self._hint())
        for cpu in machine.cpus:
            self._follow(cpu)

    def _follow(self, cpu: Cpu) -> None:
        self._attached.add(cpu.index)
        if self._kinds & {IO, MMIO, MSR}:
            cpu.vcpu = TracedVcpu(self._machine, cpu, self._kinds, self._lines, self._exits)
        if INSN in self._kinds:
            trace_cpu(self._machine, cpu, lambda index, text: self._lines(index, INSN, text))

    def _hint(self) -> str:
        if self._machine.interrupts is None:
            return "--irqchip gives it some"
        return "--engine soft shows everything" if self._machine.engine.name != "soft" else ""

    def _trace_interrupts(self, lines: TraceLines) -> None:
        interrupts = self._machine.interrupts
        if interrupts is None:
            self.notes.append(f"irq: {NO_CHIPS}")
            return
        self._shown += 1
        watch = InterruptTrace(lines)
        if not isinstance(interrupts, OwnInterrupts):
            interrupts.watch = watch
            self.notes.append(
                f"irq: {KERNELS_CHIPS}; only what belljar's devices raise is seen, not what becomes of it"
            )
            return
        interrupts.chips.counts.watch = watch
        if not interrupts.chips.lapics:
            self.notes.append(
                "irq: the local APICs are the kernel's; what they deliver and when it is ended is not seen"
            )

    def _trace_timers(self, lines: TraceLines) -> None:
        interrupts = self._machine.interrupts
        if isinstance(interrupts, OwnInterrupts):
            self._shown += 1
            TimerTrace(interrupts.clock, interrupts.chips.lapics, lines)
            if not interrupts.chips.lapics:
                self.notes.append("timer: the local APICs are the kernel's, and their timers are not seen")
        elif interrupts is None:
            self.notes.append(f"timer: {NO_CHIPS}, and so no timers")
        else:
            self.notes.append(
                f"timer: {KERNELS_CHIPS}, and so are the 8254 and the local APICs' timers; they are not seen"
            )
            if self._machine.timers is not None:
                self._shown += 1
                TimerTrace(self._machine.timers, {}, lines)

    def _look_into_the_engine(self, kinds: frozenset[str]) -> None:
        name = self._machine.engine.name
        if self._exits.from_within:
            self._shown += len(kinds & {CPUID, MSR})
            return
        if CPUID in kinds:
            self.notes.append(f"cpuid: {name} answers it without telling anybody, and has no exit for it")
        if MSR not in kinds:
            return
        try:
            assert self._machine.vm is not None
            unseen = self._machine.vm.watch_msrs(self._exits)
        except FeatureUnsupported as error:
            self.notes.append(f"msr: {error.message}")
            return
        self._shown += 1
        if unseen:
            self.notes.append(f"msr: {unseen}")

    def observe(self, exit: Exit) -> None:
        """An observer for `Machine.run`. A vCPU that was added meanwhile is followed from its first exit on."""
        if exit.vcpu not in self._attached:
            cpu = cpu_of(self._machine, exit)
            self._exits.attach(cpu)
            self._follow(cpu)
        self._exits.observe(exit)

    def finish(self) -> None:
        """Behind a run: tell what is still to be told."""
        self._exits.settle()
