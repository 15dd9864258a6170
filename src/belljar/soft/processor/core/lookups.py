"""The instructions that look at descriptors, and those that load LDTR and TR."""

import cython

@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def system_type_allowed(cpu: cython.pointer(Cpu), kind: u32, legacy: u32, long_mode: u32) -> cython.bint:
    """Whether a system descriptor's type is in the set of this mode: bit n stands for type n."""
    return ((long_mode if long_mode_active(cpu) else legacy) >> kind) & 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def descriptor_visible(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor)) -> cython.bint:
    """Whether CPL and RPL let a program look at a descriptor (SDM 3A 5.10)."""
    dpl: u32 = descriptor_dpl(d.attributes)
    return is_conforming(d.attributes) or (dpl >= cpu.cpl and dpl >= (selector & 3))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def look_up(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), d: cython.pointer(Descriptor)) -> cython.int:
    """Common to LAR, LSL, VERR and VERW: read the selector, fetch its descriptor: NEXT, OUTSIDE, FAULT or EXIT."""
    selector: u64 = 0
    status: cython.int
    if not in_protected(cpu):
        return raise_plain(cpu, EXC_UD)
    status = read_rm(cpu, insn, 2, cython.address(selector))
    if status == NEXT:
        status = fetch_descriptor(cpu, cython.cast(u32, selector), d)
    if status == NEXT and not descriptor_visible(cpu, cython.cast(u32, selector), d):
        return OUTSIDE
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def answer_zf(cpu: cython.pointer(Cpu), status: cython.int, found: cython.bint) -> cython.int:
    """End such an instruction: ZF tells whether the descriptor was fit; faults and exits go on."""
    if status == NEXT or status == OUTSIDE:
        set_zf(cpu, 1 if status == NEXT and found else 0)
        return NEXT
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lar(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LAR: the second dword of the descriptor without base and limit (SDM 2A, LAR)."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    status: cython.int = look_up(cpu, insn, d)
    found: cython.bint = False
    # Types (SDM 2A table 3-53): TSS, LDT, call and task gates; in IA-32e mode LDT, TSS and call gate of 64 bits.
    if status == NEXT:
        found = (d.attributes & AR_S) != 0 or system_type_allowed(cpu, d.attributes & AR_TYPE, 0x1A3E, 0x1A04)
        if found:
            set_reg(cpu, insn.reg, operand_size(insn), (d.raw >> 32) & 0xFFFF00)
    return answer_zf(cpu, status, found)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lsl(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LSL: the limit in bytes (SDM 2A, LSL)."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    status: cython.int = look_up(cpu, insn, d)
    found: cython.bint = False
    # Types (SDM 2A table 3-56): TSS and LDT; in IA-32e mode those of 64 bits.
    if status == NEXT:
        found = (d.attributes & AR_S) != 0 or system_type_allowed(cpu, d.attributes & AR_TYPE, 0x0A0E, 0x0A04)
        if found:
            set_reg(cpu, insn.reg, operand_size(insn), d.limit)
    return answer_zf(cpu, status, found)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_verr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """VERR."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    status: cython.int = look_up(cpu, insn, d)
    found: cython.bint = False
    if status == NEXT:
        found = (d.attributes & AR_S) != 0 and (d.attributes & (AR_CODE | AR_WRITABLE)) != AR_CODE
    return answer_zf(cpu, status, found)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_verw(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """VERW."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    status: cython.int = look_up(cpu, insn, d)
    return answer_zf(cpu, status, status == NEXT and is_writable_data(d.attributes))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_arpl(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """ARPL: raise the RPL of r/m16 to that of r16."""
    selector: u64 = 0
    rpl: u64 = get_reg(cpu, insn.reg, 2) & 3
    status: cython.int
    if not in_protected(cpu):
        return raise_plain(cpu, EXC_UD)
    status = read_rm(cpu, insn, 2, cython.address(selector))
    if status != NEXT:
        return status
    if (selector & 3) >= rpl:
        set_zf(cpu, 0)
        return NEXT
    status = write_rm(cpu, insn, 2, (selector & 0xFFFC) | rpl)
    if status == NEXT:
        set_zf(cpu, 1)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def store_selector(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), segment: cython.int, which: cython.int) -> cython.int:
    """SLDT and STR, after which UMIP and descriptor-table exiting stand."""
    status: cython.int
    if not in_protected(cpu):
        return raise_plain(cpu, EXC_UD)
    if cpu.cr4 & CR4_UMIP and cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_intercept_operand(cpu, insn, EXIT_REASON_LDTR_TR, which)
    if status != NEXT:
        return status
    if insn.flags & INSN_MEM:
        return write_rm(cpu, insn, 2, cpu.segment[segment].selector)
    set_reg(cpu, insn.rm, operand_size(insn), cpu.segment[segment].selector)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sldt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SLDT."""
    return store_selector(cpu, insn, LDTR, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_str(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """STR."""
    return store_selector(cpu, insn, TR, 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_system_selector(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), which: cython.int, selector: cython.pointer(u64)) -> cython.int:
    """Common to LLDT and LTR: mode, privilege, intercept, operand."""
    status: cython.int
    if not in_protected(cpu):
        return raise_plain(cpu, EXC_UD)
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_intercept_operand(cpu, insn, EXIT_REASON_LDTR_TR, which)
    if status != NEXT:
        return status
    return read_rm(cpu, insn, 2, selector)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def complete_system_base(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor)) -> cython.int:
    """In IA-32e mode, the upper half of an LDT's or TSS's base, which must be canonical."""
    status: cython.int
    if not long_mode_active(cpu):
        return NEXT
    status = need_descriptor_high(cpu, d, EXC_GP, 0)
    if status == NEXT and not is_address(cpu, d.base):
        return selector_error(cpu, EXC_GP, d.selector, 0)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_ldtr(cpu: cython.pointer(Cpu), selector: u32, vector: u32) -> cython.int:
    """Load LDTR: NEXT, FAULT (`vector`: #GP for LLDT, #TS for a task switch) or EXIT."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    status: cython.int
    if (selector & 0xFFFC) == 0:
        set_null_segment(cpu, LDTR, selector, 0)
        return NEXT
    if selector & 4:
        return selector_error(cpu, vector, selector, 0)
    status = need_descriptor(cpu, selector, d, vector, 0)
    if status != NEXT:
        return status
    if d.attributes & (AR_S | AR_TYPE) != SYSTEM_LDT:
        return selector_error(cpu, vector, selector, 0)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP if vector == EXC_GP else vector, selector, 0)
    status = complete_system_base(cpu, d)
    if status == NEXT:
        set_segment(cpu, LDTR, selector, d)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lldt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LLDT."""
    selector: u64 = 0
    status: cython.int = read_system_selector(cpu, insn, 2, cython.address(selector))
    if status == NEXT:
        status = load_ldtr(cpu, cython.cast(u32, selector), EXC_GP)
    return end_block(cpu) if status == NEXT else status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_ltr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LTR: an available TSS becomes the busy one in TR."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    selector: u64 = 0
    kind: u32
    status: cython.int = read_system_selector(cpu, insn, 3, cython.address(selector))
    if status != NEXT:
        return status
    if selector & 4:
        return selector_error(cpu, EXC_GP, cython.cast(u32, selector), 0)
    status = need_descriptor(cpu, cython.cast(u32, selector), d, EXC_GP, 0)
    if status != NEXT:
        return status
    kind = d.attributes & (AR_S | AR_TYPE)
    if kind != SYSTEM_TSS and (kind != SYSTEM_TSS16 or long_mode_active(cpu)):
        return selector_error(cpu, EXC_GP, cython.cast(u32, selector), 0)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, cython.cast(u32, selector), 0)
    status = complete_system_base(cpu, d)
    if status == NEXT:
        status = set_busy(cpu, d, True)
    if status != NEXT:
        return status
    set_segment(cpu, TR, cython.cast(u32, selector), d)
    return end_block(cpu)
