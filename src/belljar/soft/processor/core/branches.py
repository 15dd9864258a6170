"""Near branches, and how one block leads to the next.

A branch leaves its block by jumping to the first handler of the block it leads to, which it remembers in the Chain that
follows it. A block may be entered so when it is bound to the target's linear address under the present cpu.bind, which
changes with mode, privilege and every TLB flush; when the slice has instructions enough left for all of it; and when
nothing waits for attention. Otherwise the run loop takes over.
"""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def enterable(cpu: cython.pointer(Cpu), block: cython.pointer(Block), gva: u64) -> cython.bint:
    """Whether a block may be entered for `gva` right now; if so its instructions are taken off the slice."""
    rest: i64
    if unlikely(block.linear != gva or block.bind != cpu.bind):
        return False
    rest = cpu.remaining - block.count
    if unlikely(rest < 0 or cython.cast(cython.pointer(u64), cython.address(cpu.events))[0] != 0):
        return False
    cpu.remaining = rest
    return True


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def enter_block(cpu: cython.pointer(Cpu), block: cython.pointer(Block)) -> cython.int:
    """Jump to a block's first handler."""
    insns: cython.pointer(Insn) = cython.cast(cython.pointer(Insn), block + 1)
    return insns[0].handler(cpu, insns)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def jump_hash(gva: u64) -> u64:
    """Where in the look-up table a linear address has its place."""
    return (gva ^ (gva >> JUMP_BITS)) & ((1 << JUMP_BITS) - 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def follow(cpu: cython.pointer(Cpu), gva: u64, chain: cython.pointer(cython.pointer(Block))) -> cython.int:
    """A branch whose chain led nowhere: look the block up, remember it, go there; or leave it to the run loop."""
    block: cython.pointer(Block) = cpu.jumps[jump_hash(gva)]
    if not enterable(cpu, block, gva):
        return BRANCH
    chain[0] = block
    return enter_block(cpu, block)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def branch_indirect(cpu: cython.pointer(Cpu), gva: u64) -> cython.int:
    """The end of an indirect branch, cpu.rip already set: through the look-up table."""
    block: cython.pointer(Block) = cpu.jumps[jump_hash(gva)]
    if likely(enterable(cpu, block, gva)):
        return enter_block(cpu, block)
    return BRANCH


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def branch_chained(cpu: cython.pointer(Cpu), gva: u64, chain: cython.pointer(cython.pointer(Block))) -> cython.int:
    """The end of a direct branch, cpu.rip already set: through its chain."""
    block: cython.pointer(Block) = chain[0]
    if likely(enterable(cpu, block, gva)):
        return enter_block(cpu, block)
    return follow(cpu, gva, chain)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def chain_taken(insn: cython.pointer(Insn)) -> cython.pointer(cython.pointer(Block)):
    """Where a branch remembers its target."""
    return cython.address(cython.cast(cython.pointer(Chain), insn + 1).taken)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def chain_fallthrough(insn: cython.pointer(Insn)) -> cython.pointer(cython.pointer(Block)):
    """Where a conditional branch remembers what comes when it is not taken."""
    return cython.address(cython.cast(cython.pointer(Chain), insn + 1).fallthrough)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def canonical_48(gva: u64) -> cython.bint:
    """Canonical in the common case of 48 bits."""
    return cython.cast(u64, cython.cast(i64, gva << 16) >> 16) == gva


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def bad_target(cpu: cython.pointer(Cpu), rip: u64) -> cython.bint:
    """Whether a branch of 64-bit mode to `rip` must fault."""
    return unlikely(not canonical_48(rip)) and not is_canonical(cpu, rip)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def bad_target_small(cpu: cython.pointer(Cpu), rip: u64) -> cython.bint:
    """Whether a branch outside 64-bit mode to `rip` must fault: beyond the limit of CS."""
    return unlikely(rip > cpu.segment[CS].limit)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def target_small(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> u64:
    """A relative branch's target outside 64-bit mode: cut to the operand size."""
    rip: u64 = (cpu.rip + insn.imm) & LOW32
    return rip & 0xFFFF if operand_size(insn) == 2 else rip


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def after(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> u64:
    """The address of the next instruction, not cut to any size."""
    return cpu.rip + insn.offset + insn_length(insn)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def go_direct(cpu: cython.pointer(Cpu), rip: u64, chain: cython.pointer(cython.pointer(Block))) -> cython.int:
    """Outside 64-bit mode: commit RIP and go on through the chain, if CS is flat."""
    cpu.rip = rip
    if cpu.mode & MODE_CHECK_CS:
        return BRANCH
    return branch_chained(cpu, rip, chain)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def end_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """What a block without a branch ends with, in 64-bit mode. Not an instruction: `number` is the block's count."""
    cpu.rip += insn.offset
    return branch_chained(cpu, cpu.rip, chain_taken(insn))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def end_small(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """What a block without a branch ends with outside 64-bit mode."""
    return go_direct(cpu, (cpu.rip + insn.offset) & LOW32, chain_taken(insn))


# each jcc_64: CC=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def jcc_64_CC(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """Jcc in 64-bit mode."""
    rip: u64
    if condition(cpu, CC):
        rip = cpu.rip + insn.imm
        if bad_target(cpu, rip):
            return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
        cpu.rip = rip
        return branch_chained(cpu, rip, chain_taken(insn))
    rip = after(cpu, insn)
    cpu.rip = rip
    return branch_chained(cpu, rip, chain_fallthrough(insn))


# each jcc_small: CC=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def jcc_small_CC(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """Jcc outside 64-bit mode."""
    rip: u64
    if condition(cpu, CC):
        rip = target_small(cpu, insn)
        if bad_target_small(cpu, rip):
            return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
        return go_direct(cpu, rip, chain_taken(insn))
    return go_direct(cpu, after(cpu, insn) & LOW32, chain_fallthrough(insn))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def jmp_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """JMP rel in 64-bit mode."""
    rip: u64 = cpu.rip + insn.imm
    if bad_target(cpu, rip):
        return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    cpu.rip = rip
    return branch_chained(cpu, rip, chain_taken(insn))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def jmp_small(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """JMP rel outside 64-bit mode."""
    rip: u64 = target_small(cpu, insn)
    if bad_target_small(cpu, rip):
        return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    return go_direct(cpu, rip, chain_taken(insn))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CALL rel in 64-bit mode."""
    rip: u64 = cpu.rip + insn.imm
    sp: u64 = cpu.gpr[RSP] - 8
    place: cython.pointer(u8)
    if bad_target(cpu, rip):
        return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    place = write_at(cpu, SS, sp, 8)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, 8, after(cpu, insn))
    if unlikely(place == cpu.bounce):
        commit(cpu)
    cpu.gpr[RSP] = sp
    cpu.rip = rip
    return branch_chained(cpu, rip, chain_taken(insn))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_to(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), rip: u64) -> cython.int:
    """A near call the general way: checks, push of the return address, commit; the run loop goes on."""
    size: cython.int = operand_size(insn)
    sp: u64 = cpu.gpr[RSP] - size
    place: cython.pointer(u8)
    back: u64 = after(cpu, insn)
    if (cpu.mode & MODE_CODE) == 0:
        if bad_target(cpu, rip):
            return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    elif bad_target_small(cpu, rip):
        return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    place = access_memory(cpu, SS, sp & stack_mask(cpu), size, ACCESS_WRITE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    store(place, size, back)
    if unlikely(place == cpu.bounce):
        commit(cpu)
    set_sp(cpu, sp)
    cpu.rip = rip
    if cpu.mode & MODE_CHECK_CS:
        return BRANCH
    return branch_indirect(cpu, rip)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_small(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CALL rel outside 64-bit mode."""
    return call_to(cpu, insn, target_small(cpu, insn))


# each jmp_r: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def jmp_r_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """JMP register."""
    return jump_to(cpu, insn, get_reg(cpu, insn.rm, SIZE))


# each jmp_m: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def jmp_m_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """JMP memory."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    return jump_to(cpu, insn, load(place, SIZE))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def jump_to(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), rip: u64) -> cython.int:
    """An indirect near jump."""
    if likely((cpu.mode & MODE_CODE) == 0):
        if bad_target(cpu, rip):
            return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
        cpu.rip = rip
        return branch_indirect(cpu, rip)
    if bad_target_small(cpu, rip):
        return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    cpu.rip = rip
    if cpu.mode & MODE_CHECK_CS:
        return BRANCH
    return branch_indirect(cpu, rip)


# each call_r: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_r_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CALL register."""
    return call_to(cpu, insn, get_reg(cpu, insn.rm, SIZE))


# each call_m: SIZE=1,2,4,8
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_m_SIZE(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CALL memory."""
    place: cython.pointer(u8) = read_operand(cpu, insn, SIZE)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    return call_to(cpu, insn, load(place, SIZE))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def ret_64(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RET, RET imm16 (insn.imm) in 64-bit mode."""
    sp: u64 = cpu.gpr[RSP]
    rip: u64
    place: cython.pointer(u8) = read_at(cpu, SS, sp, 8)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    rip = load(place, 8)
    if bad_target(cpu, rip):
        return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    cpu.gpr[RSP] = sp + 8 + insn.imm
    cpu.rip = rip
    return branch_indirect(cpu, rip)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def ret_small(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RET, RET imm16 outside 64-bit mode."""
    size: cython.int = operand_size(insn)
    sp: u64 = cpu.gpr[RSP]
    rip: u64
    place: cython.pointer(u8) = access_memory(cpu, SS, sp & stack_mask(cpu), size, ACCESS_READ)
    if unlikely(place == cython.NULL):
        return leave_fault(cpu, insn)
    rip = load(place, size)
    if bad_target_small(cpu, rip):
        return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    set_sp(cpu, sp + size + insn.imm)
    cpu.rip = rip
    if cpu.mode & MODE_CHECK_CS:
        return BRANCH
    return branch_indirect(cpu, rip)


# each loop_branch: KIND=0,1,2,3
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def loop_branch_KIND(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LOOPNE (0), LOOPE (1), LOOP (2), JCXZ (3): the counter has the address size."""
    mask: u64 = address_mask(insn)
    count: u64 = cpu.gpr[RCX] & mask
    taken: cython.bint
    rip: u64
    if KIND == 3:
        taken = count == 0
    else:
        count = (count - 1) & mask
        taken = count != 0
        if KIND == 0:
            taken = taken and flag_zf(cpu) == 0
        elif KIND == 1:
            taken = taken and flag_zf(cpu) != 0
    rip = after(cpu, insn)
    if taken:
        rip = cpu.rip + insn.imm
    if (cpu.mode & MODE_CODE) == 0:
        if taken and bad_target(cpu, rip):
            return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    else:
        rip &= LOW32
        if taken and operand_size(insn) == 2:
            rip &= 0xFFFF
        if taken and bad_target_small(cpu, rip):
            return leave(cpu, insn, raise_fault(cpu, EXC_GP, 0))
    if KIND != 3:
        if mask == 0xFFFF:
            set_reg(cpu, 8 * RCX, 2, count)
        else:
            cpu.gpr[RCX] = count
    return go_direct(cpu, rip, chain_taken(insn) if taken else chain_fallthrough(insn))
