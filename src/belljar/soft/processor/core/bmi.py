"""BMI1, BMI2 and ADX (SDM 2A to 2D). VEX.vvvv's register is insn.imm, as a byte offset into Cpu."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_bmi_flags(cpu: cython.pointer(Cpu), result: u64, cf: cython.bint, size: cython.int) -> cython.void:
    """SF and ZF of the result, CF as given, OF cleared."""
    set_carry_overflow_adjust(cpu, cf, 0, 0)
    set_result(cpu, sign_extend(result, size))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_andn(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """ANDN: not vvvv, and r/m."""
    size: cython.int = operand_size(insn)
    value: u64
    status: cython.int = read_rm(cpu, insn, size, cython.address(value))
    if status != NEXT:
        return status
    value &= ~get_reg(cpu, cython.cast(cython.uint, insn.imm), size)
    set_bmi_flags(cpu, value, False, size)
    set_reg(cpu, insn.reg, size, value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_bextr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """BEXTR: start in the low byte of vvvv, length in the next; ZF of the result, CF and OF cleared."""
    size: cython.int = operand_size(insn)
    value: u64
    control: u64 = get_reg(cpu, cython.cast(cython.uint, insn.imm), 8)
    start: u64 = control & 0xFF
    length: u64 = (control >> 8) & 0xFF
    status: cython.int = read_rm(cpu, insn, size, cython.address(value))
    if status != NEXT:
        return status
    value = value >> start if start < 64 else 0
    if length < 64:
        value &= (cython.cast(u64, 1) << length) - 1
    set_bmi_flags(cpu, value, False, size)
    set_reg(cpu, insn.reg, size, value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_bls(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """BLSR (ModRM.reg 1), BLSMSK (2), BLSI (3): the destination is vvvv's register."""
    size: cython.int = operand_size(insn)
    source: u64
    value: u64
    which: cython.int = (insn.reg >> 3) & 7
    status: cython.int = read_rm(cpu, insn, size, cython.address(source))
    if status != NEXT:
        return status
    if which == 1:
        value = source & (source - 1)
    elif which == 2:
        value = source ^ (source - 1)
    else:
        value = source & (0 - source)
    if size == 4:
        value &= LOW32
    set_bmi_flags(cpu, value, (source != 0) if which == 3 else (source == 0), size)
    set_reg(cpu, cython.cast(cython.uint, insn.imm), size, value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_bzhi(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """BZHI: clear the bits from the number in vvvv's low byte upwards; CF if that is beyond the operand."""
    size: cython.int = operand_size(insn)
    value: u64
    index: u64 = get_reg(cpu, cython.cast(cython.uint, insn.imm), 1)
    status: cython.int = read_rm(cpu, insn, size, cython.address(value))
    if status != NEXT:
        return status
    if index < cython.cast(u64, 8 * size):
        value &= (cython.cast(u64, 1) << index) - 1
    set_bmi_flags(cpu, value, index > cython.cast(u64, 8 * size - 1), size)
    set_reg(cpu, insn.reg, size, value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mulx(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MULX: RDX * r/m; low half to vvvv, then high half to ModRM.reg; no flags."""
    size: cython.int = operand_size(insn)
    value: u64
    product: u128
    status: cython.int = read_rm(cpu, insn, size, cython.address(value))
    if status != NEXT:
        return status
    product = cython.cast(u128, get_reg(cpu, 8 * RDX, size)) * cython.cast(u128, value)
    set_reg(cpu, cython.cast(cython.uint, insn.imm), size, cython.cast(u64, product))
    set_reg(cpu, insn.reg, size, cython.cast(u64, product >> (8 * size)))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pdep(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PDEP: the low bits of vvvv scattered to the ones of the mask r/m."""
    size: cython.int = operand_size(insn)
    mask: u64
    source: u64 = get_reg(cpu, cython.cast(cython.uint, insn.imm), size)
    value: u64 = 0
    lowest: u64
    status: cython.int = read_rm(cpu, insn, size, cython.address(mask))
    if status != NEXT:
        return status
    while mask:
        lowest = mask & (0 - mask)
        if source & 1:
            value |= lowest
        source >>= 1
        mask ^= lowest
    set_reg(cpu, insn.reg, size, value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pext(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PEXT: the bits of vvvv at the ones of the mask r/m, gathered."""
    size: cython.int = operand_size(insn)
    mask: u64
    source: u64 = get_reg(cpu, cython.cast(cython.uint, insn.imm), size)
    value: u64 = 0
    bit: u64 = 1
    lowest: u64
    status: cython.int = read_rm(cpu, insn, size, cython.address(mask))
    if status != NEXT:
        return status
    while mask:
        lowest = mask & (0 - mask)
        if source & lowest:
            value |= bit
        bit <<= 1
        mask ^= lowest
    set_reg(cpu, insn.reg, size, value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rorx(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RORX r, r/m, imm8: no flags."""
    size: cython.int = operand_size(insn)
    value: u64
    count: cython.uint = cython.cast(cython.uint, insn.imm & (8 * size - 1))
    status: cython.int = read_rm(cpu, insn, size, cython.address(value))
    if status != NEXT:
        return status
    if count:
        value = (value >> count) | (value << (8 * size - count))
    set_reg(cpu, insn.reg, size, value)
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def shift_without_flags(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), op: cython.int) -> cython.int:
    """SHLX, SHRX, SARX: r/m shifted by vvvv."""
    size: cython.int = operand_size(insn)
    value: u64
    count: u64 = get_reg(cpu, cython.cast(cython.uint, insn.imm), 8) & (8 * size - 1)
    status: cython.int = read_rm(cpu, insn, size, cython.address(value))
    if status != NEXT:
        return status
    if op == SHIFT_shl:
        value <<= count
    elif op == SHIFT_shr:
        value >>= count
    else:
        value = cython.cast(u64, cython.cast(i64, sign_extend(value, size)) >> count)
    set_reg(cpu, insn.reg, size, value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_shlx(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SHLX."""
    return shift_without_flags(cpu, insn, SHIFT_shl)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_shrx(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SHRX."""
    return shift_without_flags(cpu, insn, SHIFT_shr)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sarx(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SARX."""
    return shift_without_flags(cpu, insn, SHIFT_sar)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def add_with_one_flag(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), overflow: cython.bint) -> cython.int:
    """ADCX (carry through CF) or ADOX (through OF); the other flags stay."""
    size: cython.int = operand_size(insn)
    value: u64
    total: u128
    carry: u64 = flag_of(cpu) if overflow else flag_cf(cpu)
    status: cython.int = read_rm(cpu, insn, size, cython.address(value))
    if status != NEXT:
        return status
    total = cython.cast(u128, value) + cython.cast(u128, get_reg(cpu, insn.reg, size)) + cython.cast(u128, carry)
    set_reg(cpu, insn.reg, size, cython.cast(u64, total))
    carry = cython.cast(u64, total >> (8 * size)) & 1
    if overflow:
        set_carry_overflow_adjust(cpu, flag_cf(cpu), carry, flag_af(cpu))
    else:
        set_carry_overflow_adjust(cpu, carry, flag_of(cpu), flag_af(cpu))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_adcx(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """ADCX."""
    return add_with_one_flag(cpu, insn, False)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_adox(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """ADOX."""
    return add_with_one_flag(cpu, insn, True)
