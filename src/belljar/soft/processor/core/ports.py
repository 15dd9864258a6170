"""IN, OUT, INS and OUTS: the permission of IOPL and the TSS's bitmap, then the VM's controls, then the port (SDM 1 19.5)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def port_fault(cpu: cython.pointer(Cpu), port: u32, size: cython.int) -> cython.int:
    """Whether a program may touch `size` ports: NEXT, #GP(0), or FAULT or EXIT from reading the TSS."""
    map_at: u64 = 0
    bits: u64 = 0
    limit: u64 = cpu.segment[TR].limit
    status: cython.int
    if not cpu.cr0 & CR0_PE or (cpu.cpl <= io_privilege(cpu) and not in_v86(cpu)):
        return NEXT
    if not cpu.segment[TR].attributes & 8 or cpu.segment[TR].attributes & AR_UNUSABLE or limit < 0x67:
        return raise_fault(cpu, EXC_GP, 0)
    status = system_read(cpu, cpu.base[TR] + 0x66, 2, cython.address(map_at))
    if status != NEXT:
        return status
    map_at += port >> 3
    # Two bytes are always read, so the map needs one byte of ones behind its last.
    if map_at + 1 > limit:
        return raise_fault(cpu, EXC_GP, 0)
    status = system_read(cpu, cpu.base[TR] + map_at, 2, cython.address(bits))
    if status != NEXT:
        return status
    if (bits >> (port & 7)) & ((cython.cast(u64, 1) << size) - 1):
        return raise_fault(cpu, EXC_GP, 0)
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def insn_port(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> u32:
    """The port of IN and OUT: the immediate, or DX."""
    return cython.cast(u32, cpu.gpr[RDX] & 0xFFFF) if insn.imm < 0 else cython.cast(u32, insn.imm & 0xFF)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def port_access(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), port: u32, size: cython.int, is_in: cython.bint, gva: u64, string: cython.bint) -> cython.int:
    """Permission, then the VM's controls: NEXT, FAULT, EXIT, or OUTSIDE: a repetition of no items, which ends here."""
    status: cython.int = port_fault(cpu, port, size)
    if status != NEXT:
        return status
    if string and string_is_over(cpu, insn):
        return OUTSIDE
    cpu.io_string = string
    return vmx_io(cpu, insn, port, size, is_in, gva)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_in(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """IN AL/AX/EAX, imm8 or DX: insn.imm the port or -1 for DX; size from operation_size."""
    size: cython.int = min_port_size(operand_size(insn))
    port: u32 = insn_port(cpu, insn)
    status: cython.int = port_access(cpu, insn, port, size, True, 0, False)
    if status != NEXT:
        return status
    set_reg(cpu, RAX * 8, size, port_in(cpu, port, size))
    cpu.pending_debug |= io_breakpoints(cpu, port, size)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_out(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OUT."""
    size: cython.int = min_port_size(operand_size(insn))
    port: u32 = insn_port(cpu, insn)
    status: cython.int = port_access(cpu, insn, port, size, False, 0, False)
    if status != NEXT:
        return status
    port_out(cpu, port, size, get_reg(cpu, RAX * 8, size))
    cpu.pending_debug |= io_breakpoints(cpu, port, size)
    return end_block(cpu)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def min_port_size(size: cython.int) -> cython.int:
    """Ports are 1, 2 or 4 bytes wide; REX.W changes nothing."""
    return 4 if size == 8 else size


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def step_string_register(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), number: cython.int, size: cython.int) -> cython.void:
    """Advance RSI or RDI by one item, in the address size."""
    mask: u64 = address_mask(insn)
    value: u64 = cpu.gpr[number]
    value = value - size if cpu.rflags & FLAG_DF else value + size
    if mask == 0xFFFF:
        cpu.gpr[number] = (cpu.gpr[number] & ~mask) | (value & mask)
    else:
        cpu.gpr[number] = value & mask


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def end_string_item(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), port: u32, size: cython.int) -> cython.int:
    """After one item of INS or OUTS: breakpoints, and with REP the count: AGAIN while items are left, else BRANCH."""
    mask: u64 = address_mask(insn)
    left: u64
    cpu.pending_debug |= io_breakpoints(cpu, port, size)
    if not insn.flags & (INSN_REP | INSN_REPNE):
        return end_block(cpu)
    left = (cpu.gpr[RCX] - 1) & mask
    if mask == 0xFFFF:
        cpu.gpr[RCX] = (cpu.gpr[RCX] & ~mask) | left
    else:
        cpu.gpr[RCX] = left
    return AGAIN if left else end_block(cpu)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def string_is_over(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.bint:
    """A repeated string instruction with a count of 0 does nothing, not even check."""
    return (insn.flags & (INSN_REP | INSN_REPNE)) != 0 and not cpu.gpr[RCX] & address_mask(insn)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_ins(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INS, REP INS."""
    size: cython.int = min_port_size(operand_size(insn))
    port: u32 = cython.cast(u32, cpu.gpr[RDX] & 0xFFFF)
    offset: u64 = cpu.gpr[RDI] & address_mask(insn)
    place: cython.pointer(u8)
    status: cython.int
    status = port_access(cpu, insn, port, size, True, offset + (0 if in_long_code(cpu) else cpu.base[ES]), True)
    if status == OUTSIDE:
        return NEXT
    if status != NEXT:
        return status
    # The place must be good before the port is read: reading may have side effects.
    place = access_memory(cpu, ES, offset, size, ACCESS_WRITE)
    if place == cython.NULL:
        return cpu.memory_status
    store(place, size, port_in(cpu, port, size))
    if place == cpu.bounce:
        commit(cpu)
    step_string_register(cpu, insn, RDI, size)
    return end_string_item(cpu, insn, port, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_outs(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """OUTS, REP OUTS."""
    size: cython.int = min_port_size(operand_size(insn))
    port: u32 = cython.cast(u32, cpu.gpr[RDX] & 0xFFFF)
    offset: u64 = cpu.gpr[RSI] & address_mask(insn)
    segment: cython.int = insn_segment(insn)
    value: u64 = 0
    status: cython.int
    status = port_access(
        cpu, insn, port, size, False, offset + (0 if in_long_code(cpu) and segment < FS else cpu.base[segment]), True
    )
    if status == OUTSIDE:
        return NEXT
    if status == NEXT:
        status = read_memory(cpu, segment, offset, size, cython.address(value))
    if status != NEXT:
        return status
    port_out(cpu, port, size, value)
    step_string_register(cpu, insn, RSI, size)
    return end_string_item(cpu, insn, port, size)
