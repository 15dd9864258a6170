"""Control registers: MOV to and from CR0, CR2, CR3, CR4 and CR8, LMSW, SMSW, CLTS (SDM 2B MOV, 3A 2.5)."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def paging_is_pae(cr0: u64, cr4: u64, efer: u64) -> cython.bint:
    """PAE paging, whose four PDPTE registers are loaded with CR3."""
    return (cr0 & CR0_PG) != 0 and (cr4 & CR4_PAE) != 0 and not efer & EFER_LME


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cr0_fault(cpu: cython.pointer(Cpu), value: u64) -> cython.int:
    """Whether CR0 may become `value`: NEXT or #GP(0)."""
    bad: cython.bint = value > LOW32
    turns_on: cython.bint = (value & CR0_PG) != 0 and not cpu.cr0 & CR0_PG
    if value & CR0_PG and not value & CR0_PE:
        bad = True
    if value & CR0_NW and not value & CR0_CD:
        bad = True
    if turns_on and cpu.efer & EFER_LME:
        if not cpu.cr4 & CR4_PAE or cpu.segment[CS].attributes & AR_L or not cpu.segment[TR].attributes & 8:
            bad = True
    if cpu.cr0 & CR0_PG and not value & CR0_PG and (in_long_code(cpu) or cpu.cr4 & CR4_PCIDE):
        bad = True
    return raise_fault(cpu, EXC_GP, 0) if bad else NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_cr0(cpu: cython.pointer(Cpu), value: u64) -> cython.int:
    """Make CR0 `value` with all that follows: BRANCH, FAULT or EXIT with nothing changed."""
    changed: u64
    cr0: u64 = (value & CR0_DEFINED) | CR0_ET
    status: cython.int = cr0_fault(cpu, value)
    if status != NEXT:
        return status
    changed = cpu.cr0 ^ cr0
    if paging_is_pae(cr0, cpu.cr4, cpu.efer) and changed & (CR0_PG | CR0_CD | CR0_NW):
        status = load_pdptes(cpu, cpu.cr3)
        if status != NEXT:
            return status
    cpu.cr0 = cr0
    if cpu.efer & EFER_LME and cr0 & CR0_PG:
        cpu.efer |= EFER_LMA
    else:
        cpu.efer &= ~cython.cast(u64, EFER_LMA)
    if changed & (CR0_PG | CR0_PE):
        flush_tlb(cpu)
    elif changed & cr0 & CR0_WP:  # without it no less is allowed than with it
        flush_tlb_data(cpu, False)
    update_mode(cpu)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_cr3(cpu: cython.pointer(Cpu), value: u64) -> cython.int:
    """MOV CR3: BRANCH, FAULT or EXIT. Bit 63, allowed with PCIDE, keeps what the TLB has of the PCID (SDM 3A 4.10.4.1)."""
    status: cython.int
    keep: cython.bint = (cpu.cr4 & CR4_PCIDE) != 0 and (value & SIGN_BIT) != 0
    if cpu.cr4 & CR4_PCIDE:
        value &= ~SIGN_BIT
    if in_long_code(cpu) and value >> PHYSICAL_BITS:
        return raise_fault(cpu, EXC_GP, 0)
    if paging_is_pae(cpu.cr0, cpu.cr4, cpu.efer):
        status = load_pdptes(cpu, value)
        if status != NEXT:
            return status
    cpu.cr3 = value
    use_present_pcid(cpu)
    if not keep:
        flush_tlb_nonglobal(cpu)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cr4_allowed(cpu: cython.pointer(Cpu)) -> u64:
    """The bits of CR4 that this processor has (SDM 3A 2.5); VMXE is the hypervisor's."""
    allowed: u64 = CR4_PCE | (cpu.cr4 & CR4_VMXE)
    if has_feature(cpu, FEATURE_VME):
        allowed |= CR4_VME | CR4_PVI
    if has_feature(cpu, FEATURE_TSC):
        allowed |= CR4_TSD
    if has_feature(cpu, FEATURE_DE):
        allowed |= CR4_DE
    if has_feature(cpu, FEATURE_PSE):
        allowed |= CR4_PSE
    if has_feature(cpu, FEATURE_PAE):
        allowed |= CR4_PAE
    if has_feature(cpu, FEATURE_MCE):
        allowed |= CR4_MCE
    if has_feature(cpu, FEATURE_PGE):
        allowed |= CR4_PGE
    if has_feature(cpu, FEATURE_SSE):
        allowed |= CR4_OSFXSR | CR4_OSXMMEXCPT
    if has_feature(cpu, FEATURE_UMIP):
        allowed |= CR4_UMIP
    if has_feature(cpu, FEATURE_LA57):
        allowed |= CR4_LA57
    if has_feature(cpu, FEATURE_FSGSBASE):
        allowed |= CR4_FSGSBASE
    if has_feature(cpu, FEATURE_PCID):
        allowed |= CR4_PCIDE
    if has_feature(cpu, FEATURE_XSAVE):
        allowed |= CR4_OSXSAVE
    if has_feature(cpu, FEATURE_SMEP):
        allowed |= CR4_SMEP
    if has_feature(cpu, FEATURE_SMAP):
        allowed |= CR4_SMAP
    if has_feature(cpu, FEATURE_PKU):
        allowed |= CR4_PKE
    return allowed


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cr4_fault(cpu: cython.pointer(Cpu), value: u64) -> cython.int:
    """Whether CR4 may become `value`: NEXT or #GP(0)."""
    changed: u64 = cpu.cr4 ^ value
    bad: cython.bint = (value & ~cr4_allowed(cpu)) != 0
    if cpu.efer & EFER_LMA and (not value & CR4_PAE or changed & CR4_LA57):
        bad = True
    if changed & value & CR4_PCIDE and (not cpu.efer & EFER_LMA or cpu.cr3 & 0xFFF):
        bad = True
    return raise_fault(cpu, EXC_GP, 0) if bad else NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_cr4(cpu: cython.pointer(Cpu), value: u64) -> cython.int:
    """Make CR4 `value` with all that follows: BRANCH, FAULT or EXIT with nothing changed."""
    changed: u64 = cpu.cr4 ^ value
    status: cython.int = cr4_fault(cpu, value)
    if status != NEXT:
        return status
    if paging_is_pae(cpu.cr0, value, cpu.efer) and changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP):
        status = load_pdptes(cpu, cpu.cr3)
        if status != NEXT:
            return status
    cpu.cr4 = value
    flush_tlb(cpu)
    update_mode(cpu)
    return end_block(cpu)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def control_register_exists(cpu: cython.pointer(Cpu), number: cython.int) -> cython.bint:
    """CR0, CR2, CR3, CR4, and CR8 in 64-bit mode; the others raise #UD."""
    return number == 0 or (number >= 2 and number <= 4) or (number == 8 and in_long_code(cpu))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_from_control(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV r, CRn: control register insn.reg >> 3, general register insn.rm."""
    number: cython.int = insn.reg >> 3
    value: u64
    status: cython.int
    if not control_register_exists(cpu, number):
        return raise_plain(cpu, EXC_UD)
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_read_cr(cpu, number, insn.rm >> 3)
    if status != NEXT:
        return end_block(cpu) if status == BRANCH else status
    if number == 2:
        value = cpu.cr2
    elif number == 3:
        value = cpu.cr3
    elif number == 8:
        value = cpu.cr8
    else:
        value = vmx_cr_seen(cpu, number)
    set_reg(cpu, insn.rm, 8 if in_long_code(cpu) else 4, value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_to_control(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV CRn, r."""
    number: cython.int = insn.reg >> 3
    value: u64 = get_reg(cpu, insn.rm, 8 if in_long_code(cpu) else 4)
    status: cython.int
    if not control_register_exists(cpu, number):
        return raise_plain(cpu, EXC_UD)
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    if number == 2:
        cpu.cr2 = value
        return NEXT
    status = vmx_write_cr(cpu, number, insn.rm >> 3, cython.address(value))
    if status != NEXT:
        return end_block(cpu) if status == BRANCH else status
    if number == 0:
        return write_cr0(cpu, value)
    if number == 3:
        return write_cr3(cpu, value)
    if number == 4:
        return write_cr4(cpu, value)
    if value > 15:
        return raise_fault(cpu, EXC_GP, 0)
    cpu.cr8 = value
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_smsw(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SMSW: the low half of CR0 to memory, as much as fits to a register."""
    value: u64
    if cpu.cr4 & CR4_UMIP and cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    value = vmx_cr_seen(cpu, 0)
    if insn.flags & INSN_MEM:
        return write_rm(cpu, insn, 2, value)
    set_reg(cpu, insn.rm, operand_size(insn), value)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lmsw(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LMSW: PE (which it cannot clear), MP, EM and TS."""
    source: u64 = 0
    value: u64
    status: cython.int
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = read_rm(cpu, insn, 2, cython.address(source))
    if status != NEXT:
        return status
    value = (cpu.cr0 & ~cython.cast(u64, CR0_MP | CR0_EM | CR0_TS)) | (source & 0xF)
    status = vmx_lmsw(cpu, insn, cython.address(value))
    if status != NEXT:
        return end_block(cpu) if status == BRANCH else status
    return write_cr0(cpu, value)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_clts(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CLTS."""
    status: cython.int
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_clts(cpu)
    if status != NEXT:
        return end_block(cpu) if status == BRANCH else status
    cpu.cr0 &= ~cython.cast(u64, CR0_TS)
    update_mode(cpu)
    return end_block(cpu)
