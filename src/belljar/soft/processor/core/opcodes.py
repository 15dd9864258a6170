"""The opcode maps (SDM 2D appendix A), as tables that the decoder reads.

One line a row: map, opcode, flags (OP_*), immediate, and handlers by operand size for the register and the memory form,
or an operation. 66, F2 and F3 select among four tables a map where an instruction cares; otherwise all four say the same.
"""

import cython

opcodes = cython.declare(Opcode[6144])
group_pool = cython.declare(Opcode[1024])
group_pool_used = cython.declare(cython.int, 0)
quads = cython.declare(Handler[1024])
quads_used = cython.declare(cython.int, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def quad(byte: Handler, word: Handler, double: Handler, quadruple: Handler) -> cython.pointer(Handler):
    """A row of handlers for operand sizes 1, 2, 4, 8."""
    global quads_used
    row: cython.pointer(Handler) = cython.address(quads[quads_used])
    row[0] = byte
    row[1] = word
    row[2] = double
    row[3] = quadruple
    quads_used += 4
    return row


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def same(handler: Handler) -> cython.pointer(Handler):
    """One handler for every operand size."""
    return quad(handler, handler, handler, handler)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_prefix(
    which: cython.int,
    prefix: cython.int,
    code: cython.int,
    flags: u32,
    immediate: cython.int,
    registers: cython.pointer(Handler),
    memory: cython.pointer(Handler),
) -> cython.pointer(Opcode):
    """An opcode under one mandatory prefix: 0 none, 1 66, 2 F3, 3 F2."""
    entry: cython.pointer(Opcode) = cython.address(opcodes[((which * 4 + prefix) << 8) | code])
    entry.flags = flags | OP_VALID
    entry.immediate = immediate
    entry.reg_handlers = registers
    entry.mem_handlers = memory
    entry.operation = 0
    entry.group = cython.NULL
    return entry


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put(
    which: cython.int,
    code: cython.int,
    flags: u32,
    immediate: cython.int,
    registers: cython.pointer(Handler),
    memory: cython.pointer(Handler),
) -> cython.void:
    """An opcode whatever the prefix."""
    prefix: cython.int
    for prefix in range(4):
        put_prefix(which, prefix, code, flags, immediate, registers, memory)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_constant(
    which: cython.int,
    code: cython.int,
    flags: u32,
    constant: cython.int,
    registers: cython.pointer(Handler),
    memory: cython.pointer(Handler),
) -> cython.void:
    """An opcode whose Insn.imm is a constant."""
    prefix: cython.int
    for prefix in range(4):
        put_prefix(which, prefix, code, flags, IMM_CONSTANT, registers, memory).constant = constant


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_operation(
    which: cython.int, code: cython.int, flags: u32, immediate: cython.int, operation: Operation
) -> cython.void:
    """An opcode that is a complex operation, whatever the prefix."""
    prefix: cython.int
    number: cython.int = operation_number(operation)
    for prefix in range(4):
        put_prefix(which, prefix, code, flags, immediate, cython.NULL, cython.NULL).operation = number


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_operation_constant(
    which: cython.int, code: cython.int, flags: u32, constant: cython.int, operation: Operation
) -> cython.void:
    """A complex operation whose Insn.imm is a constant."""
    prefix: cython.int
    put_operation(which, code, flags, IMM_CONSTANT, operation)
    for prefix in range(4):
        opcodes[((which * 4 + prefix) << 8) | code].constant = constant


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_operation_prefix(
    which: cython.int, prefix: cython.int, code: cython.int, flags: u32, immediate: cython.int, operation: Operation
) -> cython.pointer(Opcode):
    """A complex operation under one mandatory prefix."""
    entry: cython.pointer(Opcode) = put_prefix(which, prefix, code, flags, immediate, cython.NULL, cython.NULL)
    entry.operation = operation_number(operation)
    return entry


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def needs(which: cython.int, code: cython.int, feature: cython.int) -> cython.void:
    """An opcode exists only with a feature (all prefixes that are valid)."""
    prefix: cython.int
    for prefix in range(4):
        opcodes[((which * 4 + prefix) << 8) | code].flags |= OP_FEATURE
        opcodes[((which * 4 + prefix) << 8) | code].feature = feature


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def new_group() -> cython.pointer(Opcode):
    """Sixteen empty entries: by ModRM.reg (or rm), 8 for memory, then 8 for registers."""
    global group_pool_used
    group: cython.pointer(Opcode) = cython.address(group_pool[group_pool_used])
    group_pool_used += 16
    return group


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_group(which: cython.int, code: cython.int, flags: u32, immediate: cython.int) -> cython.pointer(Opcode):
    """An opcode that ModRM.reg extends, whatever the prefix; its empty group."""
    prefix: cython.int
    group: cython.pointer(Opcode) = new_group()
    for prefix in range(4):
        put_prefix(which, prefix, code, flags | OP_MODRM | OP_GROUP, immediate, cython.NULL, cython.NULL).group = group
    return group


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def member(
    group: cython.pointer(Opcode),
    number: cython.int,
    flags: u32,
    immediate: cython.int,
    registers: cython.pointer(Handler),
    memory: cython.pointer(Handler),
) -> cython.void:
    """A group's member with handlers; a missing form is invalid."""
    if memory != cython.NULL:
        group[number].flags = flags | OP_VALID
        group[number].immediate = immediate
        group[number].mem_handlers = memory
    if registers != cython.NULL:
        group[8 + number].flags = flags | OP_VALID
        group[8 + number].immediate = immediate
        group[8 + number].reg_handlers = registers


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def member_operation(
    group: cython.pointer(Opcode), number: cython.int, flags: u32, immediate: cython.int, operation: Operation
) -> cython.void:
    """A group's member that is a complex operation; OP_NO_MEM and OP_NO_REG leave one form out."""
    form: cython.int
    for form in range(2):
        if flags & (OP_NO_REG if form else OP_NO_MEM):
            continue
        group[8 * form + number].flags = flags | OP_VALID
        group[8 * form + number].immediate = immediate
        group[8 * form + number].operation = operation_number(operation)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_alu() -> cython.void:
    """The first four rows, TEST, and the immediate group 1."""
    op: cython.int
    group: cython.pointer(Opcode)
    code: cython.int
    lock: u32
    for op in range(8):
        lock = 0 if op == ALU_cmp else OP_LOCK
        put(MAP_ONE, 8 * op, OP_MODRM | OP_BYTE | lock, IMM_NONE, alu_rr_table + 4 * op, alu_mr_table + 4 * op)
        put(MAP_ONE, 8 * op + 1, OP_MODRM | lock, IMM_NONE, alu_rr_table + 4 * op, alu_mr_table + 4 * op)
        put(MAP_ONE, 8 * op + 2, OP_MODRM | OP_BYTE | OP_SWAP, IMM_NONE, alu_rr_table + 4 * op, alu_rm_table + 4 * op)
        put(MAP_ONE, 8 * op + 3, OP_MODRM | OP_SWAP, IMM_NONE, alu_rr_table + 4 * op, alu_rm_table + 4 * op)
        put(MAP_ONE, 8 * op + 4, OP_BYTE | OP_ACC, IMM_8, alu_ri_table + 4 * op, cython.NULL)
        put(MAP_ONE, 8 * op + 5, OP_ACC, IMM_Z, alu_ri_table + 4 * op, cython.NULL)
    for code in range(0x80, 0x84):
        group = put_group(MAP_ONE, code, OP_NOT64 if code == 0x82 else 0, IMM_NONE)
        for op in range(8):
            lock = 0 if op == ALU_cmp else OP_LOCK
            member(
                group,
                op,
                (0 if code & 1 else OP_BYTE) | lock | (OP_NOT64 if code == 0x82 else 0),
                IMM_Z if code == 0x81 else IMM_8,
                alu_ri_table + 4 * op,
                alu_mi_table + 4 * op,
            )
    put(MAP_ONE, 0x84, OP_MODRM | OP_BYTE, IMM_NONE, test_rr_table, test_mr_table)
    put(MAP_ONE, 0x85, OP_MODRM, IMM_NONE, test_rr_table, test_mr_table)
    put(MAP_ONE, 0xA8, OP_BYTE | OP_ACC, IMM_8, test_ri_table, cython.NULL)
    put(MAP_ONE, 0xA9, OP_ACC, IMM_Z, test_ri_table, cython.NULL)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_unary_groups() -> cython.void:
    """Groups 3, 4, 5 and the one-byte INC and DEC."""
    code: cython.int
    i: cython.int
    size: u32
    group: cython.pointer(Opcode)
    for i in range(8):
        put(MAP_ONE, 0x40 + i, OP_OPREG | OP_NOT64, IMM_NONE, unary_r_table + 4 * UNARY_inc, cython.NULL)
        put(MAP_ONE, 0x48 + i, OP_OPREG | OP_NOT64, IMM_NONE, unary_r_table + 4 * UNARY_dec, cython.NULL)
    for code in range(0xF6, 0xF8):
        size = 0 if code & 1 else OP_BYTE
        group = put_group(MAP_ONE, code, 0, IMM_NONE)
        for i in range(2):
            member(group, i, size, IMM_Z if code & 1 else IMM_8, test_ri_table, test_mi_table)
            member(group, 4 + i, size, IMM_NONE, multiply_r_table + 4 * i, multiply_m_table + 4 * i)
            member(group, 6 + i, size, IMM_NONE, divide_r_table + 4 * i, divide_m_table + 4 * i)
        member(
            group, 2, size | OP_LOCK, IMM_NONE, unary_r_table + 4 * UNARY_not, unary_m_table + 4 * UNARY_not
        )
        member(
            group, 3, size | OP_LOCK, IMM_NONE, unary_r_table + 4 * UNARY_neg, unary_m_table + 4 * UNARY_neg
        )
    for code in range(0xFE, 0x100):
        size = 0 if code & 1 else OP_BYTE
        group = put_group(MAP_ONE, code, 0, IMM_NONE)
        for i in range(2):
            member(group, i, size | OP_LOCK, IMM_NONE, unary_r_table + 4 * i, unary_m_table + 4 * i)
    member(group, 2, OP_FORCE64 | OP_BRANCH, IMM_NONE, call_r_table, call_m_table)
    member(group, 4, OP_FORCE64 | OP_BRANCH, IMM_NONE, jmp_r_table, jmp_m_table)
    member(group, 6, OP_DEF64, IMM_NONE, quad(nop, push_r, push_r, push_r_64), quad(nop, push_m, push_m, push_m_64))
    member_operation(group, 3, OP_NO_REG | OP_ENDS, IMM_NONE, op_call_far_memory)
    member_operation(group, 5, OP_NO_REG | OP_ENDS, IMM_NONE, op_jmp_far_memory)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_moves() -> cython.void:
    """MOV in all forms, LEA, XCHG, the extensions, stack instructions."""
    i: cython.int
    group: cython.pointer(Opcode)
    push: cython.pointer(Handler) = quad(nop, push_r, push_r, push_r_64)
    pop: cython.pointer(Handler) = quad(nop, pop_r, pop_r, pop_r_64)
    push_immediate: cython.pointer(Handler) = quad(nop, push_i, push_i, push_i_64)
    for i in range(8):
        put(MAP_ONE, 0x50 + i, OP_OPREG | OP_DEF64, IMM_NONE, push, cython.NULL)
        put(MAP_ONE, 0x58 + i, OP_OPREG | OP_DEF64, IMM_NONE, pop, cython.NULL)
        put(MAP_ONE, 0xB0 + i, OP_OPREG | OP_BYTE, IMM_8, mov_ri_table, cython.NULL)
        put(MAP_ONE, 0xB8 + i, OP_OPREG, IMM_V, mov_ri_table, cython.NULL)
        put_constant(MAP_ONE, 0x90 + i, OP_OPREG, 0, xchg_rr_table, cython.NULL)
        put(MAP_0F, 0xC8 + i, OP_OPREG, IMM_NONE, bswap_table, cython.NULL)
    put(MAP_ONE, 0x68, OP_DEF64, IMM_Z, push_immediate, cython.NULL)
    put(MAP_ONE, 0x6A, OP_DEF64, IMM_8, push_immediate, cython.NULL)
    put(MAP_ONE, 0x86, OP_MODRM | OP_BYTE | OP_LOCK, IMM_NONE, xchg_rr_table, xchg_mr_table)
    put(MAP_ONE, 0x87, OP_MODRM | OP_LOCK, IMM_NONE, xchg_rr_table, xchg_mr_table)
    put(MAP_ONE, 0x88, OP_MODRM | OP_BYTE, IMM_NONE, mov_rr_table, mov_mr_table)
    put(MAP_ONE, 0x89, OP_MODRM, IMM_NONE, mov_rr_table, mov_mr_table)
    put(MAP_ONE, 0x8A, OP_MODRM | OP_BYTE | OP_SWAP, IMM_NONE, mov_rr_table, mov_rm_table)
    put(MAP_ONE, 0x8B, OP_MODRM | OP_SWAP, IMM_NONE, mov_rr_table, mov_rm_table)
    put_operation(MAP_ONE, 0x8C, OP_MODRM | OP_SEGREG, IMM_NONE, op_mov_from_segment)
    put(MAP_ONE, 0x8D, OP_MODRM | OP_NO_REG, IMM_NONE, cython.NULL, lea_table)
    put_operation(MAP_ONE, 0x8E, OP_MODRM | OP_SEGREG | OP_ENDS, IMM_NONE, op_mov_to_segment)
    group = put_group(MAP_ONE, 0x8F, 0, IMM_NONE)
    member_operation(group, 0, OP_DEF64, IMM_NONE, op_pop_memory)
    put(MAP_ONE, 0x98, 0, IMM_NONE, extend_accumulator_table, cython.NULL)
    put(MAP_ONE, 0x99, 0, IMM_NONE, extend_into_dx_table, cython.NULL)
    put(MAP_ONE, 0xA0, OP_BYTE, IMM_OFFSET, mov_load_offset_table, cython.NULL)
    put(MAP_ONE, 0xA1, 0, IMM_OFFSET, mov_load_offset_table, cython.NULL)
    put(MAP_ONE, 0xA2, OP_BYTE, IMM_OFFSET, mov_store_offset_table, cython.NULL)
    put(MAP_ONE, 0xA3, 0, IMM_OFFSET, mov_store_offset_table, cython.NULL)
    member(put_group(MAP_ONE, 0xC6, 0, IMM_NONE), 0, OP_BYTE, IMM_8, mov_ri_table, mov_mi_table)
    member(put_group(MAP_ONE, 0xC7, 0, IMM_NONE), 0, 0, IMM_Z, mov_ri_table, mov_mi_table)
    put(MAP_ONE, 0xC9, OP_DEF64, IMM_NONE, quad(nop, leave_frame, leave_frame, leave_frame_64), cython.NULL)
    put_operation(MAP_ONE, 0xC8, OP_DEF64, IMM_ENTER, op_enter)
    put_operation(MAP_ONE, 0x60, OP_NOT64, IMM_NONE, op_pusha)
    put_operation(MAP_ONE, 0x61, OP_NOT64, IMM_NONE, op_popa)
    for i in range(2):
        put(
            MAP_0F,
            0xB6 + i,
            OP_MODRM | OP_SWAP | (0 if i else OP_BYTE_E),
            IMM_NONE,
            extend_rr_table + 4 * i,
            extend_rm_table + 4 * i,
        )
        put(
            MAP_0F,
            0xBE + i,
            OP_MODRM | OP_SWAP | (0 if i else OP_BYTE_E),
            IMM_NONE,
            extend_rr_table + 12 + 4 * i,
            extend_rm_table + 12 + 4 * i,
        )
    for i in range(16):
        put(MAP_0F, 0x40 + i, OP_MODRM | OP_SWAP, IMM_NONE, cmov_rr_table + 4 * i, cython.NULL)
        put_constant(
            MAP_0F, 0x40 + i, OP_MODRM | OP_SWAP, i, cmov_rr_table + 4 * i, cmov_rm_table
        )
        needs(MAP_0F, 0x40 + i, FEATURE_CMOV)
        put_constant(MAP_0F, 0x90 + i, OP_MODRM | OP_BYTE, i, same(setcc_r_table[i]), same(setcc_m))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_shifts_and_bits() -> cython.void:
    """Shift group 2, double shifts, bit tests and scans, IMUL."""
    code: cython.int
    op: cython.int
    flags: u32
    group: cython.pointer(Opcode)
    for code in range(0xC0, 0xC2):
        group = put_group(MAP_ONE, code, 0, IMM_NONE)
        for op in range(8):
            flags = 0 if code & 1 else OP_BYTE
            member(group, op, flags, IMM_8, shift_r_table + 4 * op, shift_m_table + 4 * op)
    for code in range(0xD0, 0xD4):
        group = put_group(MAP_ONE, code, 0, IMM_NONE)
        for op in range(8):
            flags = 0 if code & 1 else OP_BYTE
            if code < 0xD2:
                member(group, op, flags, IMM_CONSTANT, shift_r_table + 4 * op, shift_m_table + 4 * op)
                group[op].constant = 1
                group[8 + op].constant = 1
            else:
                member(group, op, flags, IMM_NONE, shift_r_table + 32 + 4 * op, shift_m_table + 32 + 4 * op)
    put(MAP_0F, 0xA4, OP_MODRM, IMM_8, double_shift_r_table + 8, double_shift_m_table + 8)
    put(MAP_0F, 0xA5, OP_MODRM, IMM_NONE, double_shift_r_table + 12, double_shift_m_table + 12)
    put(MAP_0F, 0xAC, OP_MODRM, IMM_8, double_shift_r_table, double_shift_m_table)
    put(MAP_0F, 0xAD, OP_MODRM, IMM_NONE, double_shift_r_table + 4, double_shift_m_table + 4)
    group = put_group(MAP_0F, 0xBA, 0, IMM_NONE)
    for op in range(4):
        flags = OP_LOCK if op else 0
        put(MAP_0F, 0xA3 + 8 * op, OP_MODRM | flags, IMM_NONE, bit_rr_table + 4 * op, bit_mr_table + 4 * op)
        member(group, 4 + op, flags, IMM_8, bit_ri_table + 4 * op, bit_mi_table + 4 * op)
    put(MAP_0F, 0xAF, OP_MODRM | OP_SWAP, IMM_NONE, imul_rr_table, imul_rm_table)
    put(MAP_ONE, 0x69, OP_MODRM | OP_SWAP, IMM_Z, imul_rri_table, imul_rmi_table)
    put(MAP_ONE, 0x6B, OP_MODRM | OP_SWAP, IMM_8, imul_rri_table, imul_rmi_table)
    put(MAP_0F, 0xBC, OP_MODRM, IMM_NONE, scan_table, scan_table)
    put(MAP_0F, 0xBD, OP_MODRM, IMM_NONE, scan_table + 4, scan_table + 4)
    put_operation(MAP_0F, 0xB8, OP_MODRM | OP_ENDS, IMM_NONE, op_ud)
    put_feature_prefix(0xB8, scan_table + 8, FEATURE_POPCNT, 0)
    put_feature_prefix(0xBD, scan_table + 12, FEATURE_LZCNT, OP_ELSE_PLAIN)
    put_feature_prefix(0xBC, scan_table + 16, FEATURE_BMI1, OP_ELSE_PLAIN)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_feature_prefix(
    code: cython.int, handlers: cython.pointer(Handler), feature: cython.int, flags: u32
) -> cython.void:
    """F3 0F code: POPCNT, LZCNT, TZCNT."""
    entry: cython.pointer(Opcode) = put_prefix(
        MAP_0F, 2, code, OP_MODRM | OP_FEATURE | flags, IMM_NONE, handlers, handlers
    )
    entry.feature = feature


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_branches() -> cython.void:
    """Near branches, far transfers, interrupts."""
    i: cython.int
    for i in range(16):
        put(
            MAP_ONE, 0x70 + i, OP_FORCE64 | OP_BRANCH, IMM_J8,
            quad(nop, jcc_small_table[i], jcc_small_table[i], jcc_64_table[i]), cython.NULL,
        )  # fmt: skip
        put(
            MAP_0F, 0x80 + i, OP_FORCE64 | OP_BRANCH, IMM_JZ,
            quad(nop, jcc_small_table[i], jcc_small_table[i], jcc_64_table[i]), cython.NULL,
        )  # fmt: skip
    for i in range(4):
        put(MAP_ONE, 0xE0 + i, OP_FORCE64 | OP_BRANCH, IMM_J8, same(loop_branch_table[i]), cython.NULL)
    put(MAP_ONE, 0xE8, OP_FORCE64 | OP_BRANCH, IMM_JZ, quad(nop, call_small, call_small, call_64), cython.NULL)
    put(MAP_ONE, 0xE9, OP_FORCE64 | OP_BRANCH, IMM_JZ, quad(nop, jmp_small, jmp_small, jmp_64), cython.NULL)
    put(MAP_ONE, 0xEB, OP_FORCE64 | OP_BRANCH, IMM_J8, quad(nop, jmp_small, jmp_small, jmp_64), cython.NULL)
    put(MAP_ONE, 0xC2, OP_FORCE64 | OP_BRANCH, IMM_16, quad(nop, ret_small, ret_small, ret_64), cython.NULL)
    put(MAP_ONE, 0xC3, OP_FORCE64 | OP_BRANCH, IMM_NONE, quad(nop, ret_small, ret_small, ret_64), cython.NULL)
    put_operation(MAP_ONE, 0x9A, OP_NOT64 | OP_ENDS, IMM_FAR, op_call_far_immediate)
    put_operation(MAP_ONE, 0xEA, OP_NOT64 | OP_ENDS, IMM_FAR, op_jmp_far_immediate)
    put_operation(MAP_ONE, 0xCA, OP_ENDS, IMM_16, op_ret_far)
    put_operation(MAP_ONE, 0xCB, OP_ENDS, IMM_NONE, op_ret_far)
    put_operation(MAP_ONE, 0xCC, OP_ENDS, IMM_NONE, op_int3)
    put_operation(MAP_ONE, 0xCD, OP_ENDS, IMM_U8, op_int)
    put_operation(MAP_ONE, 0xCE, OP_NOT64 | OP_ENDS, IMM_NONE, op_into)
    put_operation(MAP_ONE, 0xCF, OP_ENDS, IMM_NONE, op_iret)
    put_operation(MAP_ONE, 0xF1, OP_ENDS, IMM_NONE, op_int1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_opcodes() -> cython.void:
    """Everything."""
    fill_alu()
    fill_unary_groups()
    fill_moves()
    fill_shifts_and_bits()
    fill_branches()
    fill_misc()
    fill_escapes()
    fill_segment_instructions()
    fill_system()
    fill_system_groups()
    fill_extensions()


def check_tables():
    """Raise ImportError if a table has outgrown its room: found when the module is built, never by a guest."""
    if operation_count > 255 or quads_used > 1024 or group_pool_used > 1024:
        raise ImportError("the processor's opcode tables are too small")
