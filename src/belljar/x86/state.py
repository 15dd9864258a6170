"""A logical processor's architectural state as plain data, the same on every engine.

Layout of nothing here follows an ABI: `belljar.kvm` and `belljar.soft` translate. All numbers are unsigned.
"""

from __future__ import annotations

from belljar.records import dataclass, field

GENERAL_REGISTERS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
"""The sixteen general-purpose registers in the order of their encoding (SDM 2A 2.2.1)."""

SEGMENT_REGISTERS = ("es", "cs", "ss", "ds", "fs", "gs")
"""The six segment registers in the order of their encoding (SDM 2A 2.1.5)."""


@dataclass(slots=True)
class Registers:
    """The general-purpose registers, RIP and RFLAGS; 64 bits each."""

    rax: int = 0
    rcx: int = 0
    rdx: int = 0
    rbx: int = 0
    rsp: int = 0
    rbp: int = 0
    rsi: int = 0
    rdi: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = 2


@dataclass(slots=True)
class Segment:
    """A segment register with its hidden part (SDM 3A 3.4.3). `limit` is in bytes, already scaled by `g`."""

    selector: int = 0
    base: int = 0
    limit: int = 0xFFFF
    type: int = 3
    """The four type bits of the descriptor (SDM 3A 3.4.5.1 and 3.5)."""
    s: int = 1
    """1 for code and data, 0 for system segments."""
    dpl: int = 0
    present: int = 1
    avl: int = 0
    l: int = 0  # noqa: E741  (the manual's name)
    db: int = 0
    g: int = 0
    unusable: int = 0

    # Written out: every start and every look at a vCPU makes eight, and a general one takes four times as long.
    def __init__(
        self,
        selector: int = 0,
        base: int = 0,
        limit: int = 0xFFFF,
        type: int = 3,
        s: int = 1,
        dpl: int = 0,
        present: int = 1,
        avl: int = 0,
        l: int = 0,  # noqa: E741  (the manual's name)
        db: int = 0,
        g: int = 0,
        unusable: int = 0,
    ) -> None:
        self.selector = selector
        self.base = base
        self.limit = limit
        self.type = type
        self.s = s
        self.dpl = dpl
        self.present = present
        self.avl = avl
        self.l = l
        self.db = db
        self.g = g
        self.unusable = unusable


@dataclass(slots=True)
class DescriptorTable:
    """GDTR or IDTR: a linear base address and a limit in bytes, less one."""

    base_gva: int = 0
    limit: int = 0xFFFF


@dataclass(slots=True)
class SpecialRegisters:
    """Segments, descriptor tables, control registers and EFER: what sets the processor's mode."""

    cs: Segment = field(default_factory=lambda: Segment(type=11))
    ds: Segment = field(default_factory=Segment)
    es: Segment = field(default_factory=Segment)
    fs: Segment = field(default_factory=Segment)
    gs: Segment = field(default_factory=Segment)
    ss: Segment = field(default_factory=Segment)
    tr: Segment = field(default_factory=lambda: Segment(type=11, s=0))
    ldt: Segment = field(default_factory=lambda: Segment(type=2, s=0))
    gdt: DescriptorTable = field(default_factory=DescriptorTable)
    idt: DescriptorTable = field(default_factory=DescriptorTable)
    cr0: int = 0x60000010
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    cr8: int = 0
    efer: int = 0
    apic_base: int = 0xFEE00900


@dataclass(slots=True)
class CpuState:
    """Registers and special registers together: what a loader hands to an engine to start a vCPU with."""

    registers: Registers = field(default_factory=Registers)
    special: SpecialRegisters = field(default_factory=SpecialRegisters)
