"""Putting a start state's structures into guest memory: descriptor tables, TSSs, stacks, identity page tables.

`modes.build` decides what a mode needs; this file knows how each thing is laid out and notes where it went. Every linear
address here equals the guest-physical one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from belljar.x86.descriptors import DESCRIPTOR_SIZE, SYSTEM_DESCRIPTOR_SIZE_LONG, SystemType
from belljar.x86.gates import GATE_SIZE, GATE_SIZE_LONG, IVT_ENTRY_SIZE, Gate, encode_gate
from belljar.x86.gdt import FIRST_TSS, gdt_bytes
from belljar.x86.layout import Placement, TopDownAllocator
from belljar.x86.paging import PAGE_SIZE, SIZE_4K, PagingFormat
from belljar.x86.tables import PageTableBuilder, Table, Write
from belljar.x86.tss import io_bitmap

IO_WINDOW_GPA = 0xFEC00000
IO_WINDOW_SIZE = 4 << 20
"""The 4 MiB with the I/O APIC, the HPET and the local APICs; all that is mapped above RAM where pages are 4K."""

LOW_STACK_TOP = 0xFFF0
"""Where stacks of 16-bit modes end at most; not at 10000H, which SP cannot hold."""

_TSS_TYPE = SystemType.TSS_BUSY | 1 << 7  # present, DPL 0
_DPL3_VECTORS = frozenset({3, 4})  # INT3 and INTO are for programs; so is every vector above the processor's 32
_FIRST_FREE_VECTOR = 32


class Structures:
    """Allocates from `allocator`, writes through `write`, and lists what it did in `placements`."""

    __slots__ = ("allocator", "placements", "write")

    def __init__(self, write: Write, allocator: TopDownAllocator) -> None:
        self.write = write
        self.allocator = allocator
        self.placements: list[Placement] = []

    def note(self, name: str, kind: str, gpa: int, size: int, note: str) -> None:
        """Add a placement whose linear address is its physical one."""
        self.placements.append(Placement(name, kind, gpa, size, gpa, note))

    def take_tss(self, count: int, size: int) -> tuple[int, int]:
        """Room for `count` TSSs of `size` bytes: the first one's address, and how far they are apart."""
        stride = 1 << (size - 1).bit_length()  # a power of two, so that none crosses a page (SDM 3A 7.2.1)
        gpa = self.allocator.take(stride * count, min(stride, PAGE_SIZE))
        for index in range(count):
            self.note(
                f"tss {index}", "tss", gpa + index * stride, size, "task-state segment with I/O permission bitmap"
            )
        return gpa, stride

    def gdt(self, long_mode: bool, code16_base: int, tss: Iterable[int], tss_limit: int) -> tuple[int, int]:
        """Write the GDT with a descriptor for each TSS; returns its address and limit."""
        size = SYSTEM_DESCRIPTOR_SIZE_LONG if long_mode else DESCRIPTOR_SIZE
        parts = [_busy_tss(base, tss_limit, size) for base in tss]
        data = gdt_bytes(long_mode=long_mode, code16_base=code16_base) + b"".join(parts)
        gpa = self.allocator.take(len(data), 16)
        self.write(gpa, data)
        self.note("gdt", "gdt", gpa, len(data), f"{len(data) // DESCRIPTOR_SIZE} slots, TSS from {FIRST_TSS:#x}")
        return gpa, len(data) - 1

    def idt(self, handlers: Mapping[int, int], *, bits: int, selector: int, base: int = 0) -> tuple[int, int]:
        """Write an IDT of interrupt gates (16, 32 or 64 `bits`) up to the highest vector; returns its address and limit.

        `selector` is the handlers' code segment and `base` that segment's base.
        """
        long_mode = bits == 64
        size = GATE_SIZE_LONG if long_mode else GATE_SIZE
        kind = SystemType.INTERRUPT_GATE16 if bits == 16 else SystemType.INTERRUPT_GATE
        data = bytearray(size * (max(handlers) + 1))
        for vector, gva in handlers.items():
            dpl = 3 if vector in _DPL3_VECTORS or vector >= _FIRST_FREE_VECTOR else 0
            gate = Gate(selector, gva - base, kind, dpl)
            data[vector * size : vector * size + size] = encode_gate(gate, long_mode=long_mode)
        gpa = self.allocator.take(len(data), 16)
        self.write(gpa, bytes(data))
        self.note("idt", "idt", gpa, len(data), f"gates for vectors {', '.join(str(v) for v in sorted(handlers))}")
        return gpa, len(data) - 1

    def vector_table(self, handlers: Mapping[int, tuple[int, int]]) -> None:
        """Write real-mode vectors, `vector -> (segment, offset)`, at 0 (SDM 3B 21.1.4)."""
        for vector, (segment, offset) in handlers.items():
            gpa = vector * IVT_ENTRY_SIZE
            self.write(gpa, (offset | segment << 16).to_bytes(IVT_ENTRY_SIZE, "little"))
            self.note(f"vector {vector}", "idt", gpa, IVT_ENTRY_SIZE, f"handler at {segment:#x}:{offset:#x}")

    def stacks(self, name: str, count: int, size: int, note: str, *, top_gva: int | None = None) -> list[int]:
        """`count` stacks of `size` bytes, ending at `top_gva` if given, else allocated; returns where each one ends."""
        tops = []
        for index in range(count):
            end = self.allocator.take(size, 16) + size if top_gva is None else top_gva - index * size
            tops.append(end)
            self.note(f"{name} {index}", "stack", end - size, size, note)
        return tops

    def note_tables(self, tables: Iterable[Table]) -> None:
        """List page tables, neighbours of one level together."""
        run: list[Table] = []
        for table in tables:
            if run and (table.level is not run[-1].level or table.gpa != run[-1].gpa - PAGE_SIZE):
                self._note_run(run)
                run = []
            run.append(table)
        if run:
            self._note_run(run)

    def _note_run(self, run: list[Table]) -> None:
        name = run[0].level.name
        note = f"for linear addresses from {run[0].gva:#x}"
        if len(run) > 1:
            note = f"{len(run)} tables, the highest {note}"
        self.note(name, "page-table", run[-1].gpa, PAGE_SIZE * len(run), note)


