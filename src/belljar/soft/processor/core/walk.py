"""The page walk of the hardware: guest paging structures of every mode, rights, accessed and dirty flags (SDM 3A chapter 4)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def tlb_fill(cpu: cython.pointer(Cpu), gva: u64, access: cython.int) -> cython.int:
    """Walk for one access, fill the TLB: NEXT with cpu.fill_host and fill_hpa, FAULT (#PF) or EXIT (EPT violation)."""
    status: cython.int
    kind: cython.int = access & ACCESS_KIND
    wanted: u32 = cython.cast(u32, 1) << kind
    cpu.fill_device = 0
    cpu.walk_gpa = gva
    cpu.walk_global = 0
    cpu.walk_shift = PAGE_SHIFT
    if cpu.cr0 & CR0_PG:
        status = walk(cpu, gva, access)
        if status != NEXT:
            return status
    if kind == ACCESS_WRITE and access & ACCESS_MODIFY:
        wanted = 3
    cpu.fill_host = guest_physical(cpu, cpu.walk_gpa, gva, wanted, True)
    if cpu.fill_host == cython.NULL:
        return cpu.memory_status
    if cpu.fill_device == 0:
        tlb_insert(cpu, access, gva, cpu.fill_host, cpu.fill_hpa)
        tlb_note(cpu, access, gva)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk(cpu: cython.pointer(Cpu), gva: u64, access: cython.int) -> cython.int:
    """The guest's own translation: NEXT with cpu.walk_gpa and walk_global, FAULT or EXIT. Starts over when an entry changes.

    No page fault comes of what was known of upper tables (SDM 3A 4.10.4.1: it would be forgotten with the fault).
    """
    status: cython.int
    while True:
        if cpu.cr4 & CR4_PAE:
            status = walk_wide(cpu, gva, access)
        else:
            status = walk_narrow(cpu, gva, access)
        if status == FAULT and cpu.walk_shortened:
            forget_directories(cpu)
        elif status != AGAIN:
            return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fault_code(cpu: cython.pointer(Cpu), access: cython.int) -> u32:
    """The bits of a page fault's error code that the access itself decides: W/R, U/S, I/D (SDM 3A 4.7)."""
    code: u32 = 0
    if (access & ACCESS_KIND) == ACCESS_WRITE:
        code |= 2
    if access_context(cpu, access) == 1:
        code |= 4
    if (access & ACCESS_KIND) == ACCESS_FETCH and (cpu.cr4 & CR4_SMEP or (cpu.cr4 & CR4_PAE and cpu.efer & EFER_NXE)):
        code |= 0x10
    return code


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_entry(
    cpu: cython.pointer(Cpu), entry: cython.pointer(TableEntry), gpa: u64, size: u32, gva: u64, access: cython.int
) -> cython.int:
    """Read a present paging-structure entry of 4 or 8 bytes: NEXT, FAULT (not present) or EXIT.

    With accessed and dirty flags for EPT, the processor's reads of paging structures count as writes (SDM 3C 29.3.5).
    A structure that lies in a device is treated as KVM does: the entry is not present.
    """
    entry.gpa = gpa
    entry.size = size
    entry.value = 0
    entry.place = guest_physical(cpu, gpa, gva, 3 if cpu.eptp & 0x40 else 1, False)
    if entry.place == cython.NULL:
        return cpu.memory_status
    if cpu.fill_device:
        cpu.fill_device = 0
    else:
        entry.hpa = cpu.fill_hpa
        entry.writable = cpu.eptp == 0 or (cpu.ept_allowed & 2) != 0
        entry.value = load(entry.place, size)
    if not entry.value & 1:
        return raise_page_fault(cpu, gva, fault_code(cpu, access))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_rights(
    cpu: cython.pointer(Cpu), gva: u64, access: cython.int, allowed: u64, no_execute: cython.bint, key: u32
) -> cython.int:
    """Access rights of a translation (SDM 3A 4.6): NEXT or FAULT. `allowed`: R/W and U/S of all levels; `key` 0-15, 16 none."""
    kind: cython.int = access & ACCESS_KIND
    context: cython.int = access_context(cpu, access)
    user_page: cython.bint = (allowed & 4) != 0
    protect: cython.bint = (cpu.cr0 & CR0_WP) != 0 or context == 1
    denied: cython.bint = False
    by_key: cython.bint = False
    if user_page and key < 16 and kind != ACCESS_FETCH:
        by_key = ((cpu.pkru >> (2 * key)) & 1) != 0 or (
            kind == ACCESS_WRITE and protect and ((cpu.pkru >> (2 * key)) & 2) != 0
        )
    if context == 1:
        denied = not user_page
    elif user_page:
        if kind == ACCESS_FETCH:
            denied = (cpu.cr4 & CR4_SMEP) != 0
        else:
            denied = (cpu.cr4 & CR4_SMAP) != 0 and context == 0
    if kind == ACCESS_WRITE:
        denied = denied or (protect and (allowed & 2) == 0)
    elif kind == ACCESS_FETCH:
        denied = denied or no_execute
    if denied or by_key:
        return raise_page_fault(cpu, gva, fault_code(cpu, access) | 1 | (0x20 if by_key else 0))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pat_reserved(cpu: cython.pointer(Cpu), large: cython.bint) -> u64:
    """The PAT bit of an entry that maps a page: reserved where there is no PAT (SDM 3A 4.3 to 4.5)."""
    if has_feature(cpu, FEATURE_PAT):
        return 0
    return 0x1000 if large else 0x80


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def entry_reserved(cpu: cython.pointer(Cpu), entry: u64, shift: cython.int, leaf: cython.bint) -> u64:
    """The reserved bits that are set in an 8-byte entry which maps, or leads to tables below, 1 << shift bytes."""
    reserved: u64 = PHYSICAL_RESERVED
    if not cpu.efer & EFER_LMA:
        reserved |= cython.cast(u64, 0x7FF) << 52
    if not cpu.efer & EFER_NXE:
        reserved |= BIT63
    if leaf:
        reserved |= pat_reserved(cpu, shift > PAGE_SHIFT)
        if shift > PAGE_SHIFT:
            reserved |= ((cython.cast(u64, 1) << shift) - 1) & ~cython.cast(u64, 0x1FFF)
    elif shift >= 30:
        reserved |= 0x80  # PS: no pages of this size (512 GiB, or 1 GiB where they do not exist)
    return entry & reserved


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_wide(cpu: cython.pointer(Cpu), gva: u64, access: cython.int) -> cython.int:
    """PAE, 4-level and 5-level paging (SDM 3A 4.4, 4.5): NEXT, FAULT, EXIT, or AGAIN: an entry changed under the walk."""
    entries: TableEntry[5]
    used: cython.int = 0
    allowed: u64 = 6
    no_execute: u64 = 0
    above_allowed: u64 = 6
    above_no_execute: u64 = 0
    entry: u64 = cpu.cr3
    shift: cython.int = 39
    status: cython.int
    leaf: cython.bint
    large: cython.bint = (cpu.efer & EFER_LMA) != 0 and has_feature(cpu, FEATURE_PAGE1G)
    key: u32 = 16
    above: cython.pointer(DirectoryEntry) = cython.address(
        cpu.directories[(gva >> LARGE_SHIFT) & (DIRECTORIES - 1)]
    )
    table: u64 = 0
    cpu.walk_shortened = 0
    if above.generation == cpu.walk_generation and above.number == gva >> LARGE_SHIFT:
        cpu.walk_shortened = 1
        shift = PAGE_SHIFT
        entry = above.entry
        allowed = above.allowed
        no_execute = above.no_execute
    elif not cpu.efer & EFER_LMA:
        shift = 21
        entry = cpu.pdpte[(gva >> 30) & 3]
        if not entry & 1:
            return raise_page_fault(cpu, gva, fault_code(cpu, access))
    elif cpu.cr4 & CR4_LA57:
        shift = 48
    while True:
        status = read_entry(
            cpu,
            cython.address(entries[used]),
            (entry & PHYSICAL_ADDRESS) + ((gva >> shift) & 0x1FF) * 8,
            8,
            gva,
            access,
        )
        if status != NEXT:
            return status
        table = entry
        entry = entries[used].value
        used += 1
        leaf = shift == PAGE_SHIFT or ((entry & 0x80) != 0 and (shift == 21 or (shift == 30 and large)))
        if entry_reserved(cpu, entry, shift, leaf):
            return raise_page_fault(cpu, gva, fault_code(cpu, access) | 9)
        if shift == PAGE_SHIFT:
            above_allowed = allowed
            above_no_execute = no_execute
        allowed &= entry
        no_execute |= entry & BIT63
        if leaf:
            break
        shift -= 9
    if cpu.cr4 & CR4_PKE and cpu.efer & EFER_LMA:
        key = (entry >> 59) & 15
    if check_rights(cpu, gva, access, allowed, no_execute != 0, key) != NEXT:
        return FAULT
    status = mark_entries(cpu, entries, used, (access & ACCESS_KIND) == ACCESS_WRITE, gva)
    if status != NEXT:
        return status
    if shift == PAGE_SHIFT:
        above.generation = cpu.walk_generation
        above.number = gva >> LARGE_SHIFT
        above.entry = table
        above.allowed = above_allowed
        above.no_execute = above_no_execute
    cpu.walk_gpa = (entry & PHYSICAL_ADDRESS & ~((cython.cast(u64, 1) << shift) - 1)) | (
        gva & ((cython.cast(u64, 1) << shift) - 1)
    )
    cpu.walk_global = (entry & 0x100) != 0 and (cpu.cr4 & CR4_PGE) != 0
    cpu.walk_shift = shift
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def may_mark(cpu: cython.pointer(Cpu), entry: cython.pointer(TableEntry), gva: u64) -> cython.int:
    """Whether flags can be written to a paging-structure entry: NEXT, EXIT (EPT violation), or BRANCH: leave them.

    The last is for structures in memory that is read-only to the guest, once the hypervisor has seen the violation and
    has the instruction carried out: as KVM does it.
    """
    if entry.writable:
        return NEXT
    if guest_physical(cpu, entry.gpa, gva, 3, False) == cython.NULL:
        return cpu.memory_status
    if cpu.fill_device:
        cpu.fill_device = 0
        return BRANCH
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mark_entries(
    cpu: cython.pointer(Cpu), entries: cython.pointer(TableEntry), used: cython.int, dirty: cython.bint, gva: u64
) -> cython.int:
    """Set accessed flags, and the leaf's dirty flag on a write, each atomically (SDM 3A 4.8).

    NEXT; AGAIN: an entry has changed since it was read; EXIT.
    """
    i: cython.int
    flags: u64
    status: cython.int
    swapped_in: cython.bint
    for i in range(used):
        flags = 0x60 if dirty and i == used - 1 else 0x20
        if (entries[i].value & flags) == flags:
            continue
        status = may_mark(cpu, cython.address(entries[i]), gva)
        if status == BRANCH:
            continue
        if status != NEXT:
            return status
        if entries[i].size == 8:
            swapped_in = swap64(
                cython.cast(cython.pointer(u64), entries[i].place), entries[i].value, entries[i].value | flags
            )
        else:
            swapped_in = swap32(
                cython.cast(cython.pointer(u32), entries[i].place),
                cython.cast(u32, entries[i].value),
                cython.cast(u32, entries[i].value | flags),
            )
        if not swapped_in:
            return AGAIN
        if page_has_code(cpu.host, entries[i].hpa):
            code_written(cpu.host, entries[i].hpa, entries[i].size)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_narrow(cpu: cython.pointer(Cpu), gva: u64, access: cython.int) -> cython.int:
    """32-bit paging with 4-KByte and, with CR4.PSE, 4-MByte pages (SDM 3A 4.3). Answers as `walk_wide`."""
    entries: TableEntry[2]
    used: cython.int = 1
    status: cython.int
    allowed: u64
    entry: u64
    directory: u64 = cpu.cr3 & PAGE_MASK & LOW32
    cpu.walk_shortened = 0
    status = read_entry(cpu, cython.address(entries[0]), directory + ((gva >> 22) & 0x3FF) * 4, 4, gva, access)
    if status != NEXT:
        return status
    entry = allowed = entries[0].value
    if entry & 0x80 and cpu.cr4 & CR4_PSE:
        if entry & ((0x200000 if has_feature(cpu, FEATURE_PSE36) else 0x3FE000) | pat_reserved(cpu, True)):
            return raise_page_fault(cpu, gva, fault_code(cpu, access) | 9)
        cpu.walk_shift = 22
        # PSE-36: bits 20:13 are address bits 39:32 (SDM 3A table 4-4).
        cpu.walk_gpa = (entry & cython.cast(u64, 0xFFC00000)) | (((entry >> 13) & 0xFF) << 32) | (gva & 0x3FFFFF)
    else:
        status = read_entry(
            cpu, cython.address(entries[1]), (entry & PAGE_MASK) + ((gva >> 12) & 0x3FF) * 4, 4, gva, access
        )
        if status != NEXT:
            return status
        used = 2
        entry = entries[1].value
        allowed &= entry
        if entry & pat_reserved(cpu, False):
            return raise_page_fault(cpu, gva, fault_code(cpu, access) | 9)
        cpu.walk_gpa = (entry & PAGE_MASK) | (gva & PAGE_OFFSET)
    if check_rights(cpu, gva, access, allowed, False, 16) != NEXT:
        return FAULT
    cpu.walk_global = (entry & 0x100) != 0 and (cpu.cr4 & CR4_PGE) != 0
    return mark_entries(cpu, entries, used, (access & ACCESS_KIND) == ACCESS_WRITE, gva)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_pdptes(cpu: cython.pointer(Cpu), cr3: u64) -> cython.int:
    """Load the four PDPTE registers as MOV CR does for PAE paging (SDM 3A 4.4.1): NEXT, FAULT (#GP(0)) or EXIT; all or none."""
    fresh: u64[4]
    place: cython.pointer(u8)
    i: cython.int
    for i in range(4):
        place = guest_physical(cpu, (cr3 & cython.cast(u64, 0xFFFFFFE0) & LOW32) + 8 * i, 0, 1, False)
        if place == cython.NULL:
            return cpu.memory_status
        fresh[i] = ALL_ONES if cpu.fill_device else cython.cast(cython.pointer(u64), place)[0]
        cpu.fill_device = 0
        if not valid_pdpte(fresh[i]):
            return raise_fault(cpu, EXC_GP, 0)
    for i in range(4):
        cpu.pdpte[i] = fresh[i]
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def valid_pdpte(entry: u64) -> cython.bint:
    """Whether a PDPTE of PAE paging has no reserved bit set; one that is not present may hold anything (SDM 3A table 4-8)."""
    return not entry & 1 or (entry & (0x1E6 | BIT63 | PHYSICAL_RESERVED | (cython.cast(u64, 0x7FF) << 52))) == 0
