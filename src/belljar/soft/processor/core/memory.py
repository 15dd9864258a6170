"""Memory accesses: the TLB fast path, and the slow path behind it.

An access function answers a host pointer good for `size` bytes, or NULL with cpu.memory_status FAULT or EXIT. When the
memory cannot be touched in place (it crosses a page, or code was decoded from it) the pointer is cpu.bounce: a read finds
the data there; a write puts it there and calls `commit`.
"""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def tlb_table(cpu: cython.pointer(Cpu), context: cython.int, kind: cython.int) -> cython.pointer(TlbEntry):
    """The table for one context and kind of access (TLB_ENTRIES entries; TLB_FETCH_ENTRIES for fetches)."""
    return cpu.tlb + context * (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES) + kind * TLB_ENTRIES


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def bank_slot(
    entries: cython.pointer(TlbEntry), context: cython.int, kind: cython.int, gva: u64
) -> cython.pointer(TlbEntry):
    """The one entry of a bank that may hold the page of `gva`."""
    mask: u64 = (TLB_FETCH_ENTRIES - 1) if kind == ACCESS_FETCH else (TLB_ENTRIES - 1)
    return (
        entries
        + context * (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES)
        + kind * TLB_ENTRIES
        + ((gva >> PAGE_SHIFT) & mask)
    )


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def tlb_slot(cpu: cython.pointer(Cpu), context: cython.int, kind: cython.int, gva: u64) -> cython.pointer(TlbEntry):
    """The one entry that may hold the page of `gva` now."""
    return bank_slot(cpu.tlb, context, kind, gva)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def access_context(cpu: cython.pointer(Cpu), access: cython.int) -> cython.int:
    """The TLB context of an access: 0 supervisor, 1 user, 2 supervisor that may touch user pages in spite of SMAP."""
    return 0 if access & ACCESS_IMPLICIT else cpu.context


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def note_code_write(
    cpu: cython.pointer(Cpu), access: cython.int, gva: u64, host: cython.pointer(u8), hpa: u64
) -> cython.void:
    """Remember where a write goes whose page holds code: it stays on the slow path, but need not walk again."""
    slot: cython.pointer(CodeWrite) = cython.address(cpu.bank.code_writes[(gva >> PAGE_SHIFT) & (CODE_WRITES - 1)])
    slot.tag = (gva & PAGE_MASK) | cython.cast(u64, access_context(cpu, access) + 1)
    slot.hpa = hpa & PAGE_MASK
    slot.host = cython.cast(cython.pointer(u8), cython.cast(u64, host) & PAGE_MASK)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_code_write(cpu: cython.pointer(Cpu), access: cython.int, gva: u64) -> cython.bint:
    """Whether that is known of a write; then cpu.fill_host and fill_hpa say where. Not of pages without code any more."""
    slot: cython.pointer(CodeWrite) = cython.address(cpu.bank.code_writes[(gva >> PAGE_SHIFT) & (CODE_WRITES - 1)])
    if slot.tag != ((gva & PAGE_MASK) | cython.cast(u64, access_context(cpu, access) + 1)):
        return False
    if not page_has_code(cpu.host, slot.hpa):
        return False
    cpu.fill_host = slot.host + (gva & PAGE_OFFSET)
    cpu.fill_hpa = slot.hpa + (gva & PAGE_OFFSET)
    cpu.fill_device = 0
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def tlb_insert(cpu: cython.pointer(Cpu), access: cython.int, gva: u64, host: cython.pointer(u8), hpa: u64) -> cython.void:
    """Remember that the page of `gva` is at `host` for such accesses; writes to pages that hold code are never remembered."""
    kind: cython.int = access & ACCESS_KIND
    entry: cython.pointer(TlbEntry) = tlb_slot(cpu, access_context(cpu, access), kind, gva)
    page: u64 = gva & PAGE_MASK
    if kind == ACCESS_WRITE and not take_back_writes(cpu.host, hpa):
        note_code_write(cpu, access, gva, host, hpa)
        return
    if kind == ACCESS_FETCH:
        if entry.tag != page and entry.tag != 1:
            cpu.bank.fetches_lost = 1
        entry.tag = page
        entry.addend = (hpa & PAGE_MASK) - page
    else:
        entry.tag = page
        entry.addend = (cython.cast(u64, host) & PAGE_MASK) - page


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def read_at(cpu: cython.pointer(Cpu), segment: cython.int, gva: u64, size: cython.int) -> cython.pointer(u8):
    """Where to read `size` bytes at a linear address with the rights of the current CPL; NULL: cpu.memory_status."""
    entry: cython.pointer(TlbEntry) = cpu.tlb_read + ((gva >> PAGE_SHIFT) & (TLB_ENTRIES - 1))
    if likely(entry.tag == ((gva + cython.cast(u64, size - 1)) & PAGE_MASK)):
        return cython.cast(cython.pointer(u8), gva + entry.addend)
    return access_slow(cpu, segment, gva, size, ACCESS_READ)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def write_at(cpu: cython.pointer(Cpu), segment: cython.int, gva: u64, size: cython.int) -> cython.pointer(u8):
    """Where to write (or read and write) `size` bytes; if it is cpu.bounce, `commit` must follow. NULL: memory_status."""
    entry: cython.pointer(TlbEntry) = cpu.tlb_write + ((gva >> PAGE_SHIFT) & (TLB_ENTRIES - 1))
    if likely(entry.tag == ((gva + cython.cast(u64, size - 1)) & PAGE_MASK)):
        return cython.cast(cython.pointer(u8), gva + entry.addend)
    return access_slow(cpu, segment, gva, size, ACCESS_WRITE)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def modify_at(cpu: cython.pointer(Cpu), segment: cython.int, gva: u64, size: cython.int) -> cython.pointer(u8):
    """`write_at` for an instruction that reads the old value first: a device has to be asked for it."""
    entry: cython.pointer(TlbEntry) = cpu.tlb_write + ((gva >> PAGE_SHIFT) & (TLB_ENTRIES - 1))
    if likely(entry.tag == ((gva + cython.cast(u64, size - 1)) & PAGE_MASK)):
        return cython.cast(cython.pointer(u8), gva + entry.addend)
    return access_slow(cpu, segment, gva, size, ACCESS_WRITE | ACCESS_MODIFY)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def translate(cpu: cython.pointer(Cpu), gva: u64, access: cython.int) -> cython.int:
    """TLB, then page walk: NEXT with cpu.fill_host and fill_hpa (all ones if not looked up), or FAULT or EXIT."""
    entry: cython.pointer(TlbEntry) = tlb_slot(cpu, access_context(cpu, access), access & ACCESS_KIND, gva)
    if entry.tag == (gva & PAGE_MASK):
        if (access & ACCESS_KIND) == ACCESS_FETCH:
            # Fetches remember the host-physical page: that is what blocks are found by.
            cpu.fill_hpa = gva + entry.addend
            cpu.fill_host = host_pointer(cpu.host, cpu.fill_hpa)
            return NEXT
        cpu.fill_host = cython.cast(cython.pointer(u8), gva + entry.addend)
        cpu.fill_hpa = ALL_ONES
        cpu.fill_device = 0
        return NEXT
    if (access & ACCESS_KIND) == ACCESS_WRITE and find_code_write(cpu, access, gva):
        return NEXT
    return tlb_fill(cpu, gva, access)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_canonical(cpu: cython.pointer(Cpu), gva: u64) -> cython.bint:
    """Whether the upper bits repeat bit 47 (56 with 5-level paging); SDM 3A 4.5.3, 1 3.3.7.1."""
    unused: cython.int = 7 if cpu.cr4 & CR4_LA57 else 16
    return cython.cast(u64, (cython.cast(i64, gva << unused)) >> unused) == gva


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def access_linear(cpu: cython.pointer(Cpu), gva: u64, size: cython.int, access: cython.int) -> cython.pointer(u8):
    """Like read_at and write_at without segmentation, alignment and canonical checks; any `access`, page crossing included."""
    status: cython.int
    first: cython.int = PAGE_SIZE - cython.cast(cython.int, gva & PAGE_OFFSET)
    second: u64
    write: cython.bint = (access & ACCESS_KIND) == ACCESS_WRITE
    status = translate(cpu, gva, access)
    if status != NEXT:
        cpu.memory_status = status
        return cython.NULL
    cpu.bounce_device[0] = cpu.fill_device
    cpu.bounce_device[1] = 0
    if first >= size and not cpu.fill_device and not (
        write and cpu.fill_hpa != ALL_ONES and page_has_code(cpu.host, cpu.fill_hpa)
    ):
        if write and cpu.noting_stores:
            note_store(cpu, cpu.fill_host, size)
        return cpu.fill_host
    if write and cpu.noting_stores:
        note_store(cpu, cpu.bounce, size)
    cpu.bounce_host[0] = cpu.fill_host
    cpu.bounce_hpa[0] = cpu.fill_hpa
    cpu.bounce_size = size
    cpu.bounce_split = size
    if first < size:
        second = gva + first
        if cpu.address_mask_bits == 32:
            second &= LOW32
        status = translate(cpu, second, access)
        if status != NEXT:
            cpu.memory_status = status
            return cython.NULL
        cpu.bounce_host[1] = cpu.fill_host
        cpu.bounce_hpa[1] = cpu.fill_hpa
        cpu.bounce_device[1] = cpu.fill_device
        cpu.bounce_split = first
    fill_bounce(cpu, 0, 0, cpu.bounce_split, access)
    if first < size:
        fill_bounce(cpu, 1, first, size - first, access)
    return cpu.bounce


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_bounce(
    cpu: cython.pointer(Cpu), part: cython.int, offset: cython.int, size: cython.int, access: cython.int
) -> cython.void:
    """Bring one part of the bounce buffer in. A device is not read for a store that does not need it."""
    if not cpu.bounce_device[part]:
        memcpy(cpu.bounce + offset, cpu.bounce_host[part], size)
    elif (access & ACCESS_KIND) != ACCESS_WRITE or access & ACCESS_MODIFY:
        device_load(cpu, cpu.bounce_hpa[part], size, cpu.bounce + offset)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def access_slow(
    cpu: cython.pointer(Cpu), segment: cython.int, gva: u64, size: cython.int, access: cython.int
) -> cython.pointer(u8):
    """The way of an access that the TLB did not answer: canonical, alignment and breakpoint checks, walk, page crossing."""
    if cpu.address_mask_bits == 64 and not (is_canonical(cpu, gva) and is_canonical(cpu, gva + size - 1)):
        cpu.memory_status = raise_fault(cpu, EXC_SS if segment == SS else EXC_GP, 0)
        return cython.NULL
    if cpu.cpl == 3 and cpu.rflags & FLAG_AC and cpu.cr0 & CR0_AM and gva & (size - 1) and size <= 8:
        cpu.memory_status = raise_fault(cpu, EXC_AC, 0)
        return cython.NULL
    if cpu.watchpoint_count:
        note_watched(cpu, gva, size, access)
    if cpu.dr[7] & 0xFF:
        check_data_breakpoints(cpu, gva, size, access)
    return access_linear(cpu, gva, size, access)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def commit(cpu: cython.pointer(Cpu)) -> cython.void:
    """Carry what was written to cpu.bounce to its places; sets cpu.code_hit if code had been decoded from there."""
    first: cython.int = cpu.bounce_split
    drain_bounce(cpu, 0, 0, first)
    if cpu.bounce_size > cpu.bounce_split:
        drain_bounce(cpu, 1, first, cpu.bounce_size - first)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drain_bounce(cpu: cython.pointer(Cpu), part: cython.int, offset: cython.int, size: cython.int) -> cython.void:
    """Carry one part of the bounce buffer to memory or to its device."""
    if cpu.bounce_device[part]:
        device_store(cpu, cpu.bounce_hpa[part], size, cpu.bounce + offset)
        return
    memcpy(cpu.bounce_host[part], cpu.bounce + offset, size)
    if cpu.bounce_hpa[part] != ALL_ONES and code_written(cpu.host, cpu.bounce_hpa[part], size):
        cpu.code_hit = 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def load(place: cython.pointer(u8), size: cython.int) -> u64:
    """The zero-extended little-endian number of 1, 2, 4 or 8 bytes at a host address."""
    if size == 1:
        return place[0]
    if size == 2:
        return cython.cast(cython.pointer(u16), place)[0]
    if size == 4:
        return cython.cast(cython.pointer(u32), place)[0]
    return cython.cast(cython.pointer(u64), place)[0]


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def store(place: cython.pointer(u8), size: cython.int, value: u64) -> cython.void:
    """Put the low 1, 2, 4 or 8 bytes of `value` at a host address."""
    if size == 1:
        place[0] = cython.cast(u8, value)
    elif size == 2:
        cython.cast(cython.pointer(u16), place)[0] = cython.cast(u16, value)
    elif size == 4:
        cython.cast(cython.pointer(u32), place)[0] = cython.cast(u32, value)
    else:
        cython.cast(cython.pointer(u64), place)[0] = value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_linear(
    cpu: cython.pointer(Cpu), gva: u64, size: cython.int, access: cython.int, value: cython.pointer(u64)
) -> cython.int:
    """Read 1, 2, 4 or 8 bytes at a linear address (`access`: ACCESS_READ, usually with ACCESS_IMPLICIT)."""
    place: cython.pointer(u8)
    if cpu.address_mask_bits == 32:
        gva &= LOW32
    place = access_linear(cpu, gva, size, access)
    if place == cython.NULL:
        return cpu.memory_status
    value[0] = load(place, size)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_linear(cpu: cython.pointer(Cpu), gva: u64, size: cython.int, access: cython.int, value: u64) -> cython.int:
    """Write 1, 2, 4 or 8 bytes at a linear address (`access`: ACCESS_WRITE, usually with ACCESS_IMPLICIT)."""
    place: cython.pointer(u8)
    if cpu.address_mask_bits == 32:
        gva &= LOW32
    place = access_linear(cpu, gva, size, access)
    if place == cython.NULL:
        return cpu.memory_status
    store(place, size, value)
    if place == cpu.bounce:
        commit(cpu)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_segment(
    cpu: cython.pointer(Cpu), segment: cython.int, offset: u64, size: u64, access: cython.int
) -> cython.int:
    """Rights and limits of an access outside 64-bit mode (SDM 3A 5.3, 5.5): NEXT, or #GP(0), or #SS(0) for SS."""
    attributes: u32 = cpu.segment[segment].attributes
    limit: u64 = cpu.segment[segment].limit
    last: u64 = offset + size - 1
    allowed: cython.bint = True
    if attributes & AR_UNUSABLE or not attributes & AR_P:
        allowed = False
    elif (access & ACCESS_KIND) == ACCESS_WRITE:
        allowed = (attributes & (AR_CODE | AR_WRITABLE)) == AR_WRITABLE
    elif attributes & AR_CODE:
        allowed = (attributes & AR_WRITABLE) != 0
    if allowed:
        if (attributes & (AR_CODE | AR_DOWN)) == AR_DOWN:
            allowed = offset > limit and last <= (LOW32 if attributes & AR_DB else cython.cast(u64, 0xFFFF))
        else:
            allowed = last <= limit
    if likely(allowed):
        return NEXT
    return raise_fault(cpu, EXC_SS if segment == SS else EXC_GP, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def linear_address(
    cpu: cython.pointer(Cpu), segment: cython.int, offset: u64, size: cython.int, access: cython.int
) -> cython.int:
    """Segmentation for one access of `size` bytes: NEXT with the linear address in cpu.linear, or FAULT.

    In 64-bit mode only FS and GS have a base; canonical checks follow in access_slow. Elsewhere rights and limits are
    checked, and addresses wrap at 4 GiB.
    """
    if (cpu.mode & MODE_CODE) == 0:
        cpu.linear = offset + cpu.base[segment] if segment >= FS else offset
        return NEXT
    if check_segment(cpu, segment, offset, size, access) != NEXT:
        return FAULT
    cpu.linear = (offset + cpu.base[segment]) & LOW32
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def access_memory(
    cpu: cython.pointer(Cpu), segment: cython.int, offset: u64, size: cython.int, access: cython.int
) -> cython.pointer(u8):
    """read_at or write_at with segmentation: a pointer, or NULL with cpu.memory_status."""
    if linear_address(cpu, segment, offset, size, access) != NEXT:
        cpu.memory_status = FAULT
        return cython.NULL
    if access & ACCESS_MODIFY:
        return modify_at(cpu, segment, cpu.linear, size)
    if access == ACCESS_WRITE:
        return write_at(cpu, segment, cpu.linear, size)
    return read_at(cpu, segment, cpu.linear, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_memory(
    cpu: cython.pointer(Cpu), segment: cython.int, offset: u64, size: cython.int, value: cython.pointer(u64)
) -> cython.int:
    """Read 1, 2, 4 or 8 bytes at segment:offset as the program would: NEXT, FAULT or EXIT."""
    place: cython.pointer(u8) = access_memory(cpu, segment, offset, size, ACCESS_READ)
    if place == cython.NULL:
        return cpu.memory_status
    value[0] = load(place, size)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_memory(cpu: cython.pointer(Cpu), segment: cython.int, offset: u64, size: cython.int, value: u64) -> cython.int:
    """Write 1, 2, 4 or 8 bytes at segment:offset as the program would: NEXT, FAULT or EXIT."""
    place: cython.pointer(u8) = access_memory(cpu, segment, offset, size, ACCESS_WRITE)
    if place == cython.NULL:
        return cpu.memory_status
    store(place, size, value)
    if place == cpu.bounce:
        commit(cpu)
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def stack_mask(cpu: cython.pointer(Cpu)) -> u64:
    """How much of RSP the current stack segment uses."""
    size: u32 = cpu.mode & MODE_STACK
    if size == 0:
        return ALL_ONES
    return LOW32 if size == (1 << 2) else cython.cast(u64, 0xFFFF)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_sp(cpu: cython.pointer(Cpu), value: u64) -> cython.void:
    """Set the stack pointer in the width that the stack segment uses; a 32-bit one clears the upper half."""
    mask: u64 = stack_mask(cpu)
    if mask == 0xFFFF:
        cpu.gpr[RSP] = (cpu.gpr[RSP] & ~mask) | (value & mask)
    else:
        cpu.gpr[RSP] = value & mask


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def stack_read(cpu: cython.pointer(Cpu), sp: u64, size: cython.int, value: cython.pointer(u64)) -> cython.int:
    """Read SS:[sp], sp wrapped to the stack's address size; RSP stays."""
    return read_memory(cpu, SS, sp & stack_mask(cpu), size, value)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def stack_write(cpu: cython.pointer(Cpu), sp: u64, size: cython.int, value: u64) -> cython.int:
    """Write SS:[sp], sp wrapped to the stack's address size; RSP stays."""
    return write_memory(cpu, SS, sp & stack_mask(cpu), size, value)
