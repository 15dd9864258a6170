"""Debug registers: breakpoints, watchpoints, traps."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_data_breakpoints(cpu: cython.pointer(Cpu), gva: u64, size: cython.int, access: cython.int) -> cython.void:
    """Add the DR6 bits of data breakpoints that an access hits to cpu.pending_debug."""
    pass


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_code_breakpoints(cpu: cython.pointer(Cpu), gva: u64) -> cython.int:
    """Instruction breakpoints at a linear address (unless RF): NEXT, or FAULT with #DB."""
    return NEXT
