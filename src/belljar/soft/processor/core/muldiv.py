"""MUL, IMUL, DIV, IDIV."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_multiply_flags(cpu: cython.pointer(Cpu), low: u64, overflow: cython.bint) -> cython.void:
    """CF and OF say whether the upper half matters; the rest is undefined: here SF, ZF, PF follow the low half."""
    set_carry_overflow_adjust(cpu, overflow, overflow, 0)
    set_result(cpu, low)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def multiply(cpu: cython.pointer(Cpu), signed: cython.int, b: u64, size: cython.int) -> cython.void:
    """AX, DX:AX, EDX:EAX or RDX:RAX = accumulator * b."""
    a: u64 = cpu.gpr[RAX]
    high: u64
    low: u64
    if signed:
        a = sign_extend(a, size)
        b = sign_extend(b, size)
        if size == 8:
            low = a * b
            high = cython.cast(
                u64, (cython.cast(i128, cython.cast(i64, a)) * cython.cast(i128, cython.cast(i64, b))) >> 64
            )
        else:
            low = a * b
            high = low >> (8 * size)
    else:
        if size == 8:
            low = a * b
            high = cython.cast(u64, (cython.cast(u128, a) * cython.cast(u128, b)) >> 64)
        else:
            a &= LOW32 >> (32 - 8 * size)
            low = a * b
            high = low >> (8 * size)
    if size == 1:
        set_reg(cpu, RAX, 2, low)
    else:
        set_reg(cpu, RAX, size, low)
        set_reg(cpu, 8 * RDX, size, high)
    low = sign_extend(low, size)
    high = sign_extend(high, size)
    if signed:
        set_multiply_flags(cpu, low, high != 0 - (low >> 63))
    else:
        set_multiply_flags(cpu, low, high != 0)


# each multiply_r: SIGN=0,1 SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def multiply_r_SIGN_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MUL (0) or IMUL (1) register."""
    multiply(cpu, SIGN, get_reg(cpu, insn.rm, SIZE), SIZE)
    return go_on(cpu, insn)


# each multiply_m: SIGN=0,1 SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def multiply_m_SIGN_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MUL (0) or IMUL (1) memory."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    multiply(cpu, SIGN, load(place, SIZE), SIZE)
    return go_on(cpu, insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def multiply_short(cpu: cython.pointer(Cpu), a: u64, b: u64, size: cython.int) -> u64:
    """The low half of a signed product of sign-extended operands; CF and OF if it does not fit."""
    low: u64 = sign_extend(a * b, size)
    overflow: cython.bint
    if size == 8:
        overflow = cython.cast(i128, cython.cast(i64, a)) * cython.cast(i128, cython.cast(i64, b)) != cython.cast(
            i128, cython.cast(i64, low)
        )
    else:
        overflow = low != a * b
    set_multiply_flags(cpu, low, overflow)
    return low


# each imul_rr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def imul_rr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """IMUL register, register."""
    a: u64 = get_signed(cpu, insn.rm, SIZE)
    set_reg(cpu, insn.rm, SIZE, multiply_short(cpu, a, get_signed(cpu, insn.reg, SIZE), SIZE))
    return go_on(cpu, insn)


# each imul_rm: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def imul_rm_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """IMUL register, memory."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    a: u64 = get_signed(cpu, insn.reg, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    set_reg(cpu, insn.reg, SIZE, multiply_short(cpu, a, sign_extend(load(place, SIZE), SIZE), SIZE))
    return go_on(cpu, insn)


# each imul_rri: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def imul_rri_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """IMUL register, register, immediate."""
    set_reg(cpu, insn.rm, SIZE, multiply_short(cpu, get_signed(cpu, insn.reg, SIZE), insn.imm, SIZE))
    return go_on(cpu, insn)


# each imul_rmi: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def imul_rmi_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """IMUL register, memory, immediate."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    set_reg(cpu, insn.reg, SIZE, multiply_short(cpu, sign_extend(load(place, SIZE), SIZE), insn.imm, SIZE))
    return go_on(cpu, insn)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def divide_wide(cpu: cython.pointer(Cpu), signed: cython.int, divisor: u64) -> cython.bint:
    """RDX:RAX / 64 bits; False: #DE."""
    dividend: u128 = (cython.cast(u128, cpu.gpr[RDX]) << 64) | cython.cast(u128, cpu.gpr[RAX])
    quotient: u128
    negative: cython.bint = False
    remainder: u64
    minus: cython.bint = False
    if divisor == 0:
        return False
    if signed:
        minus = (cpu.gpr[RDX] >> 63) != 0
        negative = minus != ((divisor >> 63) != 0)
        if minus:
            dividend = cython.cast(u128, 0) - dividend
        if divisor >> 63:
            divisor = 0 - divisor
    if cython.cast(u64, dividend >> 64) >= divisor:
        return False
    quotient = dividend // cython.cast(u128, divisor)
    remainder = cython.cast(u64, dividend - quotient * cython.cast(u128, divisor))
    if signed:
        if cython.cast(u64, quotient) > (SIGN_BIT if negative else SIGN_BIT - 1):
            return False
        if minus:
            remainder = 0 - remainder
        if negative:
            quotient = cython.cast(u128, 0) - quotient
    cpu.gpr[RAX] = cython.cast(u64, quotient)
    cpu.gpr[RDX] = remainder
    return True


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def divide(cpu: cython.pointer(Cpu), signed: cython.int, divisor: u64, size: cython.int) -> cython.bint:
    """AX, DX:AX, EDX:EAX or RDX:RAX / divisor; False: #DE, nothing changed. Flags are undefined and stay."""
    dividend: u64
    quotient: u64
    remainder: u64
    if size == 8:
        return divide_wide(cpu, signed, divisor)
    if divisor == 0:
        return False
    if size == 1:
        dividend = cpu.gpr[RAX] & 0xFFFF
    else:
        dividend = (get_reg(cpu, 8 * RDX, size) << (8 * size)) | get_reg(cpu, RAX, size)
    if signed:
        dividend = sign_extend(dividend, 2 * size)
        divisor = sign_extend(divisor, size)
        if size == 4 and dividend == SIGN_BIT and divisor == ALL_ONES:
            return False
        quotient = cython.cast(u64, cython.cast(i64, dividend) // cython.cast(i64, divisor))
        remainder = dividend - quotient * divisor
        if quotient != sign_extend(quotient, size):
            return False
    else:
        quotient = dividend // divisor
        remainder = dividend % divisor
        if quotient >> (8 * size):
            return False
    if size == 1:
        set_reg(cpu, RAX, 2, (quotient & 0xFF) | (remainder << 8))
    else:
        set_reg(cpu, RAX, size, quotient)
        set_reg(cpu, 8 * RDX, size, remainder)
    return True


# each divide_r: SIGN=0,1 SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def divide_r_SIGN_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """DIV (0) or IDIV (1) register."""
    if not divide(cpu, SIGN, get_reg(cpu, insn.rm, SIZE), SIZE):
        return leave(cpu, insn, raise_plain(cpu, EXC_DE))
    return go_on(cpu, insn)


# each divide_m: SIGN=0,1 SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def divide_m_SIGN_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """DIV (0) or IDIV (1) memory."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    if not divide(cpu, SIGN, load(place, SIZE), SIZE):
        return leave(cpu, insn, raise_plain(cpu, EXC_DE))
    return go_on(cpu, insn)
