"""Far RET and IRET in every mode: the same level, outer levels, virtual-8086 mode, 64-bit, the previous task (SDM 2A IRET, 2B RET)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_return(cpu: cython.pointer(Cpu), index: cython.int, size: cython.int, value: cython.pointer(u64)) -> cython.int:
    """The item at a place of the stack, counted in operands from the stack pointer: NEXT, FAULT or EXIT."""
    return stack_read(cpu, cpu.gpr[RSP] + index * size, size, value)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def return_code_fault(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor)) -> cython.int:
    """Fetch and check the code segment that RET or IRET goes back to: NEXT, FAULT or EXIT."""
    rpl: u32 = selector & 3
    dpl: u32
    status: cython.int = need_descriptor(cpu, selector, d, EXC_GP, 0)
    if status != NEXT:
        return status
    dpl = descriptor_dpl(d.attributes)
    if not is_code(d.attributes) or rpl < cpu.cpl or bad_long_code(cpu, d):
        return selector_error(cpu, EXC_GP, selector, 0)
    if dpl > rpl or (dpl != rpl and not is_conforming(d.attributes)):
        return selector_error(cpu, EXC_GP, selector, 0)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, selector, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def return_stack_fault(cpu: cython.pointer(Cpu), selector: u32, rpl: u32, code: cython.pointer(Descriptor), d: cython.pointer(Descriptor)) -> cython.int:
    """Fetch and check the stack segment of an outer level `rpl`: NEXT, FAULT, EXIT, or OUTSIDE: a null SS, which 64-bit code may have."""
    status: cython.int
    if (selector & 0xFFFC) == 0:
        if long_mode_active(cpu) and code.attributes & AR_L and rpl != 3 and (selector & 3) == rpl:
            return OUTSIDE
        return raise_fault(cpu, EXC_GP, 0)
    status = need_descriptor(cpu, selector, d, EXC_GP, 0)
    if status != NEXT:
        return status
    if (selector & 3) != rpl or descriptor_dpl(d.attributes) != rpl or not is_writable_data(d.attributes):
        return selector_error(cpu, EXC_GP, selector, 0)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_SS, selector, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mark_both(cpu: cython.pointer(Cpu), code: cython.pointer(Descriptor), stack: cython.pointer(Descriptor), stack_status: cython.int) -> cython.int:
    """Set the accessed bits of a code and, unless it is null, a stack descriptor."""
    status: cython.int = mark_accessed(cpu, code)
    if status == NEXT and stack_status == NEXT:
        status = mark_accessed(cpu, stack)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_return_stack(cpu: cython.pointer(Cpu), selector: u32, stack: cython.pointer(Descriptor), stack_status: cython.int) -> cython.void:
    """Load SS for an outer level: a checked descriptor, or null."""
    if stack_status == OUTSIDE:
        set_null_segment(cpu, SS, selector, cpu.cpl)
    else:
        set_segment(cpu, SS, selector, stack)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def return_far_same(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor), rip: u64, sp: u64) -> cython.int:
    """RET to the same level."""
    mask: u64 = stack_mask(cpu)
    status: cython.int = enter_code(cpu, selector, d, rip)
    if status == BRANCH:
        set_sp_in(cpu, sp, mask)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_outer(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor), rip: u64, ss: u32) -> cython.int:
    """CS and SS of a return to an outer level, checked and loaded, and segments that it may not keep dropped."""
    stack: Descriptor
    status: cython.int
    found: cython.int = return_stack_fault(cpu, ss, selector & 3, d, cython.address(stack))
    if found != NEXT and found != OUTSIDE:
        return found
    status = code_offset_fault(cpu, d, rip, 0)
    if status == NEXT:
        status = mark_both(cpu, d, cython.address(stack), found)
    if status != NEXT:
        return status
    set_code_segment(cpu, selector, d, selector & 3)
    set_return_stack(cpu, ss, cython.address(stack), found)
    drop_inner_segments(cpu)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def return_far_outer(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor), rip: u64, size: cython.int, extra: u64) -> cython.int:
    """RET to an outer level: SS:SP follow the dropped parameters, which are dropped from the outer stack as well."""
    sp: u64 = 0
    ss: u64 = 0
    at: u64 = cpu.gpr[RSP] + 2 * size + extra
    status: cython.int = stack_read(cpu, at, size, cython.address(sp))
    if status == NEXT:
        status = stack_read(cpu, at + size, size, cython.address(ss))
    if status == NEXT:
        status = load_outer(cpu, selector, d, rip, cython.cast(u32, ss & 0xFFFF))
    if status != NEXT:
        return status
    cpu.rip = rip
    update_mode(cpu)
    set_sp(cpu, sp + extra)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_ret_far(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RETF, RETF imm16: insn.imm bytes are dropped."""
    space: Descriptor
    size: cython.int = operand_size(insn)
    extra: u64 = cython.cast(u64, insn.imm) & 0xFFFF
    sp: u64 = cpu.gpr[RSP] + 2 * size + extra
    rip: u64 = 0
    selector: u64 = 0
    status: cython.int = read_return(cpu, 0, size, cython.address(rip))
    if status == NEXT:
        status = read_return(cpu, 1, size, cython.address(selector))
    if status != NEXT:
        return status
    selector &= 0xFFFF
    if not in_protected(cpu):
        status = enter_real_code(cpu, cython.cast(u32, selector), rip)
        if status == BRANCH:
            set_sp(cpu, sp)
        return status
    status = return_code_fault(cpu, cython.cast(u32, selector), cython.address(space))
    if status != NEXT:
        return status
    if (selector & 3) > cpu.cpl:
        return return_far_outer(cpu, cython.cast(u32, selector), cython.address(space), rip, size, extra)
    return return_far_same(cpu, cython.cast(u32, selector), cython.address(space), rip, sp)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def iret_flags(cpu: cython.pointer(Cpu), popped: u64, size: cython.int) -> u64:
    """RFLAGS after IRET outside virtual-8086 mode, by the CPL before it (SDM 2A, IRET)."""
    mask: u64 = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT
    if size > 2:
        mask |= FLAG_RF | FLAG_AC | FLAG_ID
    if cpu.cpl <= io_privilege(cpu):
        mask |= FLAG_IF
    if cpu.cpl == 0:
        mask |= FLAG_IOPL
        if size > 2 and cpu.cr0 & CR0_PE:
            mask |= FLAG_VIF | FLAG_VIP
    return (get_rflags(cpu) & ~mask) | (popped & mask)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def iret_done(cpu: cython.pointer(Cpu), flags: u64, rip: u64, size: cython.int) -> cython.int:
    """Commit the flags and RIP of an IRET. Answers BRANCH."""
    if size == 2:
        flags &= ~cython.cast(u64, FLAG_RF)
    cpu.rip = rip
    cpu.stepped |= 2
    set_rflags(cpu, flags & FLAGS_VALID)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def iret_real(cpu: cython.pointer(Cpu), rip: u64, selector: u32, popped: u64, size: cython.int) -> cython.int:
    """IRET in real mode, and in virtual-8086 mode with IOPL 3."""
    sp: u64 = cpu.gpr[RSP] + 3 * size
    kept: u64 = FLAG_VM | FLAG_VIF | FLAG_VIP
    status: cython.int
    if in_v86(cpu):
        kept |= FLAG_IOPL
    if size == 2:
        kept |= ALL_ONES ^ 0xFFFF
    status = enter_real_code(cpu, selector, rip)
    if status != BRANCH:
        return status
    set_sp(cpu, sp)
    return iret_done(cpu, (get_rflags(cpu) & kept) | (popped & ~kept), rip, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def iret_v86_extended(cpu: cython.pointer(Cpu), rip: u64, selector: u32, popped: u64) -> cython.int:
    """A 16-bit IRET in virtual-8086 mode with VME and IOPL below 3: VIF stands for IF (SDM 3B 21.3)."""
    kept: u64 = (ALL_ONES ^ 0xFFFF) | FLAG_IOPL | FLAG_IF
    flags: u64
    sp: u64 = cpu.gpr[RSP] + 6
    status: cython.int
    if popped & FLAG_TF or (popped & FLAG_IF and cpu.rflags & FLAG_VIP):
        return raise_fault(cpu, EXC_GP, 0)
    status = enter_real_code(cpu, selector, rip)
    if status != BRANCH:
        return status
    set_sp(cpu, sp)
    flags = (get_rflags(cpu) & kept & ~cython.cast(u64, FLAG_VIF)) | (popped & ~kept)
    if popped & FLAG_IF:
        flags |= FLAG_VIF
    return iret_done(cpu, flags, rip, 2)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def iret_to_v86(cpu: cython.pointer(Cpu), rip: u64, selector: u32, popped: u64) -> cython.int:
    """IRETD at CPL 0 with VM set in the image: SP, SS, ES, DS, FS and GS follow."""
    values: u64[6]
    i: cython.int
    status: cython.int = NEXT
    for i in range(6):
        if status == NEXT:
            status = read_return(cpu, 3 + i, 4, cython.address(values[i]))
    if status != NEXT:
        return status
    if rip > 0xFFFF:
        return raise_fault(cpu, EXC_GP, 0)
    set_v86_segment(cpu, CS, selector)
    set_v86_segment(cpu, SS, cython.cast(u32, values[1] & 0xFFFF))
    set_v86_segment(cpu, ES, cython.cast(u32, values[2] & 0xFFFF))
    set_v86_segment(cpu, DS, cython.cast(u32, values[3] & 0xFFFF))
    set_v86_segment(cpu, FS, cython.cast(u32, values[4] & 0xFFFF))
    set_v86_segment(cpu, GS, cython.cast(u32, values[5] & 0xFFFF))
    cpu.gpr[RSP] = values[0]
    cpu.cpl = 3
    return iret_done(cpu, popped, rip, 4)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def iret_outer(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor), rip: u64, flags: u64, size: cython.int) -> cython.int:
    """IRET to an outer level, and every IRET of 64-bit mode: SP and SS are popped too."""
    sp: u64 = 0
    ss: u64 = 0
    status: cython.int = read_return(cpu, 3, size, cython.address(sp))
    if status == NEXT:
        status = read_return(cpu, 4, size, cython.address(ss))
    if status == NEXT:
        status = load_outer(cpu, selector, d, rip, cython.cast(u32, ss & 0xFFFF))
    if status != NEXT:
        return status
    iret_done(cpu, flags, rip, size)
    set_sp(cpu, sp)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def iret_protected(cpu: cython.pointer(Cpu), rip: u64, selector: u32, popped: u64, size: cython.int) -> cython.int:
    """IRET in protected mode and IA-32e mode, without NT."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    flags: u64 = iret_flags(cpu, popped, size)
    sp: u64 = cpu.gpr[RSP] + 3 * size
    mask: u64 = stack_mask(cpu)
    status: cython.int
    if size == 4 and popped & FLAG_VM and cpu.cpl == 0 and not long_mode_active(cpu):
        return iret_to_v86(cpu, rip, selector, popped)
    status = return_code_fault(cpu, selector, d)
    if status != NEXT:
        return status
    if (selector & 3) > cpu.cpl or in_long_code(cpu):
        return iret_outer(cpu, selector, d, rip, flags, size)
    status = enter_code(cpu, selector, d, rip)
    if status != BRANCH:
        return status
    set_sp_in(cpu, sp, mask)
    return iret_done(cpu, flags, rip, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def iret_task(cpu: cython.pointer(Cpu)) -> cython.int:
    """IRET with NT set: back to the task whose TSS the current one links to (SDM 3A 7.4)."""
    link: u64 = 0
    status: cython.int
    if long_mode_active(cpu):
        return raise_fault(cpu, EXC_GP, 0)
    status = system_read(cpu, cpu.base[TR], 2, cython.address(link))
    if status == NEXT:
        status = switch_task(cpu, cython.cast(u32, link), TASK_IRET, 0, 0)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_iret(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """IRET, IRETD, IRETQ.

    It ends NMI blocking, even if it then faults (SDM 3A 6.7.1, 3C 26.3); but where the host takes NMIs and keeps no account
    of virtual ones, their blocking is the host's. An exit says what was done in its bit 12 (SDM 3C 28.2.1, 28.2.3).
    """
    blocked: cython.bint = (cpu.interruptibility & BLOCKED_NMI) != 0
    status: cython.int
    if cpu.in_guest and (cpu.pin_controls & (PIN_NMI | PIN_VIRTUAL_NMI)) == PIN_NMI:
        blocked = False
    if not blocked:
        return interrupt_return(cpu, insn)
    cpu.interruptibility &= ~cython.cast(u64, BLOCKED_NMI)
    status = interrupt_return(cpu, insn)
    if status == FAULT:
        cpu.exit_interruption = INFO_NMI_UNBLOCKING
    elif status == EXIT and cpu.exit_reason == EXIT_REASON_EPT_VIOLATION:
        cpu.exit_qualification |= INFO_NMI_UNBLOCKING
    elif status == EXIT:
        cpu.interruptibility |= BLOCKED_NMI
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def interrupt_return(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """All of IRET but what it does to NMIs."""
    size: cython.int = operand_size(insn)
    rip: u64 = 0
    selector: u64 = 0
    popped: u64 = 0
    v86: cython.bint = in_v86(cpu)
    status: cython.int
    if v86 and io_privilege(cpu) < 3 and not (cpu.cr4 & CR4_VME and size == 2):
        return raise_fault(cpu, EXC_GP, 0)
    if in_protected(cpu) and cpu.rflags & FLAG_NT:
        return iret_task(cpu)
    status = read_return(cpu, 0, size, cython.address(rip))
    if status == NEXT:
        status = read_return(cpu, 1, size, cython.address(selector))
    if status == NEXT:
        status = read_return(cpu, 2, size, cython.address(popped))
    if status != NEXT:
        return status
    selector &= 0xFFFF
    if in_protected(cpu):
        return iret_protected(cpu, rip, cython.cast(u32, selector), popped, size)
    if v86 and io_privilege(cpu) < 3:
        return iret_v86_extended(cpu, rip, cython.cast(u32, selector), popped)
    return iret_real(cpu, rip, cython.cast(u32, selector), popped, size)
