"""Descriptors: fetching them from the GDT and LDT, what their attributes say, and the hidden parts of segment registers."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def system_access(cpu: cython.pointer(Cpu), gva: u64, size: cython.int, access: cython.int) -> cython.pointer(u8):
    """Where a system structure's bytes (within one page) lie for an implicit access; NULL: cpu.memory_status."""
    if cpu.efer & EFER_LMA:
        if not is_canonical(cpu, gva):
            cpu.memory_status = raise_fault(cpu, EXC_GP, 0)
            return cython.NULL
    else:
        gva &= LOW32
    return access_linear(cpu, gva, size, access | ACCESS_IMPLICIT)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def system_read(cpu: cython.pointer(Cpu), gva: u64, size: cython.int, value: cython.pointer(u64)) -> cython.int:
    """Read 1, 2, 4 or 8 bytes of a descriptor table or TSS: NEXT, FAULT or EXIT. Addresses have 64 bits whenever LMA is set."""
    place: cython.pointer(u8)
    i: cython.int
    result: u64 = 0
    if (gva & PAGE_OFFSET) + size <= PAGE_SIZE:
        place = system_access(cpu, gva, size, ACCESS_READ)
        if place == cython.NULL:
            return cpu.memory_status
        value[0] = load(place, size)
        return NEXT
    for i in range(size):
        place = system_access(cpu, gva + i, 1, ACCESS_READ)
        if place == cython.NULL:
            return cpu.memory_status
        result |= cython.cast(u64, place[0]) << (8 * i)
    value[0] = result
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def system_write(cpu: cython.pointer(Cpu), gva: u64, size: cython.int, value: u64) -> cython.int:
    """Write 1, 2, 4 or 8 bytes of a descriptor table, TSS or inner stack: NEXT, or FAULT or EXIT with nothing written."""
    place: cython.pointer(u8)
    i: cython.int
    if (gva & PAGE_OFFSET) + size <= PAGE_SIZE:
        place = system_access(cpu, gva, size, ACCESS_WRITE)
        if place == cython.NULL:
            return cpu.memory_status
        store(place, size, value)
        if place == cpu.bounce:
            commit(cpu)
        return NEXT
    # Both pages must be writable before the first byte changes.
    if system_access(cpu, gva, 1, ACCESS_WRITE) == cython.NULL or system_access(cpu, gva + size - 1, 1, ACCESS_WRITE) == cython.NULL:
        return cpu.memory_status
    for i in range(size):
        place = system_access(cpu, gva + i, 1, ACCESS_WRITE)
        if place == cython.NULL:
            return cpu.memory_status
        store(place, 1, value >> (8 * i))
        if place == cpu.bounce:
            commit(cpu)
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def descriptor_dpl(attributes: u32) -> u32:
    """The privilege level of a descriptor."""
    return (attributes >> AR_DPL_SHIFT) & 3


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_code(attributes: u32) -> cython.bint:
    """Whether attributes are those of a code segment."""
    return (attributes & (AR_S | AR_CODE)) == (AR_S | AR_CODE)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_conforming(attributes: u32) -> cython.bint:
    """Whether attributes are those of a conforming code segment."""
    return (attributes & (AR_S | AR_CODE | AR_DOWN)) == (AR_S | AR_CODE | AR_DOWN)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_writable_data(attributes: u32) -> cython.bint:
    """Whether attributes are those of a data segment that may be written: the only kind a stack may be."""
    return (attributes & (AR_S | AR_CODE | AR_WRITABLE)) == (AR_S | AR_WRITABLE)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def long_mode_active(cpu: cython.pointer(Cpu)) -> cython.bint:
    """IA-32e mode: 64-bit or compatibility."""
    return (cpu.efer & EFER_LMA) != 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def in_long_code(cpu: cython.pointer(Cpu)) -> cython.bint:
    """64-bit mode."""
    return (cpu.efer & EFER_LMA) != 0 and (cpu.segment[CS].attributes & AR_L) != 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def in_v86(cpu: cython.pointer(Cpu)) -> cython.bint:
    """Virtual-8086 mode."""
    return (cpu.rflags & FLAG_VM) != 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def in_protected(cpu: cython.pointer(Cpu)) -> cython.bint:
    """Protected mode with selectors and descriptors: neither real nor virtual-8086."""
    return (cpu.cr0 & CR0_PE) != 0 and not in_v86(cpu)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def io_privilege(cpu: cython.pointer(Cpu)) -> u32:
    """IOPL."""
    return (cpu.rflags & FLAG_IOPL) >> 12


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def selector_error(cpu: cython.pointer(Cpu), vector: u32, selector: u32, ext: u32) -> cython.int:
    """A fault whose error code is a selector's index and table, and EXT in bit 0 (SDM 3A 6.13)."""
    return raise_fault(cpu, vector, (selector & 0xFFFC) | ext)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def parse_descriptor(d: cython.pointer(Descriptor), raw: u64) -> cython.void:
    """Take base, limit and attributes out of the 8 bytes (SDM 3A 3.4.5)."""
    limit: u64 = (raw & 0xFFFF) | ((raw >> 32) & 0xF0000)
    d.raw = raw
    d.attributes = cython.cast(u32, (raw >> 40) & 0xF0FF)
    d.base = ((raw >> 16) & 0xFFFFFF) | ((raw >> 32) & (LOW32 ^ 0xFFFFFF))
    d.limit = cython.cast(u32, (limit << 12) | 0xFFF if d.attributes & AR_G else limit)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fetch_descriptor(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor)) -> cython.int:
    """Fetch a selector's descriptor: NEXT; OUTSIDE for a null selector or one beyond its table; FAULT or EXIT."""
    base: u64 = cpu.gdt_base
    limit: u64 = cpu.gdt_limit
    offset: u64 = selector & 0xFFF8
    raw: u64 = 0
    status: cython.int
    d.selector = selector
    if (selector & 0xFFFC) == 0:
        return OUTSIDE
    if selector & 4:
        if cpu.segment[LDTR].attributes & AR_UNUSABLE or not cpu.segment[LDTR].attributes & AR_P:
            return OUTSIDE
        base = cpu.base[LDTR]
        limit = cpu.segment[LDTR].limit
    if offset + 7 > limit:
        return OUTSIDE
    d.gva = base + offset
    status = system_read(cpu, d.gva, 8, cython.address(raw))
    if status != NEXT:
        return status
    parse_descriptor(d, raw)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def need_descriptor(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor), vector: u32, ext: u32) -> cython.int:
    """fetch_descriptor, where null gives `vector`(0) and outside the table `vector`(selector)."""
    status: cython.int = fetch_descriptor(cpu, selector, d)
    if status == OUTSIDE:
        return selector_error(cpu, vector, selector, ext)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def need_descriptor_high(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), vector: u32, ext: u32) -> cython.int:
    """The upper 8 bytes of a 16-byte system descriptor (SDM 3A 7.2.3, 3.5): completes d.base; d.raw stays."""
    high: u64 = 0
    status: cython.int
    local: cython.bint = (d.selector & 4) != 0
    limit: u64 = cpu.segment[LDTR].limit if local else cpu.gdt_limit
    if cython.cast(u64, d.selector & 0xFFF8) + 15 > limit:
        return selector_error(cpu, vector, d.selector, ext)
    status = system_read(cpu, d.gva + 8, 8, cython.address(high))
    if status != NEXT:
        return status
    if (high >> 40) & 0x1F:
        return selector_error(cpu, vector, d.selector, ext)
    d.base = (d.base & LOW32) | (high << 32)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mark_accessed(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor)) -> cython.int:
    """Set the accessed bit of a code or data descriptor in its table, unless it is set (SDM 3A 3.4.5.1)."""
    status: cython.int
    if d.attributes & AR_ACCESSED:
        return NEXT
    status = system_write(cpu, d.gva + 5, 1, ((d.raw >> 40) & 0xFF) | AR_ACCESSED)
    if status == NEXT:
        d.attributes |= AR_ACCESSED
        d.raw |= cython.cast(u64, AR_ACCESSED) << 40
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u32, d: cython.pointer(Descriptor)) -> cython.void:
    """Put a descriptor into a segment register's hidden part; the caller calls update_mode."""
    cpu.segment[segment].selector = cython.cast(u16, selector)
    cpu.segment[segment].limit = d.limit
    cpu.segment[segment].attributes = d.attributes
    cpu.base[segment] = d.base


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_null_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u32, dpl: u32) -> cython.void:
    """Load a null selector: unusable. SS keeps the CPL as its DPL, as the VMCS wants it (SDM 3C 26.3.1.2)."""
    cpu.segment[segment].selector = cython.cast(u16, selector)
    cpu.segment[segment].limit = 0
    cpu.segment[segment].attributes = AR_UNUSABLE | (dpl << AR_DPL_SHIFT)
    cpu.base[segment] = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_real_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u32) -> cython.void:
    """Load a segment register in real mode: only the base follows the selector; a larger limit stays (unreal mode)."""
    old: u32 = cpu.segment[segment].attributes
    if old & AR_UNUSABLE or not old & AR_P:
        old = 0
        cpu.segment[segment].limit = 0xFFFF
    cpu.segment[segment].attributes = (old & (AR_G | AR_DB)) | AR_P | AR_S | AR_WRITABLE | AR_ACCESSED
    cpu.segment[segment].selector = cython.cast(u16, selector)
    cpu.base[segment] = cython.cast(u64, selector & 0xFFFF) << 4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_v86_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u32) -> cython.void:
    """Load a segment register in virtual-8086 mode (SDM 3B 21.2, 3C 26.3.1.2)."""
    cpu.segment[segment].selector = cython.cast(u16, selector)
    cpu.segment[segment].limit = 0xFFFF
    cpu.segment[segment].attributes = (3 << AR_DPL_SHIFT) | AR_P | AR_S | AR_WRITABLE | AR_ACCESSED
    cpu.base[segment] = cython.cast(u64, selector & 0xFFFF) << 4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_code_segment(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor), cpl: u32) -> cython.void:
    """Load CS and with it the CPL, which becomes the selector's RPL; the caller calls update_mode."""
    set_segment(cpu, CS, (selector & 0xFFFC) | cpl, d)
    cpu.cpl = cpl


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def code_offset_fault(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), offset: u64, ext: u32) -> cython.int:
    """A new RIP in a new code segment: NEXT, or #GP(0) beyond the limit or, for 64-bit code, not canonical."""
    if cpu.efer & EFER_LMA and d.attributes & AR_L:
        if is_canonical(cpu, offset):
            return NEXT
    elif offset <= d.limit:
        return NEXT
    return raise_fault(cpu, EXC_GP, ext)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def bad_long_code(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor)) -> cython.bint:
    """Whether a code descriptor has both L and D set, which IA-32e mode refuses."""
    return (cpu.efer & EFER_LMA) != 0 and (d.attributes & (AR_L | AR_DB)) == (AR_L | AR_DB)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_inner_segment(cpu: cython.pointer(Cpu), segment: cython.int) -> cython.void:
    """On the way to an outer level: null a data segment register that the new CPL may not use (SDM 3A 5.8.6).

    It loses its selector and its rights; its base stays, and 64-bit code goes on using those of FS and GS (SDM 2B, RET).
    """
    attributes: u32 = cpu.segment[segment].attributes
    base: u64 = cpu.base[segment]
    if attributes & AR_UNUSABLE:
        return
    if not is_conforming(attributes) and descriptor_dpl(attributes) < cpu.cpl:
        set_null_segment(cpu, segment, 0, 0)
        cpu.base[segment] = base


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_inner_segments(cpu: cython.pointer(Cpu)) -> cython.void:
    """drop_inner_segment for ES, DS, FS and GS."""
    drop_inner_segment(cpu, ES)
    drop_inner_segment(cpu, DS)
    drop_inner_segment(cpu, FS)
    drop_inner_segment(cpu, GS)
