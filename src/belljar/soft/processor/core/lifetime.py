"""Making and unmaking processors and host-physical address spaces."""

import cython
from cython.cimports.posix.time import CLOCK_MONOTONIC, clock_gettime, timespec
from cython.cimports.posix.mman import (
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    mmap,
    munmap,
)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def clock_ns() -> u64:
    """The monotonic clock in nanoseconds."""
    now: timespec
    clock_gettime(CLOCK_MONOTONIC, cython.address(now))
    return cython.cast(u64, now.tv_sec) * 1000000000 + cython.cast(u64, now.tv_nsec)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def page_alloc(size: u64) -> cython.p_void:
    """Zeroed whole pages that cost nothing until they are touched; NULL: none."""
    place: cython.p_void = mmap(
        cython.NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
    )
    return cython.NULL if place == MAP_FAILED else place


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def page_free(place: cython.p_void, size: u64) -> cython.void:
    """Give pages back."""
    munmap(place, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def new_host() -> cython.pointer(Host):
    """An empty host-physical address space; NULL: out of memory."""
    host: cython.pointer(Host) = cython.cast(cython.pointer(Host), calloc(1, cython.sizeof(Host)))
    if host == cython.NULL:
        return host
    host.epoch = 1
    if not host_prepare_code(host):
        free(host)
        return cython.NULL
    return host


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_prepare_code(host: cython.pointer(Host)) -> cython.bint:
    """Make the tables that blocks are found by. False: out of memory."""
    host.hash = cython.cast(cython.pointer(cython.pointer(Block)), calloc(1 << HASH_BITS, cython.sizeof(cython.p_void)))
    host.jumps = cython.cast(
        cython.pointer(cython.pointer(Block)), calloc(1 << JUMP_BITS, cython.sizeof(cython.p_void))
    )
    if host.hash == cython.NULL or host.jumps == cython.NULL:
        free(host.hash)
        free(host.jumps)
        return False
    reset_code(host)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_code(host: cython.pointer(Host)) -> cython.void:
    """Give back all decoded code and its tables; no processor may be left."""
    if host.jumps != cython.NULL:
        reset_code(host)
    free(host.hash)
    free(host.jumps)
    free(host.code_pages)
    free(host.code_parts)
    host.code_parts = cython.NULL
    host.hash = host.jumps = host.code_pages = cython.NULL
    host.code_page_room = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_host(host: cython.pointer(Host)) -> cython.void:
    """Give back everything but the memory behind the extents."""
    free_code(host)
    free(host.extents)
    free(host)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_floating(host: cython.pointer(Host)) -> u64:
    """The host-physical address of a page of ones, made on first use: what is fetched where nothing answers. All ones: none."""
    place: cython.pointer(u8)
    hpa: u64
    if host.floating == 0:
        place = cython.cast(cython.pointer(u8), page_alloc(PAGE_SIZE))
        if place == cython.NULL:
            return ALL_ONES
        memset(place, 0xFF, PAGE_SIZE)
        hpa = host_attach(host, place, PAGE_SIZE, PAGE_SIZE, 1)
        if hpa == ALL_ONES:
            page_free(place, PAGE_SIZE)
            return ALL_ONES
        host.floating = hpa + 1
    return host.floating - 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_extents(host: cython.pointer(Host)) -> cython.void:
    """Forget all memory, and give back what is the address space's own; its processors must not run any more."""
    i: cython.int
    for i in range(host.extent_count):
        if host.extents[i].owned:
            page_free(host.extents[i].host, host.extents[i].size)
    host.extent_count = 0
    host.floating = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_attach(host: cython.pointer(Host), place: cython.pointer(u8), size: u64, align: u64, owned: u32) -> u64:
    """Give a piece of memory the first free host-physical address that fits; all ones: no room."""
    grown: cython.pointer(Extent)
    start: u64 = 0
    i: cython.int = 0
    k: cython.int
    if host.extent_count == host.extent_room:
        grown = cython.cast(
            cython.pointer(Extent), realloc(host.extents, (host.extent_room + 16) * cython.sizeof(Extent))
        )
        if grown == cython.NULL:
            return ALL_ONES
        host.extents = grown
        host.extent_room += 16
    while i < host.extent_count and start + size > host.extents[i].hpa:
        start = (host.extents[i].hpa + host.extents[i].size + align - 1) & ~(align - 1)
        i += 1
    if (start + size) >> PHYSICAL_BITS or not host_reserve_code_pages(host, (start + size) >> PAGE_SHIFT):
        return ALL_ONES
    for k in range(host.extent_count, i, -1):
        host.extents[k] = host.extents[k - 1]
    host.extents[i].hpa = start
    host.extents[i].size = size
    host.extents[i].host = place
    host.extents[i].owned = owned
    host.extent_count += 1
    if start + size > host.size:
        host.size = start + size
    return start


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_detach(host: cython.pointer(Host), hpa: u64) -> cython.bint:
    """Take the piece that begins at `hpa` away, with the code decoded from it; False: there is none."""
    i: cython.int
    k: cython.int
    page: u64
    cpu: cython.pointer(Cpu) = host.cpus
    for i in range(host.extent_count):
        if host.extents[i].hpa == hpa:
            break
    else:
        return False
    for page in range(hpa >> PAGE_SHIFT, (hpa + host.extents[i].size) >> PAGE_SHIFT):
        if host.code_pages[page] != cython.NULL:
            code_written(host, page << PAGE_SHIFT, PAGE_SIZE)
    if host.extents[i].owned:
        page_free(host.extents[i].host, host.extents[i].size)
    host.extent_count -= 1
    host.recent = 0
    for k in range(i, host.extent_count):
        host.extents[k] = host.extents[k + 1]
    while cpu != cython.NULL:
        forget_nested(cpu)
        flush_tlb(cpu)
        cpu = cpu.next_cpu
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_wrote(host: cython.pointer(Host)) -> cython.void:
    """Memory may have been written behind the processors' backs: blocks must be compared with it before they run again."""
    cpu: cython.pointer(Cpu) = host.cpus
    host.wrote_epoch = host.epoch
    while cpu != cython.NULL:
        renew_epoch(cpu)
        cpu = cpu.next_cpu


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def new_tlb_entries() -> cython.pointer(TlbEntry):
    """Room for one bank of the TLB, empty; NULL: out of memory."""
    count: cython.int = TLB_CONTEXTS * (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES)
    i: cython.int
    entries: cython.pointer(TlbEntry) = cython.cast(
        cython.pointer(TlbEntry), calloc(count, cython.sizeof(TlbEntry))
    )
    if entries != cython.NULL:
        for i in range(count):
            entries[i].tag = 1
    return entries


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def new_cpu(host: cython.pointer(Host)) -> cython.pointer(Cpu):
    """A processor after reset (SDM 3A table 9-1), linked to its host memory; NULL: out of memory."""
    i: cython.int
    cpu: cython.pointer(Cpu) = cython.cast(cython.pointer(Cpu), calloc(1, cython.sizeof(Cpu)))
    if cpu == cython.NULL:
        return cpu
    cpu.bank = cython.address(cpu.banks[0])
    cpu.tlb = cpu.bank.entries = new_tlb_entries()
    cpu.tlb_none = cython.cast(cython.pointer(TlbEntry), calloc(TLB_ENTRIES, cython.sizeof(TlbEntry)))
    if cpu.tlb == cython.NULL or cpu.tlb_none == cython.NULL:
        free(cpu.tlb)
        free(cpu.tlb_none)
        free(cpu)
        return cython.NULL
    for i in range(TLB_ENTRIES):
        cpu.tlb_none[i].tag = 1
    cpu.host = host
    cpu.jumps = host.jumps
    cpu.next_cpu = host.cpus
    host.cpus = cpu
    reset_cpu(cpu)
    return cpu


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reset_cpu(cpu: cython.pointer(Cpu)) -> cython.void:
    """The state after reset; features and MSRs are set by their own files."""
    n: cython.int
    cpu.big = 0x40000000
    cpu.tlb_read = cpu.tlb_none
    cpu.tlb_write = cpu.tlb_none
    cpu.tlb_fetch = cpu.tlb_none
    cpu.insn = cython.address(no_insn)
    cpu.address_mask_bits = 32
    cpu.cr0 = 0x60000010
    cpu.dr[6] = cython.cast(u64, 0xFFFF0FF0)
    cpu.dr[7] = 0x400
    cpu.gdt_limit = 0xFFFF
    cpu.idt_limit = 0xFFFF
    for n in range(8):
        cpu.segment[n].limit = 0xFFFF
        cpu.segment[n].attributes = 0x93
    cpu.segment[CS].attributes = 0x9B
    cpu.segment[CS].selector = 0xF000
    cpu.base[CS] = cython.cast(u64, 0xFFFF0000)
    cpu.segment[LDTR].attributes = 0x82
    cpu.segment[TR].attributes = 0x8B
    cpu.rip = 0xFFF0
    cpu.gpr[RDX] = 0x600
    cpu.xcr0 = 1
    reset_msrs(cpu)
    reset_features(cpu)
    set_rflags(cpu, FLAG_ONE)
    look_for_waiting_soon(cpu)
    cpu.walk_generation = 1
    flush_tlb(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_cpu(cpu: cython.pointer(Cpu)) -> cython.void:
    """Unlink a processor and give it back."""
    i: cython.int
    link: cython.pointer(cython.pointer(Cpu)) = cython.address(cpu.host.cpus)
    while link[0] != cpu:
        link = cython.address(link[0].next_cpu)
    link[0] = cpu.next_cpu
    for i in range(TLB_BANKS):
        free(cpu.banks[i].entries)
    free(cpu.tlb_none)
    free(cpu.breakpoints)
    free(cpu.watchpoints)
    free(cpu)
