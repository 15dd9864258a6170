"""Shifts and rotates (SDM 2B, SAL/SAR/SHL/SHR and RCL/RCR/ROL/ROR), single and double."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_shift_flags(cpu: cython.pointer(Cpu), result: u64, cf: u64, of: u64) -> cython.void:
    """All six flags after a shift; the result is sign-extended."""
    set_carry_overflow_adjust(cpu, cf & 1, of & 1, 0)
    set_result(cpu, result)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_rotate_flags(cpu: cython.pointer(Cpu), cf: u64, of: u64) -> cython.void:
    """CF and OF after a rotate; the others stay."""
    set_carry_overflow_adjust(cpu, cf & 1, of & 1, flag_af(cpu))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def rotate(cpu: cython.pointer(Cpu), op: cython.int, a: u64, count: cython.uint, size: cython.int) -> u64:
    """ROL or ROR by a count that is not 0, of a zero-extended operand."""
    bits: cython.uint = 8 * size
    by: cython.uint = count % bits
    result: u64 = a
    if op == SHIFT_rol:
        if by:
            result = (a << by) | (a >> (bits - by))
        set_rotate_flags(cpu, result, (result >> (bits - 1)) ^ result)
    else:
        if by:
            result = (a >> by) | (a << (bits - by))
        set_rotate_flags(cpu, result >> (bits - 1), (result >> (bits - 1)) ^ (result >> (bits - 2)))
    return result


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def rotate_carry(cpu: cython.pointer(Cpu), op: cython.int, a: u64, count: cython.uint, size: cython.int) -> u64:
    """RCL or RCR by a count that is not 0, of a zero-extended operand: CF is one bit more of the number."""
    bits: cython.uint = 8 * size
    by: cython.uint = count % (bits + 1)
    carry: u64 = flag_cf(cpu)
    result: u64
    if by == 0:
        return a
    if op == SHIFT_rcl:
        result = (carry << (by - 1)) | (a << 1 << (by - 1))
        if by > 1:
            result |= a >> (bits + 1 - by)
        carry = a >> (bits - by)
        set_rotate_flags(cpu, carry, (result >> (bits - 1)) ^ carry)
    else:
        result = (carry << (bits - by)) | (a >> 1 >> (by - 1))
        if by > 1:
            result |= a << (bits + 1 - by)
        set_rotate_flags(cpu, a >> (by - 1), (result >> (bits - 1)) ^ (result >> (bits - 2)))
    return result


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def shift(cpu: cython.pointer(Cpu), op: cython.int, a: u64, count: cython.uint, size: cython.int) -> u64:
    """One of SHIFT_*: `a` is zero-extended, only the low bytes of the result count. A masked count of 0 changes no flag."""
    bits: cython.uint = 8 * size
    result: u64
    carry: u64
    count &= 63 if size == 8 else 31
    if count == 0:
        return a
    if op == SHIFT_rol or op == SHIFT_ror:
        return rotate(cpu, op, a, count, size)
    if op == SHIFT_rcl or op == SHIFT_rcr:
        return rotate_carry(cpu, op, a, count, size)
    if op == SHIFT_shl or op == SHIFT_sal:
        carry = (a >> (64 - count)) if size == 8 else ((a << count) >> bits)
        result = sign_extend(a << count, size)
        set_shift_flags(cpu, result, carry, (result >> 63) ^ carry)
    elif op == SHIFT_shr:
        result = sign_extend(a >> count, size)
        set_shift_flags(cpu, result, a >> (count - 1), a >> (bits - 1))
    else:
        result = cython.cast(u64, cython.cast(i64, sign_extend(a, size)) >> count)
        set_shift_flags(cpu, result, cython.cast(u64, cython.cast(i64, sign_extend(a, size)) >> (count - 1)), 0)
    return result


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def count_imm(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.uint:
    """The shift count of the immediate forms."""
    return cython.cast(cython.uint, insn.imm)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def count_cl(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.uint:
    """The shift count of the forms that shift by CL."""
    return cython.cast(cython.uint, cpu.gpr[RCX] & 0xFF)


# each shift_r: COUNT=imm,cl OP=rol,ror,rcl,rcr,shl,shr,sal,sar SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_r_COUNT_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP register by an immediate or CL."""
    set_reg(cpu, insn.rm, SIZE, shift(cpu, SHIFT_OP, get_reg(cpu, insn.rm, SIZE), count_COUNT(cpu, insn), SIZE))
    return go_on(cpu, insn)


# each shift_m: COUNT=imm,cl OP=rol,ror,rcl,rcr,shl,shr,sal,sar SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_m_COUNT_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP memory by an immediate or CL."""
    place: cython.pointer(u8) = modify_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, SIZE, shift(cpu, SHIFT_OP, load(place, SIZE), count_COUNT(cpu, insn), SIZE))
    return stored(cpu, insn, place)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def double_shift(
    cpu: cython.pointer(Cpu), left: cython.int, a: u64, b: u64, count: cython.uint, size: cython.int
) -> u64:
    """SHLD (left) or SHRD. 16 bits by more than 16 is undefined; here bits come round from `a` again, as in hardware."""
    bits: cython.uint = 8 * size
    result: u64
    carry: u64
    count &= 63 if size == 8 else 31
    if count == 0:
        return a
    if size == 2 and count > 16:
        if left:
            result = (b << (count - 16)) | (a >> (32 - count))
            carry = b >> (32 - count)
        else:
            result = (b >> (count - 16)) | (a << (32 - count))
            carry = b >> (count - 17)
    elif left:
        result = (a << count) | (b >> (bits - count))
        carry = a >> (bits - count)
    else:
        result = (a >> count) | (b << (bits - count))
        carry = a >> (count - 1)
    result = sign_extend(result, size)
    set_shift_flags(cpu, result, carry, (result >> 63) ^ (a >> (bits - 1)))
    return result


# each double_shift_r: LEFT=0,1 COUNT=imm,cl SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def double_shift_r_LEFT_COUNT_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SHRD (0) or SHLD (1) register, register."""
    a: u64 = get_reg(cpu, insn.rm, SIZE)
    b: u64 = get_reg(cpu, insn.reg, SIZE)
    set_reg(cpu, insn.rm, SIZE, double_shift(cpu, LEFT, a, b, count_COUNT(cpu, insn), SIZE))
    return go_on(cpu, insn)


# each double_shift_m: LEFT=0,1 COUNT=imm,cl SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def double_shift_m_LEFT_COUNT_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SHRD (0) or SHLD (1) memory, register."""
    place: cython.pointer(u8) = modify_operand(cpu, insn, SIZE)
    b: u64 = get_reg(cpu, insn.reg, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, SIZE, double_shift(cpu, LEFT, load(place, SIZE), b, count_COUNT(cpu, insn), SIZE))
    return stored(cpu, insn, place)
