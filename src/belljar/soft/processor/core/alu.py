"""Addition, subtraction, logic, comparison: the first rows of the opcode map, and the unary group.

A handler is a template over operation and size around one inline function; constants fold away when it is compiled.
"""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def go_on(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """The end of every handler: jump to the next instruction's."""
    return insn[1].handler(cpu, insn + 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def finish_store(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """The end of a handler whose store went to cpu.bounce: commit it; if it hit decoded code, leave the block."""
    cpu.code_hit = 0
    commit(cpu)
    if cpu.code_hit:
        return leave_after(cpu, insn)
    return go_on(cpu, insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def stored(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), place: cython.pointer(u8)) -> cython.int:
    """The end of a handler that has written to `place`."""
    if unlikely(place == cpu.bounce):
        return finish_store(cpu, insn)
    return go_on(cpu, insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_result(cpu: cython.pointer(Cpu), result: u64) -> cython.void:
    """SF, ZF and PF of a sign-extended result."""
    cpu.flag_result = result
    cpu.flag_zero = result


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def alu(cpu: cython.pointer(Cpu), op: cython.int, a: u64, b: u64, size: cython.int) -> u64:
    """One of ALU_*: the result, sign-extended; sets the flags. Operands are sign-extended."""
    result: u64
    if op == ALU_add or op == ALU_adc:
        result = a + b
        if op == ALU_adc:
            result += flag_cf(cpu)
        result = sign_extend(result, size)
        cpu.flag_x = a
        cpu.flag_y = b
        cpu.flag_z = result
    elif op == ALU_sub or op == ALU_cmp or op == ALU_sbb:
        result = a - b
        if op == ALU_sbb:
            result -= flag_cf(cpu)
        result = sign_extend(result, size)
        cpu.flag_x = result
        cpu.flag_y = b
        cpu.flag_z = a
    else:
        if op == ALU_or:
            result = a | b
        elif op == ALU_and:
            result = a & b
        else:
            result = a ^ b
        cpu.flag_x = 0
        cpu.flag_y = 0
        cpu.flag_z = 0
    set_result(cpu, result)
    return result


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def get_signed(cpu: cython.pointer(Cpu), offset: cython.uint, size: cython.int) -> u64:
    """A register operand, sign-extended."""
    return sign_extend(get_reg(cpu, offset, size), size)


# each alu_rr: OP=add,or,adc,sbb,and,sub,xor,cmp SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_rr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP register, register."""
    result: u64 = alu(cpu, ALU_OP, get_signed(cpu, insn.rm, SIZE), get_signed(cpu, insn.reg, SIZE), SIZE)
    if ALU_OP != ALU_cmp:
        set_reg(cpu, insn.rm, SIZE, result)
    return go_on(cpu, insn)


# each alu_ri: OP=add,or,adc,sbb,and,sub,xor,cmp SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_ri_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP register, immediate."""
    result: u64 = alu(cpu, ALU_OP, get_signed(cpu, insn.rm, SIZE), insn.imm, SIZE)
    if ALU_OP != ALU_cmp:
        set_reg(cpu, insn.rm, SIZE, result)
    return go_on(cpu, insn)


# each alu_rm: OP=add,or,adc,sbb,and,sub,xor,cmp SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_rm_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP register, memory."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    result: u64
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    result = alu(cpu, ALU_OP, get_signed(cpu, insn.reg, SIZE), sign_extend(load(place, SIZE), SIZE), SIZE)
    if ALU_OP != ALU_cmp:
        set_reg(cpu, insn.reg, SIZE, result)
    return go_on(cpu, insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def alu_memory(
    cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), op: cython.int, b: u64, size: cython.int
) -> cython.int:
    """OP memory, b: a comparison only reads."""
    place: cython.pointer(u8)
    result: u64
    if op == ALU_cmp:
        place = read_operand(cpu, insn, size)
    else:
        place = modify_operand(cpu, insn, size)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    result = alu(cpu, op, sign_extend(load(place, size), size), b, size)
    if op == ALU_cmp:
        return go_on(cpu, insn)
    store(place, size, result)
    return stored(cpu, insn, place)


# each alu_mr: OP=add,or,adc,sbb,and,sub,xor,cmp SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_mr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP memory, register."""
    return alu_memory(cpu, insn, ALU_OP, get_signed(cpu, insn.reg, SIZE), SIZE)


# each alu_mi: OP=add,or,adc,sbb,and,sub,xor,cmp SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_mi_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP memory, immediate."""
    return alu_memory(cpu, insn, ALU_OP, insn.imm, SIZE)


# each test_rr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def test_rr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """TEST register, register."""
    alu(cpu, ALU_and, get_signed(cpu, insn.rm, SIZE), get_signed(cpu, insn.reg, SIZE), SIZE)
    return go_on(cpu, insn)


# each test_ri: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def test_ri_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """TEST register, immediate."""
    alu(cpu, ALU_and, get_signed(cpu, insn.rm, SIZE), insn.imm, SIZE)
    return go_on(cpu, insn)


# each test_mr: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def test_mr_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """TEST memory, register."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    alu(cpu, ALU_and, sign_extend(load(place, SIZE), SIZE), get_signed(cpu, insn.reg, SIZE), SIZE)
    return go_on(cpu, insn)


# each test_mi: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def test_mi_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """TEST memory, immediate."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    alu(cpu, ALU_and, sign_extend(load(place, SIZE), SIZE), insn.imm, SIZE)
    return go_on(cpu, insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def unary(cpu: cython.pointer(Cpu), op: cython.int, a: u64, size: cython.int) -> u64:
    """INC, DEC, NOT or NEG of a sign-extended operand; INC and DEC leave CF, NOT all flags."""
    result: u64
    carry: u64
    if op == UNARY_not:
        return ~a
    if op == UNARY_neg:
        return alu(cpu, ALU_sub, 0, a, size)
    # CF stays: x = y = CF; z makes OF and AF those of a + 1 = result, or result + 1 = a.
    carry = 0 - flag_cf(cpu)
    if op == UNARY_inc:
        result = sign_extend(a + 1, size)
        cpu.flag_z = (carry ^ (result & ~a)) & SIGN_BIT
    else:
        result = sign_extend(a - 1, size)
        cpu.flag_z = (carry ^ (a & ~result)) & SIGN_BIT
    cpu.flag_z |= (a ^ result ^ 1) & 0x10
    cpu.flag_x = carry
    cpu.flag_y = carry
    set_result(cpu, result)
    return result


# each unary_r: OP=inc,dec,not,neg SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_r_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP register."""
    set_reg(cpu, insn.rm, SIZE, unary(cpu, UNARY_OP, get_signed(cpu, insn.rm, SIZE), SIZE))
    return go_on(cpu, insn)


# each unary_m: OP=inc,dec,not,neg SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def OP_m_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OP memory."""
    place: cython.pointer(u8) = modify_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, SIZE, unary(cpu, UNARY_OP, sign_extend(load(place, SIZE), SIZE), SIZE))
    return stored(cpu, insn, place)
