"""Making blocks: decoding what stands at CS:RIP, unless there is a block of it already."""

import cython


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
