"""A trace of instructions: one line each, with the registers that it changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from belljar.engine import Bus
from belljar.exits import Exit, ExitReason
from belljar.machine import Cpu, Machine
from belljar.x86.disassembly import disassemble
from belljar.x86.state import Registers

NAMES = tuple(field.name for field in fields(Registers))
TEXT_WIDTH = 40


def trace_instructions(machine: Machine, write: Callable[[str], object]) -> None:
    """From now on, write a line for each instruction that a vCPU of the machine executes; lines are numbered over all vCPUs.

    A line reads `NUMBER vcpuN ADDRESS INSTRUCTION REGISTER=VALUE...`; the address is linear, RIP is only shown where it
    did not just move to the next instruction. An instruction that faulted is marked `(exception)`.
    Needs an engine that counts instructions; FeatureUnsupported comes from the run on any other.
    """
    counter = _Counter(write)
    for cpu in machine.cpus:
        cpu.vcpu = _TracedVcpu(machine, cpu, counter)


class _Counter:
    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._count = 0

    def line(self, text: str) -> None:
        self._count += 1
        self._write(f"{self._count:>6} {text}\n")


class _TracedVcpu:
    """A vCPU that is run one instruction at a time; everything else is the real one's."""

    def __init__(self, machine: Machine, cpu: Cpu, counter: _Counter) -> None:
        self._machine = machine
        self._cpu = cpu
        self._inner = cpu.vcpu
        self._counter = counter
        self._steps = 0
        show_deliveries = getattr(cpu.vcpu, "show_deliveries", None)
        if show_deliveries is not None:
            show_deliveries()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(
        self,
        bus: Bus,
        *,
        deadline_ns: int | None = None,
        instructions: int | None = None,
        single_exit: bool = False,
        observer: Callable[[Exit], None] | None = None,
    ) -> ExitReason:
        """As `belljar.engine.Vcpu.run`."""
        left = instructions
        while left is None or left > 0:
            before = self._inner.get_registers()
            pc_gva, bits, code = self._cpu.pc_gva, self._cpu.bits, self._machine.peek_code(self._cpu)
            retired = self._inner.instructions_retired()
            reason = self._inner.run(
                bus, deadline_ns=deadline_ns, instructions=1, single_exit=single_exit, observer=observer
            )
            done = self._inner.instructions_retired() - retired
            if done or reason is ExitReason.INSTRUCTION_LIMIT:
                self._show(before, pc_gva, bits, code, "" if done else " (exception)")
            if reason is not ExitReason.INSTRUCTION_LIMIT:
                return reason
            self._steps += 1
            left = None if left is None else left - done
        self._steps -= 1
        return ExitReason.INSTRUCTION_LIMIT

    def exit_counts(self) -> dict[ExitReason, int]:
        """Without the ends of single steps."""
        counts = self._inner.exit_counts()
        steps = counts.pop(ExitReason.INSTRUCTION_LIMIT, 0) - self._steps
        if steps > 0:
            counts[ExitReason.INSTRUCTION_LIMIT] = steps
        return counts

    def _show(self, before: Registers, pc_gva: int, bits: int, code: bytes, note: str) -> None:
        instruction = disassemble(code, pc_gva, bits)
        after = self._inner.get_registers()
        next_rip = before.rip + len(instruction.code)
        changes = [
            f"{name}={getattr(after, name):#x}"
            for name in NAMES
            if getattr(after, name) != (next_rip if name == "rip" else getattr(before, name))
        ]
        text = f"vcpu{self._cpu.index} {pc_gva:#x} {instruction.text + note:<{TEXT_WIDTH}} {' '.join(changes)}"
        self._counter.line(text.rstrip())
