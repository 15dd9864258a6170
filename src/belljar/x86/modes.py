"""The CPU modes that a guest can start in, by name, and the state and structures that each one starts with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from belljar.errors import ConfigurationError
from belljar.records import dataclass
from belljar.x86 import gdt
from belljar.x86.control import Cr0, Cr4, Efer
from belljar.x86.gates import VECTORS
from belljar.x86.layout import Placement, TopDownAllocator
from belljar.x86.paging import (
    NO_PAGING,
    PAGE_SIZE,
    PAGING_4LEVEL,
    PAGING_5LEVEL,
    PAGING_32BIT,
    PAGING_PAE,
    PagingFormat,
    size_name,
)
from belljar.x86.paging import SIZE_1G as _1G
from belljar.x86.paging import SIZE_2M as _2M
from belljar.x86.paging import SIZE_4K as _4K
from belljar.x86.paging import SIZE_4M as _4M
from belljar.x86.state import CpuState, DescriptorTable, Registers, Segment, SpecialRegisters
from belljar.x86.structures import LOW_STACK_TOP, Structures, bitmap_for, identity_tables, keep_for_kernel
from belljar.x86.tables import Write
from belljar.x86.tss import CONSOLE_PORTS, TSS_SIZE, tss32, tss64

__all__ = ["MODES", "REAL_MODE_END", "Mode", "Placement", "Setup", "build", "mode_named"]


@dataclass(frozen=True, slots=True)
class Mode:
    """A CPU mode. `bits` is the width of its code (16, 32, 64); `long` whether EFER.LMA is set.

    `page_sizes` (bytes) lists what the mode can map RAM with, the default first; empty without paging. `privileged` says
    whether there are privilege levels, so that a guest can start at CPL3.
    """

    name: str
    title: str
    bits: int
    paging: PagingFormat
    page_sizes: tuple[int, ...] = ()
    long: bool = False
    privileged: bool = True

    def page_size(self, wanted: int | None) -> int:
        """The page size to use, in bytes: `wanted`, or the default; 0 without paging.

        Raises ConfigurationError if the mode has no such pages.
        """
        if wanted is None:
            return self.page_sizes[0] if self.page_sizes else 0
        if wanted not in self.page_sizes:
            sizes = ", ".join(size_name(size) for size in sorted(self.page_sizes))
            raise ConfigurationError(
                f"mode {self.name} has no pages of {size_name(wanted)}",
                hint=f"its page sizes: {sizes}" if sizes else "it has no paging at all",
            )
        return wanted


MODES = {
    mode.name: mode
    for mode in (
        Mode("real", "16-bit real-address mode", 16, NO_PAGING, privileged=False),
        Mode("protected16", "protected mode with 16-bit segments", 16, NO_PAGING),
        Mode("protected", "32-bit protected mode, flat, no paging", 32, NO_PAGING),
        Mode("paged", "32-bit protected mode with two-level paging", 32, PAGING_32BIT, (_4M, _4K)),
        Mode("pae", "32-bit protected mode with PAE paging", 32, PAGING_PAE, (_2M, _4K)),
        Mode("compat", "compatibility mode: 32-bit code in long mode", 32, PAGING_4LEVEL, (_2M, _4K, _1G), long=True),
        Mode("long", "64-bit long mode, four-level paging", 64, PAGING_4LEVEL, (_2M, _4K, _1G), long=True),
        Mode("la57", "64-bit long mode, five-level paging", 64, PAGING_5LEVEL, (_2M, _4K, _1G), long=True),
    )
}
"""Every mode by name, from the oldest to the youngest."""


def mode_named(name: str) -> Mode:
    """The mode called `name`. Raises ConfigurationError for an unknown one."""
    if name not in MODES:
        raise ConfigurationError(f"there is no mode {name!r}", hint="modes: " + ", ".join(MODES))
    return MODES[name]


REAL_MODE_END = 0x10FFF0
"""The first address that no segment of real mode reaches: FFFFH << 4, and 64 KiB (SDM 3B 21.1.1)."""

DEFAULT_STACK_SIZE = 16 << 10
DEFAULT_STACK_SIZE_SMALL = 4 << 10
"""The stack in 16-bit modes, whose stacks share the low 64 KiB with the guest; and in guests with less than 1 MiB."""

MAX_CPUS = 4090
"""As many 64-bit TSSs fit a GDT (64 KiB) behind its other descriptors."""

_SEGMENT_16 = 1 << 16
_4G = 1 << 32

_CR0_PROTECTED = int(Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM)
_CR0_PAGED = _CR0_PROTECTED | int(Cr0.PG)
_CR0_REAL = int(Cr0.ET)
_CR4_LONG = int(Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT)  # x86-64 code may use SSE2 from its first instruction
_CR4 = {
    NO_PAGING.name: 0,
    PAGING_32BIT.name: int(Cr4.PSE),
    PAGING_PAE.name: int(Cr4.PAE),
    PAGING_4LEVEL.name: _CR4_LONG,
    PAGING_5LEVEL.name: _CR4_LONG | int(Cr4.LA57),
}
_EFER_LONG = int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)

_APIC_BASE = 0xFEE00800
_APIC_BSP = 0x100
"""IA32_APIC_BASE (SDM 3A 10.4.4): the xAPIC at its usual address, enabled; and the bootstrap processor's bit."""

