"""Everything small: exchange-and-add and compare-and-exchange, decimal arithmetic, flags, XLAT, BOUND, NOP."""

import cython


# each xadd_rr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def xadd_rr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XADD register, register."""
    a: u64 = get_signed(cpu, insn.rm, SIZE)
    total: u64 = alu(cpu, ALU_add, a, get_signed(cpu, insn.reg, SIZE), SIZE)
    set_reg(cpu, insn.reg, SIZE, a)
    set_reg(cpu, insn.rm, SIZE, total)
    return go_on(cpu, insn)


# each xadd_mr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def xadd_mr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XADD memory, register."""
    place: cython.pointer(u8) = modify_operand(cpu, insn, SIZE)
    a: u64
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    a = sign_extend(load(place, SIZE), SIZE)
    store(place, SIZE, alu(cpu, ALU_add, a, get_signed(cpu, insn.reg, SIZE), SIZE))
    set_reg(cpu, insn.reg, SIZE, a)
    return stored(cpu, insn, place)


# each cmpxchg_rr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cmpxchg_rr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CMPXCHG register, register."""
    a: u64 = get_signed(cpu, insn.rm, SIZE)
    if alu(cpu, ALU_cmp, get_signed(cpu, RAX, SIZE), a, SIZE) == 0:
        set_reg(cpu, insn.rm, SIZE, get_reg(cpu, insn.reg, SIZE))
    else:
        set_reg(cpu, RAX, SIZE, a)
    return go_on(cpu, insn)


