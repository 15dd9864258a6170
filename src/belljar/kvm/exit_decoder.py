"""From the run page to an exit object: done only when somebody asks."""

from __future__ import annotations

from collections.abc import Callable

from belljar.exits import (
    Debug,
    DirtyRingFull,
    Exit,
    ExitReason,
    FailEntry,
    Hlt,
    Hypercall,
    InternalError,
    Interrupted,
    IoapicEoi,
    IrqWindowOpen,
    MemoryFault,
    Mmio,
    PortIo,
    ReadMsr,
    Shutdown,
    SystemEvent,
    TprAccess,
    UnknownExit,
    WriteMsr,
)
from belljar.kvm.abi import run as abi
from belljar.kvm.abi.run import kvm_run

HYPERCALL_LONG_MODE = 1
"""KVM_EXIT_HYPERCALL_LONG_MODE; the same bit as the `longmode` of older kernels."""


def _io(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    io = page.exit.io
    start, size, count = io.data_offset, io.item_size, io.count
    data = bytes(mapping[start : start + size * count])
    return PortIo(index, io.port, size, io.direction == abi.KVM_EXIT_IO_OUT, data, count, start)


def _mmio(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    mmio = page.exit.mmio
    return Mmio(index, mmio.phys_addr, bool(mmio.is_write), mmio.data[: mmio.len])


def _fail_entry(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    entry = page.exit.fail_entry
    return FailEntry(index, entry.hardware_entry_failure_reason, entry.cpu)


def _internal_error(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    error = page.exit.internal
    data = error.data[: min(error.ndata, len(error.data))]
    instruction = b""
    if error.suberror == abi.KVM_INTERNAL_ERROR_EMULATION and error.ndata >= 3:  # flags, then 16 bytes of instruction
        failure = page.exit.emulation_failure
        if failure.flags & abi.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES:
            instruction = failure.insn_bytes[: failure.insn_size]
    return InternalError(index, error.suberror, data, instruction)


def _debug(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    debug = page.exit.debug
    return Debug(index, debug.exception, debug.pc, debug.dr6, debug.dr7)


def _read_msr(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    msr = page.exit.msr
    return ReadMsr(index, msr.index, msr.reason)


def _write_msr(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    msr = page.exit.msr
    return WriteMsr(index, msr.index, msr.data, msr.reason)


def _hypercall(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    call = page.exit.hypercall
    return Hypercall(index, call.nr, call.args, bool(call.flags & HYPERCALL_LONG_MODE))


def _system_event(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    event = page.exit.system_event
    return SystemEvent(index, event.type, event.data[: min(event.ndata, len(event.data))])


def _tpr_access(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    access = page.exit.tpr_access
    return TprAccess(index, access.rip, bool(access.is_write))


def _memory_fault(index: int, page: kvm_run, mapping: memoryview) -> Exit:
    fault = page.exit.memory_fault
    return MemoryFault(index, fault.gpa, fault.length, fault.flags)


_DECODERS: dict[ExitReason, Callable[[int, kvm_run, memoryview], Exit]] = {
    ExitReason.IO: _io,
    ExitReason.MMIO: _mmio,
    ExitReason.HLT: lambda index, page, mapping: Hlt(index),
    ExitReason.SHUTDOWN: lambda index, page, mapping: Shutdown(index),
    ExitReason.FAIL_ENTRY: _fail_entry,
    ExitReason.INTERNAL_ERROR: _internal_error,
    ExitReason.DEBUG: _debug,
    ExitReason.INTERRUPTED: lambda index, page, mapping: Interrupted(index),
    ExitReason.RDMSR: _read_msr,
    ExitReason.WRMSR: _write_msr,
    ExitReason.HYPERCALL: _hypercall,
    ExitReason.SYSTEM_EVENT: _system_event,
    ExitReason.IRQ_WINDOW_OPEN: lambda index, page, mapping: IrqWindowOpen(index),
    ExitReason.IOAPIC_EOI: lambda index, page, mapping: IoapicEoi(index, page.exit.eoi.vector),
    ExitReason.TPR_ACCESS: _tpr_access,
    ExitReason.DIRTY_RING_FULL: lambda index, page, mapping: DirtyRingFull(index),
    ExitReason.MEMORY_FAULT: _memory_fault,
    ExitReason.UNKNOWN: lambda index, page, mapping: UnknownExit(index, page.exit_reason),
}


def decode(reason: ExitReason, index: int, page: kvm_run, mapping: memoryview) -> Exit:
    """The exit object for what the run page of vCPU `index` says now; `mapping` is the vCPU's whole shared mapping."""
    return _DECODERS[reason](index, page, mapping)