_CODE_SELECTOR = {
    ("protected16", 0): gdt.KERNEL_CODE16,
    ("protected16", 3): gdt.USER_CODE16 | 3,
    ("protected", 0): gdt.KERNEL_CODE,
    ("protected", 3): gdt.USER_CODE32 | 3,
    ("paged", 0): gdt.KERNEL_CODE,
    ("paged", 3): gdt.USER_CODE32 | 3,
    ("pae", 0): gdt.KERNEL_CODE,
    ("pae", 3): gdt.USER_CODE32 | 3,
    ("compat", 0): gdt.KERNEL_CODE32,
    ("compat", 3): gdt.USER_CODE32 | 3,
    ("long", 0): gdt.KERNEL_CODE,
    ("long", 3): gdt.USER_CODE64 | 3,
    ("la57", 0): gdt.KERNEL_CODE,
    ("la57", 3): gdt.USER_CODE64 | 3,
}


@dataclass(frozen=True, slots=True)
class Setup:
    """A machine's start: one state for each vCPU, and where everything lies that `build` wrote or set aside."""

    mode: Mode
    page_size: int
    """What RAM is mapped with, in bytes; 0 without paging."""
    cpl: int
    states: tuple[CpuState, ...]
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class _Request:
    """What `build` was asked for, checked."""

    mode: Mode
    memory_size: int
    entry_gva: int
    page_size: int
    cpl: int
    cpus: int
    stack_size: int
    stack_top_gva: int | None
    handlers: Mapping[int, int]
    map_to_gpa: int
    user_ports: tuple[range, ...]


def build(
    mode: str,
    *,
    write: Write,
    memory_size: int,
    top_gpa: int,
    entry_gva: int,
    page_size: int | None = None,
    cpl: int = 0,
    cpus: int = 1,
    stack_size: int | None = None,
    stack_top_gva: int | None = None,
    idt_handlers: Mapping[int, int] | None = None,
    map_to_gpa: int = _4G,
    user_ports: Iterable[range] = CONSOLE_PORTS,
    floor_gpa: int = PAGE_SIZE,
) -> Setup:
    """Write what `mode` needs into guest memory and return the state in which each of `cpus` vCPUs starts at `entry_gva`.

    Everything is put below `top_gpa` (the end of low RAM), downwards, never below `floor_gpa`: TSSs, GDT, IDT, CPL0
    stacks, page tables, CPL3 stacks. Linear addresses equal physical ones. `memory_size` is the end of RAM; all of it is
    mapped, and room for devices above it up to `map_to_gpa`. With 4K pages that room is only the rest of RAM's last table
    and the 4 MiB at 0xFEC00000 with the I/O and local APICs.

    16-bit modes: an entry below 64 KiB gives a code segment with base 0, so that IP is the address; above it, `real` takes
    CS = entry >> 4, and `protected16` a code segment based on the entry's 64-KiB block. Their stacks end below 0xFFF0.

    `cpl` 3 starts in user segments on a user stack, with IOPL 0 and `user_ports` allowed by the TSS. With paging all
    memory is then user-accessible but for the structures above, which 4K pages keep for CPL0.

    `idt_handlers` maps vectors to handlers at CPL0: 16-bit code in the 16-bit modes, 32-bit code in `protected`, `paged`
    and `pae`, 64-bit code in the long modes, `compat` too. `real` writes them into the vector table at 0. Without any the
    IDT is empty, so that an exception is a triple fault until the guest loads its own; in `real` IDTR is as after reset.

    `stack_top_gva` is where vCPU 0's first stack ends if the guest wants it elsewhere; the others' follow below it,
    `stack_size` bytes each. Raises ConfigurationError for what is impossible, and whatever `write` raises.
    """
    chosen = mode_named(mode)
    if stack_size is None:
        small = chosen.bits == 16 or memory_size < 1 << 20
        stack_size = DEFAULT_STACK_SIZE_SMALL if small else DEFAULT_STACK_SIZE
    request = _Request(
        chosen,
        memory_size,
        entry_gva,
        chosen.page_size(page_size),
        cpl,
        cpus,
        stack_size,
        stack_top_gva,
        idt_handlers or {},
        map_to_gpa,
        tuple(user_ports),
    )
    _check(request, top_gpa)
    structures = Structures(write, TopDownAllocator(top_gpa & -16, floor_gpa))
    states = _build_real(request, structures) if chosen.name == "real" else _build_protected(request, structures)
    return Setup(chosen, request.page_size, cpl, states, tuple(structures.placements))


