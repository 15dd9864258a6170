"""Memory type range registers (SDM 3A 12.11): held and checked as the manual says; all memory behaves as write-back."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_mtrr_type(kind: u64) -> cython.bint:
    """Uncacheable, write-combining, write-through, write-protected or write-back (SDM 3A table 12-8)."""
    return kind == 0 or kind == 1 or (kind >= 4 and kind <= 6)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mtrr_fixed_slot(index: u32) -> cython.int:
    """Which of the fixed-range registers an MSR is; -1 if it is none."""
    if index == MSR_MTRR_FIX64K:
        return 0
    if index == MSR_MTRR_FIX16K or index == MSR_MTRR_FIX16K + 1:
        return 1 + cython.cast(cython.int, index - MSR_MTRR_FIX16K)
    if index >= MSR_MTRR_FIX4K and index < MSR_MTRR_FIX4K + 8:
        return 3 + cython.cast(cython.int, index - MSR_MTRR_FIX4K)
    return -1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_mtrr(cpu: cython.pointer(Cpu), index: u32, value: cython.pointer(u64)) -> cython.bint:
    """False if it is no MTRR."""
    if index == MSR_MTRRCAP:
        value[0] = MTRRCAP
    elif index == MSR_MTRR_DEFAULT:
        value[0] = cpu.mtrr_default
    elif index >= MSR_MTRR_VARIABLE and index < MSR_MTRR_VARIABLE + 2 * MTRRS:
        value[0] = cpu.mtrr_variable[index - MSR_MTRR_VARIABLE]
    elif mtrr_fixed_slot(index) >= 0:
        value[0] = cpu.mtrr_fixed[mtrr_fixed_slot(index)]
    else:
        return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_mtrr(cpu: cython.pointer(Cpu), index: u32, value: u64) -> cython.bint:
    """False if it is no MTRR, or cannot hold the value: reserved bits and types (SDM 3A 12.11.2)."""
    i: cython.int
    if index == MSR_MTRR_DEFAULT:
        if value & ~cython.cast(u64, MTRR_DEFAULT_BITS) or not is_mtrr_type(value & 0xFF):
            return False
        cpu.mtrr_default = value
    elif index >= MSR_MTRR_VARIABLE and index < MSR_MTRR_VARIABLE + 2 * MTRRS:
        if value >> PHYSICAL_BITS:
            return False
        if index & 1:
            if value & (MTRR_VALID - 1):
                return False
        elif value & 0xF00 or not is_mtrr_type(value & 0xFF):
            return False
        cpu.mtrr_variable[index - MSR_MTRR_VARIABLE] = value
    elif mtrr_fixed_slot(index) >= 0:
        for i in range(8):
            if not is_mtrr_type((value >> (8 * i)) & 0xFF):
                return False
        cpu.mtrr_fixed[mtrr_fixed_slot(index)] = value
    else:
        return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reset_mtrrs(cpu: cython.pointer(Cpu)) -> cython.void:
    """All ranges off; the default type is uncacheable (SDM 3A 12.11.5)."""
    i: cython.int
    cpu.mtrr_default = 0
    for i in range(MTRR_FIXED):
        cpu.mtrr_fixed[i] = 0
    for i in range(2 * MTRRS):
        cpu.mtrr_variable[i] = 0
