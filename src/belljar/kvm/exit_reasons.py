"""What the kernel's exit numbers mean: which ExitReason, and whether the instruction is yet to be finished."""

from __future__ import annotations

from functools import cache

from belljar.exits import ExitReason
from belljar.kvm.abi import run as abi

REASON_BY_EXIT = {
    abi.KVM_EXIT_HYPERCALL: ExitReason.HYPERCALL,
    abi.KVM_EXIT_DEBUG: ExitReason.DEBUG,
    abi.KVM_EXIT_HLT: ExitReason.HLT,
    abi.KVM_EXIT_IRQ_WINDOW_OPEN: ExitReason.IRQ_WINDOW_OPEN,
    abi.KVM_EXIT_SHUTDOWN: ExitReason.SHUTDOWN,
    abi.KVM_EXIT_FAIL_ENTRY: ExitReason.FAIL_ENTRY,
    abi.KVM_EXIT_TPR_ACCESS: ExitReason.TPR_ACCESS,
    abi.KVM_EXIT_INTERNAL_ERROR: ExitReason.INTERNAL_ERROR,
    abi.KVM_EXIT_SYSTEM_EVENT: ExitReason.SYSTEM_EVENT,
    abi.KVM_EXIT_IOAPIC_EOI: ExitReason.IOAPIC_EOI,
    abi.KVM_EXIT_X86_RDMSR: ExitReason.RDMSR,
    abi.KVM_EXIT_X86_WRMSR: ExitReason.WRMSR,
    abi.KVM_EXIT_DIRTY_RING_FULL: ExitReason.DIRTY_RING_FULL,
    abi.KVM_EXIT_MEMORY_FAULT: ExitReason.MEMORY_FAULT,
}
"""What a KVM_EXIT_* is to everybody else. IO and MMIO never get here; any other number is UNKNOWN."""


@cache
def exit_names() -> dict[int, str]:
    """Every KVM_EXIT_* by its number."""
    return {
        value: name
        for name, value in vars(abi).items()
        if name.startswith("KVM_EXIT_") and not name.startswith("KVM_EXIT_IO_")
    }


COMPLETED_LATER = (
    abi.KVM_EXIT_HYPERCALL,
    abi.KVM_EXIT_X86_RDMSR,
    abi.KVM_EXIT_X86_WRMSR,
    abi.KVM_EXIT_HYPERV,
    abi.KVM_EXIT_XEN,
    abi.KVM_EXIT_TPR_ACCESS,
)
"""Behind these the kernel finishes the instruction on the next KVM_RUN (api.rst section 5, the note on KVM_EXIT_IO)."""
