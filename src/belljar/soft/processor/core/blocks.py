"""."""
import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def code_written(host: cython.pointer(Host), hpa: u64, size: cython.int) -> cython.bint:
    """Invalidate the blocks decoded from bytes that were written; whether there were any."""
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def update_mode(cpu: cython.pointer(Cpu)) -> cython.void:
    """Derive what follows from CR0, CR4, EFER, CS, SS, RFLAGS and DR7; call it after any change of them."""
    pass
