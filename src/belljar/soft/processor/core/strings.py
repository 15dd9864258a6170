"""MOVS, STOS, LODS, CMPS, SCAS and their repetition.

Each iteration commits its progress to RCX, RSI and RDI, so that a fault or an event finds the instruction restartable.
Forward MOVS and STOS move as much at a time as lies within one page on both sides.
"""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_counter(cpu: cython.pointer(Cpu), register: cython.int, mask: u64, value: u64) -> cython.void:
    """Write RCX, RSI or RDI in the address size."""
    if mask == 0xFFFF:
        cpu.gpr[register] = (cpu.gpr[register] & ~mask) | (value & mask)
    else:
        cpu.gpr[register] = value & mask


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def string_step(cpu: cython.pointer(Cpu), size: cython.int) -> u64:
    """What RSI and RDI advance by."""
    if cpu.rflags & FLAG_DF:
        return 0 - cython.cast(u64, size)
    return size


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def must_stop(cpu: cython.pointer(Cpu)) -> cython.bint:
    """Whether a repetition must give way: something waits for attention, it has rewritten code, or it has gone on for long."""
    cpu.repetitions -= 1
    if cpu.repetitions < 0:
        return True
    return cpu.code_hit != 0 or cython.cast(cython.pointer(u64), cython.address(cpu.events))[0] != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def string_run(cpu: cython.pointer(Cpu), offset: u64, mask: u64, size: cython.int, count: u64) -> u64:
    """How many elements from `offset` on lie in one page (and do not wrap), at most `count`; 0 where that is not so easy."""
    room: u64 = PAGE_SIZE - (offset & PAGE_OFFSET)
    if cpu.tlb_read == cpu.tlb_none or cpu.rflags & (FLAG_DF | FLAG_TF) or cpu.window != cython.NULL:
        return 0
    if count > room // size:
        count = room // size
    if count and (offset + count * size - 1) > mask:
        return 0
    return count


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def move_run(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), size: cython.int, mask: u64) -> u64:
    """Move a whole run of a forward REP MOVS if that is safe; the number of elements moved, 0 if none."""
    source: u64 = cpu.gpr[RSI] & mask
    target: u64 = cpu.gpr[RDI] & mask
    count: u64 = cpu.gpr[RCX] & mask
    from_: cython.pointer(u8)
    to: cython.pointer(u8)
    segment: cython.int = insn_segment(insn)
    i: u64
    bytes_: u64
    if linear_address(cpu, segment, source, size, ACCESS_READ) != NEXT:
        return 0
    count = string_run(cpu, cpu.linear, ALL_ONES, size, count)
    if linear_address(cpu, ES, target, size, ACCESS_WRITE) != NEXT:
        return 0
    count = string_run(cpu, cpu.linear, ALL_ONES, size, count)
    bytes_ = count * size
    if count < 2 or source + bytes_ - 1 > mask or target + bytes_ - 1 > mask:
        return 0
    if linear_address(cpu, segment, source, bytes_, ACCESS_READ) != NEXT:
        return 0
    from_ = read_at(cpu, segment, cpu.linear, size)
    if from_ == cython.NULL or from_ == cpu.bounce:
        return 0
    if linear_address(cpu, ES, target, bytes_, ACCESS_WRITE) != NEXT:
        return 0
    to = write_at(cpu, ES, cpu.linear, size)
    if to == cython.NULL or to == cpu.bounce:
        return 0
    if to > from_ and to < from_ + bytes_:
        for i in range(count):
            store(to, size, load(from_, size))
            to += size
            from_ += size
    else:
        memmove(to, from_, bytes_)
    return count


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_movs(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOVS, REP MOVS."""
    size: cython.int = operand_size(insn)
    mask: u64 = address_mask(insn)
    step: u64 = string_step(cpu, size)
    repeat: cython.bint = (insn.flags & (INSN_REP | INSN_REPNE)) != 0
    value: u64
    done: u64
    status: cython.int
    while not repeat or cpu.gpr[RCX] & mask:
        done = move_run(cpu, insn, size, mask) if repeat else 0
        if done == 0:
            status = read_memory(cpu, insn_segment(insn), cpu.gpr[RSI] & mask, size, cython.address(value))
            if status == NEXT:
                status = write_memory(cpu, ES, cpu.gpr[RDI] & mask, size, value)
            if status != NEXT:
                return status
            done = 1
        set_counter(cpu, RSI, mask, cpu.gpr[RSI] + done * step)
        set_counter(cpu, RDI, mask, cpu.gpr[RDI] + done * step)
        if not repeat:
            break
        set_counter(cpu, RCX, mask, cpu.gpr[RCX] - done)
        cpu.repetitions -= cython.cast(i32, (done * size) >> 6)
        if must_stop(cpu) and cpu.gpr[RCX] & mask:
            return AGAIN
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def store_run(cpu: cython.pointer(Cpu), size: cython.int, mask: u64) -> u64:
    """Store a whole run of a forward REP STOS if that is safe; the number of elements stored, 0 if none."""
    target: u64 = cpu.gpr[RDI] & mask
    count: u64 = cpu.gpr[RCX] & mask
    to: cython.pointer(u8)
    i: u64
    value: u64 = cpu.gpr[RAX]
    if linear_address(cpu, ES, target, size, ACCESS_WRITE) != NEXT:
        return 0
    count = string_run(cpu, cpu.linear, ALL_ONES, size, count)
    if count < 2 or target + count * size - 1 > mask:
        return 0
    if linear_address(cpu, ES, target, count * size, ACCESS_WRITE) != NEXT:
        return 0
    to = write_at(cpu, ES, cpu.linear, size)
    if to == cython.NULL or to == cpu.bounce:
        return 0
    if size == 1:
        memset(to, cython.cast(cython.int, value & 0xFF), count)
    else:
        for i in range(count):
            store(to, size, value)
            to += size
    return count


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_stos(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """STOS, REP STOS."""
    size: cython.int = operand_size(insn)
    mask: u64 = address_mask(insn)
    step: u64 = string_step(cpu, size)
    repeat: cython.bint = (insn.flags & (INSN_REP | INSN_REPNE)) != 0
    done: u64
    status: cython.int
    while not repeat or cpu.gpr[RCX] & mask:
        done = store_run(cpu, size, mask) if repeat else 0
        if done == 0:
            status = write_memory(cpu, ES, cpu.gpr[RDI] & mask, size, cpu.gpr[RAX])
            if status != NEXT:
                return status
            done = 1
        set_counter(cpu, RDI, mask, cpu.gpr[RDI] + done * step)
        if not repeat:
            break
        set_counter(cpu, RCX, mask, cpu.gpr[RCX] - done)
        cpu.repetitions -= cython.cast(i32, (done * size) >> 6)
        if must_stop(cpu) and cpu.gpr[RCX] & mask:
            return AGAIN
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lods(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LODS, REP LODS."""
    size: cython.int = operand_size(insn)
    mask: u64 = address_mask(insn)
    step: u64 = string_step(cpu, size)
    repeat: cython.bint = (insn.flags & (INSN_REP | INSN_REPNE)) != 0
    value: u64
    status: cython.int
    while not repeat or cpu.gpr[RCX] & mask:
        status = read_memory(cpu, insn_segment(insn), cpu.gpr[RSI] & mask, size, cython.address(value))
        if status != NEXT:
            return status
        set_reg(cpu, RAX, size, value)
        set_counter(cpu, RSI, mask, cpu.gpr[RSI] + step)
        if not repeat:
            break
        set_counter(cpu, RCX, mask, cpu.gpr[RCX] - 1)
        if must_stop(cpu) and cpu.gpr[RCX] & mask:
            return AGAIN
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def compare_goes_on(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.bint:
    """REPE (F3) goes on while equal, REPNE (F2) while not."""
    return (flag_zf(cpu) != 0) == ((insn.flags & INSN_REP) != 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_cmps(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CMPS, REPE/REPNE CMPS."""
    size: cython.int = operand_size(insn)
    mask: u64 = address_mask(insn)
    step: u64 = string_step(cpu, size)
    repeat: cython.bint = (insn.flags & (INSN_REP | INSN_REPNE)) != 0
    a: u64
    b: u64
    status: cython.int
    while not repeat or cpu.gpr[RCX] & mask:
        status = read_memory(cpu, insn_segment(insn), cpu.gpr[RSI] & mask, size, cython.address(a))
        if status == NEXT:
            status = read_memory(cpu, ES, cpu.gpr[RDI] & mask, size, cython.address(b))
        if status != NEXT:
            return status
        alu(cpu, ALU_cmp, sign_extend(a, size), sign_extend(b, size), size)
        set_counter(cpu, RSI, mask, cpu.gpr[RSI] + step)
        set_counter(cpu, RDI, mask, cpu.gpr[RDI] + step)
        if not repeat:
            break
        set_counter(cpu, RCX, mask, cpu.gpr[RCX] - 1)
        if not compare_goes_on(cpu, insn):
            break
        if must_stop(cpu) and cpu.gpr[RCX] & mask:
            return AGAIN
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_scas(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SCAS, REPE/REPNE SCAS."""
    size: cython.int = operand_size(insn)
    mask: u64 = address_mask(insn)
    step: u64 = string_step(cpu, size)
    repeat: cython.bint = (insn.flags & (INSN_REP | INSN_REPNE)) != 0
    b: u64
    status: cython.int
    while not repeat or cpu.gpr[RCX] & mask:
        status = read_memory(cpu, ES, cpu.gpr[RDI] & mask, size, cython.address(b))
        if status != NEXT:
            return status
        alu(cpu, ALU_cmp, sign_extend(cpu.gpr[RAX], size), sign_extend(b, size), size)
        set_counter(cpu, RDI, mask, cpu.gpr[RDI] + step)
        if not repeat:
            break
        set_counter(cpu, RCX, mask, cpu.gpr[RCX] - 1)
        if not compare_goes_on(cpu, insn):
            break
        if must_stop(cpu) and cpu.gpr[RCX] & mask:
            return AGAIN
    return NEXT
