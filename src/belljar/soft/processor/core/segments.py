"""Segment registers, far transfers, and the instructions that look at descriptors."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u32) -> cython.int:
    """Load ES, SS, DS, FS or GS with all checks: NEXT or FAULT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_to_segment(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV Sreg, r/m16 (8E): segment number is insn.reg >> 3."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_from_segment(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV r/m, Sreg (8C)."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_push_segment(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """PUSH Sreg: insn.imm is the segment number."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_pop_segment(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """POP Sreg: insn.imm is the segment number."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_load_far_pointer(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LES, LDS, LSS, LFS, LGS: insn.imm is the segment number."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_jmp_far_immediate(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """JMP ptr16:16/32: insn.imm = selector << 32 | offset."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_call_far_immediate(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CALL ptr16:16/32."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_jmp_far_memory(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """JMP m16:16/32/64."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_call_far_memory(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CALL m16:16/32/64."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_ret_far(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RETF, RETF imm16: insn.imm bytes are dropped."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_iret(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """IRET, IRETD, IRETQ."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lar(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LAR."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lsl(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LSL."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_verr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """VERR."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_verw(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """VERW."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_arpl(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """ARPL."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sldt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SLDT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_str(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """STR."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lldt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LLDT."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_ltr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LTR."""
    return raise_plain(cpu, EXC_UD)
