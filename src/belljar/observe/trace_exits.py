"""VM exits, CPUID and MSR accesses in a trace."""

from __future__ import annotations

from collections.abc import Sequence

from belljar.exits import Exit, ExitReason
from belljar.machine import Cpu, Machine
from belljar.observe.trace import cpu_of, describe
from belljar.observe.trace_lines import TraceLines
from belljar.x86.msr import Msr

EXIT, CPUID, MSR = "exit", "cpuid", "msr"

_NAMES = {int(msr): msr.name for msr in Msr}


class ExitTrace:
    """Satisfies `belljar.watching.ExitWatch`, and is an observer of exits where an engine has no use for such a watch.

    `from_within`: the engine tells of every VM exit itself.
    """

    def __init__(self, machine: Machine, kinds: frozenset[str], lines: TraceLines) -> None:
        self._machine = machine
        self._kinds = kinds
        self._lines = lines
        self.from_within = False

    def attach(self, cpu: Cpu) -> None:
        """Have a vCPU tell of what it does, if it can."""
        if self._kinds & {EXIT, CPUID, MSR}:
            self.from_within = cpu.vcpu.watch_exits(self, msrs=MSR in self._kinds)

    def vm_exit(self, vcpu: int, rip: int, name: str, details: str) -> None:
        """A VM exit of the processor's."""
        if EXIT in self._kinds:
            self._lines(vcpu, EXIT, f"{name} rip={rip:#x}" + (f" {details}" if details else ""))

    def cpuid(self, vcpu: int, leaf: int, subleaf: int, answer: Sequence[int]) -> None:
        """CPUID and its answer."""
        if CPUID in self._kinds:
            eax, ebx, ecx, edx = answer
            text = f"leaf={leaf:#x} subleaf={subleaf:#x} eax={eax:#x} ebx={ebx:#x} ecx={ecx:#x} edx={edx:#x}"
            self._lines(vcpu, CPUID, text)

    def msr(self, vcpu: int, msr: int, write: bool, value: int, done: bool) -> None:
        """An MSR access and what came of it."""
        if MSR not in self._kinds:
            return
        name = f"{'write' if write else 'read'} {_NAMES.get(msr, 'unknown')} ({msr:#x})"
        if done:
            self._lines(vcpu, MSR, f"{name} value={value:#x}")
        else:
            self._lines(vcpu, MSR, f"{name}{f' value={value:#x}' if write else ''} refused: #GP(0)")

    def observe(self, exit: Exit) -> None:
        """An exit that came to the machine."""
        if (
            self.from_within
            or EXIT not in self._kinds
            or exit.reason in (ExitReason.INTERRUPTED, ExitReason.INSTRUCTION_LIMIT)
        ):
            return
        vcpu = cpu_of(self._machine, exit).vcpu
        name = vcpu.last_exit_name() or "asleep in the kernel"
        self._lines(exit.vcpu, EXIT, f"{name} rip={vcpu.get_registers().rip:#x} {describe(exit)}")

    def settle(self) -> None:
        """The run is over: tell what is still to be told."""
        for cpu in self._machine.cpus:
            settle = getattr(getattr(cpu.vcpu, "processor", None), "settle", None)
            if settle is not None:
                settle()