def _check(request: _Request, top_gpa: int) -> None:
    """Raise ConfigurationError for everything about a request that cannot be."""
    mode, size = request.mode, request.memory_size
    if not 0 < top_gpa <= size:
        raise ConfigurationError(f"low memory cannot end at {top_gpa:#x} in a guest with {size:#x} bytes of memory")
    if top_gpa > _4G and mode.bits < 64:
        raise ConfigurationError(f"mode {mode.name} cannot reach structures above 4 GiB, at {top_gpa:#x}")
    if request.cpl not in (0, 3):
        raise ConfigurationError(f"a guest starts at CPL 0 or 3, not {request.cpl}")
    if request.cpl and not mode.privileged:
        raise ConfigurationError(f"mode {mode.name} has no privilege levels", hint="CPL 3 needs a protected mode")
    if not 1 <= request.cpus <= MAX_CPUS:
        raise ConfigurationError(f"a machine has 1 to {MAX_CPUS} vCPUs, not {request.cpus}")
    if request.stack_size < 16 or request.stack_size % 16:
        raise ConfigurationError(f"a stack of {request.stack_size} bytes is not a positive multiple of 16")
    _check_address(mode, "the entry", request.entry_gva, 32 if mode.bits == 32 else mode.bits)
    for vector, gva in request.handlers.items():
        if not 0 <= vector < VECTORS:
            raise ConfigurationError(f"there is no vector {vector}", hint=f"vectors are 0 to {VECTORS - 1}")
        _check_address(mode, f"the handler of vector {vector}", gva, 64 if mode.long else mode.bits)
        if mode.name == "protected16" and gva // _SEGMENT_16 != request.entry_gva // _SEGMENT_16:
            raise ConfigurationError(f"the handler of vector {vector} is not in the entry's 64 KiB, at {gva:#x}")
    if request.stack_top_gva is not None:
        top = request.stack_top_gva
        _check_address(mode, "the stack's end", top - 1, mode.bits)
        if top % 2 or top < request.stack_size * request.cpus or (mode.bits == 16 and top >= _SEGMENT_16):
            raise ConfigurationError(f"{request.cpus} stacks of {request.stack_size} bytes cannot end at {top:#x}")


def _check_address(mode: Mode, what: str, gva: int, bits: int) -> None:
    """Whether code of `bits` can be, or use a stack, at `gva`."""
    if bits == 64:
        fits = 0 <= gva < 1 << 64 and mode.paging.canonical(gva)
    else:
        fits = 0 <= gva < (REAL_MODE_END if mode.name == "real" else _4G)
    if not fits:
        raise ConfigurationError(f"{what} cannot be at {gva:#x} in mode {mode.name}")


def _build_real(request: _Request, structures: Structures) -> tuple[CpuState, ...]:
    """Real-address mode: segments as far as they go, and the state after reset otherwise (SDM 3A table 9-1)."""
    structures.allocator = structures.allocator.below(LOW_STACK_TOP)
    tops = structures.stacks("stack", request.cpus, request.stack_size, "SS = 0", top_gva=request.stack_top_gva)
    structures.vector_table({vector: _far(gva) for vector, gva in request.handlers.items()})
    segment, offset = _far(request.entry_gva)
    states = []
    for index, top in enumerate(tops):
        special = SpecialRegisters(cr0=_CR0_REAL, apic_base=_apic_base(index))
        special.cs = Segment(segment, segment << 4, 0xFFFF, 11)
        states.append(CpuState(Registers(rip=offset, rsp=top), special))
    return tuple(states)


def _far(gva: int) -> tuple[int, int]:
    """A real-mode address as segment and offset: segment 0 where that reaches."""
    if gva < _SEGMENT_16:
        return 0, gva
    segment = min(gva >> 4, 0xFFFF)
    return segment, gva - (segment << 4)


