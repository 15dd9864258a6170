"""Moves: MOV, MOVZX, MOVSX, MOVSXD, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, and the sign extensions of the accumulator."""

import cython


# each mov_rr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mov_rr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV register, register."""
    set_reg(cpu, insn.rm, SIZE, get_reg(cpu, insn.reg, SIZE))
    return go_on(cpu, insn)


# each mov_ri: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mov_ri_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV register, immediate."""
    set_reg(cpu, insn.rm, SIZE, insn.imm)
    return go_on(cpu, insn)


# each mov_rm: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mov_rm_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV register, memory."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    set_reg(cpu, insn.reg, SIZE, load(place, SIZE))
    return go_on(cpu, insn)


# each mov_mr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mov_mr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV memory, register."""
    place: cython.pointer(u8) = write_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, SIZE, get_reg(cpu, insn.reg, SIZE))
    return stored(cpu, insn, place)


# each mov_mi: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mov_mi_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV memory, immediate."""
    place: cython.pointer(u8) = write_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, SIZE, insn.imm)
    return stored(cpu, insn, place)


# each mov_load_offset: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mov_load_offset_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV accumulator, moffs."""
    place: cython.pointer(u8) = access_memory(cpu, insn_segment(insn), insn.imm, SIZE, ACCESS_READ)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    set_reg(cpu, RAX, SIZE, load(place, SIZE))
    return go_on(cpu, insn)


# each mov_store_offset: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mov_store_offset_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV moffs, accumulator."""
    place: cython.pointer(u8) = access_memory(cpu, insn_segment(insn), insn.imm, SIZE, ACCESS_WRITE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, SIZE, get_reg(cpu, RAX, SIZE))
    return stored(cpu, insn, place)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def extended(value: u64, source: cython.int, signed: cython.int) -> u64:
    """A value of `source` bytes, zero- or sign-extended."""
    if signed:
        return sign_extend(value, source)
    return value


# each extend_rr: SIGN=0,1 SOURCE=1,2,4 SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def extend_rr_SIGN_SOURCE_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOVZX (0) or MOVSX (1) register of SIZE bytes, register of SOURCE bytes."""
    set_reg(cpu, insn.rm, SIZE, extended(get_reg(cpu, insn.reg, SOURCE), SOURCE, SIGN))
    return go_on(cpu, insn)


# each extend_rm: SIGN=0,1 SOURCE=1,2,4 SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def extend_rm_SIGN_SOURCE_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOVZX (0) or MOVSX (1) register of SIZE bytes, memory of SOURCE bytes."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SOURCE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    set_reg(cpu, insn.reg, SIZE, extended(load(place, SOURCE), SOURCE, SIGN))
    return go_on(cpu, insn)


# each lea: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def lea_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LEA."""
    address: u64 = effective_sum(cpu, insn)
    if unlikely(insn.flags & INSN_ASIZE):
        address &= address_mask(insn)
    set_reg(cpu, insn.reg, SIZE, address)
    return go_on(cpu, insn)


# each xchg_rr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def xchg_rr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XCHG register, register."""
    value: u64 = get_reg(cpu, insn.rm, SIZE)
    set_reg(cpu, insn.rm, SIZE, get_reg(cpu, insn.reg, SIZE))
    set_reg(cpu, insn.reg, SIZE, value)
    return go_on(cpu, insn)


# each xchg_mr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def xchg_mr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XCHG memory, register."""
    place: cython.pointer(u8) = modify_operand(cpu, insn, SIZE)
    value: u64
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    value = load(place, SIZE)
    store(place, SIZE, get_reg(cpu, insn.reg, SIZE))
    set_reg(cpu, insn.reg, SIZE, value)
    return stored(cpu, insn, place)


# each cmov_rr: CC=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15 SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cmov_rr_CC_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CMOVcc register, register: a 32-bit destination is zero-extended even if nothing moves (SDM 2A, CMOVcc)."""
    value: u64 = get_reg(cpu, insn.rm, SIZE)
    if condition(cpu, CC):
        value = get_reg(cpu, insn.reg, SIZE)
    set_reg(cpu, insn.rm, SIZE, value)
    return go_on(cpu, insn)


# each cmov_rm: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cmov_rm_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CMOVcc register, memory: memory is read, and may fault, whatever the condition."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    value: u64 = get_reg(cpu, insn.reg, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    if condition(cpu, cython.cast(cython.int, insn.imm)):
        value = load(place, SIZE)
    set_reg(cpu, insn.reg, SIZE, value)
    return go_on(cpu, insn)


# each setcc_r: CC=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def setcc_r_CC(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SETcc register."""
    set_reg(cpu, insn.rm, 1, 1 if condition(cpu, CC) else 0)
    return go_on(cpu, insn)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def setcc_m(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SETcc memory."""
    place: cython.pointer(u8) = write_operand(cpu, insn, 1)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, 1, 1 if condition(cpu, cython.cast(cython.int, insn.imm)) else 0)
    return stored(cpu, insn, place)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def swapped(value: u64, size: cython.int) -> u64:
    """Bytes in the opposite order."""
    return byte_swap64(value) >> (64 - 8 * size)


# each bswap: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def bswap_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """BSWAP; of 16 bits it is undefined and gives 0 on hardware."""
    set_reg(cpu, insn.rm, SIZE, 0 if SIZE == 2 else swapped(get_reg(cpu, insn.rm, SIZE), SIZE))
    return go_on(cpu, insn)


# each movbe_rm: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def movbe_rm_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOVBE register, memory."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    set_reg(cpu, insn.reg, SIZE, swapped(load(place, SIZE), SIZE))
    return go_on(cpu, insn)


# each movbe_mr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def movbe_mr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOVBE memory, register."""
    place: cython.pointer(u8) = write_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, SIZE, swapped(get_reg(cpu, insn.reg, SIZE), SIZE))
    return stored(cpu, insn, place)


# each extend_accumulator: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def extend_accumulator_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CBW, CWDE, CDQE."""
    set_reg(cpu, RAX, SIZE, sign_extend(cpu.gpr[RAX], SIZE // 2))
    return go_on(cpu, insn)


# each extend_into_dx: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def extend_into_dx_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CWD, CDQ, CQO."""
    set_reg(cpu, 8 * RDX, SIZE, 0 - (sign_extend(cpu.gpr[RAX], SIZE) >> 63))
    return go_on(cpu, insn)
