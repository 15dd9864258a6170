"""The page walk of the hardware against the walker of `belljar.x86`, over random tables in every paging mode."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from belljar.exits import ExitReason
from belljar.soft.engine import SoftEngine
from belljar.soft.hypervisor.vcpu import SoftVcpu
from belljar.x86.control import Cr0, Cr4, Efer
from belljar.x86.state import Registers, Segment, SpecialRegisters
from belljar.x86.walker import WalkFailure, walk
from oracles.on_engine import PlainRegion, RecordingBus

MEMORY = 1 << 20
CODE = 0x1000
ROOT = 0x10000
TABLES = [0x10000 + 0x1000 * i for i in range(16)]
PAGES = [0x40000 + 0x1000 * i for i in range(32)]
IDT = 0x8000
PHYSICAL_BITS = 46
READ, WRITE, FETCH = 0, 1, 2

MODES = {
    "32-bit": (Cr0.PE | Cr0.PG, 0, 0),
    "32-bit pse": (Cr0.PE | Cr0.PG, Cr4.PSE, 0),
    "pae": (Cr0.PE | Cr0.PG, Cr4.PAE, Efer.NXE),
    "4-level": (Cr0.PE | Cr0.PG, Cr4.PAE, Efer.LME | Efer.LMA | Efer.NXE),
    "4-level without nx": (Cr0.PE | Cr0.PG, Cr4.PAE, Efer.LME | Efer.LMA),
    "5-level": (Cr0.PE | Cr0.PG, Cr4.PAE | Cr4.LA57, Efer.LME | Efer.LMA | Efer.NXE),
}


def random_entry(rng: random.Random, wide: bool) -> int:
    """Mostly present, mostly pointing at a table or page of ours, sometimes with anything set."""
    target = rng.choice(TABLES) if rng.random() < 0.7 else rng.choice(PAGES)
    entry = target | rng.choice((7, 7, 7, 7, 3, 5, 1, 6, 0x27, 0x67, 0x87, 0x107))
    if rng.random() < 0.1:
        entry |= 1 << rng.randrange(64 if wide else 32)
    if rng.random() < 0.03:
        entry = rng.getrandbits(64 if wide else 32)
    return entry


def machine_state(mode: str) -> SpecialRegisters:
    """Flat segments at CPL 0."""
    cr0, cr4, efer = MODES[mode]
    wide = bool(efer & Efer.LMA)
    special = SpecialRegisters(cr0=int(cr0) | 0x10, cr3=ROOT, cr4=int(cr4), efer=int(efer))
    special.cs = Segment(selector=8, type=11, db=0 if wide else 1, l=1 if wide else 0, g=1, limit=0xFFFFFFFF)
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(special, name, Segment(selector=16, type=3, db=1, g=1, limit=0xFFFFFFFF))
    return special


def to_user(special: SpecialRegisters) -> None:
    """CPL 3."""
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(special, name)
        segment.dpl, segment.selector = 3, segment.selector | 3


def expected(special: SpecialRegisters, gva: int, access: int, user: bool, read) -> tuple[str, int] | None:
    """What the manual says (SDM 3A 4.6, 4.7), from the walker's steps; None where a table lies outside memory."""
    found = walk(special, gva, read, physical_bits=PHYSICAL_BITS)
    code = (2 if access == WRITE else 0) | (4 if user else 0)
    if access == FETCH and (special.cr4 & Cr4.SMEP or (special.cr4 & Cr4.PAE and special.efer & Efer.NXE)):
        code |= 16
    if found.failure is WalkFailure.NOT_PRESENT:
        return "fault", code
    if found.failure is WalkFailure.RESERVED_BIT:
        return "fault", code | 9
    if found.gpa is None or found.rights is None:
        return None
    rights = found.rights
    allowed = rights.user if user else True
    if not user and rights.user:
        allowed = not (special.cr4 & Cr4.SMEP) if access == FETCH else not (special.cr4 & Cr4.SMAP)
    if access == WRITE and not rights.write and (user or special.cr0 & Cr0.WP):
        allowed = False
    if access == FETCH and not rights.execute:
        allowed = False
    return ("gpa", found.gpa) if allowed else ("fault", code | 1)


