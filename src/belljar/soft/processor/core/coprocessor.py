"""What a processor without x87 makes of x87's instructions (SDM 3A 2.5, table 2-3; SDM 3B, "Intel486 SX Processor").

With CR0.EM or CR0.TS they all raise #NM, for software that emulates or switches the state. Else those by which programs find
out whether there is one go through without doing anything, as on an Intel486 SX: FNINIT, and FNSTCW and FNSTSW, which store
FFFFH, as nobody drives the bus. Everything else is #UD.
"""

import cython

ESCAPE_OTHER = cython.declare(cython.int, 0)
ESCAPE_INIT = cython.declare(cython.int, 1)
ESCAPE_STORE = cython.declare(cython.int, 2)
ESCAPE_STORE_AX = cython.declare(cython.int, 3)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_escape(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """D8 to DF; Insn.imm says which of those that are told apart."""
    if cpu.cr0 & (CR0_EM | CR0_TS):
        return raise_plain(cpu, EXC_NM)
    if insn.imm == ESCAPE_INIT:
        return NEXT
    if insn.imm == ESCAPE_STORE:
        return write_rm(cpu, insn, 2, 0xFFFF)
    if insn.imm == ESCAPE_STORE_AX:
        set_reg(cpu, RAX, 2, 0xFFFF)
        return NEXT
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_wait(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """WAIT: there are no x87 exceptions to wait for, but a task's state may have to be switched first."""
    if cpu.cr0 & CR0_MP and cpu.cr0 & CR0_TS:
        return raise_plain(cpu, EXC_NM)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_escapes() -> cython.void:
    """D8 to DF, and WAIT."""
    code: cython.int
    i: cython.int
    group: cython.pointer(Opcode)
    put_operation(MAP_ONE, 0x9B, 0, IMM_NONE, op_wait)
    for code in range(0xD8, 0xE0):
        group = put_group(MAP_ONE, code, 0, IMM_NONE)
        for i in range(8):
            member_operation(group, i, 0, IMM_CONSTANT, op_escape)
            group[i].constant = group[8 + i].constant = ESCAPE_OTHER
        if code == 0xD9 or code == 0xDD:  # FNSTCW, FNSTSW
            group[7].constant = ESCAPE_STORE
        if code == 0xDB:  # FNINIT
            for i in range(8):
                by_rm(group, 4, i, ESCAPE_INIT if i == 3 else ESCAPE_OTHER, op_escape)
        if code == 0xDF:  # FNSTSW AX
            for i in range(8):
                by_rm(group, 4, i, ESCAPE_STORE_AX if i == 0 else ESCAPE_OTHER, op_escape)