@lru_cache(maxsize=8)
def bitmap_for(ports: tuple[range, ...]) -> bytes:
    """`io_bitmap`, remembered: most machines allow the same ports."""
    return io_bitmap(ports)


def _busy_tss(base: int, limit: int, size: int) -> bytes:
    """A busy TSS's descriptor (SDM 3A figures 7-3, 7-4). Not through `encode_segment`, which would double a GDT's cost."""
    raw = limit | (base & 0xFFFFFF) << 16 | _TSS_TYPE << 40 | (base >> 24 & 0xFF) << 56 | base >> 32 << 64
    return raw.to_bytes(size, "little")


def identity_tables(
    paging: PagingFormat, allocator: TopDownAllocator, *, page_size: int, ram_end: int, map_to_gpa: int, user: bool
) -> PageTableBuilder:
    """Tables that map linear addresses one to one: all RAM, and room for devices up to `map_to_gpa`.

    With 4K pages that room is the rest of RAM's last table and the 4 MiB at IO_WINDOW_GPA, so that a small guest's
    tables stay small. 32-bit formats end at 4 GiB.
    """
    builder = PageTableBuilder(paging, allocator.take_page)
    reach = 1 << 32 if paging.gva_bits == 32 else 1 << paging.gva_bits - 1
    if page_size == SIZE_4K:
        table_span = PAGE_SIZE // paging.entry_size * PAGE_SIZE
        end = min(-(-ram_end // table_span) * table_span, reach)
        builder.map(0, 0, end, page_size, user=user)
        window_gpa = max(end, IO_WINDOW_GPA)
        window_end = min(IO_WINDOW_GPA + IO_WINDOW_SIZE, -(-map_to_gpa // PAGE_SIZE) * PAGE_SIZE)
        if window_gpa < window_end:
            builder.map(window_gpa, window_gpa, window_end - window_gpa, page_size, user=user)
        return builder
    end = min(-(-max(ram_end, map_to_gpa) // page_size) * page_size, reach)
    builder.map(0, 0, end, page_size, user=user)
    return builder


def keep_for_kernel(builder: PageTableBuilder, allocator: TopDownAllocator) -> None:
    """Make everything allocated so far supervisor-only, by 4K pages; the tables that this takes as well."""
    end = -(-allocator.top_gpa // PAGE_SIZE) * PAGE_SIZE
    while allocator.gpa < end:
        start = allocator.gpa = allocator.gpa & -PAGE_SIZE
        builder.map(start, start, end - start, SIZE_4K, user=False)
        end = start
