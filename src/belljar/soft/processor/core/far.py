"""Far JMP and CALL: to code segments, through call gates, to tasks (SDM 2A CALL, JMP; 3A 5.8)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def direct_code_fault(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor)) -> cython.int:
    """May a far transfer enter this code segment without changing CPL: NEXT, #GP(selector) or #NP(selector)."""
    dpl: u32 = descriptor_dpl(d.attributes)
    allowed: cython.bint
    if is_conforming(d.attributes):
        allowed = dpl <= cpu.cpl
    else:
        allowed = (selector & 3) <= cpu.cpl and dpl == cpu.cpl
    if not allowed or bad_long_code(cpu, d):
        return selector_error(cpu, EXC_GP, selector, 0)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, selector, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_code(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor), offset: u64) -> cython.int:
    """Go to a new code segment at the present CPL, all checks passed but the offset's: BRANCH, FAULT or EXIT."""
    status: cython.int = code_offset_fault(cpu, d, offset, 0)
    if status == NEXT:
        status = mark_accessed(cpu, d)
    if status != NEXT:
        return status
    set_code_segment(cpu, selector, d, cpu.cpl)
    cpu.rip = offset
    update_mode(cpu)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_real_code(cpu: cython.pointer(Cpu), selector: u32, offset: u64) -> cython.int:
    """Go to a new code segment in real or virtual-8086 mode: BRANCH, or #GP(0) beyond CS's limit, which stays."""
    if offset > cpu.segment[CS].limit:
        return raise_fault(cpu, EXC_GP, 0)
    if in_v86(cpu):
        set_v86_segment(cpu, CS, selector)
    else:
        set_real_segment(cpu, CS, selector)
    cpu.rip = offset
    update_mode(cpu)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def gate_fault(cpu: cython.pointer(Cpu), gate: cython.pointer(Descriptor)) -> cython.int:
    """May a program use this gate or TSS descriptor: NEXT, #GP(selector) by privilege, #NP(selector)."""
    dpl: u32 = descriptor_dpl(gate.attributes)
    if dpl < cpu.cpl or dpl < (gate.selector & 3):
        return selector_error(cpu, EXC_GP, gate.selector, 0)
    if not gate.attributes & AR_P:
        return selector_error(cpu, EXC_NP, gate.selector, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_gate_target(cpu: cython.pointer(Cpu), gate: cython.pointer(Descriptor), d: cython.pointer(Descriptor), offset: cython.pointer(u64)) -> cython.int:
    """Resolve a call gate: the code descriptor it leads to and the offset. NEXT, FAULT or EXIT."""
    selector: u32 = cython.cast(u32, (gate.raw >> 16) & 0xFFFF)
    status: cython.int = gate_fault(cpu, gate)
    if status != NEXT:
        return status
    offset[0] = gate.raw & 0xFFFF
    if gate.attributes & 8:
        offset[0] |= (gate.raw >> 32) & (LOW32 ^ 0xFFFF)
    if long_mode_active(cpu):
        gate.base = 0
        status = need_descriptor_high(cpu, gate, EXC_GP, 0)
        if status != NEXT:
            return status
        offset[0] |= gate.base
    status = need_descriptor(cpu, selector, d, EXC_GP, 0)
    if status != NEXT:
        return status
    if not is_code(d.attributes) or descriptor_dpl(d.attributes) > cpu.cpl:
        return selector_error(cpu, EXC_GP, selector, 0)
    if long_mode_active(cpu) and (d.attributes & (AR_L | AR_DB)) != AR_L:
        return selector_error(cpu, EXC_GP, selector, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def jump_through_gate(cpu: cython.pointer(Cpu), gate: cython.pointer(Descriptor)) -> cython.int:
    """JMP through a call gate: never changes CPL."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    offset: u64 = 0
    status: cython.int = call_gate_target(cpu, gate, d, cython.address(offset))
    if status != NEXT:
        return status
    if not is_conforming(d.attributes) and descriptor_dpl(d.attributes) != cpu.cpl:
        return selector_error(cpu, EXC_GP, d.selector, 0)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, d.selector, 0)
    return enter_code(cpu, d.selector, d, offset)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def far_task(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), kind: u32, source: cython.int) -> cython.int:
    """JMP or CALL to a TSS or a task gate (not in IA-32e mode): BRANCH, FAULT or EXIT."""
    status: cython.int = gate_fault_for_task(cpu, d, kind)
    if status != NEXT:
        return status
    if kind == SYSTEM_TASK:
        return switch_task(cpu, cython.cast(u32, (d.raw >> 16) & 0xFFFF), source, 0, 0)
    return switch_task(cpu, d.selector, source, 0, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def gate_fault_for_task(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), kind: u32) -> cython.int:
    """Privilege and presence of a task gate; of a TSS only privilege: switch_task looks at the rest."""
    dpl: u32 = descriptor_dpl(d.attributes)
    if kind == SYSTEM_TASK:
        return gate_fault(cpu, d)
    if dpl < cpu.cpl or dpl < (d.selector & 3):
        return selector_error(cpu, EXC_GP, d.selector, 0)
    return NEXT


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_task_kind(kind: u32) -> cython.bint:
    """Task gates and available TSSs; a busy one is refused by its type."""
    return kind == SYSTEM_TASK or kind == SYSTEM_TSS16 or kind == SYSTEM_TSS


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_call_gate(cpu: cython.pointer(Cpu), kind: u32) -> cython.bint:
    """Call gates; only those of 64 bits in IA-32e mode."""
    return kind == SYSTEM_CALL or (kind == SYSTEM_CALL16 and not long_mode_active(cpu))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def far_jump(cpu: cython.pointer(Cpu), selector: u32, offset: u64) -> cython.int:
    """JMP selector:offset in any mode: BRANCH, FAULT or EXIT."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    kind: u32
    status: cython.int
    if not in_protected(cpu):
        return enter_real_code(cpu, selector, offset)
    status = need_descriptor(cpu, selector, d, EXC_GP, 0)
    if status != NEXT:
        return status
    kind = d.attributes & (AR_S | AR_TYPE)
    if is_code(kind):
        status = direct_code_fault(cpu, selector, d)
        return enter_code(cpu, selector, d, offset) if status == NEXT else status
    if is_call_gate(cpu, kind):
        return jump_through_gate(cpu, d)
    if is_task_kind(kind) and not long_mode_active(cpu):
        return far_task(cpu, d, kind, TASK_JMP)
    return selector_error(cpu, EXC_GP, selector, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def return_room(cpu: cython.pointer(Cpu), size: cython.int) -> cython.int:
    """Whether the stack segment has room for a far return address, without touching memory: NEXT or #SS(0)."""
    mask: u64 = stack_mask(cpu)
    if linear_address(cpu, SS, (cpu.gpr[RSP] - size) & mask, size, ACCESS_WRITE) != NEXT:
        return FAULT
    return linear_address(cpu, SS, (cpu.gpr[RSP] - 2 * size) & mask, size, ACCESS_WRITE)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_return(cpu: cython.pointer(Cpu), size: cython.int, sp: cython.pointer(u64)) -> cython.int:
    """Write CS and the return address below the stack pointer, which the caller commits from sp[0]: NEXT, FAULT or EXIT."""
    status: cython.int = stack_write(cpu, cpu.gpr[RSP] - size, size, cpu.segment[CS].selector)
    if status == NEXT:
        status = stack_write(cpu, cpu.gpr[RSP] - 2 * size, size, cpu.next_rip)
    sp[0] = cpu.gpr[RSP] - 2 * size
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_code(cpu: cython.pointer(Cpu), selector: u32, d: cython.pointer(Descriptor), offset: u64, size: cython.int) -> cython.int:
    """CALL to a code segment at the present CPL, its descriptor checked: BRANCH, FAULT or EXIT."""
    sp: u64 = 0
    mask: u64 = stack_mask(cpu)
    status: cython.int = return_room(cpu, size)
    if status == NEXT:
        status = code_offset_fault(cpu, d, offset, 0)
    if status == NEXT:
        status = push_return(cpu, size, cython.address(sp))
    if status == NEXT:
        status = enter_code(cpu, selector, d, offset)
    if status == BRANCH:
        set_sp_in(cpu, sp, mask)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def copy_parameters(cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), count: cython.int) -> cython.int:
    """Copy a call gate's parameters from the old stack to the new: NEXT, FAULT or EXIT."""
    value: u64 = 0
    status: cython.int = NEXT
    while count and status == NEXT:
        count -= 1
        status = stack_read(cpu, cpu.gpr[RSP] + count * frame.size, frame.size, cython.address(value))
        if status == NEXT:
            status = frame_push(cpu, frame, value)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_inner(cpu: cython.pointer(Cpu), gate: cython.pointer(Descriptor), d: cython.pointer(Descriptor), offset: u64, size: cython.int) -> cython.int:
    """CALL through a gate to an inner level, on the stack that the TSS names for it: BRANCH, FAULT or EXIT."""
    frame_space: StackFrame
    frame: cython.pointer(StackFrame) = cython.address(frame_space)
    stack: Descriptor
    cpl: u32 = descriptor_dpl(d.attributes)
    count: cython.int = 0 if size == 8 else cython.cast(cython.int, (gate.raw >> 32) & 0x1F)
    status: cython.int = frame_inner(cpu, frame, cython.address(stack), cpl, size, 0)
    if status == NEXT:
        status = frame_room(cpu, frame, count + 4)
    if status == NEXT:
        status = code_offset_fault(cpu, d, offset, 0)
    if status == NEXT:
        status = frame_push(cpu, frame, cpu.segment[SS].selector)
    if status == NEXT:
        status = frame_push(cpu, frame, cpu.gpr[RSP])
    if status == NEXT:
        status = copy_parameters(cpu, frame, count)
    if status == NEXT:
        status = frame_push(cpu, frame, cpu.segment[CS].selector)
    if status == NEXT:
        status = frame_push(cpu, frame, cpu.next_rip)
    if status == NEXT:
        status = frame_mark_accessed(cpu, frame, cython.address(stack), d)
    if status != NEXT:
        return status
    set_code_segment(cpu, d.selector, d, cpl)
    frame_load_stack(cpu, frame, cython.address(stack))
    cpu.rip = offset
    update_mode(cpu)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_through_gate(cpu: cython.pointer(Cpu), gate: cython.pointer(Descriptor)) -> cython.int:
    """CALL through a call gate; its kind, not the instruction, gives the size of what is pushed."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    offset: u64 = 0
    size: cython.int = 8 if long_mode_active(cpu) else (4 if gate.attributes & 8 else 2)
    status: cython.int = call_gate_target(cpu, gate, d, cython.address(offset))
    if status != NEXT:
        return status
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, d.selector, 0)
    if not is_conforming(d.attributes) and descriptor_dpl(d.attributes) < cpu.cpl:
        return call_inner(cpu, gate, d, offset, size)
    if size == 8:
        return call_code_long(cpu, d, offset)
    return call_code(cpu, d.selector, d, offset, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def call_code_long(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), offset: u64) -> cython.int:
    """CALL through a 64-bit gate without a new CPL: the stack is used with all 64 bits, from compatibility mode too."""
    frame_space: StackFrame
    frame: cython.pointer(StackFrame) = cython.address(frame_space)
    status: cython.int
    frame_current(cpu, frame, 8, 0)
    status = frame_room(cpu, frame, 2)
    if status == NEXT:
        status = code_offset_fault(cpu, d, offset, 0)
    if status == NEXT:
        status = frame_push(cpu, frame, cpu.segment[CS].selector)
    if status == NEXT:
        status = frame_push(cpu, frame, cpu.next_rip)
    if status == NEXT:
        status = enter_code(cpu, d.selector, d, offset)
    if status == BRANCH:
        cpu.gpr[RSP] = frame.sp
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def far_call(cpu: cython.pointer(Cpu), selector: u32, offset: u64, size: cython.int) -> cython.int:
    """CALL selector:offset in any mode: BRANCH, FAULT or EXIT."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    sp: u64 = 0
    kind: u32
    status: cython.int
    if not in_protected(cpu):
        status = return_room(cpu, size)
        if status == NEXT and offset > cpu.segment[CS].limit:
            status = raise_fault(cpu, EXC_GP, 0)
        if status == NEXT:
            status = push_return(cpu, size, cython.address(sp))
        if status == NEXT:
            status = enter_real_code(cpu, selector, offset)
        if status == BRANCH:
            set_sp(cpu, sp)
        return status
    status = need_descriptor(cpu, selector, d, EXC_GP, 0)
    if status != NEXT:
        return status
    kind = d.attributes & (AR_S | AR_TYPE)
    if is_code(kind):
        status = direct_code_fault(cpu, selector, d)
        return call_code(cpu, selector, d, offset, size) if status == NEXT else status
    if is_call_gate(cpu, kind):
        return call_through_gate(cpu, d)
    if is_task_kind(kind) and not long_mode_active(cpu):
        return far_task(cpu, d, kind, TASK_CALL)
    return selector_error(cpu, EXC_GP, selector, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_far_operand(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), selector: cython.pointer(u64), offset: cython.pointer(u64)) -> cython.int:
    """The far pointer m16:16, m16:32 or m16:64: NEXT, FAULT or EXIT."""
    size: cython.int = operand_size(insn)
    at: u64 = effective_address(cpu, insn)
    status: cython.int
    if not insn.flags & INSN_MEM:
        return raise_plain(cpu, EXC_UD)
    status = read_memory(cpu, insn_segment(insn), at, size, offset)
    if status == NEXT:
        status = read_memory(cpu, insn_segment(insn), at + size, 2, selector)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_jmp_far_immediate(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """JMP ptr16:16/32: insn.imm = selector << 32 | offset."""
    return far_jump(cpu, cython.cast(u32, cython.cast(u64, insn.imm) >> 32) & 0xFFFF, cython.cast(u64, insn.imm) & LOW32)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_call_far_immediate(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CALL ptr16:16/32."""
    selector: u32 = cython.cast(u32, cython.cast(u64, insn.imm) >> 32) & 0xFFFF
    return far_call(cpu, selector, cython.cast(u64, insn.imm) & LOW32, operand_size(insn))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_jmp_far_memory(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """JMP m16:16/32/64."""
    selector: u64 = 0
    offset: u64 = 0
    status: cython.int = read_far_operand(cpu, insn, cython.address(selector), cython.address(offset))
    return far_jump(cpu, cython.cast(u32, selector), offset) if status == NEXT else status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_call_far_memory(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CALL m16:16/32/64."""
    selector: u64 = 0
    offset: u64 = 0
    status: cython.int = read_far_operand(cpu, insn, cython.address(selector), cython.address(offset))
    return far_call(cpu, cython.cast(u32, selector), offset, operand_size(insn)) if status == NEXT else status
