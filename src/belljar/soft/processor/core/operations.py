"""Complex operations: how a block runs one, and how an instruction leaves a block before its end."""

import cython

operations = cython.declare(Operation[256])
operation_count = cython.declare(cython.int, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def operation_number(operation: Operation) -> cython.int:
    """The index of an operation in the table, entered on first sight; 0 is nothing."""
    global operation_count
    i: cython.int
    for i in range(1, operation_count + 1):
        if operations[i] == operation:
            return i
    operation_count += 1
    operations[operation_count] = operation
    return operation_count


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def block_of(insn: cython.pointer(Insn)) -> cython.pointer(Block):
    """The block that an instruction lies in."""
    return cython.cast(cython.pointer(Block), insn - insn.number) - 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def wrap_rip(cpu: cython.pointer(Cpu), rip: u64) -> u64:
    """RIP cut to what the code size lets it be."""
    return rip if (cpu.mode & MODE_CODE) == 0 else rip & LOW32


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), status: cython.int) -> cython.int:
    """Leave the block before `insn`, which did not happen: RIP is its own, the rest of the block was not executed."""
    cpu.remaining += block_of(insn).count - insn.number
    cpu.rip = wrap_rip(cpu, cpu.rip + insn.offset)
    cpu.insn = insn
    cpu.insn_rip = cpu.rip
    cpu.next_rip = wrap_rip(cpu, cpu.rip + insn_length(insn))
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave_fault(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """Leave the block before `insn`, whose memory access answered NULL."""
    return leave(cpu, insn, cpu.memory_status)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave_after(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """Leave the block after `insn`, which is done."""
    cpu.remaining += block_of(insn).count - insn.number - 1
    cpu.rip = wrap_rip(cpu, cpu.rip + insn.offset + insn_length(insn))
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def complex_insn(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """The handler of all complex operations: everything is synchronized, then the operation runs."""
    status: cython.int
    cpu.insn = insn
    cpu.insn_rip = wrap_rip(cpu, cpu.rip + insn.offset)
    cpu.next_rip = wrap_rip(cpu, cpu.insn_rip + insn_length(insn))
    cpu.code_hit = 0
    cpu.repetitions = REPETITIONS
    status = operations[insn.operation](cpu, insn)
    if likely(status == NEXT):
        if unlikely(cpu.code_hit != 0):
            return leave_after(cpu, insn)
        return go_on(cpu, insn)
    if status == BRANCH:
        cpu.remaining += block_of(insn).count - insn.number - 1
        return BRANCH
    return leave(cpu, insn, status)