# each cmpxchg_mr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cmpxchg_mr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CMPXCHG memory, register: memory is written either way."""
    place: cython.pointer(u8) = modify_operand(cpu, insn, SIZE)
    a: u64
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    a = sign_extend(load(place, SIZE), SIZE)
    if alu(cpu, ALU_cmp, get_signed(cpu, RAX, SIZE), a, SIZE) == 0:
        store(place, SIZE, get_reg(cpu, insn.reg, SIZE))
    else:
        set_reg(cpu, RAX, SIZE, a)
    return stored(cpu, insn, place)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_cmpxchg8b(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CMPXCHG8B, CMPXCHG16B: only ZF changes."""
    half: cython.int = 8 if operand_size(insn) == 8 else 4
    place: cython.pointer(u8)
    low: u64
    high: u64
    if half == 8:
        if not has_feature(cpu, FEATURE_CX16):
            return raise_plain(cpu, EXC_UD)
        if (effective_address(cpu, insn) + slot(cpu, insn.segment)) & 15:
            return raise_fault(cpu, EXC_GP, 0)
    place = modify_operand(cpu, insn, 2 * half)
    if place == cython.NULL:
        return cpu.memory_status
    low = load(place, half)
    high = load(place + half, half)
    if low == get_reg(cpu, RAX, half) and high == get_reg(cpu, 8 * RDX, half):
        store(place, half, cpu.gpr[RBX])
        store(place + half, half, cpu.gpr[RCX])
        set_zf(cpu, 1)
    else:
        set_reg(cpu, RAX, half, low)
        set_reg(cpu, 8 * RDX, half, high)
        set_zf(cpu, 0)
    if place == cpu.bounce:
        commit(cpu)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def nop(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """NOP, PAUSE, the hint opcodes, prefetches."""
    return go_on(cpu, insn)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_ud(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """What is not there."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_too_long(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """More than 15 bytes (SDM 2A 2.3.11)."""
    return raise_fault(cpu, EXC_GP, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_clflush(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CLFLUSH, CLFLUSHOPT, CLWB: a byte load as far as rights go; there are no caches to flush."""
    place: cython.pointer(u8) = read_operand(cpu, insn, 1)
    return cpu.memory_status if place == cython.NULL else NEXT


# each flag_change: KIND=clc,stc,cmc,cld,std
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def change_KIND(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CLC, STC, CMC, CLD, STD."""
    change_flag_KIND(cpu)
    return go_on(cpu, insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def change_flag_clc(cpu: cython.pointer(Cpu)) -> cython.void:
    """CLC."""
    set_cf(cpu, 0)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def change_flag_stc(cpu: cython.pointer(Cpu)) -> cython.void:
    """STC."""
    set_cf(cpu, 1)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def change_flag_cmc(cpu: cython.pointer(Cpu)) -> cython.void:
    """CMC."""
    set_cf(cpu, flag_cf(cpu) ^ 1)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def change_flag_cld(cpu: cython.pointer(Cpu)) -> cython.void:
    """CLD."""
    cpu.rflags &= ~cython.cast(u64, FLAG_DF)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def change_flag_std(cpu: cython.pointer(Cpu)) -> cython.void:
    """STD."""
    cpu.rflags |= FLAG_DF


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lahf(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LAHF."""
    if in_long_code(cpu) and not has_feature(cpu, FEATURE_LAHF64):
        return raise_plain(cpu, EXC_UD)
    set_reg(cpu, 1, 1, arithmetic_flags(cpu) | FLAG_ONE)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sahf(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SAHF: OF stays."""
    if in_long_code(cpu) and not has_feature(cpu, FEATURE_LAHF64):
        return raise_plain(cpu, EXC_UD)
    set_arithmetic_flags(cpu, (get_reg(cpu, 1, 1) & 0xD5) | (flag_of(cpu) << 11))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_salc(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """D6, the undocumented SALC of Intel's processors: AL = CF ? FF : 0."""
    set_reg(cpu, RAX, 1, 0 - flag_cf(cpu))
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_xlat(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XLAT: AL = [rBX + AL]."""
    value: u64
    offset: u64 = (cpu.gpr[RBX] + (cpu.gpr[RAX] & 0xFF)) & address_mask(insn)
    status: cython.int = read_memory(cpu, insn_segment(insn), offset, 1, cython.address(value))
    if status == NEXT:
        set_reg(cpu, RAX, 1, value)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_bound(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """BOUND: #BR outside the two signed bounds in memory."""
    size: cython.int = operand_size(insn)
    offset: u64 = effective_address(cpu, insn)
    low: u64
    high: u64
    index: i64 = cython.cast(i64, get_signed(cpu, insn.reg, size))
    status: cython.int = read_memory(cpu, insn_segment(insn), offset, size, cython.address(low))
    if status == NEXT:
        status = read_memory(
            cpu, insn_segment(insn), (offset + size) & address_mask(insn), size, cython.address(high)
        )
    if status != NEXT:
        return status
    if index < cython.cast(i64, sign_extend(low, size)) or index > cython.cast(i64, sign_extend(high, size)):
        return raise_plain(cpu, EXC_BR)
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_decimal_flags(cpu: cython.pointer(Cpu), al: u64, cf: u64, of: u64, af: u64) -> cython.void:
    """AL, and all six flags after a decimal adjustment."""
    set_reg(cpu, RAX, 1, al)
    set_carry_overflow_adjust(cpu, cf, of, af)
    set_result(cpu, sign_extend(al, 1))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_daa(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """DAA (SDM 2A); OF is undefined: cleared."""
    old: u64 = cpu.gpr[RAX] & 0xFF
    al: u64 = old
    cf: u64 = flag_cf(cpu)
    af: u64 = flag_af(cpu)
    if (old & 15) > 9 or af:
        al += 6
        af = 1
    if old > 0x99 or cf:
        al += 0x60
        cf = 1
    set_decimal_flags(cpu, al & 0xFF, cf, 0, af)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_das(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """DAS (SDM 2A); OF is undefined: cleared."""
    old: u64 = cpu.gpr[RAX] & 0xFF
    al: u64 = old
    carry: u64 = flag_cf(cpu)
    cf: u64 = 0
    af: u64 = flag_af(cpu)
    if (old & 15) > 9 or af:
        cf = 1 if carry or old < 6 else 0
        al -= 6
        af = 1
    if old > 0x99 or carry:
        al -= 0x60
        cf = 1
    set_decimal_flags(cpu, al & 0xFF, cf, 0, af)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_aaa(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """AAA (SDM 2A): AX + 0x106; SF, ZF, PF undefined."""
    ax: u64 = cpu.gpr[RAX] & 0xFFFF
    carry: u64 = 1 if (ax & 15) > 9 or flag_af(cpu) else 0
    if carry:
        ax += 0x106
    ax &= 0xFF0F
    set_reg(cpu, RAX, 2, ax)
    set_decimal_flags(cpu, ax & 0xFF, carry, 0, carry)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_aas(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """AAS (SDM 2A): AX - 6, AH - 1; SF, ZF, PF undefined."""
    ax: u64 = cpu.gpr[RAX] & 0xFFFF
    carry: u64 = 1 if (ax & 15) > 9 or flag_af(cpu) else 0
    if carry:
        ax -= 0x106
    ax &= 0xFF0F
    set_reg(cpu, RAX, 2, ax)
    set_decimal_flags(cpu, ax & 0xFF, carry, 0, carry)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_aam(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """AAM imm8: #DE for base 0; CF, OF, AF undefined: cleared."""
    base: u64 = insn.imm & 0xFF
    al: u64 = cpu.gpr[RAX] & 0xFF
    if base == 0:
        return raise_plain(cpu, EXC_DE)
    set_reg(cpu, 1, 1, al // base)
    set_decimal_flags(cpu, al % base, 0, 0, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_aad(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """AAD imm8: AL + AH * base; CF, OF, AF undefined: cleared."""
    al: u64 = (cpu.gpr[RAX] + ((cpu.gpr[RAX] >> 8) & 0xFF) * (insn.imm & 0xFF)) & 0xFF
    set_reg(cpu, RAX, 2, al)
    set_decimal_flags(cpu, al, 0, 0, 0)
    return NEXT
