"""Host-physical memory: extents of the process's own memory behind one host-physical address space."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_pointer(host: cython.pointer(Host), hpa: u64) -> cython.pointer(u8):
    """Where the byte at `hpa` lies in this process; NULL if nothing backs it. Valid to the end of its 4 KiB page."""
    low: cython.int = 0
    high: cython.int = host.extent_count
    middle: cython.int
    likeliest: cython.pointer(Extent) = host.extents + host.recent
    if likely(high != 0 and hpa - likeliest.hpa < likeliest.size):
        return likeliest.host + (hpa - likeliest.hpa)
    while low < high:
        middle = (low + high) >> 1
        if host.extents[middle].hpa + host.extents[middle].size <= hpa:
            low = middle + 1
        else:
            high = middle
    if low == host.extent_count or hpa < host.extents[low].hpa:
        return cython.NULL
    host.recent = low
    return host.extents[low].host + (hpa - host.extents[low].hpa)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def page_has_code(host: cython.pointer(Host), hpa: u64) -> cython.bint:
    """Whether blocks were decoded from the page of `hpa`, so that writes to it must be noticed."""
    page: u64 = hpa >> PAGE_SHIFT
    if page >= host.code_page_room:
        return False
    return host.code_pages[page] != cython.NULL and host.code_pages[page] != cython.address(no_block)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_write_entries(host: cython.pointer(Host), page_host: cython.pointer(u8)) -> cython.void:
    """Take write permission to one page out of every processor's TLB, so that writes to it take the slow path."""
    cpu: cython.pointer(Cpu) = host.cpus
    page: u64 = cython.cast(u64, page_host) & PAGE_MASK
    i: cython.int
    while cpu != cython.NULL:
        for i in range(TLB_BANKS):
            if cpu.banks[i].entries != cython.NULL and not cpu.banks[i].stale:
                drop_bank_writes(cython.address(cpu.banks[i]), page)
        cpu = cpu.next_cpu


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_write_slot(slot: u32) -> cython.bint:
    """Whether an entry of a bank is one for writes, by its number."""
    within: u32 = slot % (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES)
    return within >= ACCESS_WRITE * TLB_ENTRIES and within < 2 * TLB_ENTRIES


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_fetch_slot(slot: u32) -> cython.bint:
    """Whether an entry of a bank is one for fetches, by its number."""
    return slot % (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES) >= ACCESS_FETCH * TLB_ENTRIES


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_bank_writes(bank: cython.pointer(TlbBank), page: u64) -> cython.void:
    """Take write permission to the page at one host address out of one bank."""
    context: cython.int
    entry: cython.pointer(TlbEntry)
    i: cython.int
    if bank.log_count <= TLB_LOG:
        for i in range(cython.cast(cython.int, bank.log_count)):
            if is_write_slot(bank.log[i] & TLB_LOG_SLOT):
                entry = bank.entries + (bank.log[i] & TLB_LOG_SLOT)
                if entry.tag != 1 and entry.tag + entry.addend == page:
                    entry.tag = 1
        return
    for context in range(TLB_CONTEXTS):
        entry = bank.entries + context * (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES) + ACCESS_WRITE * TLB_ENTRIES
        for i in range(TLB_ENTRIES):
            if entry[i].tag != 1 and entry[i].tag + entry[i].addend == page:
                entry[i].tag = 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_reserve_code_pages(host: cython.pointer(Host), pages: u64) -> cython.bint:
    """Make room in the table of pages with code for `pages` pages. False: out of memory."""
    table: cython.pointer(cython.pointer(Block))
    parts: cython.pointer(u64)
    if pages <= host.code_page_room:
        return True
    table = cython.cast(cython.pointer(cython.pointer(Block)), calloc(pages, cython.sizeof(cython.pointer(Block))))
    parts = cython.cast(cython.pointer(u64), calloc(pages, cython.sizeof(u64)))
    if table == cython.NULL or parts == cython.NULL:
        free(table)
        free(parts)
        return False
    if host.code_pages != cython.NULL:
        memcpy(table, host.code_pages, host.code_page_room * cython.sizeof(cython.pointer(Block)))
        memcpy(parts, host.code_parts, host.code_page_room * cython.sizeof(u64))
        free(host.code_pages)
        free(host.code_parts)
    host.code_pages = table
    host.code_parts = parts
    host.code_page_room = pages
    return True
