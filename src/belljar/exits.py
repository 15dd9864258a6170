"""Why a vCPU came back: the vocabulary that engines, machines, devices and observers share.

An engine reports a run's end as an `ExitReason`, a small number that the run loop dispatches on. The classes below say
everything about one exit; they are built only when somebody asked to see exits. Names follow the kernel's
KVM_EXIT_* (api.rst section 5) where it has one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from belljar.records import dataclass


class ExitReason(IntEnum):
    """Why `Vcpu.run` returned, or what one exit was; the same numbers on every engine."""

    IO = 0
    MMIO = 1
    HLT = 2
    SHUTDOWN = 3
    FAIL_ENTRY = 4
    INTERNAL_ERROR = 5
    DEBUG = 6
    INTERRUPTED = 7
    RDMSR = 8
    WRMSR = 9
    HYPERCALL = 10
    SYSTEM_EVENT = 11
    IRQ_WINDOW_OPEN = 12
    IOAPIC_EOI = 13
    TPR_ACCESS = 14
    DIRTY_RING_FULL = 15
    MEMORY_FAULT = 16
    INSTRUCTION_LIMIT = 17
    UNKNOWN = 18

    @property
    def answerable(self) -> bool:
        """Whether the guest's instruction waits for `Vcpu.answer`."""
        return ExitReason.RDMSR <= self <= ExitReason.HYPERCALL

    @property
    def label(self) -> str:
        """The reason as reports and traces write it: `io`, `fail-entry`, `system-event`."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Exit:
    """One VM exit as the machine sees it. `vcpu` is the index of the vCPU that came back."""

    reason: ClassVar[ExitReason]
    vcpu: int


@dataclass(frozen=True, slots=True)
class PortIo(Exit):
    """IN, OUT, INS or OUTS. `data` holds `count` items of `size` (1, 2, 4) bytes each, in guest order.

    For `write` False, `data` is what the guest was given. `data_offset` is where in the vCPU's shared run page the data
    lay (api.rst, KVM_EXIT_IO), or None on an engine without such a page.
    """

    reason: ClassVar[ExitReason] = ExitReason.IO
    port: int
    size: int
    write: bool
    data: bytes
    count: int = 1
    data_offset: int | None = None

    @property
    def value(self) -> int:
        """The first item as an unsigned little-endian number."""
        return int.from_bytes(self.data[: self.size], "little")


@dataclass(frozen=True, slots=True)
class Mmio(Exit):
    """A load or store (1 to 8 bytes) at a guest-physical address that no memory slot backs, or a store to a read-only one."""

    reason: ClassVar[ExitReason] = ExitReason.MMIO
    gpa: int
    write: bool
    data: bytes

    @property
    def size(self) -> int:
        """How many bytes the access moved."""
        return len(self.data)

    @property
    def value(self) -> int:
        """The bytes as an unsigned little-endian number."""
        return int.from_bytes(self.data, "little")


@dataclass(frozen=True, slots=True)
class Hlt(Exit):
    """HLT with nothing left to wake this vCPU that the engine itself would know of."""

    reason: ClassVar[ExitReason] = ExitReason.HLT


@dataclass(frozen=True, slots=True)
class Shutdown(Exit):
    """Triple fault: a fault while delivering a double fault (SDM 3A 6.15, interrupt 8)."""

    reason: ClassVar[ExitReason] = ExitReason.SHUTDOWN


@dataclass(frozen=True, slots=True)
class FailEntry(Exit):
    """The processor refused the guest state at VM entry; `hardware_reason` is its code (SDM 3C 27.8)."""

    reason: ClassVar[ExitReason] = ExitReason.FAIL_ENTRY
    hardware_reason: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class InternalError(Exit):
    """The engine gave up. `suberror` as in KVM_INTERNAL_ERROR_*; `instruction` the bytes at RIP where the engine told them."""

    reason: ClassVar[ExitReason] = ExitReason.INTERNAL_ERROR
    suberror: int
    data: tuple[int, ...] = ()
    instruction: bytes = b""


@dataclass(frozen=True, slots=True)
class Debug(Exit):
    """A breakpoint, watchpoint or single step that the host asked for. `pc_gva` is the linear address (CS base included)."""

    reason: ClassVar[ExitReason] = ExitReason.DEBUG
    exception: int
    pc_gva: int
    dr6: int
    dr7: int


@dataclass(frozen=True, slots=True)
class Interrupted(Exit):
    """The run was ended from outside: `stop()`, a time limit, a signal."""

    reason: ClassVar[ExitReason] = ExitReason.INTERRUPTED


@dataclass(frozen=True, slots=True)
class ReadMsr(Exit):
    """RDMSR of an MSR that the host asked to see, or that the engine does not know. `why` is a KVM_MSR_EXIT_REASON_*."""

    reason: ClassVar[ExitReason] = ExitReason.RDMSR
    msr: int
    why: int = 0


@dataclass(frozen=True, slots=True)
class WriteMsr(Exit):
    """WRMSR of an MSR or a value that the engine does not know, or that the host asked to see; `why` as for `ReadMsr`."""

    reason: ClassVar[ExitReason] = ExitReason.WRMSR
    msr: int
    value: int
    why: int = 0


@dataclass(frozen=True, slots=True)
class Hypercall(Exit):
    """VMCALL that reached user space: number, up to six arguments, whether issued in 64-bit mode."""

    reason: ClassVar[ExitReason] = ExitReason.HYPERCALL
    number: int
    arguments: tuple[int, ...] = ()
    long_mode: bool = False


@dataclass(frozen=True, slots=True)
class SystemEvent(Exit):
    """The guest asked the platform to power off or reset, or crashed (KVM_SYSTEM_EVENT_*)."""

    reason: ClassVar[ExitReason] = ExitReason.SYSTEM_EVENT
    type: int
    data: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class IrqWindowOpen(Exit):
    """The guest can take an external interrupt now, as the host asked to be told."""

    reason: ClassVar[ExitReason] = ExitReason.IRQ_WINDOW_OPEN


@dataclass(frozen=True, slots=True)
class IoapicEoi(Exit):
    """End of interrupt for a level-triggered `vector` whose IOAPIC lives in user space (split irqchip)."""

    reason: ClassVar[ExitReason] = ExitReason.IOAPIC_EOI
    vector: int


@dataclass(frozen=True, slots=True)
class TprAccess(Exit):
    """An access to the task-priority register that the host asked to be told of."""

    reason: ClassVar[ExitReason] = ExitReason.TPR_ACCESS
    rip: int
    write: bool


@dataclass(frozen=True, slots=True)
class DirtyRingFull(Exit):
    """The vCPU's dirty ring is full; harvest it and reset before running on (api.rst 8.29)."""

    reason: ClassVar[ExitReason] = ExitReason.DIRTY_RING_FULL


@dataclass(frozen=True, slots=True)
class MemoryFault(Exit):
    """The engine could not resolve a guest-physical access (KVM_EXIT_MEMORY_FAULT)."""

    reason: ClassVar[ExitReason] = ExitReason.MEMORY_FAULT
    gpa: int
    size: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class InstructionLimit(Exit):
    """Exactly as many instructions ran as the run was allowed."""

    reason: ClassVar[ExitReason] = ExitReason.INSTRUCTION_LIMIT


@dataclass(frozen=True, slots=True)
class UnknownExit(Exit):
    """An exit that belljar has no word for yet; `number` is the engine's own."""

    reason: ClassVar[ExitReason] = ExitReason.UNKNOWN
    number: int