def _build_protected(request: _Request, structures: Structures) -> tuple[CpuState, ...]:
    """Every mode with CR0.PE."""
    mode, cpus = request.mode, request.cpus
    code_base = request.entry_gva & -_SEGMENT_16 if mode.bits == 16 else 0
    bitmap = bitmap_for(request.user_ports)
    tss_size = TSS_SIZE + len(bitmap)
    tss_gpa, tss_stride = structures.take_tss(cpus, tss_size)
    tss_bases = range(tss_gpa, tss_gpa + cpus * tss_stride, tss_stride)
    gdtr = DescriptorTable(*structures.gdt(mode.long, code_base, tss_bases, tss_size - 1))
    idtr = DescriptorTable(0, 0)
    if request.handlers:
        bits = 64 if mode.long else mode.bits
        selector = gdt.KERNEL_CODE16 if bits == 16 else gdt.KERNEL_CODE
        idtr = DescriptorTable(*structures.idt(request.handlers, bits=bits, selector=selector, base=code_base))
    if mode.bits == 16:
        structures.allocator = structures.allocator.below(LOW_STACK_TOP)
    root_gpa, kernel_tops, tops = _stacks_and_tables(request, structures)
    for base, top in zip(tss_bases, kernel_tops, strict=True):
        ss0 = gdt.KERNEL_DATA16 if mode.bits == 16 else gdt.KERNEL_DATA
        tss = tss64(rsp0=top, bitmap=bitmap) if mode.long else tss32(esp0=top, ss0=ss0, bitmap=bitmap)
        structures.write(base, tss)
    return tuple(
        CpuState(
            Registers(rip=request.entry_gva - code_base, rsp=top),
            _special(request, index, code_base, root_gpa, gdtr, idtr, tss_bases[index], tss_size - 1),
        )
        for index, top in enumerate(tops)
    )


def _stacks_and_tables(request: _Request, structures: Structures) -> tuple[int, list[int], list[int]]:
    """Stacks and page tables: the root table's address (0 without paging), where CPL0 stacks end, where first stacks end."""
    mode, user = request.mode, request.cpl == 3
    cpus, size = request.cpus, request.stack_size
    kernel_tops = (
        structures.stacks("CPL0 stack", cpus, size, "for exceptions, from the TSS")
        if user
        else structures.stacks("stack", cpus, size, "CPL0", top_gva=request.stack_top_gva)
    )
    root_gpa = 0
    if request.page_size:
        allocator = structures.allocator
        builder = identity_tables(
            mode.paging,
            allocator,
            page_size=request.page_size,
            ram_end=request.memory_size,
            map_to_gpa=request.map_to_gpa,
            user=user,
        )
        if user:
            keep_for_kernel(builder, allocator)
        builder.write_to(structures.write)
        structures.note_tables(builder.tables)
        root_gpa = builder.root_gpa
    if not user:
        return root_gpa, kernel_tops, kernel_tops
    tops = structures.stacks("stack", cpus, size, "CPL3", top_gva=request.stack_top_gva)
    return root_gpa, kernel_tops, tops


def _special(
    request: _Request,
    index: int,
    code_base: int,
    root_gpa: int,
    gdtr: DescriptorTable,
    idtr: DescriptorTable,
    tss_base: int,
    tss_limit: int,
) -> SpecialRegisters:
    """One vCPU's special registers, the hidden parts as the GDT's descriptors say."""
    mode, cpl = request.mode, request.cpl
    sixteen = mode.bits == 16
    code_limit, g = (_SEGMENT_16 - 1, 0) if sixteen else (_4G - 1, 1)
    data = (
        (gdt.USER_DATA16 | 3 if cpl else gdt.KERNEL_DATA16)
        if sixteen
        else gdt.USER_DATA | 3
        if cpl
        else gdt.KERNEL_DATA
    )
    db = int(not sixteen)
    ds, es, fs, gs, ss = (Segment(data, 0, _4G - 1, 3, 1, cpl, 1, 0, 0, db, 1) for _ in range(5))
    return SpecialRegisters(
        cs=Segment(
            _CODE_SELECTOR[mode.name, cpl], code_base, code_limit, 11, 1, cpl, 1, 0,
            int(mode.bits == 64), int(mode.bits == 32), g,
        ),
        ds=ds,
        es=es,
        fs=fs,
        gs=gs,
        ss=ss,
        tr=Segment(gdt.FIRST_TSS + index * (16 if mode.long else 8), tss_base, tss_limit, 11, 0),
        ldt=Segment(0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1),
        gdt=DescriptorTable(gdtr.base_gva, gdtr.limit),
        idt=DescriptorTable(idtr.base_gva, idtr.limit),
        cr0=_CR0_PAGED if root_gpa else _CR0_PROTECTED,
        cr3=root_gpa,
        cr4=_CR4[mode.paging.name],
        efer=_EFER_LONG if mode.long else 0,
        apic_base=_apic_base(index),
    )  # fmt: skip


def _apic_base(index: int) -> int:
    return _APIC_BASE if index else _APIC_BASE | _APIC_BSP
