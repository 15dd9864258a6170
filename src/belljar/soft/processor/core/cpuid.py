"""CPUID and the features behind it."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def has_feature(cpu: cython.pointer(Cpu), feature: cython.int) -> cython.bint:
    """Whether the processor has a FEATURE_*."""
    return (cpu.features[0] >> feature) & 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_cpuid(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CPUID."""
    return raise_plain(cpu, EXC_UD)
