"""Sentences about exits that end a run badly: what happened, at which instruction, and what to do."""

from __future__ import annotations

from collections.abc import Callable

from belljar.exits import Exit, FailEntry, InternalError, Shutdown
from belljar.machine.cpu import Cpu
from belljar.x86.disassembly import disassemble

KVM_INTERNAL_ERROR = {
    1: "KVM's instruction emulator cannot execute",
    2: "an event was being delivered when another exit came at",
    3: "KVM could not deliver an event at",
    4: "an unexpected exit reason came at",
}
"""KVM_INTERNAL_ERROR_* (api.rst 5, KVM_EXIT_INTERNAL_ERROR)."""


def describe_exit(exit: Exit, cpu: Cpu, peek_code: Callable[[Cpu], bytes]) -> str:
    """One sentence for the user about the exit of one vCPU; `peek_code` reads the bytes at its next instruction."""
    where = f"vCPU {exit.vcpu}, RIP {cpu.registers.rip:#x}"
    if isinstance(exit, Shutdown):
        return f"the guest crashed: triple fault ({where})"
    if isinstance(exit, FailEntry):
        return (
            f"the processor refused the guest's state at VM entry, hardware reason {exit.hardware_reason:#x} ({where})"
        )
    if isinstance(exit, InternalError):
        what = KVM_INTERNAL_ERROR.get(exit.suberror, f"internal error {exit.suberror} at")
        return f"the engine gave up: {what} {_instruction(exit.instruction or peek_code(cpu), cpu)} ({where})"
    return f"the engine came back with {exit.reason.label}, which nothing here handles ({where})"


def _instruction(code: bytes, cpu: Cpu) -> str:
    """The first instruction in `code`, by name and bytes."""
    if not code:
        return "an instruction that cannot be read"
    text = disassemble(code, cpu.pc_gva, cpu.bits)
    return f"{text.text!r} (bytes {text.code.hex(' ')})"