def random_tables(rng: random.Random, mode: str) -> bytearray:
    """All tables full of entries that lead to each other, to pages, or astray."""
    wide = bool(MODES[mode][1] & Cr4.PAE)
    size = 8 if wide else 4
    image = bytearray(MEMORY)
    for table in TABLES:
        image[table : table + 4096] = b"".join(
            random_entry(rng, wide).to_bytes(size, "little") for _ in range(4096 // size)
        )
    if mode == "pae":
        for index in range(4):
            entry = rng.choice(TABLES[1:]) | (1 if rng.random() < 0.9 else 0)
            image[ROOT + index * 8 : ROOT + index * 8 + 8] = entry.to_bytes(8, "little")
    return image


def hardware_walk(vcpu: SoftVcpu, gva: int, access: int) -> tuple[str, int]:
    """The processor's answer, with memory mapped into the nested tables as it asks for it."""
    while True:
        answer = vcpu.processor.walk(gva, access)
        if answer[0] != "exit" or not vcpu.mmu.resolve(vcpu.processor.exit_gpa, 3):
            return answer


@pytest.mark.parametrize("mode", MODES)
def test_walks_end_as_the_walker_and_the_manual_say(mode: str) -> None:
    rng = random.Random(mode)
    ends = Counter()
    for _ in range(12):
        image = random_tables(rng, mode)
        special = machine_state(mode)
        special.cr0 |= rng.choice((0, Cr0.WP))
        special.cr4 |= rng.choice((0, Cr4.SMEP)) | rng.choice((0, Cr4.SMAP)) | rng.choice((0, Cr4.PGE))
        user = rng.random() < 0.5
        if user:
            to_user(special)
        with SoftEngine() as engine, engine.create_vm() as vm:
            region = PlainRegion(0, MEMORY)
            region.view[:] = image
            vm.map(region)
            vcpu = vm.create_vcpu(0)
            vcpu.set_special(special)
            for _ in range(300):
                gva = rng.getrandbits(rng.choice((21, 30, 32, 47 if "long" not in mode else 56)))
                if not special.efer & Efer.LMA:
                    gva &= 0xFFFFFFFF
                access = rng.choice((READ, WRITE, FETCH))
                wanted = expected(special, gva, access, user, vcpu.mmu.read)
                if wanted is None:
                    continue
                assert hardware_walk(vcpu, gva, access) == wanted, (hex(gva), access, user, special)
                ends[wanted[0]] += 1
    assert ends["gpa"] > 20
    assert ends["fault"] > 20


def test_accessed_and_dirty_flags_are_set_where_the_processor_went() -> None:
    with SoftEngine() as engine, engine.create_vm() as vm:
        region = PlainRegion(0, MEMORY)
        vm.map(region)
        for table, index, entry in ((0x10000, 0, 0x11007), (0x11000, 0, 0x12007), (0x12000, 0, 0x13007)):
            region.view[table + 8 * index : table + 8 * index + 8] = entry.to_bytes(8, "little")
        for page in range(64):
            region.view[0x13000 + 8 * page : 0x13008 + 8 * page] = (page << 12 | 7).to_bytes(8, "little")
        region.view[CODE : CODE + 6] = bytes.fromhex("8a07 8803 f4 90")  # mov al, [rdi]; mov [rbx], al; hlt
        vcpu = vm.create_vcpu(0)
        special = machine_state("4-level")
        vcpu.set_special(special)
        vcpu.set_registers(Registers(rip=CODE, rdi=0x5000, rbx=0x6000))
        assert vcpu.run(RecordingBus()) is ExitReason.HLT

        def leaf(page: int) -> int:
            return int.from_bytes(region.view[0x13000 + 8 * page : 0x13008 + 8 * page], "little") & 0x60

        assert leaf(CODE >> 12) == 0x20
        assert leaf(5) == 0x20
        assert leaf(6) == 0x60
        assert leaf(7) == 0
        for table in (0x10000, 0x11000, 0x12000):
            assert region.view[table] & 0x60 == 0x20


@pytest.mark.parametrize(("flags", "code"), [(0, 2), (1, 3)])
def test_page_fault_error_code_tells_missing_from_forbidden(flags: int, code: int) -> None:
    with SoftEngine() as engine, engine.create_vm() as vm:
        region = PlainRegion(0, MEMORY)
        vm.map(region)
        for table, entry in ((0x10000, 0x11007), (0x11000, 0x12007), (0x12000, 0x13007)):
            region.view[table : table + 8] = entry.to_bytes(8, "little")
        for page in range(64):
            rights = flags if page == 6 else 7
            region.view[0x13000 + 8 * page : 0x13008 + 8 * page] = (page << 12 | rights).to_bytes(8, "little")
        gdt = 0x7000
        region.view[gdt + 8 : gdt + 16] = (0x00209B0000000000).to_bytes(8, "little")
        gate = 0x2000 | 8 << 16 | 0x8E00 << 32
        region.view[IDT + 14 * 16 : IDT + 14 * 16 + 8] = gate.to_bytes(8, "little")
        region.view[CODE : CODE + 2] = bytes.fromhex("8803")  # mov [rbx], al
        region.view[0x2000:0x2002] = bytes.fromhex("58f4")  # pop rax; hlt
        vcpu = vm.create_vcpu(0)
        special = machine_state("4-level")
        special.cr0 |= Cr0.WP
        special.gdt.base_gva, special.gdt.limit = gdt, 0xFFF
        special.idt.base_gva, special.idt.limit = IDT, 0xFFF
        vcpu.set_special(special)
        vcpu.set_registers(Registers(rip=CODE, rbx=0x6008, rsp=0x9000))
        assert vcpu.run(RecordingBus()) is ExitReason.HLT
        assert vcpu.get_registers().rax == code
        assert vcpu.get_special().cr2 == 0x6008
