"""Task switches."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def switch_task(cpu: cython.pointer(Cpu), selector: u32, source: cython.int, has_error: u32, error: u32) -> cython.int:
    """Switch to the task of a TSS selector (SDM 3A 7.3)."""
    return raise_fault(cpu, EXC_GP, 0)
