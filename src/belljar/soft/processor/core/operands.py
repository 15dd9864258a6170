"""Where an instruction's operands are: registers by byte offset, memory by effective address."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def slot(cpu: cython.pointer(Cpu), offset: cython.uint) -> u64:
    """The 8-byte slot at a byte offset of Cpu."""
    return cython.cast(cython.pointer(u64), cython.cast(cython.pointer(u8), cpu) + offset)[0]


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def get_reg(cpu: cython.pointer(Cpu), offset: cython.uint, size: cython.int) -> u64:
    """A register operand, zero-extended."""
    return load(cython.cast(cython.pointer(u8), cpu) + offset, size)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def set_reg(cpu: cython.pointer(Cpu), offset: cython.uint, size: cython.int, value: u64) -> cython.void:
    """Write a register operand; 32 bits clear the upper half, 8 and 16 leave the rest (SDM 1 3.4.1.1)."""
    if size == 4:
        store(cython.cast(cython.pointer(u8), cpu) + offset, 8, value & LOW32)
    else:
        store(cython.cast(cython.pointer(u8), cpu) + offset, size, value)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def sign_extend(value: u64, size: cython.int) -> u64:
    """The low `size` bytes of a number, sign-extended to 64 bits."""
    if size == 1:
        return cython.cast(u64, cython.cast(i64, cython.cast(i8, value)))
    if size == 2:
        return cython.cast(u64, cython.cast(i64, cython.cast(i16, value)))
    if size == 4:
        return cython.cast(u64, cython.cast(i64, cython.cast(i32, value)))
    return value


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def insn_segment(insn: cython.pointer(Insn)) -> cython.int:
    """The number of the segment that a memory operand lies in."""
    return insn.length_segment >> 4


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def insn_length(insn: cython.pointer(Insn)) -> cython.int:
    """The length of the instruction in bytes."""
    return insn.length_segment & 15


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def operand_size(insn: cython.pointer(Insn)) -> cython.int:
    """The operand size in bytes: 1, 2, 4 or 8."""
    return 1 << ((insn.flags & INSN_OSIZE) >> INSN_OSIZE_SHIFT)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def address_mask(insn: cython.pointer(Insn)) -> u64:
    """The mask of the address size: 64, 32 or 16 ones."""
    size: cython.int = insn.flags & INSN_ASIZE
    if size == 0:
        return ALL_ONES
    return LOW32 if size == 1 else cython.cast(u64, 0xFFFF)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def effective_sum(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> u64:
    """Base, scaled index and displacement, not yet cut to the address size."""
    return slot(cpu, insn.base) + (slot(cpu, insn.index) << (insn.scale & 63)) + cython.cast(u64, cython.cast(i64, insn.disp))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def effective_address(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> u64:
    """The offset of the memory operand in its segment."""
    return effective_sum(cpu, insn) & address_mask(insn)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def operand_slow(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), size: cython.int, access: cython.int) -> cython.pointer(u8):
    """The memory operand where address size, segment rights or limits matter: a pointer, or NULL with memory_status."""
    return access_memory(cpu, insn_segment(insn), effective_address(cpu, insn), size, access)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def read_operand(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), size: cython.int) -> cython.pointer(u8):
    """Where to read the memory operand of `size` bytes; NULL: cpu.memory_status."""
    if likely((insn.flags & INSN_PLAIN) == 0):
        return read_at(cpu, insn_segment(insn), effective_sum(cpu, insn) + slot(cpu, insn.segment), size)
    return operand_slow(cpu, insn, size, ACCESS_READ)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def write_operand(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), size: cython.int) -> cython.pointer(u8):
    """Where to write the memory operand of `size` bytes; cpu.bounce wants `commit`; NULL: memory_status."""
    if likely((insn.flags & INSN_PLAIN) == 0):
        return write_at(cpu, insn_segment(insn), effective_sum(cpu, insn) + slot(cpu, insn.segment), size)
    return operand_slow(cpu, insn, size, ACCESS_WRITE)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def modify_operand(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), size: cython.int) -> cython.pointer(u8):
    """`write_operand` for instructions that read the operand first."""
    if likely((insn.flags & INSN_PLAIN) == 0):
        return modify_at(cpu, insn_segment(insn), effective_sum(cpu, insn) + slot(cpu, insn.segment), size)
    return operand_slow(cpu, insn, size, ACCESS_WRITE | ACCESS_MODIFY)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_rm(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), size: cython.int, value: cython.pointer(u64)) -> cython.int:
    """For complex operations: the r/m operand, register or memory, zero-extended: NEXT, FAULT or EXIT."""
    place: cython.pointer(u8)
    if not insn.flags & INSN_MEM:
        value[0] = get_reg(cpu, insn.rm, size)
        return NEXT
    place = read_operand(cpu, insn, size)
    if place == cython.NULL:
        return cpu.memory_status
    value[0] = load(place, size)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_rm(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), size: cython.int, value: u64) -> cython.int:
    """For complex operations: write the r/m operand, register or memory: NEXT, FAULT or EXIT."""
    place: cython.pointer(u8)
    if not insn.flags & INSN_MEM:
        set_reg(cpu, insn.rm, size, value)
        return NEXT
    place = write_operand(cpu, insn, size)
    if place == cython.NULL:
        return cpu.memory_status
    store(place, size, value)
    if place == cpu.bounce:
        commit(cpu)
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def end_block(cpu: cython.pointer(Cpu)) -> cython.int:
    """For complex operations that are done but changed what decoding or translation depends on: answers BRANCH."""
    cpu.rip = cpu.next_rip
    return BRANCH
