"""The instructions that move RFLAGS whole or its interrupt flag: CLI, STI, PUSHF, POPF with VME and PVI (SDM 3B 21.3, 21.4)."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def virtual_interrupts(cpu: cython.pointer(Cpu)) -> cython.bint:
    """Whether VIF stands for IF: CPL 3 of protected mode with PVI, or virtual-8086 mode with VME, where IOPL denies IF itself."""
    if in_v86(cpu):
        return (cpu.cr4 & CR4_VME) != 0
    return cpu.cpl == 3 and (cpu.cr4 & CR4_PVI) != 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def may_change_if(cpu: cython.pointer(Cpu)) -> cython.bint:
    """Whether CPL and IOPL let a program change IF. Real mode runs at CPL 0, virtual-8086 mode at 3."""
    return cpu.cpl <= io_privilege(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_cli(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CLI."""
    if may_change_if(cpu):
        cpu.rflags &= ~cython.cast(u64, FLAG_IF)
    elif virtual_interrupts(cpu):
        cpu.rflags &= ~cython.cast(u64, FLAG_VIF)
    else:
        return raise_fault(cpu, EXC_GP, 0)
    update_mode(cpu)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sti(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """STI: interrupts wait for one more instruction if IF was clear."""
    if may_change_if(cpu):
        if not cpu.rflags & FLAG_IF:
            cpu.rflags |= FLAG_IF
            cpu.interruptibility |= SHADOW_STI
    elif virtual_interrupts(cpu) and not cpu.rflags & FLAG_VIP:
        cpu.rflags |= FLAG_VIF
    else:
        return raise_fault(cpu, EXC_GP, 0)
    update_mode(cpu)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pushf(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSHF, PUSHFD, PUSHFQ."""
    size: cython.int = operand_size(insn)
    flags: u64 = get_rflags(cpu) & ~cython.cast(u64, FLAG_VM | FLAG_RF)
    sp: u64 = cpu.gpr[RSP] - size
    status: cython.int
    if in_v86(cpu) and io_privilege(cpu) < 3:
        if size != 2 or not cpu.cr4 & CR4_VME:
            return raise_fault(cpu, EXC_GP, 0)
        flags = (flags | FLAG_IOPL) & ~cython.cast(u64, FLAG_IF)
        if flags & FLAG_VIF:
            flags |= FLAG_IF
    status = stack_write(cpu, sp, size, flags)
    if status == NEXT:
        set_sp(cpu, sp)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def popf_mask(cpu: cython.pointer(Cpu), size: cython.int) -> u64:
    """The flags that POPF changes (SDM 2B, POPF)."""
    mask: u64 = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT
    if size > 2:
        mask |= FLAG_AC | FLAG_ID
    if may_change_if(cpu):
        mask |= FLAG_IF
    if cpu.cpl == 0:
        mask |= FLAG_IOPL
    return mask


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def popf_v86_extended(cpu: cython.pointer(Cpu), popped: u64) -> cython.int:
    """A 16-bit POPF in virtual-8086 mode with VME and IOPL below 3: IF of the image goes to VIF. NEXT or #GP(0)."""
    mask: u64 = FLAGS_ARITHMETIC | FLAG_DF | FLAG_NT | FLAG_TF
    flags: u64
    if popped & FLAG_TF or (popped & FLAG_IF and cpu.rflags & FLAG_VIP):
        return raise_fault(cpu, EXC_GP, 0)
    flags = (get_rflags(cpu) & ~(mask | FLAG_VIF | FLAG_RF)) | (popped & mask)
    if popped & FLAG_IF:
        flags |= FLAG_VIF
    set_rflags(cpu, flags)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_popf(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """POPF, POPFD, POPFQ."""
    size: cython.int = operand_size(insn)
    popped: u64 = 0
    mask: u64
    extended: cython.bint = in_v86(cpu) and io_privilege(cpu) < 3
    status: cython.int
    if extended and (size != 2 or not cpu.cr4 & CR4_VME):
        return raise_fault(cpu, EXC_GP, 0)
    status = stack_read(cpu, cpu.gpr[RSP], size, cython.address(popped))
    if status == NEXT and extended:
        status = popf_v86_extended(cpu, popped)
    if status != NEXT:
        return status
    set_sp(cpu, cpu.gpr[RSP] + size)
    if not extended:
        mask = popf_mask(cpu, size)
        set_rflags(cpu, (get_rflags(cpu) & ~(mask | FLAG_RF)) | (popped & mask))
    return end_block(cpu)
