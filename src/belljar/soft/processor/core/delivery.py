"""One event through the IDT: real mode, protected mode, virtual-8086 mode, IA-32e mode (SDM 2A INT n; 3A 6.12, 6.14, 20.1.4)."""

import cython


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def idt_error(cpu: cython.pointer(Cpu), vector: u32, event: cython.pointer(Event)) -> cython.int:
    """A fault that names the event's IDT entry: index, IDT bit, EXT (SDM 3A 6.13)."""
    return raise_fault(cpu, vector, (event.vector << 3) | 2 | event.ext)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def handler_flags(cpu: cython.pointer(Cpu), is_interrupt: cython.bint) -> u64:
    """RFLAGS in the handler: TF, NT, RF and VM off, and IF too behind an interrupt gate (SDM 3A 6.12.1.3)."""
    cleared: u64 = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM
    if is_interrupt:
        cleared |= FLAG_IF
    return get_rflags(cpu) & ~cleared


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_vectored(cpu: cython.pointer(Cpu), flags: u64, rip: u64) -> cython.int:
    """Push FLAGS, CS, IP (16 bits each) and go where the vector at cpu.linear leads: BRANCH, FAULT or EXIT."""
    vector: u64 = 0
    sp: u64 = cpu.gpr[RSP] - 6
    at: u64 = cpu.linear
    status: cython.int = system_read(cpu, at, 4, cython.address(vector))
    if status == NEXT:
        status = stack_write(cpu, sp + 4, 2, flags)
    if status == NEXT:
        status = stack_write(cpu, sp + 2, 2, cpu.segment[CS].selector)
    if status == NEXT:
        status = stack_write(cpu, sp, 2, rip)
    if status == NEXT:
        status = enter_real_code(cpu, cython.cast(u32, vector >> 16), vector & 0xFFFF)
    if status == BRANCH:
        set_sp(cpu, sp)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_real(cpu: cython.pointer(Cpu), event: cython.pointer(Event)) -> cython.int:
    """Through the interrupt vector table (SDM 3B 21.1.4): BRANCH, FAULT or EXIT. No error codes."""
    status: cython.int
    offset: u64 = event.vector * 4
    if offset + 3 > cpu.idt_limit:
        return raise_fault(cpu, EXC_GP, event.ext)
    cpu.linear = cpu.idt_base + offset
    status = push_vectored(cpu, (get_rflags(cpu) & ~cython.cast(u64, FLAG_RF)) | event.rf, event.return_rip)
    if status == BRANCH:
        set_rflags(cpu, get_rflags(cpu) & ~cython.cast(u64, FLAG_IF | FLAG_TF | FLAG_RF | FLAG_AC))
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def redirected_to_v86(cpu: cython.pointer(Cpu), event: cython.pointer(Event), redirected: cython.pointer(cython.bint)) -> cython.int:
    """INT n in virtual-8086 mode (SDM 3B 21.3.3): whether the 8086 program's own vector table serves it; #GP(0) if nobody may."""
    iopl: u32 = io_privilege(cpu)
    map_at: u64 = 0
    byte: u64 = 0
    at: u64
    status: cython.int
    redirected[0] = False
    if cpu.cr4 & CR4_VME and cpu.segment[TR].attributes & 8 and cpu.segment[TR].limit >= 0x67:
        status = system_read(cpu, cpu.base[TR] + 0x66, 2, cython.address(map_at))
        if status != NEXT:
            return status
        at = map_at - 32 + (event.vector >> 3)
        if map_at >= 32 and at <= cpu.segment[TR].limit:
            status = system_read(cpu, cpu.base[TR] + at, 1, cython.address(byte))
            if status != NEXT:
                return status
            redirected[0] = not (byte >> (event.vector & 7)) & 1
    if iopl < 3 and not redirected[0]:
        return raise_fault(cpu, EXC_GP, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_redirected(cpu: cython.pointer(Cpu), event: cython.pointer(Event)) -> cython.int:
    """INT n to the 8086 program's own handler (SDM 3B 21.3.3, methods 5 and 6): BRANCH, FAULT or EXIT."""
    flags: u64 = get_rflags(cpu)
    pushed: u64 = flags | FLAG_IOPL
    cleared: u64 = FLAG_TF | FLAG_RF | FLAG_NT
    status: cython.int
    if io_privilege(cpu) == 3:
        cleared |= FLAG_IF
    else:
        cleared |= FLAG_VIF
        pushed = (pushed | FLAG_IF) if flags & FLAG_VIF else (pushed & ~cython.cast(u64, FLAG_IF))
    cpu.linear = event.vector * 4
    status = push_vectored_v86(cpu, pushed, event.return_rip)
    if status == BRANCH:
        set_rflags(cpu, flags & ~cleared)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_vectored_v86(cpu: cython.pointer(Cpu), flags: u64, rip: u64) -> cython.int:
    """push_vectored with the vector read from linear page 0 with the program's own rights."""
    vector: u64 = 0
    status: cython.int = read_linear(cpu, cpu.linear, 4, ACCESS_READ, cython.address(vector))
    return push_vectored(cpu, flags, rip) if status == NEXT else status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_gate(cpu: cython.pointer(Cpu), event: cython.pointer(Event), gate: cython.pointer(Gate)) -> cython.int:
    """Fetch and check the IDT's entry: NEXT, FAULT (#GP or #NP with the IDT bit) or EXIT."""
    long_mode: cython.bint = long_mode_active(cpu)
    size: u64 = 16 if long_mode else 8
    raw: u64 = 0
    high: u64 = 0
    kind: u32
    status: cython.int
    if event.vector * size + size - 1 > cpu.idt_limit:
        return idt_error(cpu, EXC_GP, event)
    status = system_read(cpu, cpu.idt_base + event.vector * size, 8, cython.address(raw))
    if status == NEXT and long_mode:
        status = system_read(cpu, cpu.idt_base + event.vector * size + 8, 8, cython.address(high))
    if status != NEXT:
        return status
    kind = cython.cast(u32, raw >> 40) & 0x1F
    gate.kind = kind
    gate.selector = cython.cast(u32, raw >> 16) & 0xFFFF
    gate.offset = raw & 0xFFFF
    if kind & 8:
        gate.offset |= (raw >> 32) & (LOW32 ^ 0xFFFF)
    gate.offset |= high << 32
    gate.ist = cython.cast(u32, raw >> 32) & 7 if long_mode else 0
    gate.size = 8 if long_mode else (4 if kind & 8 else 2)
    if kind != SYSTEM_INTERRUPT and kind != SYSTEM_TRAP:
        if long_mode or (kind != SYSTEM_INTERRUPT16 and kind != SYSTEM_TRAP16 and kind != SYSTEM_TASK):
            return idt_error(cpu, EXC_GP, event)
    if event.software and (cython.cast(u32, raw >> 45) & 3) < cpu.cpl:
        return idt_error(cpu, EXC_GP, event)
    if not (raw >> 47) & 1:
        return idt_error(cpu, EXC_NP, event)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def handler_code_fault(cpu: cython.pointer(Cpu), gate: cython.pointer(Gate), d: cython.pointer(Descriptor), ext: u32) -> cython.int:
    """Fetch and check the handler's code segment: NEXT, FAULT or EXIT."""
    dpl: u32
    status: cython.int = need_descriptor(cpu, gate.selector, d, EXC_GP, ext)
    if status != NEXT:
        return status
    dpl = descriptor_dpl(d.attributes)
    if not is_code(d.attributes) or dpl > cpu.cpl:
        return selector_error(cpu, EXC_GP, gate.selector, ext)
    if long_mode_active(cpu) and (d.attributes & (AR_L | AR_DB)) != AR_L:
        return selector_error(cpu, EXC_GP, gate.selector, ext)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, gate.selector, ext)
    if in_v86(cpu) and (is_conforming(d.attributes) or dpl != 0):
        return selector_error(cpu, EXC_GP, gate.selector, ext)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def frame_ist(cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), ist: u32, ext: u32) -> cython.int:
    """Point a 64-bit frame at an interrupt stack of the TSS (SDM 3A 6.14.5): NEXT, #TS or EXIT."""
    at: u64 = 0x24 + (ist - 1) * 8
    if at + 7 > cpu.segment[TR].limit:
        return selector_error(cpu, EXC_TS, cpu.segment[TR].selector, ext)
    return system_read(cpu, cpu.base[TR] + at, 8, cython.address(frame.sp))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def handler_frame(
    cpu: cython.pointer(Cpu), event: cython.pointer(Event), gate: cython.pointer(Gate), frame: cython.pointer(StackFrame),
    stack: cython.pointer(Descriptor), cpl: u32,
) -> cython.int:
    """Choose the handler's stack: the present one, the inner level's, or an IST: NEXT, FAULT or EXIT."""
    status: cython.int = NEXT
    if gate.ist:
        frame_current(cpu, frame, 8, event.ext)
        frame.implicit = 0 if cpl == cpu.cpl else ACCESS_IMPLICIT
        status = frame_ist(cpu, frame, gate.ist, event.ext)
    elif cpl != cpu.cpl:
        status = frame_inner(cpu, frame, stack, cpl, gate.size, event.ext)
    else:
        frame_current(cpu, frame, gate.size, event.ext)
    if status == NEXT and gate.size == 8:
        status = frame_fault(cpu, frame, frame.sp, 1)
        frame.sp &= ~cython.cast(u64, 15)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_handler_frame(
    cpu: cython.pointer(Cpu), event: cython.pointer(Event), frame: cython.pointer(StackFrame), with_stack: cython.bint
) -> cython.int:
    """Push what the handler finds: [GS FS DS ES] [SS SP] FLAGS CS IP [error code]: NEXT, FAULT or EXIT."""
    flags: u64 = (get_rflags(cpu) & ~cython.cast(u64, FLAG_RF)) | event.rf
    status: cython.int = NEXT
    if in_v86(cpu):
        status = frame_push(cpu, frame, cpu.segment[GS].selector)
        if status == NEXT:
            status = frame_push(cpu, frame, cpu.segment[FS].selector)
        if status == NEXT:
            status = frame_push(cpu, frame, cpu.segment[DS].selector)
        if status == NEXT:
            status = frame_push(cpu, frame, cpu.segment[ES].selector)
    if status == NEXT and with_stack:
        status = frame_push(cpu, frame, cpu.segment[SS].selector)
        if status == NEXT:
            status = frame_push(cpu, frame, cpu.gpr[RSP])
    if status == NEXT:
        status = frame_push(cpu, frame, flags)
    if status == NEXT:
        status = frame_push(cpu, frame, cpu.segment[CS].selector)
    if status == NEXT:
        status = frame_push(cpu, frame, event.return_rip)
    if status == NEXT and event.has_error:
        status = frame_push(cpu, frame, event.error)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_handler(
    cpu: cython.pointer(Cpu), gate: cython.pointer(Gate), d: cython.pointer(Descriptor), frame: cython.pointer(StackFrame), stack: cython.pointer(Descriptor), cpl: u32
) -> cython.int:
    """Commit: code segment, stack, flags, RIP. Answers BRANCH."""
    flags: u64 = handler_flags(cpu, (gate.kind & 1) == 0)
    inner: cython.bint = cpl != cpu.cpl
    if in_v86(cpu):
        set_null_segment(cpu, GS, 0, 0)
        set_null_segment(cpu, FS, 0, 0)
        set_null_segment(cpu, DS, 0, 0)
        set_null_segment(cpu, ES, 0, 0)
    set_code_segment(cpu, gate.selector, d, cpl)
    if inner:
        frame_load_stack(cpu, frame, stack)
    elif frame.mask == LOW32:
        cpu.gpr[RSP] = frame.sp & LOW32
    else:
        cpu.gpr[RSP] = frame.sp
    cpu.rip = gate.offset
    set_rflags(cpu, flags)
    return BRANCH


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_protected(cpu: cython.pointer(Cpu), event: cython.pointer(Event)) -> cython.int:
    """Through the IDT of protected and IA-32e mode: BRANCH, FAULT or EXIT."""
    gate_space: Gate
    gate: cython.pointer(Gate) = cython.address(gate_space)
    frame_space: StackFrame
    frame: cython.pointer(StackFrame) = cython.address(frame_space)
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    stack: Descriptor
    cpl: u32
    pushes: cython.int = 4 if event.has_error else 3
    status: cython.int = read_gate(cpu, event, gate)
    if status != NEXT:
        return status
    if gate.kind == SYSTEM_TASK:
        return deliver_task(cpu, event, gate.selector)
    status = handler_code_fault(cpu, gate, d, event.ext)
    if status != NEXT:
        return status
    cpl = cpu.cpl if is_conforming(d.attributes) else descriptor_dpl(d.attributes)
    status = handler_frame(cpu, event, gate, frame, cython.address(stack), cpl)
    if cpl != cpu.cpl or gate.size == 8:
        pushes += 6 if in_v86(cpu) else 2
    if status == NEXT:
        status = frame_room(cpu, frame, pushes)
    if status == NEXT:
        status = code_offset_fault(cpu, d, gate.offset, event.ext)
    if status == NEXT:
        status = push_handler_frame(cpu, event, frame, cpl != cpu.cpl or gate.size == 8)
    if status == NEXT and cpl != cpu.cpl:
        status = frame_mark_accessed(cpu, frame, cython.address(stack), d)
    elif status == NEXT:
        status = mark_accessed(cpu, d)
    if status != NEXT:
        return status
    return enter_handler(cpu, gate, d, frame, cython.address(stack), cpl)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver_task(cpu: cython.pointer(Cpu), event: cython.pointer(Event), selector: u32) -> cython.int:
    """Through a task gate: the new task finds the error code on its stack (SDM 3A 6.12.2): BRANCH, FAULT or EXIT."""
    cpu.task_return_rip = event.return_rip
    cpu.task_ext = event.ext
    cpu.task_rf = event.rf
    return switch_task(cpu, selector, TASK_GATE, event.has_error, event.error)
