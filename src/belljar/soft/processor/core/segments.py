"""Loading segment registers, with every check, and the instructions that move selectors."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_stack_segment(cpu: cython.pointer(Cpu), selector: u32) -> cython.int:
    """Load SS in protected mode (SDM 2B, MOV): NEXT, FAULT or EXIT. The caller calls update_mode."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    rpl: u32 = selector & 3
    status: cython.int
    if (selector & 0xFFFC) == 0:
        if in_long_code(cpu) and cpu.cpl < 3 and rpl == cpu.cpl:
            set_null_segment(cpu, SS, selector, cpu.cpl)
            return NEXT
        return raise_fault(cpu, EXC_GP, 0)
    status = need_descriptor(cpu, selector, d, EXC_GP, 0)
    if status != NEXT:
        return status
    if rpl != cpu.cpl or not is_writable_data(d.attributes) or descriptor_dpl(d.attributes) != cpu.cpl:
        return selector_error(cpu, EXC_GP, selector, 0)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_SS, selector, 0)
    status = mark_accessed(cpu, d)
    if status == NEXT:
        set_segment(cpu, SS, selector, d)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_data_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u32) -> cython.int:
    """Load ES, DS, FS or GS in protected mode: NEXT, FAULT or EXIT. The caller calls update_mode."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    dpl: u32
    status: cython.int
    if (selector & 0xFFFC) == 0:
        set_null_segment(cpu, segment, selector, 0)
        return NEXT
    status = need_descriptor(cpu, selector, d, EXC_GP, 0)
    if status != NEXT:
        return status
    dpl = descriptor_dpl(d.attributes)
    if not d.attributes & AR_S or (d.attributes & (AR_CODE | AR_WRITABLE)) == AR_CODE:
        return selector_error(cpu, EXC_GP, selector, 0)
    if not is_conforming(d.attributes) and (dpl < (selector & 3) or dpl < cpu.cpl):
        return selector_error(cpu, EXC_GP, selector, 0)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, selector, 0)
    status = mark_accessed(cpu, d)
    if status == NEXT:
        set_segment(cpu, segment, selector, d)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u32) -> cython.int:
    """Load ES, SS, DS, FS or GS as the mode has it, with all checks: NEXT, FAULT or EXIT."""
    status: cython.int = NEXT
    if in_v86(cpu):
        set_v86_segment(cpu, segment, selector)
    elif not cpu.cr0 & CR0_PE:
        set_real_segment(cpu, segment, selector)
    elif segment == SS:
        status = load_stack_segment(cpu, selector)
    else:
        status = load_data_segment(cpu, segment, selector)
    if status == NEXT:
        update_mode(cpu)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def shadow_stack_load(cpu: cython.pointer(Cpu), segment: cython.int) -> cython.void:
    """MOV SS and POP SS hold back interrupts and debug traps for one instruction (SDM 3A 6.8.3)."""
    if segment == SS:
        cpu.interruptibility |= SHADOW_MOV_SS
        update_mode(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_to_segment(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV Sreg, r/m16 (8E): segment number is insn.reg >> 3."""
    segment: cython.int = insn.reg >> 3
    selector: u64 = 0
    status: cython.int
    if segment == CS or segment > GS:
        return raise_plain(cpu, EXC_UD)
    status = read_rm(cpu, insn, 2, cython.address(selector))
    if status == NEXT:
        status = load_segment(cpu, segment, cython.cast(u32, selector))
    if status != NEXT:
        return status
    shadow_stack_load(cpu, segment)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_from_segment(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV r/m, Sreg (8C): memory gets 16 bits, a register the zero-extended selector."""
    segment: cython.int = insn.reg >> 3
    if segment > GS:
        return raise_plain(cpu, EXC_UD)
    if insn.flags & INSN_MEM:
        return write_rm(cpu, insn, 2, cpu.segment[segment].selector)
    set_reg(cpu, insn.rm, operand_size(insn), cpu.segment[segment].selector)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_push_segment(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSH Sreg: insn.imm is the segment number. A 32-bit push writes 16 bits and leaves the rest (SDM 2B, PUSH)."""
    size: cython.int = operand_size(insn)
    sp: u64 = cpu.gpr[RSP] - size
    status: cython.int = stack_write(cpu, sp, 2 if size == 4 else size, cpu.segment[insn.imm & 7].selector)
    if status == NEXT:
        set_sp(cpu, sp)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_sp_in(cpu: cython.pointer(Cpu), value: u64, mask: u64) -> cython.void:
    """set_sp in the width of a stack segment (`mask`: its stack_mask) that may not be the current one any more."""
    if mask == 0xFFFF:
        cpu.gpr[RSP] = (cpu.gpr[RSP] & ~mask) | (value & mask)
    else:
        cpu.gpr[RSP] = value & mask


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pop_segment(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """POP Sreg: insn.imm is the segment number."""
    segment: cython.int = insn.imm & 7
    selector: u64 = 0
    sp: u64 = cpu.gpr[RSP]
    mask: u64 = stack_mask(cpu)
    status: cython.int = stack_read(cpu, sp, 2, cython.address(selector))
    if status == NEXT:
        status = load_segment(cpu, segment, cython.cast(u32, selector))
    if status != NEXT:
        return status
    set_sp_in(cpu, sp + operand_size(insn), mask)
    shadow_stack_load(cpu, segment)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_load_far_pointer(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LES, LDS, LSS, LFS, LGS: insn.imm is the segment number."""
    size: cython.int = operand_size(insn)
    segment: cython.int = insn.imm & 7
    offset: u64 = 0
    selector: u64 = 0
    at: u64 = effective_address(cpu, insn)
    status: cython.int
    if not insn.flags & INSN_MEM:
        return raise_plain(cpu, EXC_UD)
    status = read_memory(cpu, insn_segment(insn), at, size, cython.address(offset))
    if status == NEXT:
        status = read_memory(cpu, insn_segment(insn), at + size, 2, cython.address(selector))
    if status == NEXT:
        status = load_segment(cpu, segment, cython.cast(u32, selector))
    if status != NEXT:
        return status
    set_reg(cpu, insn.reg, size, offset)
    return end_block(cpu)
