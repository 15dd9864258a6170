"""Arithmetic flags, kept lazily.

An instruction leaves its result and three numbers x, y, z, sign-extended to 64 bits, such that CF, OF and AF are those of
the addition x + y = z: an addition leaves (a, b, result), a subtraction a - b leaves (result, b, a), because a borrow of
a - b is the carry of result + b. CF is the sign of maj(x, y, not z), OF the sign of (x^z)&(y^z), AF bit 4 of x^y^z, for every
operand size alike. ZF is kept beside the result because some instructions set flags that no result could have.
"""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def flag_cf(cpu: cython.pointer(Cpu)) -> u64:
    """CF, 0 or 1."""
    x: u64 = cpu.flag_x
    y: u64 = cpu.flag_y
    return ((x & y) | ((x | y) & ~cpu.flag_z)) >> 63


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def flag_of(cpu: cython.pointer(Cpu)) -> u64:
    """OF, 0 or 1."""
    z: u64 = cpu.flag_z
    return ((cpu.flag_x ^ z) & (cpu.flag_y ^ z)) >> 63


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def flag_af(cpu: cython.pointer(Cpu)) -> u64:
    """AF, 0 or 1."""
    return ((cpu.flag_x ^ cpu.flag_y ^ cpu.flag_z) >> 4) & 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def flag_zf(cpu: cython.pointer(Cpu)) -> u64:
    """ZF, 0 or 1."""
    return cpu.flag_zero == 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def flag_sf(cpu: cython.pointer(Cpu)) -> u64:
    """SF, 0 or 1."""
    return cpu.flag_result >> 63


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def flag_pf(cpu: cython.pointer(Cpu)) -> u64:
    """PF, 0 or 1."""
    low: u64 = cpu.flag_result & 0xFF
    low ^= low >> 4
    return (cython.cast(u64, 0x9669) >> (low & 15)) & 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_carry_overflow_adjust(cpu: cython.pointer(Cpu), cf: u64, of: u64, af: u64) -> cython.void:
    """Set CF, OF and AF (each 0 or 1) directly; the other flags stay."""
    cpu.flag_x = cf << 63
    cpu.flag_y = cf << 63
    cpu.flag_z = ((cf ^ of) << 63) | (af << 4)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_cf(cpu: cython.pointer(Cpu), cf: u64) -> cython.void:
    """Set CF (0 or 1) alone."""
    set_carry_overflow_adjust(cpu, cf, flag_of(cpu), flag_af(cpu))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_zf(cpu: cython.pointer(Cpu), zf: u64) -> cython.void:
    """Set ZF (0 or 1) alone."""
    cpu.flag_zero = zf ^ 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_arithmetic_flags(cpu: cython.pointer(Cpu), value: u64) -> cython.void:
    """Set the six arithmetic flags from an RFLAGS image."""
    set_carry_overflow_adjust(cpu, value & 1, (value >> 11) & 1, (value >> 4) & 1)
    cpu.flag_zero = ((value >> 6) & 1) ^ 1
    # A low byte of 0 has even parity, of 1 odd; the sign is apart from it.
    cpu.flag_result = (((value >> 7) & 1) << 63) | (((value >> 2) & 1) ^ 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def arithmetic_flags(cpu: cython.pointer(Cpu)) -> u64:
    """The six arithmetic flags at their places in RFLAGS."""
    return (
        flag_cf(cpu)
        | (flag_pf(cpu) << 2)
        | (flag_af(cpu) << 4)
        | (flag_zf(cpu) << 6)
        | (flag_sf(cpu) << 7)
        | (flag_of(cpu) << 11)
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def get_rflags(cpu: cython.pointer(Cpu)) -> u64:
    """RFLAGS, whole."""
    return cpu.rflags | arithmetic_flags(cpu) | FLAG_ONE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_rflags(cpu: cython.pointer(Cpu), value: u64) -> cython.void:
    """Set all of RFLAGS as given, unchecked, and everything that hangs on them: TF, AC and VM change the mode."""
    set_arithmetic_flags(cpu, value)
    cpu.rflags = (value & 0x3FFFFF & ~cython.cast(u64, FLAGS_ARITHMETIC)) | FLAG_ONE
    update_mode(cpu)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def condition(cpu: cython.pointer(Cpu), code: cython.int) -> cython.bint:
    """Whether the condition `code` (the low four bits of Jcc, SETcc, CMOVcc; SDM 1 B.1) holds."""
    truth: u64
    kind: cython.int = code >> 1
    if kind == 0:
        truth = flag_of(cpu)
    elif kind == 1:
        truth = flag_cf(cpu)
    elif kind == 2:
        truth = flag_zf(cpu)
    elif kind == 3:
        truth = flag_cf(cpu) | flag_zf(cpu)
    elif kind == 4:
        truth = flag_sf(cpu)
    elif kind == 5:
        truth = flag_pf(cpu)
    elif kind == 6:
        truth = flag_sf(cpu) ^ flag_of(cpu)
    else:
        truth = (flag_sf(cpu) ^ flag_of(cpu)) | flag_zf(cpu)
    return truth != cython.cast(u64, code & 1)
