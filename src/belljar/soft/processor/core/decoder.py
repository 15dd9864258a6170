"""From bytes to a predecoded instruction (SDM 2A chapter 2)."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def fetch(d: cython.pointer(Decoder), size: cython.int, value: cython.pointer(u64)) -> cython.bint:
    """The next 1, 2, 4 or 8 bytes of the instruction, zero-extended; False: not available."""
    if d.position + size > d.available:
        return False
    value[0] = load(cython.cast(cython.pointer(u8), d.bytes) + d.position, size)
    d.position += size
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def short_of_bytes(d: cython.pointer(Decoder)) -> cython.int:
    """Why a fetch failed: the instruction is over 15 bytes long, or more must be fetched."""
    return DECODE_LONG if d.available >= 15 else DECODE_MORE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_prefixes(d: cython.pointer(Decoder)) -> cython.int:
    """Read prefixes up to the opcode's first byte, which is left in d.code. A REX prefix counts only as the last one."""
    byte: u64
    code: cython.int
    while True:
        if not fetch(d, 1, cython.address(byte)):
            return short_of_bytes(d)
        code = cython.cast(cython.int, byte)
        if code == 0x66:
            d.operand = 1
        elif code == 0x67:
            d.address = 1
        elif code == 0xF0:
            d.lock = 1
        elif code == 0xF2 or code == 0xF3:
            d.repeat = code
        elif code == 0x26 or code == 0x2E or code == 0x36 or code == 0x3E:
            if d.mode != 0:
                d.segment = (code >> 3) & 3
        elif code == 0x64 or code == 0x65:
            d.segment = FS + (code & 1)
        elif d.mode == 0 and (code & 0xF0) == 0x40:
            d.rex = code & 15
            d.has_rex = 1
            continue
        else:
            d.code = code
            return DECODED
        d.rex = 0
        d.has_rex = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_vex(d: cython.pointer(Decoder), real: cython.bint) -> cython.int:
    """Read a VEX prefix if d.code begins one: the map, or -1 if it is no VEX prefix, -2 #UD, -3 short of bytes (SDM 2A 2.3)."""
    first: u64
    second: u64
    if d.mode != 0:
        if d.position >= d.available:
            return -3
        if real or (d.bytes[d.position] & 0xC0) != 0xC0:
            return -1
    if d.operand or d.repeat or d.lock or d.has_rex:
        d.invalid = 1
        d.lock = 0
    if not fetch(d, 1, cython.address(first)):
        return -3
    d.vex = 1
    if d.code == 0xC5:
        second = first & 0x7F
        d.rex = 4 if not first & 0x80 else 0
        first = 1
    else:
        if not fetch(d, 1, cython.address(second)):
            return -3
        d.rex = cython.cast(cython.int, (~first >> 5) & 7)
        first &= 31
    if d.mode != 0:
        d.rex = 0
    d.vex_w = cython.cast(cython.int, second >> 7)
    d.vex_vvvv = cython.cast(cython.int, (~second >> 3) & 15)
    if d.mode != 0:
        d.vex_vvvv &= 7
    d.vex_l = cython.cast(cython.int, (second >> 2) & 1)
    d.vex_prefix = cython.cast(cython.int, second & 3)
    if d.vex_w and d.mode == 0:
        d.rex |= 8
    if first == 2:
        return MAP_VEX_0F38
    if first == 3:
        return MAP_VEX_0F3A
    return -2


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_opcode(d: cython.pointer(Decoder), entry: cython.pointer(cython.pointer(Opcode))) -> cython.int:
    """Read the opcode and find its entry, before any group."""
    byte: u64
    which: cython.int = MAP_ONE
    prefix: cython.int = 0
    real: cython.bint = (d.cpu.mode & MODE_REAL) != 0
    if d.code == 0x0F:
        if not fetch(d, 1, cython.address(byte)):
            return short_of_bytes(d)
        which = MAP_0F
        if byte == 0x38 or byte == 0x3A:
            which = MAP_0F38 if byte == 0x38 else MAP_0F3A
            if not fetch(d, 1, cython.address(byte)):
                return short_of_bytes(d)
        d.code = cython.cast(cython.int, byte)
    elif d.code == 0xC4 or d.code == 0xC5:
        which = decode_vex(d, real)
        if which == -1:
            which = MAP_ONE
        elif which == -2:
            return DECODE_INVALID
        elif which == -3:
            return short_of_bytes(d)
        else:
            if not fetch(d, 1, cython.address(byte)):
                return short_of_bytes(d)
            d.code = cython.cast(cython.int, byte)
    if which == MAP_ONE:
        prefix = 1 if d.code == 0x63 and d.mode == 0 else 0
    elif d.vex:
        prefix = d.vex_prefix
    elif d.repeat:
        prefix = 2 if d.repeat == 0xF3 else 3
    elif d.operand:
        prefix = 1
    entry[0] = cython.address(opcodes[((which * 4 + prefix) << 8) | d.code])
    if entry[0].flags & OP_ELSE_PLAIN and not has_feature(d.cpu, entry[0].feature):
        entry[0] = cython.address(opcodes[((which * 4 + d.operand) << 8) | d.code])
    if which > MAP_0F and not entry[0].flags & OP_VALID:
        # Its length is known all the same, and counts before #UD.
        d.invalid = 1
        entry[0] = cython.address(
            opcodes[UNKNOWN_WITH_IMMEDIATE if which == MAP_0F3A or which == MAP_VEX_0F3A else UNKNOWN_WITH_MODRM]
        )
    return DECODED


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def register_slot(d: cython.pointer(Decoder), number: cython.int, byte: cython.bint) -> u8:
    """The byte offset of a general register; without REX the byte registers 4 to 7 are AH, CH, DH, BH."""
    if byte and not d.has_rex and number >= 4 and number < 8:
        return cython.cast(u8, 8 * (number - 4) + 1)
    return cython.cast(u8, 8 * number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_address_16(d: cython.pointer(Decoder), insn: cython.pointer(Insn)) -> cython.int:
    """The memory operand of 16-bit ModRM (SDM 2A table 2-1): the default segment, or -1 short of bytes."""
    mod: cython.int = d.modrm >> 6
    rm: cython.int = d.modrm & 7
    value: u64 = 0
    if mod == 0 and rm == 6:
        if not fetch(d, 2, cython.address(value)):
            return -1
        insn.disp = cython.cast(i32, value)
        return DS
    if rm < 6:
        if rm < 4:
            insn.base = 8 * RBP if rm & 2 else 8 * RBX
            insn.index = 8 * RDI if rm & 1 else 8 * RSI
        else:
            insn.base = 8 * RDI if rm & 1 else 8 * RSI
    else:
        insn.base = 8 * RBP if rm == 6 else 8 * RBX
    if mod == 1:
        if not fetch(d, 1, cython.address(value)):
            return -1
        insn.disp = cython.cast(i32, cython.cast(i8, value))
    elif mod == 2:
        if not fetch(d, 2, cython.address(value)):
            return -1
        insn.disp = cython.cast(i32, cython.cast(i16, value))
    return SS if insn.base == 8 * RBP else DS


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_address(d: cython.pointer(Decoder), insn: cython.pointer(Insn)) -> cython.int:
    """The memory operand of 32- and 64-bit ModRM and SIB (SDM 2A tables 2-2, 2-3): the default segment, or -1."""
    mod: cython.int = d.modrm >> 6
    rm: cython.int = d.modrm & 7
    base: cython.int = rm
    sib: u64
    value: u64 = 0
    if rm == 4:
        if not fetch(d, 1, cython.address(sib)):
            return -1
        base = cython.cast(cython.int, sib & 7)
        rm = cython.cast(cython.int, (sib >> 3) & 7) | ((d.rex & 2) << 2)
        if rm != 4:
            insn.index = cython.cast(u8, 8 * rm)
            insn.scale = cython.cast(u8, sib >> 6)
        if mod == 0 and base == 5:
            base = -1
    elif mod == 0 and base == 5:
        base = -2
    if base >= 0:
        base |= (d.rex & 1) << 3
        insn.base = cython.cast(u8, 8 * base)
    elif base == -2 and d.mode == 0:
        insn.base = SLOT_RIP
    if mod == 1:
        if not fetch(d, 1, cython.address(value)):
            return -1
        insn.disp = cython.cast(i32, cython.cast(i8, value))
    elif mod == 2 or base < 0:
        if not fetch(d, 4, cython.address(value)):
            return -1
        insn.disp = cython.cast(i32, value)
    return SS if base == RSP or base == RBP else DS


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_modrm(
    d: cython.pointer(Decoder), insn: cython.pointer(Insn), entry: cython.pointer(cython.pointer(Opcode))
) -> cython.int:
    """ModRM: the group's member, the operands."""
    byte: u64
    opcode: cython.pointer(Opcode) = entry[0]
    register: cython.int
    segment: cython.int
    if not fetch(d, 1, cython.address(byte)):
        return short_of_bytes(d)
    d.modrm = cython.cast(cython.int, byte)
    if opcode.flags & OP_ALWAYS_REG:
        d.modrm |= 0xC0
    if opcode.flags & OP_GROUP:
        opcode = cython.address(opcode.group[(8 if d.modrm >= 0xC0 else 0) + ((d.modrm >> 3) & 7)])
        if opcode.flags & OP_GROUP_RM:
            opcode = cython.address(opcode.group[d.modrm & 7])
        entry[0] = opcode
        if not opcode.flags & OP_VALID:
            return DECODE_INVALID
    if opcode.flags & (OP_NO_MEM if d.modrm < 0xC0 else OP_NO_REG):
        d.invalid = 1
    register = (d.modrm >> 3) & 7
    if not opcode.flags & OP_SEGREG:
        register |= (d.rex & 4) << 1
    insn.reg = register_slot(d, register, (opcode.flags & (OP_BYTE | OP_BYTE_G)) != 0)
    if d.modrm >= 0xC0:
        insn.rm = register_slot(
            d, (d.modrm & 7) | ((d.rex & 1) << 3), (opcode.flags & (OP_BYTE | OP_BYTE_E)) != 0
        )
        return DECODED
    insn.flags |= INSN_MEM
    if (insn.flags & INSN_ASIZE) == 2:
        segment = decode_address_16(d, insn)
    else:
        segment = decode_address(d, insn)
    if segment < 0:
        return short_of_bytes(d)
    if d.segment < 0:
        d.segment = segment
    return DECODED


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_size(d: cython.pointer(Decoder), flags: u32) -> cython.int:
    """log2 of the operand size."""
    if flags & OP_BYTE:
        return 0
    if flags & OP_MODESIZE:
        return 3 if d.mode == 0 else 2
    if flags & (OP_SIZE_W1 | OP_NO_66):
        return 3 if d.rex & 8 else 2
    if d.mode == 0:
        if d.rex & 8 or flags & OP_FORCE64:
            return 3
        if d.operand:
            return 1
        return 3 if flags & OP_DEF64 else 2
    return 2 if (d.mode == 1) != (d.operand != 0) else 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_immediate(d: cython.pointer(Decoder), insn: cython.pointer(Insn), opcode: cython.pointer(Opcode)) -> cython.int:
    """The immediate, by its kind."""
    kind: cython.int = opcode.immediate
    value: u64 = 0
    second: u64 = 0
    size: cython.int = 4
    if kind == IMM_CONSTANT:
        insn.imm = opcode.constant
        return DECODED
    if kind == IMM_8 or kind == IMM_J8 or kind == IMM_U8:
        size = 1
    elif kind == IMM_16 or kind == IMM_ENTER:
        size = 2
    elif kind == IMM_OFFSET:
        size = 8 >> (insn.flags & INSN_ASIZE)
    elif d.size == 1:
        size = 2
    elif kind == IMM_V and d.size == 3:
        size = 8
    if not fetch(d, size, cython.address(value)):
        return short_of_bytes(d)
    if kind == IMM_ENTER or kind == IMM_FAR:
        if not fetch(d, 1 if kind == IMM_ENTER else 2, cython.address(second)):
            return short_of_bytes(d)
        value |= second << (16 if kind == IMM_ENTER else 32)
    elif kind != IMM_16 and kind != IMM_OFFSET and kind != IMM_U8:
        value = sign_extend(value, size)
    insn.imm = cython.cast(i64, value)
    if kind == IMM_J8 or kind == IMM_JZ:
        insn.imm += d.offset + d.position
    return DECODED


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def finish_address(d: cython.pointer(Decoder), insn: cython.pointer(Insn)) -> cython.void:
    """Segment and RIP-relative displacement, once segment and length are known."""
    segment: cython.int = d.segment if d.segment >= 0 else DS
    disp: i64
    insn.length_segment = cython.cast(u8, d.position | (segment << 4))
    if d.mode != 0 or segment >= FS:
        insn.segment = cython.cast(u8, SLOT_BASE + 8 * segment)
    if insn.base == SLOT_RIP:
        disp = cython.cast(i64, insn.disp) + d.offset + d.position
        if disp != cython.cast(i64, cython.cast(i32, disp)):
            # Past the range of 32 bits: a constant slot takes part of it.
            insn.index = SLOT_BIG
            insn.scale = 0
            disp -= 0x40000000
        insn.disp = cython.cast(i32, disp)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def clear_insn(d: cython.pointer(Decoder), insn: cython.pointer(Insn)) -> cython.void:
    """An instruction before anything is known of it."""
    memset(insn, 0, cython.sizeof(Insn))
    insn.offset = cython.cast(u16, d.offset)
    insn.base = SLOT_ZERO
    insn.index = SLOT_ZERO
    insn.segment = SLOT_ZERO


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def not_allowed(d: cython.pointer(Decoder), insn: cython.pointer(Insn), opcode: cython.pointer(Opcode)) -> cython.bint:
    """Whether a known opcode is #UD here. It is told only after its length was found good: over 15 bytes is #GP(0) first."""
    flags: u32 = opcode.flags
    if flags & (OP_NOT64 if d.mode == 0 else OP_ONLY64):
        return True
    if flags & OP_FEATURE and not flags & OP_ELSE_PLAIN and not has_feature(d.cpu, opcode.feature):
        return True
    if d.vex and (d.vex_l or (d.vex_vvvv and not flags & OP_VEX_VVVV)):
        return True
    return d.lock and not (flags & OP_LOCK and insn.flags & INSN_MEM)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_insn(d: cython.pointer(Decoder), insn: cython.pointer(Insn)) -> cython.int:
    """Decode one instruction at d.bytes; d.cpu, bytes, available, mode and offset are given. DECODED or another DECODE_*."""
    opcode: cython.pointer(Opcode) = cython.NULL
    answer: cython.int
    swap: u8
    handlers: cython.pointer(Handler)
    d.position = d.rex = d.has_rex = d.operand = d.address = d.lock = d.repeat = d.vex = d.vex_l = 0
    d.vex_vvvv = d.vex_w = d.invalid = 0
    d.segment = d.modrm = -1
    clear_insn(d, insn)
    answer = decode_prefixes(d)
    if answer == DECODED:
        answer = decode_opcode(d, cython.address(opcode))
    if answer != DECODED:
        return answer
    if not opcode.flags & OP_VALID:
        return DECODE_INVALID
    if d.address:
        insn.flags = 2 if d.mode == 1 else 1
    else:
        insn.flags = cython.cast(u8, d.mode)
    if d.repeat:
        insn.flags |= INSN_REP if d.repeat == 0xF3 else INSN_REPNE
    if opcode.flags & OP_MODRM:
        answer = decode_modrm(d, insn, cython.address(opcode))
        if answer != DECODED:
            return answer
    d.op_flags = opcode.flags
    if not_allowed(d, insn, opcode):
        d.invalid = 1
    d.size = decode_size(d, d.op_flags)
    insn.flags |= d.size << INSN_OSIZE_SHIFT
    if d.op_flags & OP_OPREG:
        insn.rm = register_slot(d, (d.code & 7) | ((d.rex & 1) << 3), (d.op_flags & OP_BYTE) != 0)
    if opcode.immediate != IMM_NONE:
        answer = decode_immediate(d, insn, opcode)
        if answer != DECODED:
            return answer
    elif d.op_flags & OP_VEX_VVVV:
        insn.imm = 8 * d.vex_vvvv
    if d.invalid:
        return DECODE_INVALID
    finish_address(d, insn)
    if d.op_flags & OP_SWAP and not insn.flags & INSN_MEM:
        swap = insn.reg
        insn.reg = insn.rm
        insn.rm = swap
    if opcode.operation:
        insn.handler = complex_insn
        insn.operation = opcode.operation
        return DECODED
    handlers = opcode.mem_handlers if insn.flags & INSN_MEM else opcode.reg_handlers
    if handlers == cython.NULL:
        return DECODE_INVALID
    insn.handler = handlers[d.size]
    if d.code == 0x90 and d.op_flags & OP_OPREG and insn.rm == insn.reg:
        insn.handler = nop
        if d.repeat == 0xF3:
            insn.handler = complex_insn
            insn.operation = cython.cast(u8, operation_number(op_pause))
    return DECODED
