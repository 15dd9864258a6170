"""Exceptions and interrupts: raising, priorities, delivery through the IDT."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_fault(cpu: cython.pointer(Cpu), vector: u32, error: u32) -> cython.int:
    """Make an exception with an error code pending; answers FAULT."""
    cpu.exception = vector
    cpu.exception_kind = KIND_HARDWARE
    cpu.exception_error = error
    cpu.exception_has_error = 1
    return FAULT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_plain(cpu: cython.pointer(Cpu), vector: u32) -> cython.int:
    """Make an exception without an error code pending; answers FAULT."""
    cpu.exception = vector
    cpu.exception_kind = KIND_HARDWARE
    cpu.exception_error = 0
    cpu.exception_has_error = 0
    return FAULT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_page_fault(cpu: cython.pointer(Cpu), gva: u64, error: u32) -> cython.int:
    """Make a page fault pending; CR2 is written at delivery. Answers FAULT."""
    cpu.exception_cr2 = gva
    return raise_fault(cpu, EXC_PF, error)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_debug(cpu: cython.pointer(Cpu), dr6: u64) -> cython.int:
    """Make #DB pending with these DR6 bits; answers FAULT."""
    cpu.exception_cr2 = dr6
    return raise_plain(cpu, EXC_DB)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_exception(cpu: cython.pointer(Cpu)) -> cython.int:
    """Deliver the pending exception at cpu.rip: BRANCH at the handler, or EXIT."""
    return request_exit(cpu, EXIT_REASON_TRIPLE_FAULT, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_event(cpu: cython.pointer(Cpu), vector: u32, kind: u32, has_error: u32, error: u32, return_rip: u64) -> cython.int:
    """Deliver an event through the IDT: BRANCH, FAULT (a fault on the way) or EXIT."""
    return request_exit(cpu, EXIT_REASON_TRIPLE_FAULT, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_int3(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INT3."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_int(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INT imm8: the vector is insn.imm & 0xFF."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_into(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INTO."""
    return raise_plain(cpu, EXC_UD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_int1(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INT1 (F1)."""
    return raise_plain(cpu, EXC_UD)
