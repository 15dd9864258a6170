"""Blocks: runs of predecoded instructions, found by physical address and mode, bound to linear addresses.

A page that blocks were decoded from loses its write entries in every TLB, so that stores to it take the slow path and
kill the blocks they hit. Memory of dead blocks is reused only when the whole arena is emptied, between instructions.
"""

import cython

ARENA_CHUNK = cython.declare(cython.int, 1 << 18)
ARENA_LIMIT = cython.declare(cython.int, 12 << 20)

no_block = cython.declare(Block)
no_insn = cython.declare(Insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def block_hash(hpa: u64, mode: u32) -> u64:
    """The bucket of a physical address and mode."""
    return (hpa ^ (hpa >> HASH_BITS) ^ (cython.cast(u64, mode) << 7)) & ((1 << HASH_BITS) - 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reset_code(host: cython.pointer(Host)) -> cython.void:
    """Forget all blocks and give their memory back. Only while no block runs."""
    chunk: cython.p_void = host.chunks
    following: cython.p_void
    i: cython.int
    while chunk != cython.NULL:
        following = cython.cast(cython.pointer(cython.p_void), chunk)[0]
        free(chunk)
        chunk = following
    host.chunks = cython.NULL
    host.arena = cython.NULL
    host.arena_used = 0
    host.arena_total = 0
    memset(host.hash, 0, (1 << HASH_BITS) * cython.sizeof(cython.pointer(Block)))
    if host.code_pages != cython.NULL:
        memset(host.code_pages, 0, host.code_page_room * cython.sizeof(cython.pointer(Block)))
    for i in range(1 << JUMP_BITS):
        host.jumps[i] = cython.address(no_block)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def block_room(host: cython.pointer(Host)) -> cython.pointer(Block):
    """Room for the largest block; NULL when out of memory. What is used of it is taken by `take_room`."""
    most: u64 = cython.sizeof(Block) + (BLOCK_INSNS + 2) * cython.sizeof(Insn)
    chunk: cython.pointer(u8)
    if host.arena == cython.NULL or host.arena_used + most + BLOCK_INSNS * 15 > host.arena_top:
        if host.arena_total + ARENA_CHUNK > ARENA_LIMIT:
            reset_code(host)
        chunk = cython.cast(cython.pointer(u8), malloc(ARENA_CHUNK))
        if chunk == cython.NULL:
            return cython.NULL
        cython.cast(cython.pointer(cython.p_void), chunk)[0] = host.chunks
        host.chunks = chunk
        host.arena = chunk
        # Blocks begin at multiples of a cache line.
        host.arena_used = 128 - (cython.cast(u64, chunk) & 63)
        host.arena_top = ARENA_CHUNK
        host.arena_total += ARENA_CHUNK
    return cython.cast(cython.pointer(Block), host.arena + host.arena_used)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def take_back_writes(host: cython.pointer(Host), hpa: u64) -> cython.bint:
    """Whether the TLB may hold a write entry for a page; one whose blocks are all dead is an ordinary page from now on."""
    page: u64 = hpa >> PAGE_SHIFT
    if page >= host.code_page_room or host.code_pages[page] == cython.NULL:
        return True
    if host.code_pages[page] != cython.address(no_block):
        return False
    host.code_pages[page] = cython.NULL
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_page(host: cython.pointer(Host), block: cython.pointer(Block), hpa: u64, second: cython.bint) -> cython.void:
    """Put a block on its page's list; the first one makes writes to the page slow."""
    page: u64 = hpa >> PAGE_SHIFT
    if host.code_pages[page] == cython.NULL:
        drop_write_entries(host, host_pointer(host, hpa))
        host.code_parts[page] = 0
    elif host.code_pages[page] == cython.address(no_block):
        host.code_pages[page] = cython.NULL
        host.code_parts[page] = 0
    if second:
        block.page_next2 = host.code_pages[page]
    else:
        block.page_next = host.code_pages[page]
    host.code_pages[page] = block


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def page_link(block: cython.pointer(Block), page: u64) -> cython.pointer(cython.pointer(Block)):
    """The link of a block in the list of one of its pages."""
    if (block.hpa >> PAGE_SHIFT) == page:
        return cython.address(block.page_next)
    return cython.address(block.page_next2)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unbind_page(host: cython.pointer(Host), hpa: u64) -> cython.void:
    """Have the blocks with bytes in a page prove again that a linear address leads to them."""
    page: u64 = hpa >> PAGE_SHIFT
    block: cython.pointer(Block)
    if page >= host.code_page_room:
        return
    block = host.code_pages[page]
    while block != cython.NULL and block != cython.address(no_block):
        block.bind = 0
        block = page_link(block, page)[0]


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave_page(host: cython.pointer(Host), block: cython.pointer(Block), page: u64) -> cython.void:
    """Take a block off a page's list. An empty list is marked by no_block: writes stay slow until one comes without code."""
    link: cython.pointer(cython.pointer(Block)) = cython.address(host.code_pages[page])
    while link[0] != cython.NULL and link[0] != block:
        link = page_link(link[0], page)
    if link[0] == block:
        link[0] = page_link(block, page)[0]
    if host.code_pages[page] == cython.NULL:
        host.code_pages[page] = cython.address(no_block)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def kill_block(host: cython.pointer(Host), block: cython.pointer(Block)) -> cython.void:
    """A block whose bytes changed: nothing finds it any more; if it runs, its memory stays."""
    link: cython.pointer(cython.pointer(Block)) = cython.address(host.hash[block_hash(block.hpa, block.mode)])
    while link[0] != cython.NULL and link[0] != block:
        link = cython.address(link[0].hash_next)
    if link[0] == block:
        link[0] = block.hash_next
    leave_page(host, block, block.hpa >> PAGE_SHIFT)
    if block.hpa_next_page and (block.hpa_next_page >> PAGE_SHIFT) != (block.hpa >> PAGE_SHIFT):
        leave_page(host, block, block.hpa_next_page >> PAGE_SHIFT)
    block.bind = 0
    block.dead = 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def block_touches(block: cython.pointer(Block), hpa: u64, end: u64) -> cython.bint:
    """Whether a block has bytes in [hpa, end)."""
    first: u64 = block.bytes
    if block.hpa_next_page:
        first = PAGE_SIZE - (block.hpa & PAGE_OFFSET)
        if block.hpa_next_page < end and hpa < block.hpa_next_page + (block.bytes - first):
            return True
    return block.hpa < end and hpa < block.hpa + first


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def parts_of(hpa: u64, size: u64) -> u64:
    """The 64th parts of a page that `size` bytes from `hpa` on touch, as far as they lie in the page, as bits."""
    first: u64 = (hpa & PAGE_OFFSET) >> PART_SHIFT
    last: u64 = ((hpa & PAGE_OFFSET) + size - 1) >> PART_SHIFT
    if last > 63 or size == 0:
        last = 63
    return (ALL_ONES >> (63 - (last - first))) << first


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def code_written(host: cython.pointer(Host), hpa: u64, size: u64) -> cython.bint:
    """Kill the blocks decoded from bytes of [hpa, hpa + size), which were written; whether there were any."""
    page: u64 = hpa >> PAGE_SHIFT
    last: u64 = (hpa + size - 1) >> PAGE_SHIFT
    block: cython.pointer(Block)
    following: cython.pointer(Block)
    start: u64 = hpa
    hit: cython.bint = False
    if size == 0:
        return False
    while page <= last and page < host.code_page_room:
        block = host.code_pages[page]
        if not host.code_parts[page] & parts_of(start, hpa + size - start):
            block = cython.NULL
        while block != cython.NULL and block != cython.address(no_block):
            following = page_link(block, page)[0]
            if block_touches(block, hpa, hpa + size):
                kill_block(host, block)
                hit = True
            block = following
        page += 1
        start = page << PAGE_SHIFT
    return hit
