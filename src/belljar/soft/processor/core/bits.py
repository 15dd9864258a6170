"""Bits: BT, BTS, BTR, BTC, BSF, BSR, POPCNT, LZCNT, TZCNT, CRC32."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def bit_operation(cpu: cython.pointer(Cpu), op: cython.int, value: u64, bit: u64) -> u64:
    """BT, BTS, BTR or BTC of bit `bit`: the new value; CF takes the old bit, the other flags stay."""
    mask: u64 = cython.cast(u64, 1) << bit
    set_cf(cpu, (value >> bit) & 1)
    if op == BIT_bts:
        return value | mask
    if op == BIT_btr:
        return value & ~mask
    if op == BIT_btc:
        return value ^ mask
    return value


# each bit_rr: OP=bt,bts,btr,btc SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_rr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP register, register: the bit number wraps at the operand size."""
    value: u64 = bit_operation(
        cpu, BIT_OP, get_reg(cpu, insn.rm, SIZE), get_reg(cpu, insn.reg, SIZE) & (8 * SIZE - 1)
    )
    if BIT_OP != BIT_bt:
        set_reg(cpu, insn.rm, SIZE, value)
    return go_on(cpu, insn)


# each bit_ri: OP=bt,bts,btr,btc SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_ri_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP register, immediate."""
    value: u64 = bit_operation(cpu, BIT_OP, get_reg(cpu, insn.rm, SIZE), insn.imm & (8 * SIZE - 1))
    if BIT_OP != BIT_bt:
        set_reg(cpu, insn.rm, SIZE, value)
    return go_on(cpu, insn)


# each bit_mi: OP=bt,bts,btr,btc SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_mi_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP memory, immediate."""
    place: cython.pointer(u8)
    value: u64
    if BIT_OP == BIT_bt:
        place = read_operand(cpu, insn, SIZE)
    else:
        place = modify_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    value = bit_operation(cpu, BIT_OP, load(place, SIZE), insn.imm & (8 * SIZE - 1))
    if BIT_OP == BIT_bt:
        return go_on(cpu, insn)
    store(place, SIZE, value)
    return stored(cpu, insn, place)


# each bit_mr: OP=bt,bts,btr,btc SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_mr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP memory, register: a bit string, the signed bit number reaches beyond the operand (SDM 2A 3.1.1.9)."""
    place: cython.pointer(u8)
    number: i64 = cython.cast(i64, get_signed(cpu, insn.reg, SIZE))
    bit: u64 = cython.cast(u64, number) & (8 * SIZE - 1)
    value: u64
    offset: u64 = effective_sum(cpu, insn) + cython.cast(u64, ((number - cython.cast(i64, bit)) >> 3))
    offset &= address_mask(insn)
    place = access_memory(
        cpu, insn_segment(insn), offset, SIZE, ACCESS_READ if BIT_OP == BIT_bt else ACCESS_WRITE | ACCESS_MODIFY
    )
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    value = bit_operation(cpu, BIT_OP, load(place, SIZE), bit)
    if BIT_OP == BIT_bt:
        return go_on(cpu, insn)
    store(place, SIZE, value)
    return stored(cpu, insn, place)


# each scan: OP=bsf,bsr,popcnt,lzcnt,tzcnt SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def scan_OP_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP register, register or memory: one path for both, the destination is ModRM.reg."""
    place: cython.pointer(u8)
    value: u64
    if insn.flags & INSN_MEM:
        place = read_operand(cpu, insn, SIZE)
        if unlikely(place == cython.NULL):
            return leave_fault(cpu, insn)
        value = load(place, SIZE)
    else:
        value = get_reg(cpu, insn.rm, SIZE)
    scan_with_OP(cpu, insn.reg, value, SIZE)
    return go_on(cpu, insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def scan_with_bsf(cpu: cython.pointer(Cpu), target: cython.uint, value: u64, size: cython.int) -> cython.void:
    """BSF: of 0 the destination stays as it is, as on hardware."""
    set_carry_overflow_adjust(cpu, 0, 0, 0)
    set_result(cpu, sign_extend(value, size))
    if value:
        set_reg(cpu, target, size, trailing_zeros(value))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def scan_with_bsr(cpu: cython.pointer(Cpu), target: cython.uint, value: u64, size: cython.int) -> cython.void:
    """BSR: of 0 the destination stays as it is, as on hardware."""
    set_carry_overflow_adjust(cpu, 0, 0, 0)
    set_result(cpu, sign_extend(value, size))
    if value:
        set_reg(cpu, target, size, 63 - leading_zeros(value))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def scan_with_popcnt(cpu: cython.pointer(Cpu), target: cython.uint, value: u64, size: cython.int) -> cython.void:
    """POPCNT: all flags are cleared but ZF, which says whether the source was 0."""
    set_arithmetic_flags(cpu, 0 if value else FLAG_ZF)
    set_reg(cpu, target, size, count_ones(value))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def scan_with_lzcnt(cpu: cython.pointer(Cpu), target: cython.uint, value: u64, size: cython.int) -> cython.void:
    """LZCNT: CF when the source was 0, ZF when the result is."""
    count: u64 = 8 * size
    if value:
        count = leading_zeros(value) - (64 - 8 * size)
    set_arithmetic_flags(cpu, (0 if value else FLAG_CF) | (0 if count else FLAG_ZF))
    set_reg(cpu, target, size, count)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def scan_with_tzcnt(cpu: cython.pointer(Cpu), target: cython.uint, value: u64, size: cython.int) -> cython.void:
    """TZCNT: CF when the source was 0, ZF when the result is."""
    count: u64 = 8 * size
    if value:
        count = trailing_zeros(value)
    set_arithmetic_flags(cpu, (0 if value else FLAG_CF) | (0 if count else FLAG_ZF))
    set_reg(cpu, target, size, count)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def crc32_step(crc: u32, data: u64, size: cython.int) -> u32:
    """CRC-32C of `size` more bytes, without inversion (SDM 2A, CRC32: polynomial 11EDC6F41, bit-reflected)."""
    polynomial: u32 = (cython.cast(u32, 0x82F6) << 16) | 0x3B78
    i: cython.int
    for i in range(8 * size):
        crc = (crc >> 1) ^ (polynomial if (crc ^ cython.cast(u32, data)) & 1 else 0)
        data >>= 1
    return crc


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_crc32(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CRC32 r32/r64, r/m8..64: insn.imm tells the byte form (1)."""
    size: cython.int = 1 if insn.imm else operand_size(insn)
    value: u64
    status: cython.int = read_rm(cpu, insn, size, cython.address(value))
    if status != NEXT:
        return status
    set_reg(cpu, insn.reg, 8, crc32_step(cython.cast(u32, cpu.gpr[insn.reg >> 3]), value, size))
    return NEXT
