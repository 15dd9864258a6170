"""A trace of instructions: one line each, with the registers that it changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from belljar.engine import Bus
from belljar.engine_data import FOREVER
from belljar.errors import GuestMemoryError
from belljar.exits import Exit, ExitReason
from belljar.machine import Cpu, Machine
from belljar.observe.vcpu_proxy import VcpuProxy
from belljar.x86.code import code_bits, linear_pc
from belljar.x86.disassembly import disassemble
from belljar.x86.state import Registers, SpecialRegisters
from belljar.x86.walker import Walk, read_exactly, walk

NAMES = tuple(field.name for field in fields(Registers))
TEXT_WIDTH = 40
INSTRUCTION_BYTES = 15
"""The longest there is (SDM 2A 2.3.11)."""

PAGE_SIZE = 4096
PAGE_MASK = PAGE_SIZE - 1

KNOWN_WALKS = 64
"""Page walks that are kept for a vCPU."""


def write_instructions(machine: Machine, write: Callable[[str], object]) -> None:
    """From now on, write a line for each instruction that a vCPU of the machine executes; lines are numbered over all vCPUs.

    A line reads `NUMBER vcpuN ADDRESS INSTRUCTION REGISTER=VALUE...`, its end as `trace_cpu` has it.
    """
    count = 0

    def line(cpu: int, text: str) -> None:
        """Number it, and write it."""
        nonlocal count
        count += 1
        write(f"{count:>6} vcpu{cpu} {text}\n")

    for cpu in machine.cpus:
        trace_cpu(machine, cpu, line)


def trace_cpu(machine: Machine, cpu: Cpu, line: Callable[[int, str], object]) -> None:
    """From now on, call `line` with the vCPU's index and a text for each instruction that the vCPU executes.

    A text reads `ADDRESS INSTRUCTION REGISTER=VALUE...`; the address is linear, RIP is only shown where it
    did not just move to the next instruction. An instruction that faulted is marked `(exception)`.
    Needs an engine that counts instructions; FeatureUnsupported comes from the run on any other.
    """
    cpu.vcpu = _SteppedVcpu(machine, cpu, line)


class _SteppedVcpu(VcpuProxy):
    """A vCPU that is run one instruction at a time; everything else is the real one's."""

    def __init__(self, machine: Machine, cpu: Cpu, line: Callable[[int, str], object]) -> None:
        super().__init__(cpu.vcpu)
        self.__dict__.update(_machine=machine, _cpu=cpu, _line=line, _steps=0, _walks={})
        show_deliveries = getattr(cpu.vcpu, "show_deliveries", None)
        if show_deliveries is not None:
            show_deliveries()

    def run(
        self,
        bus: Bus,
        *,
        deadline_ns: int | None = None,
        instructions: int | None = None,
        until_ns: int = FOREVER,
        single_exit: bool = False,
        observer: Callable[[Exit], None] | None = None,
    ) -> ExitReason:
        """As `belljar.engine.Vcpu.run`."""
        left, steps = instructions, 0
        while (left is None or left > 0) and not self._is_over(until_ns):
            before = self._inner.get_registers()
            special = self._inner.get_special()
            pc_gva, bits = linear_pc(special, before.rip), code_bits(special)
            code = self._fetch(special, pc_gva)
            retired = self._inner.instructions_retired()
            reason: ExitReason = self._inner.run(
                bus,
                deadline_ns=deadline_ns,
                instructions=1,
                until_ns=until_ns,
                single_exit=single_exit,
                observer=observer,
            )
            done = self._inner.instructions_retired() - retired
            in_the_middle = not done and self._inner.get_registers().rip == before.rip and self._is_over(until_ns)
            if done or (reason is ExitReason.INSTRUCTION_LIMIT and not in_the_middle):
                self._show(before, pc_gva, bits, code, "" if done else " (exception)")
            if reason is not ExitReason.INSTRUCTION_LIMIT:
                return reason
            steps += 1
            self.__dict__["_steps"] += 1
            left = None if left is None else left - done
        if steps:  # the last is the run's own end
            self.__dict__["_steps"] -= 1
        return ExitReason.INSTRUCTION_LIMIT

    def _is_over(self, until_ns: int) -> bool:
        return until_ns != FOREVER and self._inner.clock_ns >= until_ns

    def _fetch(self, special: SpecialRegisters, gva: int) -> bytes:
        """The bytes of an instruction as far as memory goes: what `Machine.peek_code` finds, in one look at the state."""
        code = b""
        read = self._machine.memory.read
        while len(code) < INSTRUCTION_BYTES:
            page_gpa = self._translate(special, (gva + len(code)) & ~PAGE_MASK)
            if page_gpa is None:
                break
            offset = (gva + len(code)) & PAGE_MASK
            try:
                code += read(page_gpa + offset, min(INSTRUCTION_BYTES - len(code), PAGE_SIZE - offset))
            except GuestMemoryError:
                break
        return code

    def _translate(self, special: SpecialRegisters, page_gva: int) -> int | None:
        """Where a page is. A walk that was made before is as good as a new one while all its entries read the same."""
        read = self._machine.memory.read
        key = (page_gva, special.cr0, special.cr3, special.cr4, special.efer)
        known: Walk | None = self._walks.get(key)
        if known is not None:
            for step in known.steps:
                data = read_exactly(read, step.entry_gpa, step.entry_size)
                if data is None or int.from_bytes(data, "little") != step.raw:
                    break
            else:
                return known.gpa
        found = walk(special, page_gva, read)
        if found.gpa is not None:
            if len(self._walks) >= KNOWN_WALKS:
                self._walks.clear()
            self._walks[key] = found
        return found.gpa

    def exit_counts(self) -> dict[ExitReason, int]:
        """Without the ends of single steps."""
        counts: dict[ExitReason, int] = self._inner.exit_counts()
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
        text = f"{pc_gva:#x} {instruction.text + note:<{TEXT_WIDTH}} {' '.join(changes)}"
        self._line(self._cpu.index, text.rstrip())
