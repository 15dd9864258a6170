"""Frames that the processor itself pushes: on the present stack, on an inner level's stack, on an IST stack."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def frame_current(cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), size: cython.int, ext: u32) -> cython.void:
    """A frame on the present stack. In IA-32e mode SS is not looked at, whatever code was interrupted (SDM 3A 6.14.2)."""
    frame.size = size
    frame.ext = ext
    frame.selector = 0
    frame.implicit = 0
    frame.sp = cpu.gpr[RSP]
    frame.flat = size == 8
    frame.base = 0 if frame.flat else cpu.base[SS]
    frame.limit = cpu.segment[SS].limit
    frame.attributes = cpu.segment[SS].attributes
    frame.mask = ALL_ONES if frame.flat else (LOW32 if frame.attributes & AR_DB else cython.cast(u64, 0xFFFF))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_tss_stack(cpu: cython.pointer(Cpu), level: u32, ext: u32, selector: cython.pointer(u64), sp: cython.pointer(u64)) -> cython.int:
    """The stack that the current TSS holds for an inner level (SDM 3A 7.2.1, 7.6, 7.7): NEXT, #TS(TSS selector) or EXIT."""
    size: cython.int = 4 if cpu.segment[TR].attributes & 8 else 2
    at: u64 = 4 + level * 8 if size == 4 else 2 + level * 4
    status: cython.int
    if long_mode_active(cpu):
        if at + 7 > cpu.segment[TR].limit:
            return selector_error(cpu, EXC_TS, cpu.segment[TR].selector, ext)
        selector[0] = level
        return system_read(cpu, cpu.base[TR] + at, 8, sp)
    if at + size + 1 > cpu.segment[TR].limit:
        return selector_error(cpu, EXC_TS, cpu.segment[TR].selector, ext)
    status = system_read(cpu, cpu.base[TR] + at, size, sp)
    if status == NEXT:
        status = system_read(cpu, cpu.base[TR] + at + size, 2, selector)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def inner_stack_fault(cpu: cython.pointer(Cpu), stack: cython.pointer(Descriptor), selector: u32, cpl: u32, ext: u32) -> cython.int:
    """Fetch and check the stack segment of an inner level: NEXT, #TS(selector), #SS(selector) or EXIT."""
    status: cython.int = need_descriptor(cpu, selector, stack, EXC_TS, ext)
    if status != NEXT:
        return status
    if (selector & 3) != cpl or descriptor_dpl(stack.attributes) != cpl or not is_writable_data(stack.attributes):
        return selector_error(cpu, EXC_TS, selector, ext)
    if not stack.attributes & AR_P:
        return selector_error(cpu, EXC_SS, selector, ext)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def frame_inner(
    cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), stack: cython.pointer(Descriptor), cpl: u32, size: cython.int, ext: u32
) -> cython.int:
    """A frame on the stack of an inner level `cpl`; `stack` becomes its segment: NEXT, FAULT or EXIT."""
    selector: u64 = 0
    status: cython.int = read_tss_stack(cpu, cpl, ext, cython.address(selector), cython.address(frame.sp))
    if status != NEXT:
        return status
    frame.selector = cython.cast(u32, selector)
    frame.size = size
    frame.ext = ext
    frame.implicit = ACCESS_IMPLICIT
    frame.flat = size == 8
    frame.base = 0
    frame.mask = ALL_ONES
    frame.limit = 0
    frame.attributes = 0
    if frame.flat:
        return NEXT
    status = inner_stack_fault(cpu, stack, frame.selector, cpl, ext)
    if status != NEXT:
        return status
    frame.base = stack.base
    frame.limit = stack.limit
    frame.attributes = stack.attributes
    frame.mask = LOW32 if stack.attributes & AR_DB else cython.cast(u64, 0xFFFF)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def frame_fault(cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), offset: u64, size: u64) -> cython.int:
    """Whether `size` bytes at an offset lie within the stack: NEXT or #SS(selector, 0 on the present stack)."""
    attributes: u32 = frame.attributes
    last: u64 = offset + size - 1
    allowed: cython.bint
    if frame.flat:
        allowed = is_canonical(cpu, offset) and is_canonical(cpu, last)
    elif attributes & AR_UNUSABLE or not attributes & AR_P or not is_writable_data(attributes):
        allowed = False
    elif attributes & AR_DOWN:
        allowed = offset > frame.limit and last <= (LOW32 if attributes & AR_DB else cython.cast(u64, 0xFFFF))
    else:
        allowed = last <= frame.limit
    return NEXT if allowed else selector_error(cpu, EXC_SS, frame.selector, frame.ext)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def frame_room(cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), count: cython.int) -> cython.int:
    """Whether `count` pushes fit: NEXT, or #SS before anything is written."""
    i: cython.int
    status: cython.int = NEXT
    sp: u64 = frame.sp
    for i in range(count):
        sp -= frame.size
        if status == NEXT:
            status = frame_fault(cpu, frame, sp & frame.mask, frame.size)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def frame_push(cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), value: u64) -> cython.int:
    """Push onto the frame; registers stay: NEXT, FAULT or EXIT."""
    offset: u64 = (frame.sp - frame.size) & frame.mask
    gva: u64 = frame.base + offset
    status: cython.int = frame_fault(cpu, frame, offset, frame.size)
    if status != NEXT:
        return status
    if frame.implicit:
        status = system_write(cpu, gva, frame.size, value)
    elif frame.flat:
        status = write_linear_long(cpu, gva, value)
    else:
        status = write_linear(cpu, gva, frame.size, ACCESS_WRITE, value)
    if status == NEXT:
        frame.sp = (frame.sp & ~frame.mask) | offset
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_linear_long(cpu: cython.pointer(Cpu), gva: u64, value: u64) -> cython.int:
    """Write 8 bytes with the rights of the CPL at a 64-bit address, even from compatibility mode: NEXT, FAULT or EXIT."""
    bits: u32 = cpu.address_mask_bits
    status: cython.int
    cpu.address_mask_bits = 64
    status = write_linear(cpu, gva, 8, ACCESS_WRITE, value)
    cpu.address_mask_bits = bits
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def frame_mark_accessed(cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), stack: cython.pointer(Descriptor), d: cython.pointer(Descriptor)) -> cython.int:
    """Set the accessed bits of a new stack segment (unless the stack is flat) and a new code segment."""
    status: cython.int = NEXT
    if not frame.flat:
        status = mark_accessed(cpu, stack)
    if status == NEXT:
        status = mark_accessed(cpu, d)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def frame_load_stack(cpu: cython.pointer(Cpu), frame: cython.pointer(StackFrame), stack: cython.pointer(Descriptor)) -> cython.void:
    """Make an inner frame's stack the present one; the CPL is set, the caller calls update_mode."""
    if frame.flat:
        set_null_segment(cpu, SS, cpu.cpl, cpu.cpl)
        cpu.gpr[RSP] = frame.sp
    else:
        set_segment(cpu, SS, frame.selector, stack)
        cpu.gpr[RSP] = frame.sp & LOW32
