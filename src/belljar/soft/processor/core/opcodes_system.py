"""The opcode maps, continued: segments, system instructions, strings, small things, and the extension maps."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_misc() -> cython.void:
    """Strings, flags, decimal arithmetic, exchange-and-add, NOPs."""
    i: cython.int
    group: cython.pointer(Opcode)
    size: u32
    for i in range(2):
        size = 0 if i else OP_BYTE
        put_operation(MAP_ONE, 0xA4 + i, size, IMM_NONE, op_movs)
        put_operation(MAP_ONE, 0xA6 + i, size, IMM_NONE, op_cmps)
        put_operation(MAP_ONE, 0xAA + i, size, IMM_NONE, op_stos)
        put_operation(MAP_ONE, 0xAC + i, size, IMM_NONE, op_lods)
        put_operation(MAP_ONE, 0xAE + i, size, IMM_NONE, op_scas)
        put(MAP_0F, 0xB0 + i, OP_MODRM | OP_LOCK | size, IMM_NONE, cmpxchg_rr_table, cmpxchg_mr_table)
        put(MAP_0F, 0xC0 + i, OP_MODRM | OP_LOCK | size, IMM_NONE, xadd_rr_table, xadd_mr_table)
    put(MAP_ONE, 0xF8, 0, IMM_NONE, same(change_clc), cython.NULL)
    put(MAP_ONE, 0xF9, 0, IMM_NONE, same(change_stc), cython.NULL)
    put(MAP_ONE, 0xF5, 0, IMM_NONE, same(change_cmc), cython.NULL)
    put(MAP_ONE, 0xFC, 0, IMM_NONE, same(change_cld), cython.NULL)
    put(MAP_ONE, 0xFD, 0, IMM_NONE, same(change_std), cython.NULL)
    put_operation(MAP_ONE, 0x9E, 0, IMM_NONE, op_sahf)
    put_operation(MAP_ONE, 0x9F, 0, IMM_NONE, op_lahf)
    put_operation(MAP_ONE, 0xD7, 0, IMM_NONE, op_xlat)
    put_operation(MAP_ONE, 0xD6, OP_NOT64, IMM_NONE, op_salc)
    put_operation(MAP_ONE, 0x27, OP_NOT64, IMM_NONE, op_daa)
    put_operation(MAP_ONE, 0x2F, OP_NOT64, IMM_NONE, op_das)
    put_operation(MAP_ONE, 0x37, OP_NOT64, IMM_NONE, op_aaa)
    put_operation(MAP_ONE, 0x3F, OP_NOT64, IMM_NONE, op_aas)
    put_operation(MAP_ONE, 0xD4, OP_NOT64, IMM_8, op_aam)
    put_operation(MAP_ONE, 0xD5, OP_NOT64, IMM_8, op_aad)
    put_operation(MAP_ONE, 0x62, OP_NOT64 | OP_MODRM | OP_NO_REG, IMM_NONE, op_bound)
    put_operation(MAP_0F, 0x0B, OP_ENDS, IMM_NONE, op_ud)
    put_operation(MAP_0F, 0xB9, OP_ENDS | OP_MODRM, IMM_NONE, op_ud)
    put_operation(MAP_0F, 0xFF, OP_ENDS | OP_MODRM, IMM_NONE, op_ud)
    put(MAP_0F, 0x0D, OP_MODRM, IMM_NONE, same(nop), same(nop))
    needs(MAP_0F, 0x0D, FEATURE_PREFETCHW)
    for i in range(0x18, 0x20):
        put(MAP_0F, i, OP_MODRM, IMM_NONE, same(nop), same(nop))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_segment_instructions() -> cython.void:
    """PUSH, POP and far loads of segment registers; ARPL and MOVSXD share an opcode."""
    i: cython.int
    entry: cython.pointer(Opcode)
    for i in range(4):
        put_operation_constant(MAP_ONE, 0x06 + 8 * i, OP_NOT64, i, op_push_segment)
        if i != CS:
            put_operation_constant(MAP_ONE, 0x07 + 8 * i, OP_NOT64 | OP_ENDS, i, op_pop_segment)
    for i in range(2):
        put_operation_constant(MAP_0F, 0xA0 + 8 * i, OP_DEF64, FS + i, op_push_segment)
        put_operation_constant(MAP_0F, 0xA1 + 8 * i, OP_DEF64 | OP_ENDS, FS + i, op_pop_segment)
        put_operation_constant(MAP_0F, 0xB4 + i, OP_MODRM | OP_NO_REG | OP_ENDS, FS + i, op_load_far_pointer)
    put_operation_constant(MAP_ONE, 0xC4, OP_NOT64 | OP_MODRM | OP_NO_REG | OP_ENDS, ES, op_load_far_pointer)
    put_operation_constant(MAP_ONE, 0xC5, OP_NOT64 | OP_MODRM | OP_NO_REG | OP_ENDS, DS, op_load_far_pointer)
    put_operation_constant(MAP_0F, 0xB2, OP_MODRM | OP_NO_REG | OP_ENDS, SS, op_load_far_pointer)
    put_operation_prefix(MAP_ONE, 0, 0x63, OP_NOT64 | OP_MODRM, IMM_NONE, op_arpl)
    # In 64-bit mode 63 is MOVSXD: the decoder looks under prefix 1.
    put_prefix(
        MAP_ONE, 1, 0x63, OP_MODRM | OP_SWAP, IMM_NONE,
        quad(nop, mov_rr_table[1], mov_rr_table[2], extend_rr_table[23]),
        quad(nop, mov_rm_table[1], mov_rm_table[2], extend_rm_table[23]),
    )  # fmt: skip
    put_operation(MAP_0F, 0x02, OP_MODRM, IMM_NONE, op_lar)
    put_operation(MAP_0F, 0x03, OP_MODRM, IMM_NONE, op_lsl)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_system() -> cython.void:
    """System instructions without groups."""
    i: cython.int
    size: u32
    for i in range(2):
        size = 0 if i else OP_BYTE
        put_operation(MAP_ONE, 0x6C + i, size | OP_ENDS, IMM_NONE, op_ins)
        put_operation(MAP_ONE, 0x6E + i, size | OP_ENDS, IMM_NONE, op_outs)
        put_operation(MAP_ONE, 0xE4 + i, size | OP_ENDS, IMM_U8, op_in)
        put_operation(MAP_ONE, 0xE6 + i, size | OP_ENDS, IMM_U8, op_out)
        put_operation_constant(MAP_ONE, 0xEC + i, size | OP_ENDS, -1, op_in)
        put_operation_constant(MAP_ONE, 0xEE + i, size | OP_ENDS, -1, op_out)
    put_operation(MAP_ONE, 0x9C, OP_DEF64, IMM_NONE, op_pushf)
    put_operation(MAP_ONE, 0x9D, OP_DEF64 | OP_ENDS, IMM_NONE, op_popf)
    put_operation(MAP_ONE, 0xF4, OP_ENDS, IMM_NONE, op_hlt)
    put_operation(MAP_ONE, 0xFA, OP_ENDS, IMM_NONE, op_cli)
    put_operation(MAP_ONE, 0xFB, OP_ENDS, IMM_NONE, op_sti)
    put_operation(MAP_0F, 0x05, OP_ENDS, IMM_NONE, op_syscall)
    put_operation(MAP_0F, 0x06, OP_ENDS, IMM_NONE, op_clts)
    put_operation(MAP_0F, 0x07, OP_ENDS, IMM_NONE, op_sysret)
    put_operation(MAP_0F, 0x08, OP_ENDS, IMM_NONE, op_invd)
    put_operation(MAP_0F, 0x09, OP_ENDS, IMM_NONE, op_wbinvd)
    put_operation(MAP_0F, 0x20, OP_MODRM | OP_ALWAYS_REG | OP_MODESIZE, IMM_NONE, op_mov_from_control)
    put_operation(MAP_0F, 0x21, OP_MODRM | OP_ALWAYS_REG | OP_MODESIZE, IMM_NONE, op_mov_from_debug)
    put_operation(MAP_0F, 0x22, OP_MODRM | OP_ALWAYS_REG | OP_MODESIZE | OP_ENDS, IMM_NONE, op_mov_to_control)
    put_operation(MAP_0F, 0x23, OP_MODRM | OP_ALWAYS_REG | OP_MODESIZE | OP_ENDS, IMM_NONE, op_mov_to_debug)
    put_operation(MAP_0F, 0x30, OP_ENDS, IMM_NONE, op_wrmsr)
    put_operation(MAP_0F, 0x31, 0, IMM_NONE, op_rdtsc)
    put_operation(MAP_0F, 0x32, OP_ENDS, IMM_NONE, op_rdmsr)
    put_operation(MAP_0F, 0x33, 0, IMM_NONE, op_rdpmc)
    put_operation(MAP_0F, 0x34, OP_ENDS, IMM_NONE, op_sysenter)
    put_operation(MAP_0F, 0x35, OP_ENDS, IMM_NONE, op_sysexit)
    put_operation(MAP_0F, 0xA2, OP_ENDS, IMM_NONE, op_cpuid)
    put_operation(MAP_0F, 0xAA, OP_ENDS, IMM_NONE, op_rsm)
    put_operation_constant(MAP_0F, 0x78, OP_MODRM | OP_MODESIZE | OP_ENDS, 0x78, op_vmx)
    put_operation_constant(MAP_0F, 0x79, OP_MODRM | OP_MODESIZE | OP_ENDS, 0x79, op_vmx)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def by_rm(
    group: cython.pointer(Opcode), number: cython.int, rm: cython.int, constant: cython.int, operation: Operation
) -> cython.void:
    """A register form of a group whose ModRM.rm picks the instruction; Insn.imm is the constant."""
    entry: cython.pointer(Opcode) = cython.address(group[8 + number])
    if entry.group == cython.NULL:
        entry.flags = OP_VALID | OP_GROUP_RM
        entry.group = new_group()
    entry = cython.address(entry.group[rm])
    entry.flags = OP_VALID | OP_ENDS
    entry.immediate = IMM_CONSTANT
    entry.constant = constant
    entry.operation = operation_number(operation)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_system_groups() -> cython.void:
    """0F 00, 0F 01, 0F C7, 0F AE."""
    i: cython.int
    group: cython.pointer(Opcode) = put_group(MAP_0F, 0x00, 0, IMM_NONE)
    member_operation(group, 0, 0, IMM_NONE, op_sldt)
    member_operation(group, 1, 0, IMM_NONE, op_str)
    member_operation(group, 2, OP_ENDS, IMM_NONE, op_lldt)
    member_operation(group, 3, OP_ENDS, IMM_NONE, op_ltr)
    member_operation(group, 4, 0, IMM_NONE, op_verr)
    member_operation(group, 5, 0, IMM_NONE, op_verw)
    group = put_group(MAP_0F, 0x01, 0, IMM_NONE)
    member_operation(group, 0, OP_NO_REG | OP_MODESIZE, IMM_NONE, op_sgdt)
    member_operation(group, 1, OP_NO_REG | OP_MODESIZE, IMM_NONE, op_sidt)
    member_operation(group, 2, OP_NO_REG | OP_ENDS, IMM_NONE, op_lgdt)
    member_operation(group, 3, OP_NO_REG | OP_ENDS, IMM_NONE, op_lidt)
    member_operation(group, 4, 0, IMM_NONE, op_smsw)
    member_operation(group, 6, OP_ENDS, IMM_NONE, op_lmsw)
    member_operation(group, 7, OP_NO_REG | OP_ENDS, IMM_NONE, op_invlpg)
    for i in range(1, 5):
        by_rm(group, 0, i, 0xC0 + i, op_vmx)
    by_rm(group, 1, 0, 0xC8, op_monitor)
    by_rm(group, 1, 1, 0xC9, op_mwait)
    by_rm(group, 1, 2, 0xCA, op_clac)
    by_rm(group, 1, 3, 0xCB, op_stac)
    by_rm(group, 2, 0, 0xD0, op_xgetbv)
    by_rm(group, 2, 1, 0xD1, op_xsetbv)
    by_rm(group, 2, 4, 0xD4, op_vmx)
    by_rm(group, 3, 1, 0xD9, op_vmx)
    by_rm(group, 5, 6, 0xEE, op_rdpkru)
    by_rm(group, 5, 7, 0xEF, op_wrpkru)
    by_rm(group, 7, 0, 0xF8, op_swapgs)
    by_rm(group, 7, 1, 0xF9, op_rdtscp)
    for i in range(3):
        # Without a prefix 66: VMPTRLD; with 66: VMCLEAR; with F3: VMXON. Insn.imm tells: 0xC700 + prefix.
        group = new_group()
        put_prefix(MAP_0F, i, 0xC7, OP_MODRM | OP_GROUP, IMM_NONE, cython.NULL, cython.NULL).group = group
        member_operation(group, 1, OP_NO_REG | OP_LOCK, IMM_NONE, op_cmpxchg8b)
        group[1].flags |= OP_FEATURE
        group[1].feature = FEATURE_CX8
        member_operation(group, 6, OP_NO_REG | OP_ENDS, IMM_CONSTANT, op_vmx)
        group[6].constant = 0xC700 + i
        if i < 2:
            member_operation(group, 7, OP_NO_REG | OP_ENDS, IMM_CONSTANT, op_vmx)
            group[7].constant = 0xC707
            member_operation(group, 6, OP_NO_MEM, IMM_NONE, op_rdrand)
            member_operation(group, 7, OP_NO_MEM, IMM_NONE, op_rdseed)
        else:
            member_operation(group, 7, OP_NO_MEM | OP_MODESIZE, IMM_NONE, op_rdpid)
    group = new_group()
    put_prefix(MAP_0F, 3, 0xC7, OP_MODRM | OP_GROUP, IMM_NONE, cython.NULL, cython.NULL).group = group
    member_operation(group, 1, OP_NO_REG | OP_LOCK, IMM_NONE, op_cmpxchg8b)
    fill_fences()


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_fences() -> cython.void:
    """0F AE: fences, cache line flushes, FS and GS bases. The state-saving forms belong to x87 and SSE."""
    i: cython.int
    group: cython.pointer(Opcode) = new_group()
    put_prefix(MAP_0F, 0, 0xAE, OP_MODRM | OP_GROUP, IMM_NONE, cython.NULL, cython.NULL).group = group
    for i in range(5, 8):
        member(group, i, 0, IMM_NONE, same(nop), cython.NULL)
        featured(cython.address(group[8 + i]), FEATURE_FENCE)
    member_operation(group, 7, OP_NO_REG, IMM_NONE, op_clflush)
    group[7].flags |= OP_FEATURE
    group[7].feature = FEATURE_CLFLUSH
    group = new_group()
    put_prefix(MAP_0F, 1, 0xAE, OP_MODRM | OP_GROUP, IMM_NONE, cython.NULL, cython.NULL).group = group
    member_operation(group, 7, OP_NO_REG, IMM_NONE, op_clflush)
    group[7].flags |= OP_FEATURE
    group[7].feature = FEATURE_CLFLUSHOPT
    member_operation(group, 6, OP_NO_REG, IMM_NONE, op_clflush)
    group[6].flags |= OP_FEATURE
    group[6].feature = FEATURE_CLWB
    group = new_group()
    put_prefix(MAP_0F, 2, 0xAE, OP_MODRM | OP_GROUP, IMM_NONE, cython.NULL, cython.NULL).group = group
    for i in range(4):
        member_operation(group, i, OP_NO_MEM | OP_ONLY64, IMM_CONSTANT, op_fsgsbase)
        group[8 + i].constant = i


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def featured(entry: cython.pointer(Opcode), feature: cython.int) -> cython.pointer(Opcode):
    """An opcode that exists only with a feature."""
    entry.flags |= OP_FEATURE
    entry.feature = feature
    return entry


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_extensions() -> cython.void:
    """0F 38, 0F 3A and the VEX maps."""
    i: cython.int
    vex: u32 = OP_MODRM | OP_SIZE_W1 | OP_VEX_VVVV
    group: cython.pointer(Opcode)
    put_prefix(MAP_ONE, 2, 0, OP_MODRM, IMM_NONE, cython.NULL, cython.NULL)
    put_prefix(MAP_ONE, 2, 1, OP_MODRM, IMM_8, cython.NULL, cython.NULL)
    for i in range(2):
        featured(
            put_prefix(MAP_0F38, i, 0xF0, OP_MODRM | OP_NO_REG, IMM_NONE, cython.NULL, movbe_rm_table), FEATURE_MOVBE
        )
        featured(
            put_prefix(MAP_0F38, i, 0xF1, OP_MODRM | OP_NO_REG, IMM_NONE, cython.NULL, movbe_mr_table), FEATURE_MOVBE
        )
        featured(
            put_operation_prefix(
                MAP_0F38, 3, 0xF0 + i, OP_MODRM | (0 if i else OP_BYTE_E), IMM_CONSTANT, op_crc32
            ),
            FEATURE_CRC32,
        ).constant = 1 - i
    featured(put_operation_prefix(MAP_0F38, 1, 0xF6, OP_MODRM | OP_NO_66, IMM_NONE, op_adcx), FEATURE_ADX)
    featured(put_operation_prefix(MAP_0F38, 2, 0xF6, OP_MODRM | OP_NO_66, IMM_NONE, op_adox), FEATURE_ADX)
    put_operation_prefix(MAP_0F38, 1, 0x80, OP_MODRM | OP_NO_REG | OP_ENDS, IMM_CONSTANT, op_vmx).constant = 0x3880
    put_operation_prefix(MAP_0F38, 1, 0x81, OP_MODRM | OP_NO_REG | OP_ENDS, IMM_CONSTANT, op_vmx).constant = 0x3881
    featured(
        put_operation_prefix(MAP_0F38, 1, 0x82, OP_MODRM | OP_NO_REG | OP_MODESIZE | OP_ENDS, IMM_NONE, op_invpcid),
        FEATURE_INVPCID,
    )
    featured(put_operation_prefix(MAP_VEX_0F38, 0, 0xF2, vex, IMM_NONE, op_andn), FEATURE_BMI1)
    group = new_group()
    put_prefix(MAP_VEX_0F38, 0, 0xF3, vex | OP_GROUP, IMM_NONE, cython.NULL, cython.NULL).group = group
    for i in range(1, 4):
        member_operation(group, i, vex, IMM_NONE, op_bls)
        featured(cython.address(group[i]), FEATURE_BMI1)
        featured(cython.address(group[8 + i]), FEATURE_BMI1)
    featured(put_operation_prefix(MAP_VEX_0F38, 0, 0xF5, vex, IMM_NONE, op_bzhi), FEATURE_BMI2)
    featured(put_operation_prefix(MAP_VEX_0F38, 2, 0xF5, vex, IMM_NONE, op_pext), FEATURE_BMI2)
    featured(put_operation_prefix(MAP_VEX_0F38, 3, 0xF5, vex, IMM_NONE, op_pdep), FEATURE_BMI2)
    featured(put_operation_prefix(MAP_VEX_0F38, 3, 0xF6, vex, IMM_NONE, op_mulx), FEATURE_BMI2)
    featured(put_operation_prefix(MAP_VEX_0F38, 0, 0xF7, vex, IMM_NONE, op_bextr), FEATURE_BMI1)
    featured(put_operation_prefix(MAP_VEX_0F38, 1, 0xF7, vex, IMM_NONE, op_shlx), FEATURE_BMI2)
    featured(put_operation_prefix(MAP_VEX_0F38, 2, 0xF7, vex, IMM_NONE, op_sarx), FEATURE_BMI2)
    featured(put_operation_prefix(MAP_VEX_0F38, 3, 0xF7, vex, IMM_NONE, op_shrx), FEATURE_BMI2)
    featured(
        put_operation_prefix(MAP_VEX_0F3A, 3, 0xF0, OP_MODRM | OP_SIZE_W1, IMM_8, op_rorx), FEATURE_BMI2
    )
