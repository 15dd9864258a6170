"""Trace lines: every kind of exit in one line that says what belongs to it."""

from __future__ import annotations

import pytest

from belljar.exits import (
    Debug,
    DirtyRingFull,
    Exit,
    FailEntry,
    Hlt,
    Hypercall,
    InstructionLimit,
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
from belljar.observe.trace import describe

LINES = [
    (PortIo(0, 0xE9, 1, True, b"H"), "io write port=0xe9 size=1 value=0x48 'H'"),
    (PortIo(0, 0xE9, 1, True, b"'"), 'io write port=0xe9 size=1 value=0x27 "\'"'),
    (PortIo(0, 0xE9, 1, True, b"\n"), "io write port=0xe9 size=1 value=0xa"),
    (PortIo(0, 0xE9, 1, True, b"\x1b"), "io write port=0xe9 size=1 value=0x1b"),
    (PortIo(0, 0x60, 2, False, b"\x01\x02"), "io read port=0x60 size=2 value=0x201"),
    (PortIo(0, 0xE9, 1, True, b"abc", 3), "io write port=0xe9 size=1 count=3 data=616263"),
    (PortIo(0, 0xE9, 1, True, bytes(100), 100), f"io write port=0xe9 size=1 count=100 data={'00' * 32}...(100 bytes)"),
    (Mmio(1, 0xFEE00000, True, b"\1\0\0\0"), "mmio write gpa=0xfee00000 size=4 value=0x1"),
    (Mmio(1, 0xFEE00000, False, b"\xff" * 8), "mmio read gpa=0xfee00000 size=8 value=0xffffffffffffffff"),
    (Hlt(0), "hlt"),
    (Shutdown(0), "shutdown"),
    (Interrupted(0), "interrupted"),
    (IrqWindowOpen(0), "irq-window-open"),
    (DirtyRingFull(0), "dirty-ring-full"),
    (InstructionLimit(0), "instruction-limit"),
    (IoapicEoi(0, 0x31), "ioapic-eoi vector=0x31"),
    (TprAccess(0, 0x1000, True), "tpr-access write at=0x1000"),
    (FailEntry(0, 0x80000021), "fail-entry hardware_reason=0x80000021"),
    (InternalError(0, 1, (), b"\x0f\x58\xc1"), "internal-error suberror=1 instruction=0f58c1"),
    (InternalError(0, 3), "internal-error suberror=3"),
    (Debug(0, 1, 0x1000, 0xFFFF4FF0, 0), "debug exception=1 pc=0x1000 dr6=0xffff4ff0"),
    (ReadMsr(0, 0x10), "rdmsr msr=0x10"),
    (WriteMsr(0, 0x10, 5), "wrmsr msr=0x10 value=0x5"),
    (Hypercall(0, 7), "hypercall number=0x7"),
    (SystemEvent(0, 1), "system-event type=1"),
    (MemoryFault(0, 0x1000, 0x1000), "memory-fault gpa=0x1000 size=0x1000"),
    (UnknownExit(0, 99), "unknown number=99"),
]


@pytest.mark.parametrize(("exit", "line"), LINES)
def test_exit_in_words(exit: Exit, line: str) -> None:
    assert describe(exit) == line


def test_every_kind_of_exit_has_a_line_above() -> None:
    kinds = {kind for kind in Exit.__subclasses__() if kind.__module__ == "belljar.exits"}
    assert kinds <= {type(exit) for exit, _ in LINES}
