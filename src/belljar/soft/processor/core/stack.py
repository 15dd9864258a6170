"""PUSH, POP, PUSHA, POPA, ENTER, LEAVE. The forms of 64-bit mode have handlers of their own."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def push_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), value: u64) -> cython.int:
    """The end of a handler that pushes 8 bytes in 64-bit mode."""
    sp: u64 = cpu.gpr[RSP] - 8
    place: cython.pointer(u8) = write_at(cpu, SS, sp, 8)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, 8, value)
    cpu.gpr[RSP] = sp
    return stored(cpu, insn, place)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def push_sized(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), value: u64) -> cython.int:
    """The end of a handler that pushes 2 or 4 bytes, or 8 through the general way."""
    size: cython.int = operand_size(insn)
    sp: u64 = cpu.gpr[RSP] - size
    place: cython.pointer(u8) = access_memory(cpu, SS, sp & stack_mask(cpu), size, ACCESS_WRITE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, size, value)
    set_sp(cpu, sp)
    return stored(cpu, insn, place)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_r_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSH register in 64-bit mode."""
    return push_64(cpu, insn, slot(cpu, insn.rm))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_r(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSH register."""
    return push_sized(cpu, insn, slot(cpu, insn.rm))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_i_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSH immediate in 64-bit mode."""
    return push_64(cpu, insn, insn.imm)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_i(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSH immediate."""
    return push_sized(cpu, insn, insn.imm)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_m_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSH memory in 64-bit mode."""
    place: cython.pointer(u8) = read_operand(cpu, insn, 8)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    return push_64(cpu, insn, load(place, 8))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_m(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSH memory."""
    size: cython.int = operand_size(insn)
    place: cython.pointer(u8) = read_operand(cpu, insn, size)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    return push_sized(cpu, insn, load(place, size))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pop_r_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """POP register in 64-bit mode; POP RSP keeps what was read."""
    sp: u64 = cpu.gpr[RSP]
    place: cython.pointer(u8) = read_at(cpu, SS, sp, 8)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    cpu.gpr[RSP] = sp + 8
    set_reg(cpu, insn.rm, 8, load(place, 8))
    return go_on(cpu, insn)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pop_r(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """POP register."""
    size: cython.int = operand_size(insn)
    sp: u64 = cpu.gpr[RSP]
    value: u64
    place: cython.pointer(u8) = access_memory(cpu, SS, sp & stack_mask(cpu), size, ACCESS_READ)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    value = load(place, size)
    set_sp(cpu, sp + size)
    set_reg(cpu, insn.rm, size, value)
    return go_on(cpu, insn)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pop_memory(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """POP r/m: an address that uses RSP sees it after the increment (SDM 2B, POP)."""
    size: cython.int = operand_size(insn)
    sp: u64 = cpu.gpr[RSP]
    value: u64
    status: cython.int = stack_read(cpu, sp, size, cython.address(value))
    if status != NEXT:
        return status
    set_sp(cpu, sp + size)
    status = write_rm(cpu, insn, size, value)
    if status != NEXT:
        cpu.gpr[RSP] = sp
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pusha(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSHA, PUSHAD."""
    size: cython.int = operand_size(insn)
    sp: u64 = cpu.gpr[RSP]
    i: cython.int
    status: cython.int
    for i in range(8):
        sp -= size
        status = stack_write(cpu, sp, size, cpu.gpr[i])
        if status != NEXT:
            return status
    set_sp(cpu, sp)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_popa(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """POPA, POPAD: the stack pointer's own value is skipped."""
    size: cython.int = operand_size(insn)
    sp: u64 = cpu.gpr[RSP]
    values: u64[8]
    i: cython.int
    status: cython.int
    for i in range(8):
        status = stack_read(cpu, sp + i * size, size, cython.address(values[i]))
        if status != NEXT:
            return status
    for i in range(8):
        if 7 - i != RSP:
            set_reg(cpu, 8 * (7 - i), size, values[i])
    set_sp(cpu, sp + 8 * size)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_enter(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """ENTER imm16, imm8: insn.imm = level << 16 | size."""
    size: cython.int = operand_size(insn)
    level: cython.int = cython.cast(cython.int, (insn.imm >> 16) & 31)
    sp: u64 = cpu.gpr[RSP] - size
    bp: u64 = cpu.gpr[RBP]
    frame: u64 = sp
    value: u64
    i: cython.int
    place: cython.pointer(u8)
    status: cython.int = stack_write(cpu, sp, size, bp)
    if status != NEXT:
        return status
    for i in range(1, level):
        bp -= size
        status = stack_read(cpu, bp, size, cython.address(value))
        if status != NEXT:
            return status
        sp -= size
        status = stack_write(cpu, sp, size, value)
        if status != NEXT:
            return status
    if level:
        sp -= size
        status = stack_write(cpu, sp, size, frame)
        if status != NEXT:
            return status
    sp -= insn.imm & 0xFFFF
    # The new top of the stack must be writable (SDM 2A, ENTER); nothing is written there.
    place = access_memory(cpu, SS, sp & stack_mask(cpu), size, ACCESS_WRITE)
    if place == cython.NULL:
        return cpu.memory_status
    set_reg(cpu, 8 * RBP, size, frame)
    set_sp(cpu, sp)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave_frame_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LEAVE in 64-bit mode."""
    bp: u64 = cpu.gpr[RBP]
    place: cython.pointer(u8) = read_at(cpu, SS, bp, 8)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    cpu.gpr[RBP] = load(place, 8)
    cpu.gpr[RSP] = bp + 8
    return go_on(cpu, insn)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave_frame(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LEAVE."""
    size: cython.int = operand_size(insn)
    bp: u64 = cpu.gpr[RBP]
    place: cython.pointer(u8) = access_memory(cpu, SS, bp & stack_mask(cpu), size, ACCESS_READ)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    set_reg(cpu, 8 * RBP, size, load(place, size))
    set_sp(cpu, bp + size)
    return go_on(cpu, insn)
