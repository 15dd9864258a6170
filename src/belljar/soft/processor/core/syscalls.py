"""Fast system calls and the base registers they live with (SDM 2B SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_flat_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u64, attributes: u32) -> cython.void:
    """A segment that such an instruction makes up instead of loading a descriptor: base 0, 4 GiB."""
    cpu.segment[segment].selector = cython.cast(u16, selector)
    cpu.segment[segment].limit = cython.cast(u32, LOW32)
    cpu.segment[segment].attributes = attributes | AR_G | AR_P | AR_S | AR_WRITABLE | AR_ACCESSED
    cpu.base[segment] = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_flat(cpu: cython.pointer(Cpu), cs: u64, ss: u64, cpl: u32, long_code: cython.bint, rip: u64) -> cython.int:
    """Go to made-up CS and SS at `cpl`: BRANCH."""
    dpl: u32 = cpl << AR_DPL_SHIFT
    set_flat_segment(cpu, CS, cs, dpl | AR_CODE | (AR_L if long_code else AR_DB))
    set_flat_segment(cpu, SS, ss, dpl | AR_DB)
    cpu.cpl = cpl
    cpu.rip = rip
    update_mode(cpu)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_syscall(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SYSCALL: in 64-bit mode only."""
    selector: u64 = (cpu.star >> 32) & 0xFFFC
    if not in_long_code(cpu) or not cpu.efer & EFER_SCE or not has_feature(cpu, FEATURE_SYSCALL):
        return raise_plain(cpu, EXC_UD)
    cpu.gpr[RCX] = cpu.next_rip
    cpu.gpr[11] = get_rflags(cpu) & ~cython.cast(u64, FLAG_RF)
    set_rflags(cpu, cpu.gpr[11] & ~cpu.fmask)
    if not cpu.rflags & FLAG_TF:
        cpu.stepped |= 4
    return enter_flat(cpu, selector, selector + 8, 0, True, cpu.lstar)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sysret(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SYSRET: to 64-bit code with REX.W, else to compatibility mode."""
    wide: cython.bint = operand_size(insn) == 8
    selector: u64 = (cpu.star >> 48) | 3
    rip: u64 = cpu.gpr[RCX]
    if not in_long_code(cpu) or not cpu.efer & EFER_SCE or not has_feature(cpu, FEATURE_SYSCALL):
        return raise_plain(cpu, EXC_UD)
    if cpu.cpl or (wide and not is_canonical(cpu, rip)):
        return raise_fault(cpu, EXC_GP, 0)
    set_rflags(cpu, cpu.gpr[11] & FLAGS_VALID & ~cython.cast(u64, FLAG_RF | FLAG_VM))
    # As SYSCALL it looks at TF when all is done: a TF that it restores traps before the user's first instruction, where IRET's
    # would trap behind it (Linux relies on this in its way out of a system call).
    if cpu.rflags & FLAG_TF:
        cpu.pending_debug |= 0x4000  # DR6.BS
    else:
        cpu.stepped |= 4
    if wide:
        return enter_flat(cpu, ((cpu.star >> 48) + 16) | 3, ((cpu.star >> 48) + 8) | 3, 3, True, rip)
    return enter_flat(cpu, selector, ((cpu.star >> 48) + 8) | 3, 3, False, rip & LOW32)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sysenter(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SYSENTER."""
    selector: u64 = cpu.sysenter_cs & 0xFFFC
    long_mode: cython.bint = long_mode_active(cpu)
    if not has_feature(cpu, FEATURE_SEP):
        return raise_plain(cpu, EXC_UD)
    if not cpu.cr0 & CR0_PE or not selector:
        return raise_fault(cpu, EXC_GP, 0)
    set_rflags(cpu, get_rflags(cpu) & ~cython.cast(u64, FLAG_VM | FLAG_IF | FLAG_RF))
    cpu.gpr[RSP] = cpu.sysenter_esp if long_mode else cpu.sysenter_esp & LOW32
    return enter_flat(
        cpu, selector, selector + 8, 0, long_mode, cpu.sysenter_eip if long_mode else cpu.sysenter_eip & LOW32
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sysexit(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SYSEXIT: to 64-bit code with REX.W, else to 32-bit code."""
    wide: cython.bint = operand_size(insn) == 8
    selector: u64 = cpu.sysenter_cs & 0xFFFC
    rip: u64 = cpu.gpr[RDX]
    sp: u64 = cpu.gpr[RCX]
    if not has_feature(cpu, FEATURE_SEP):
        return raise_plain(cpu, EXC_UD)
    if not selector or not cpu.cr0 & CR0_PE or cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    if wide:
        if not is_canonical(cpu, rip) or not is_canonical(cpu, sp):
            return raise_fault(cpu, EXC_GP, 0)
        cpu.gpr[RSP] = sp
        return enter_flat(cpu, (selector + 32) | 3, (selector + 40) | 3, 3, True, rip)
    cpu.gpr[RSP] = sp & LOW32
    return enter_flat(cpu, (selector + 16) | 3, (selector + 24) | 3, 3, False, rip & LOW32)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_swapgs(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SWAPGS."""
    base: u64 = cpu.base[GS]
    if not in_long_code(cpu):
        return raise_plain(cpu, EXC_UD)
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    cpu.base[GS] = cpu.kernel_gs_base
    cpu.kernel_gs_base = base
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_fsgsbase(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: ModRM.reg (insn.imm) 0..3."""
    size: cython.int = operand_size(insn)
    segment: cython.int = GS if insn.imm & 1 else FS
    value: u64
    if not in_long_code(cpu) or not cpu.cr4 & CR4_FSGSBASE:
        return raise_plain(cpu, EXC_UD)
    if not insn.imm & 2:
        set_reg(cpu, insn.rm, size, cpu.base[segment])
        return NEXT
    value = get_reg(cpu, insn.rm, size)
    if not is_address(cpu, value):
        return raise_fault(cpu, EXC_GP, 0)
    cpu.base[segment] = value
    return end_block(cpu)
