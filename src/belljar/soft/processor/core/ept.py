"""Nested paging: from guest-physical to host-physical addresses through the EPT tables (SDM 3C 29.3)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def guest_physical(cpu: cython.pointer(Cpu), gpa: u64, gva: u64, wanted: u32, final: cython.bint) -> cython.pointer(u8):
    """Where the byte at a guest-physical address lies; `wanted` as in EPT entries (1 read, 2 write, 4 fetch), all needed.

    `final`: the access itself, not one to a paging-structure entry on the way to it. Sets cpu.fill_hpa. NULL: an EPT
    violation or misconfiguration was requested, or the window failed, and cpu.memory_status says EXIT. While a window is
    open, a device's byte is one of cpu.window_page, with cpu.fill_device set and fill_hpa the guest-physical address.
    """
    host: cython.pointer(u8)
    known: cython.pointer(NestedEntry)
    floating: u64
    answer: cython.int
    while True:
        if cpu.eptp == 0:
            host = host_pointer(cpu.host, gpa)
            if host != cython.NULL:
                cpu.fill_hpa = gpa
                return host
            cpu.exit_qualification = wanted
            cpu.exit_reason = EXIT_REASON_EPT_VIOLATION
        else:
            known = large_slot(cpu, gpa)
            if known.tag == (gpa & LARGE_MASK) + 1 and (wanted & ~known.marked) == 0:
                cpu.ept_allowed = known.allowed
                cpu.fill_hpa = known.hpa + (gpa & ~LARGE_MASK)
                return known.host + (gpa & ~LARGE_MASK)
            known = nested_slot(cpu, gpa)
            if known.tag == (gpa & PAGE_MASK) + 1 and (wanted & ~known.marked) == 0:
                cpu.ept_allowed = known.allowed
                cpu.fill_hpa = known.hpa + (gpa & PAGE_OFFSET)
                return known.host + (gpa & PAGE_OFFSET)
            host = ept_walk(cpu, gpa, wanted)
            if host != cython.NULL:
                return host
        if cpu.window == cython.NULL or cpu.exit_reason != EXIT_REASON_EPT_VIOLATION:
            break
        answer = 0
        if (gpa & PAGE_MASK) != cpu.window_gpa:
            answer = window_resolve(cpu, gpa, wanted)
        if answer < 0:
            cpu.memory_status = request_exit(cpu, PAUSE_FAILED, 0)
            return cython.NULL
        if answer == 0 and wanted & 4:
            # Devices give no code: the bus floats, and what is fetched is all ones.
            floating = host_floating(cpu.host)
            if floating == ALL_ONES:
                break
            cpu.fill_device = 1
            cpu.fill_hpa = floating | (gpa & PAGE_OFFSET)
            return host_pointer(cpu.host, cpu.fill_hpa)
        if answer == 0:
            cpu.fill_device = 1
            cpu.fill_hpa = gpa
            return cython.address(cpu.window_page[gpa & PAGE_OFFSET])
    cpu.exit_gpa = gpa
    cpu.exit_linear = gva
    if cpu.exit_reason == EXIT_REASON_EPT_VIOLATION:
        cpu.exit_qualification |= 0x80 | (0x100 if final else 0)  # the linear address is valid; final translation
    cpu.memory_status = request_exit(cpu, cpu.exit_reason, cpu.exit_qualification)
    return cython.NULL


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def nested_slot(cpu: cython.pointer(Cpu), gpa: u64) -> cython.pointer(NestedEntry):
    """The one entry that may know where the page of `gpa` is."""
    return cython.address(cpu.nested[(gpa >> PAGE_SHIFT) & (NESTED_ENTRIES - 1)])


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def large_slot(cpu: cython.pointer(Cpu), gpa: u64) -> cython.pointer(NestedEntry):
    """The one entry that may know where the 2 MiB around `gpa` are."""
    return cython.address(cpu.nested_large[(gpa >> LARGE_SHIFT) & (NESTED_ENTRIES - 1)])


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def note_nested(
    known: cython.pointer(NestedEntry), shift: cython.int, gpa: u64, hpa: u64, host: cython.pointer(u8), allowed: u32
) -> cython.void:
    """Remember where a page of 1 << shift bytes is."""
    offset: u64 = gpa & ((cython.cast(u64, 1) << shift) - 1)
    known.tag = gpa - offset + 1
    known.hpa = hpa - offset
    known.host = host - offset
    known.allowed = known.marked = allowed


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def forget_nested(cpu: cython.pointer(Cpu)) -> cython.void:
    """Forget where guest-physical pages are: INVEPT, other tables, memory that went away. No change of the guest's own does it."""
    memset(cpu.nested, 0, cython.sizeof(cpu.nested))
    memset(cpu.nested_large, 0, cython.sizeof(cpu.nested_large))
    cpu.wait_phase = 0  # what it noted may be gone


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def ept_misconfigured(entry: u64, level: cython.int, leaf: cython.bint) -> cython.bint:
    """Whether a present EPT entry is one that the manual calls misconfigured (SDM 3C 29.3.3.1). Level 1 maps 4 KiB."""
    kind: u64 = (entry >> 3) & 7
    reserved: u64 = PHYSICAL_RESERVED
    if (entry & 3) == 2:  # writable, not readable
        return True
    if leaf:
        if level > 1:
            reserved |= ((cython.cast(u64, 1) << (9 * level + 3)) - 1) & PAGE_MASK
        return (entry & reserved) != 0 or kind == 2 or kind == 3 or kind == 7
    reserved |= 0xF8 if level >= 4 else 0x78
    return (entry & reserved) != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def ept_walk(cpu: cython.pointer(Cpu), gpa: u64, wanted: u32) -> cython.pointer(u8):
    """Walk the four levels: the byte's place and cpu.fill_hpa, or NULL with cpu.exit_reason and exit_qualification."""
    slots: cython.pointer(u64)[4]
    table: u64 = cpu.eptp & PHYSICAL_ADDRESS
    allowed: u64 = 7
    track: cython.bint = (cpu.eptp & 0x40) != 0
    level: cython.int = 4
    shift: cython.int
    entry: u64
    place: cython.pointer(u64)
    host: cython.pointer(u8)
    first: cython.pointer(u8)
    known: cython.pointer(NestedEntry)
    while True:
        shift = 9 * level + 3
        place = cython.cast(cython.pointer(u64), host_pointer(cpu.host, table + ((gpa >> shift) & 0x1FF) * 8))
        if place == cython.NULL:
            cpu.exit_reason = EXIT_REASON_EPT_MISCONFIG  # no memory answers: all ones
            cpu.exit_qualification = 0
            return cython.NULL
        entry = place[0]
        slots[4 - level] = place
        if (entry & 7) == 0:
            allowed = 0
            break
        if ept_misconfigured(entry, level, level == 1 or (level < 4 and entry & 0x80)):
            cpu.exit_reason = EXIT_REASON_EPT_MISCONFIG
            cpu.exit_qualification = 0
            return cython.NULL
        allowed &= entry
        if level == 1 or entry & 0x80:
            break
        table = entry & PHYSICAL_ADDRESS
        level -= 1
    cpu.ept_allowed = cython.cast(u32, allowed)
    if (wanted & ~allowed) != 0 or gpa >> 48:
        cpu.exit_reason = EXIT_REASON_EPT_VIOLATION
        cpu.exit_qualification = wanted | (allowed << 3)
        return cython.NULL
    if track:
        ept_mark(slots, 5 - level, (wanted & 2) != 0)
    cpu.fill_hpa = (entry & PHYSICAL_ADDRESS & ~((cython.cast(u64, 1) << shift) - 1)) | (
        gpa & ((cython.cast(u64, 1) << shift) - 1)
    )
    host = host_pointer(cpu.host, cpu.fill_hpa)
    if host == cython.NULL:
        cpu.exit_reason = EXIT_REASON_EPT_MISCONFIG
        cpu.exit_qualification = 0
        return host
    known = nested_slot(cpu, gpa)
    first = host - (gpa & ~LARGE_MASK)
    if shift >= LARGE_SHIFT and (
        host_pointer(cpu.host, cpu.fill_hpa | ~LARGE_MASK) == first + ~LARGE_MASK
        and host_pointer(cpu.host, cpu.fill_hpa & LARGE_MASK) == first
    ):
        known = large_slot(cpu, gpa)
        note_nested(known, LARGE_SHIFT, gpa, cpu.fill_hpa, host, cpu.ept_allowed)
    else:
        note_nested(known, PAGE_SHIFT, gpa, cpu.fill_hpa, host, cpu.ept_allowed)
    if track and not wanted & 2:
        known.marked &= 5
    return host


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def ept_mark(slots: cython.pointer(cython.pointer(u64)), count: cython.int, dirty: cython.bint) -> cython.void:
    """Set the accessed flags of the entries used, and the dirty flag of the last one (SDM 3C 29.3.5)."""
    i: cython.int
    entry: u64
    flags: u64
    for i in range(count):
        flags = 0x300 if dirty and i == count - 1 else 0x100
        entry = slots[i][0]
        while (entry & flags) != flags:
            swap64(slots[i], entry, entry | flags)
            entry = slots[i][0]
