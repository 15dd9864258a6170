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
@cython.nogil
@cython.exceptval(check=False)
def code_size(cpu: cython.pointer(Cpu)) -> cython.int:
    """0 for 64-bit code, 1 for 32, 2 for 16."""
    attributes: u32 = cpu.segment[CS].attributes
    if cpu.efer & EFER_LMA and attributes & AR_L:
        return 0
    return 1 if attributes & AR_DB else 2


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_flat(cpu: cython.pointer(Cpu), segment: cython.int) -> cython.bint:
    """Whether a data segment is writable, begins at 0 and spans 4 GiB upwards."""
    attributes: u32 = cpu.segment[segment].attributes
    return (
        cpu.base[segment] == 0
        and cpu.segment[segment].limit == LOW32
        and (attributes & (AR_UNUSABLE | AR_P | AR_S | AR_CODE | AR_DOWN | AR_WRITABLE)) == (AR_P | AR_S | AR_WRITABLE)
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def update_mode(cpu: cython.pointer(Cpu)) -> cython.void:
    """Derive what follows from CR0, CR4, EFER, segments, CPL, RFLAGS, DR7, activity and interruptibility."""
    code: u32 = code_size(cpu)
    mode: u32 = code
    events: u32 = cpu.events & (EVENT_TIMER | EVENT_INTERRUPT | EVENT_MTF)
    looked_at: cython.bint = (cpu.dr[7] & 0xFF) != 0 or cpu.watchpoint_count != 0
    if code:
        mode |= (1 if cpu.segment[SS].attributes & AR_DB else 2) << 2
        if cpu.base[CS] != 0 or cpu.segment[CS].limit != LOW32:
            mode |= MODE_CHECK_CS
        if not cpu.cr0 & CR0_PE or cpu.rflags & FLAG_VM:
            mode |= MODE_REAL
    if code == 0 or (is_flat(cpu, ES) and is_flat(cpu, SS) and is_flat(cpu, DS)):
        mode |= MODE_FLAT
    cpu.address_mask_bits = 64 if cpu.efer & EFER_LMA else 32
    if cpu.cpl == 3:
        mode |= MODE_USER
        cpu.context = 1
        if cpu.cr0 & CR0_AM and cpu.rflags & FLAG_AC:
            looked_at = True
    else:
        cpu.context = 2 if cpu.cr4 & CR4_SMAP and cpu.rflags & FLAG_AC else 0
    cpu.mode = mode
    cpu.bind = (cpu.epoch << 16) | mode
    cpu.tlb_read = cpu.tlb_none if looked_at else tlb_table(cpu, cpu.context, ACCESS_READ)
    cpu.tlb_write = cpu.tlb_none if looked_at else tlb_table(cpu, cpu.context, ACCESS_WRITE)
    cpu.tlb_fetch = tlb_table(cpu, cpu.context, ACCESS_FETCH)
    if cpu.rflags & (FLAG_TF | FLAG_RF) or cpu.dr[7] & 0xFF or cpu.watched:
        events |= EVENT_STEP
    if cpu.interruptibility & (SHADOW_STI | SHADOW_MOV_SS):
        events |= EVENT_SHADOW
    if cpu.activity != ACTIVE:
        events |= EVENT_INACTIVE
    if cpu.pending_debug:
        events |= EVENT_TRAP
    cpu.events = events


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


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def plain_end(d: cython.pointer(Decoder), insn: cython.pointer(Insn), count: cython.int) -> cython.void:
    """The record that ends a block which does not end with a branch."""
    clear_insn(d, insn)
    insn.number = cython.cast(u8, count)
    insn.handler = end_64 if d.mode == 0 else end_small


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def plain_fault(d: cython.pointer(Decoder), insn: cython.pointer(Insn), operation: Operation) -> cython.void:
    """An instruction that only raises."""
    clear_insn(d, insn)
    insn.length_segment = cython.cast(u8, (d.position if d.position else 1) | (DS << 4))
    insn.handler = complex_insn
    insn.operation = cython.cast(u8, operation_number(operation))
    d.op_flags = OP_ENDS


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_crossing(
    cpu: cython.pointer(Cpu), d: cython.pointer(Decoder), block: cython.pointer(Block), gva: u64, rest: u64, limit: u64
) -> cython.int:
    """Decode an instruction whose first `rest` bytes end their page: NEXT, FAULT or EXIT from fetching the second page."""
    buffer: u8[16]
    insns: cython.pointer(Insn) = cython.cast(cython.pointer(Insn), block + 1)
    answer: cython.int
    status: cython.int
    second: u64 = (gva & PAGE_MASK) + PAGE_SIZE
    room: u64 = 15
    memcpy(buffer, d.bytes, rest)
    if cpu.address_mask_bits == 32 or d.mode != 0:
        second &= LOW32
    elif not is_canonical(cpu, second):
        return raise_fault(cpu, EXC_GP, 0)
    status = translate(cpu, second, ACCESS_FETCH)
    if status != NEXT:
        return status
    block.hpa_next_page = cpu.fill_hpa
    memcpy(cython.cast(cython.pointer(u8), buffer) + rest, cpu.fill_host, 15 - rest)
    if limit < room:
        room = limit
    d.bytes = buffer
    d.available = cython.cast(cython.int, room)
    answer = decode_insn(d, insns)
    if answer == DECODE_MORE:
        return raise_fault(cpu, EXC_GP, 0)
    if answer == DECODE_LONG:
        plain_fault(d, insns, op_too_long)
    elif answer == DECODE_INVALID:
        plain_fault(d, insns, op_ud)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_block(
    cpu: cython.pointer(Cpu), block: cython.pointer(Block), gva: u64, place: cython.pointer(u8), limit: u64
) -> cython.int:
    """Fill a block with the instructions at a linear address; `limit` bytes are left in CS. NEXT, FAULT or EXIT."""
    d: Decoder
    insns: cython.pointer(Insn) = cython.cast(cython.pointer(Insn), block + 1)
    insn: cython.pointer(Insn)
    count: cython.int = 0
    branch: cython.bint = False
    answer: cython.int
    status: cython.int
    page_rest: u64 = PAGE_SIZE - (gva & PAGE_OFFSET)
    rest: u64
    d.cpu = cpu
    d.mode = cpu.mode & MODE_CODE
    d.offset = 0
    while count < BLOCK_INSNS:
        rest = page_rest if page_rest < limit else limit
        rest -= d.offset
        if rest == 0:
            break
        d.bytes = place + d.offset
        d.available = cython.cast(cython.int, rest if rest < 15 else 15)
        insn = insns + count
        answer = decode_insn(cython.address(d), insn)
        if answer == DECODE_MORE:
            if count:
                break
            if page_rest > limit:
                return raise_fault(cpu, EXC_GP, 0)
            status = decode_crossing(cpu, cython.address(d), block, gva, rest, limit)
            if status != NEXT:
                return status
            d.op_flags |= OP_ENDS
        elif answer == DECODE_LONG:
            plain_fault(cython.address(d), insn, op_too_long)
        elif answer == DECODE_INVALID:
            plain_fault(cython.address(d), insn, op_ud)
        insn.number = cython.cast(u8, count)
        d.offset += insn_length(insn)
        count += 1
        branch = (d.op_flags & OP_BRANCH) != 0 and insn.handler != complex_insn
        if d.op_flags & (OP_ENDS | OP_BRANCH):
            break
    if branch:
        insn = insns + count
    else:
        plain_end(cython.address(d), insns + count, count)
        insn = insns + count + 1
    cython.cast(cython.pointer(Chain), insn).taken = cython.address(no_block)
    cython.cast(cython.pointer(Chain), insn).fallthrough = cython.address(no_block)
    block.tail = cython.cast(u8, insn - (insns + count))
    block.count = cython.cast(u16, count)
    block.bytes = cython.cast(u16, d.offset)
    cpu.host.arena_used += (cython.cast(u64, insn + 1) - cython.cast(u64, block) + 63) & ~cython.cast(u64, 63)
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def chain_of(block: cython.pointer(Block)) -> cython.pointer(Chain):
    """The record behind a block's instructions."""
    return cython.cast(
        cython.pointer(Chain), cython.cast(cython.pointer(Insn), block + 1) + block.count + block.tail
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def keep_bytes(host: cython.pointer(Host), block: cython.pointer(Block)) -> cython.void:
    """Keep a copy of a new block's bytes at the far end of the arena's chunk."""
    first: u64 = block.bytes
    code: cython.pointer(u8)
    if block.hpa_next_page:
        first = PAGE_SIZE - (block.hpa & PAGE_OFFSET)
    host.arena_top -= block.bytes
    code = host.arena + host.arena_top
    memcpy(code, host_pointer(host, block.hpa), first)
    if first < block.bytes:
        memcpy(code + first, host_pointer(host, block.hpa_next_page), block.bytes - first)
    chain_of(block).code = code


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def same_bytes(host: cython.pointer(Host), block: cython.pointer(Block)) -> cython.bint:
    """Whether memory still holds what a block was decoded from; devices and the host write it without telling."""
    first: u64 = block.bytes
    code: cython.pointer(u8) = chain_of(block).code
    if block.hpa_next_page:
        first = PAGE_SIZE - (block.hpa & PAGE_OFFSET)
    if memcmp(code, host_pointer(host, block.hpa), first) != 0:
        return False
    return first >= block.bytes or (
        memcmp(code + first, host_pointer(host, block.hpa_next_page), block.bytes - first) == 0
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def new_block(cpu: cython.pointer(Cpu), gva: u64, hpa: u64, limit: u64) -> cython.int:
    """Decode a block at a linear address that translates to `hpa`: NEXT with cpu.found, FAULT or EXIT."""
    host: cython.pointer(Host) = cpu.host
    place: cython.pointer(u8) = cpu.fill_host
    block: cython.pointer(Block) = block_room(host)
    bucket: cython.pointer(cython.pointer(Block))
    first: u64
    status: cython.int
    if block == cython.NULL:
        return request_exit(cpu, EXIT_REASON_TRIPLE_FAULT, 0)
    memset(block, 0, cython.sizeof(Block))
    block.hpa = hpa
    block.mode = cython.cast(u16, cpu.mode & MODE_DECODE)
    status = decode_block(cpu, block, gva, place, limit)
    if status != NEXT:
        return status
    keep_bytes(host, block)
    first = block.bytes
    enter_page(host, block, hpa, False)
    if block.hpa_next_page:
        first = PAGE_SIZE - (hpa & PAGE_OFFSET)
        if (block.hpa_next_page >> PAGE_SHIFT) != (hpa >> PAGE_SHIFT):
            enter_page(host, block, block.hpa_next_page, True)
        host.code_parts[block.hpa_next_page >> PAGE_SHIFT] |= parts_of(block.hpa_next_page, block.bytes - first)
    host.code_parts[hpa >> PAGE_SHIFT] |= parts_of(hpa, first)
    bucket = cython.address(host.hash[block_hash(hpa, block.mode)])
    block.hash_next = bucket[0]
    bucket[0] = block
    cpu.found = block
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def same_second_page(cpu: cython.pointer(Cpu), block: cython.pointer(Block), gva: u64) -> cython.bint:
    """Whether a block that crosses a page still continues where it did."""
    second: u64 = (gva & PAGE_MASK) + PAGE_SIZE
    if not block.hpa_next_page:
        return True
    if cpu.address_mask_bits == 32 or cpu.mode & MODE_CODE:
        second &= LOW32
    return translate(cpu, second, ACCESS_FETCH) == NEXT and cpu.fill_hpa == block.hpa_next_page


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_block(cpu: cython.pointer(Cpu)) -> cython.int:
    """The block at CS:RIP, decoded if need be: NEXT with cpu.found, or FAULT or EXIT from the fetch."""
    gva: u64 = cpu.rip
    limit: u64 = ALL_ONES
    block: cython.pointer(Block)
    mode: u32 = cpu.mode & MODE_DECODE
    hpa: u64
    status: cython.int
    if cpu.mode & MODE_CODE:
        if cpu.rip > cpu.segment[CS].limit:
            return raise_fault(cpu, EXC_GP, 0)
        limit = cpu.segment[CS].limit - cpu.rip + 1
        gva = (gva + cpu.base[CS]) & LOW32
    block = cpu.jumps[jump_hash(gva)]
    if block.linear == gva and block.bind == cpu.bind and block.bytes <= limit:
        cpu.found = block
        return NEXT
    if (cpu.mode & MODE_CODE) == 0 and not is_canonical(cpu, gva):
        return raise_fault(cpu, EXC_GP, 0)
    status = translate(cpu, gva, ACCESS_FETCH)
    if status != NEXT:
        return status
    hpa = cpu.fill_hpa
    block = cpu.host.hash[block_hash(hpa, mode)]
    while block != cython.NULL and (
        block.hpa != hpa or block.mode != mode or block.bytes > limit or not same_second_page(cpu, block, gva)
    ):
        block = block.hash_next
    if block != cython.NULL and not same_bytes(cpu.host, block):
        kill_block(cpu.host, block)
        block = cython.NULL
    if block == cython.NULL:
        cpu.fill_host = host_pointer(cpu.host, hpa)
        status = new_block(cpu, gva, hpa, limit)
        if status != NEXT:
            return status
        block = cpu.found
    block.linear = gva
    block.bind = cpu.bind
    cpu.jumps[jump_hash(gva)] = block
    cpu.found = block
    return NEXT
