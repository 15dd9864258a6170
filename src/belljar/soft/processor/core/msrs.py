"""RDMSR and WRMSR."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdmsr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDMSR."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_wrmsr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """WRMSR."""
    return raise_plain(cpu, EXC_UD)
