"""Sentences about exits that end a run badly: what happened, at which instruction, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.exits import Exit, FailEntry, InternalError, Shutdown
from belljar.x86.disassembly import disassemble

if TYPE_CHECKING:
    from belljar.machine.machine import Machine

KVM_INTERNAL_ERROR = {
    1: "KVM's instruction emulator cannot execute",
    2: "an event was being delivered when another exit came at",
    3: "KVM could not deliver an event at",
    4: "an unexpected exit reason came at",
}
"""KVM_INTERNAL_ERROR_* (api.rst 5, KVM_EXIT_INTERNAL_ERROR)."""


def describe_exit(machine: Machine, exit: Exit) -> str:
    """One sentence for the user."""
    cpu = machine.cpus[exit.vcpu]
    where = f"vCPU {exit.vcpu}, RIP {cpu.registers.rip:#x}"
    if isinstance(exit, Shutdown):
        return f"the guest crashed: triple fault ({where})"
    if isinstance(exit, FailEntry):
        return (
            f"the processor refused the guest's state at VM entry, hardware reason {exit.hardware_reason:#x} ({where})"
        )
    if isinstance(exit, InternalError):
        what = KVM_INTERNAL_ERROR.get(exit.suberror, f"internal error {exit.suberror} at")
        return f"the engine gave up: {what} {_instruction(machine, exit)} ({where})"
    return f"the engine came back with {exit.reason.label}, which nothing here handles ({where})"


def _instruction(machine: Machine, exit: InternalError) -> str:
    """The offending instruction, from the bytes the engine told or else from guest memory."""
    code = exit.instruction or machine.peek_code(machine.cpus[exit.vcpu])
    cpu = machine.cpus[exit.vcpu]
    if not code:
        return "an instruction that cannot be read"
    text = disassemble(code, cpu.pc_gva, cpu.bits)
    return f"{text.text!r} (bytes {text.code.hex(' ')})"
