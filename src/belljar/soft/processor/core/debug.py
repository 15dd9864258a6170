"""Debug registers: breakpoints, watchpoints, and the moves to and from them (SDM 3B 18.2)."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def debug_length(cpu_dr7: u64, number: cython.int) -> u64:
    """How many bytes breakpoint `number` covers: LEN 0, 1, 2, 3 stand for 1, 2, 8, 4 (SDM 3B 18.2.4)."""
    code: u64 = (cpu_dr7 >> (18 + 4 * number)) & 3
    return 8 if code == 2 else code + 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def debug_kind(cpu_dr7: u64, number: cython.int) -> u64:
    """What breakpoint `number` watches: 0 execution, 1 writes, 2 I/O (CR4.DE), 3 reads and writes; 4 if it is not enabled."""
    if not (cpu_dr7 >> (2 * number)) & 3:
        return 4
    return (cpu_dr7 >> (16 + 4 * number)) & 3


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def debug_overlaps(cpu: cython.pointer(Cpu), number: cython.int, at: u64, size: u64) -> cython.bint:
    """Whether an access touches the bytes that breakpoint `number` covers; its address counts from its alignment on."""
    length: u64 = debug_length(cpu.dr[7], number)
    first: u64 = cpu.dr[number] & ~(length - 1)
    return at - first < length or first - at < size


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_data_breakpoints(cpu: cython.pointer(Cpu), gva: u64, size: cython.int, access: cython.int) -> cython.void:
    """Add the DR6 bits of data breakpoints that an access hits to cpu.pending_debug."""
    write: cython.bint = (access & ACCESS_KIND) == ACCESS_WRITE
    kind: u64
    i: cython.int
    for i in range(4):
        kind = debug_kind(cpu.dr[7], i)
        if (kind == 3 or (kind == 1 and write)) and debug_overlaps(cpu, i, gva, size):
            cpu.pending_debug |= cython.cast(u64, 1) << i


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def check_code_breakpoints(cpu: cython.pointer(Cpu), gva: u64) -> cython.int:
    """Instruction breakpoints at a linear address (unless RF): NEXT, or FAULT with #DB."""
    hits: u64 = 0
    i: cython.int
    if cpu.rflags & FLAG_RF:
        return NEXT
    for i in range(4):
        if debug_kind(cpu.dr[7], i) == 0 and cpu.dr[i] == gva:
            hits |= cython.cast(u64, 1) << i
    return raise_debug(cpu, hits) if hits else NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def io_breakpoints(cpu: cython.pointer(Cpu), port: u32, size: cython.int) -> u64:
    """The DR6 bits of I/O breakpoints that an access to ports hits; only CR4.DE arms them (SDM 3B 18.2.4)."""
    hits: u64 = 0
    i: cython.int
    if not cpu.cr4 & CR4_DE:
        return 0
    for i in range(4):
        if debug_kind(cpu.dr[7], i) == 2 and debug_overlaps(cpu, i, port, size):
            hits |= cython.cast(u64, 1) << i
    return hits


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def commit_debug_status(cpu: cython.pointer(Cpu), dr6: u64) -> cython.void:
    """What #DB leaves in DR6, and clears: B0-B3 of before, DR7.GD, branch tracing (SDM 3B 18.2.3, 18.2.4, 18.4.1)."""
    cpu.dr[6] = (cpu.dr[6] & ~cython.cast(u64, 0xF)) | dr6 | DR6_FIXED
    cpu.dr[7] &= ~cython.cast(u64, DR7_GD)
    cpu.debugctl &= ~cython.cast(u64, 3)
    update_mode(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def debug_register_fault(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), number: cython.pointer(cython.int), write: cython.bint) -> cython.int:
    """Checks of MOV to and from DRn; number[0] becomes 6 and 7 for their aliases 4 and 5: NEXT, FAULT or EXIT.

    The VM exit comes before the privilege check and the #UD of DR4 and DR5 (SDM 3C 26.1.3).
    """
    status: cython.int
    number[0] = insn.reg >> 3
    if number[0] > 7:
        return raise_plain(cpu, EXC_UD)
    status = vmx_debug_register(cpu, number[0], write, insn.rm >> 3)
    if status != NEXT:
        return status
    if number[0] == 4 or number[0] == 5:
        if cpu.cr4 & CR4_DE:
            return raise_plain(cpu, EXC_UD)
        number[0] += 2
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    if cpu.dr[7] & DR7_GD:
        return raise_debug(cpu, DR6_BD)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_from_debug(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV r, DRn."""
    number: cython.int = 0
    status: cython.int = debug_register_fault(cpu, insn, cython.address(number), False)
    if status != NEXT:
        return status
    set_reg(cpu, insn.rm, 8 if in_long_code(cpu) else 4, cpu.dr[number])
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mov_to_debug(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MOV DRn, r."""
    number: cython.int = 0
    value: u64 = get_reg(cpu, insn.rm, 8 if in_long_code(cpu) else 4)
    status: cython.int = debug_register_fault(cpu, insn, cython.address(number), True)
    if status != NEXT:
        return status
    if number >= 6 and value > LOW32:
        return raise_fault(cpu, EXC_GP, 0)
    if number == 6:
        value = (value & DR6_WRITABLE) | DR6_FIXED
    elif number == 7:
        value = (value & DR7_WRITABLE) | DR7_FIXED
    cpu.dr[number] = value
    update_mode(cpu)
    return end_block(cpu)
