"""Task switches (SDM 3A 7.3): by JMP, CALL, IRET, and through task gates in the IDT."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_busy(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), busy: cython.bint) -> cython.int:
    """Set or clear the busy bit of a TSS descriptor in its table: NEXT, FAULT or EXIT."""
    kind: u64 = (d.raw >> 40) & 0xFF
    status: cython.int
    kind = kind | 2 if busy else kind & ~cython.cast(u64, 2)
    status = system_write(cpu, d.gva + 5, 1, kind)
    if status == NEXT:
        d.attributes = cython.cast(u32, (d.attributes & ~cython.cast(u64, 0xFF)) | kind)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def task_fault(cpu: cython.pointer(Cpu), selector: u32, source: cython.int, d: cython.pointer(Descriptor)) -> cython.int:
    """Fetch and check the TSS descriptor of a new task (SDM 3A table 7-1): NEXT, FAULT or EXIT."""
    vector: u32 = EXC_TS if source == TASK_IRET else EXC_GP
    ext: u32 = cpu.task_ext
    kind: u32
    wanted: u32 = 2 if source == TASK_IRET else 0
    status: cython.int
    if selector & 4:
        return selector_error(cpu, vector, selector, ext)
    status = need_descriptor(cpu, selector, d, vector, ext)
    if status != NEXT:
        return status
    kind = d.attributes & (AR_S | AR_TYPE)
    if (kind & ~cython.cast(u64, 0xA)) != SYSTEM_TSS16 or (kind & 2) != wanted:
        return selector_error(cpu, vector, selector, ext)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, selector, ext)
    if d.limit < (0x67 if kind & 8 else 0x2B):
        return selector_error(cpu, EXC_TS, selector, ext)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def probe(cpu: cython.pointer(Cpu), gva: u64, size: u64, access: cython.int) -> cython.int:
    """Whether a whole structure (at most two pages) may be accessed, before any of it changes: NEXT, FAULT or EXIT."""
    if system_access(cpu, gva, 1, access) == cython.NULL or system_access(cpu, gva + size - 1, 1, access) == cython.NULL:
        return cpu.memory_status
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_task(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), image: cython.pointer(TaskImage)) -> cython.int:
    """Read a new task's state out of its TSS (SDM 3A 7.2.1, 7.6): NEXT, FAULT or EXIT."""
    wide: cython.bint = (d.attributes & 8) != 0
    size: cython.int = 4 if wide else 2
    at: u64 = d.base + (0x20 if wide else 0x0E)
    selectors: u64 = d.base + (0x48 if wide else 0x22)
    i: cython.int
    status: cython.int = NEXT
    memset(image, 0, cython.sizeof(TaskImage))
    if wide:
        status = system_read(cpu, d.base + 0x1C, 4, cython.address(image.cr3))
    if status == NEXT:
        status = system_read(cpu, at, size, cython.address(image.rip))
    if status == NEXT:
        status = system_read(cpu, at + size, size, cython.address(image.flags))
    for i in range(8):
        if status == NEXT:
            status = system_read(cpu, at + (2 + i) * size, size, cython.address(image.gpr[i]))
        # A 16-bit TSS says nothing of the upper halves; processors fill them with ones.
        if not wide:
            image.gpr[i] |= (LOW32 ^ 0xFFFF)
    for i in range(6 if wide else 4):
        if status == NEXT:
            status = system_read(cpu, selectors + i * size, 2, cython.address(image.selector[i]))
    if status == NEXT:
        status = system_read(cpu, d.base + (0x60 if wide else 0x2A), 2, cython.address(image.ldt))
    if status == NEXT and wide:
        status = system_read(cpu, d.base + 0x64, 2, cython.address(image.trap))
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_task(cpu: cython.pointer(Cpu), rip: u64, flags: u64) -> cython.int:
    """Save the present task in its TSS, which was probed: NEXT, FAULT or EXIT."""
    wide: cython.bint = (cpu.segment[TR].attributes & 8) != 0
    size: cython.int = 4 if wide else 2
    at: u64 = cpu.base[TR] + (0x20 if wide else 0x0E)
    selectors: u64 = cpu.base[TR] + (0x48 if wide else 0x22)
    i: cython.int
    status: cython.int = system_write(cpu, at, size, rip)
    if status == NEXT:
        status = system_write(cpu, at + size, size, flags)
    for i in range(8):
        if status == NEXT:
            status = system_write(cpu, at + (2 + i) * size, size, cpu.gpr[i])
    for i in range(6 if wide else 4):
        if status == NEXT:
            status = system_write(cpu, selectors + i * size, 2, cpu.segment[i].selector)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave_task(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), image: cython.pointer(TaskImage), source: cython.int) -> cython.int:
    """Everything about the switch that changes memory: the old TSS, busy bits, the link. NEXT, FAULT or EXIT."""
    space: Descriptor
    old: cython.pointer(Descriptor) = cython.address(space)
    flags: u64 = get_rflags(cpu) | cpu.task_rf
    size: u64 = 0x60 if cpu.segment[TR].attributes & 8 else 0x2A
    status: cython.int = probe(cpu, cpu.base[TR], size, ACCESS_WRITE)
    if status == NEXT:
        status = probe(cpu, d.gva, 8, ACCESS_WRITE)
    if status == NEXT and (source == TASK_CALL or source == TASK_GATE):
        status = probe(cpu, d.base, 2, ACCESS_WRITE)
    if status != NEXT:
        return status
    if source == TASK_JMP or source == TASK_IRET:
        status = need_descriptor(cpu, cpu.segment[TR].selector, old, EXC_TS, cpu.task_ext)
        if status == NEXT:
            status = set_busy(cpu, old, False)
        if source == TASK_IRET:
            flags &= ~cython.cast(u64, FLAG_NT)
    if status == NEXT:
        status = write_task(cpu, cpu.task_return_rip, flags)
    if status == NEXT and (source == TASK_CALL or source == TASK_GATE):
        status = system_write(cpu, d.base, 2, cpu.segment[TR].selector)
        image.flags |= FLAG_NT
    if status == NEXT and source != TASK_IRET:
        status = set_busy(cpu, d, True)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_task_registers(cpu: cython.pointer(Cpu), d: cython.pointer(Descriptor), image: cython.pointer(TaskImage)) -> cython.void:
    """Load TR, CR3, flags, registers and selectors, the latter without hidden parts yet."""
    i: cython.int
    set_segment(cpu, TR, d.selector, d)
    cpu.cr0 |= CR0_TS
    cpu.dr[7] &= ~cython.cast(u64, 0x155)  # local breakpoints end with the task (SDM 3B 18.2.4)
    for i in range(8):
        cpu.gpr[i] = image.gpr[i]
    for i in range(6):
        set_null_segment(cpu, i, cython.cast(u32, image.selector[i]), 0)
    set_null_segment(cpu, LDTR, cython.cast(u32, image.ldt), 0)
    cpu.cpl = 3 if image.flags & FLAG_VM else cython.cast(u32, image.selector[CS] & 3)
    cpu.segment[SS].attributes |= cpu.cpl << AR_DPL_SHIFT
    cpu.rip = image.rip
    cpu.insn_rip = image.rip
    cpu.next_rip = image.rip
    cpu.stepped |= 2
    if image.trap & 1:
        cpu.pending_debug |= DR6_BT
    set_rflags(cpu, image.flags & FLAGS_VALID)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def remember_task(cpu: cython.pointer(Cpu), undo: cython.pointer(TaskUndo)) -> cython.void:
    """Keep what a switch changes in the processor."""
    memcpy(undo.gpr, cpu.gpr, cython.sizeof(undo.gpr))
    memcpy(undo.base, cpu.base, cython.sizeof(undo.base))
    memcpy(undo.segment, cpu.segment, cython.sizeof(undo.segment))
    undo.rflags = get_rflags(cpu)
    undo.cr0 = cpu.cr0
    undo.cr3 = cpu.cr3
    undo.dr7 = cpu.dr[7]
    undo.pending_debug = cpu.pending_debug
    undo.insn_rip = cpu.insn_rip
    undo.next_rip = cpu.next_rip
    undo.cpl = cpu.cpl


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def undo_switch(
    cpu: cython.pointer(Cpu), undo: cython.pointer(TaskUndo), d: cython.pointer(Descriptor), source: cython.int
) -> cython.void:
    """A VM exit in the middle of the new task's loads: as if the switch had not begun, so that it can begin again.

    The old TSS keeps what was saved, which the next attempt saves again.
    """
    old: Descriptor
    paging: cython.bint = (cpu.cr0 & CR0_PG) != 0
    memcpy(cpu.gpr, undo.gpr, cython.sizeof(undo.gpr))
    memcpy(cpu.base, undo.base, cython.sizeof(undo.base))
    memcpy(cpu.segment, undo.segment, cython.sizeof(undo.segment))
    cpu.cr0 = undo.cr0
    cpu.dr[7] = undo.dr7
    cpu.pending_debug = undo.pending_debug
    cpu.insn_rip = cpu.rip = undo.insn_rip
    cpu.next_rip = undo.next_rip
    cpu.cpl = undo.cpl
    if paging and cpu.cr3 != undo.cr3:
        cpu.cr3 = undo.cr3
        if cpu.cr4 & CR4_PAE:
            load_pdptes(cpu, cpu.cr3)
        flush_tlb_nonglobal(cpu)
    set_rflags(cpu, undo.rflags)
    if source != TASK_IRET:
        set_busy(cpu, d, False)
    if source == TASK_JMP or source == TASK_IRET:
        if fetch_descriptor(cpu, cpu.segment[TR].selector, cython.address(old)) == NEXT:
            set_busy(cpu, cython.address(old), True)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_task_code(cpu: cython.pointer(Cpu), selector: u32) -> cython.int:
    """CS of the new task: NEXT, FAULT or EXIT."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    dpl: u32
    status: cython.int = need_descriptor(cpu, selector, d, EXC_TS, cpu.task_ext)
    if status != NEXT:
        return status
    dpl = descriptor_dpl(d.attributes)
    if not is_code(d.attributes) or dpl > (selector & 3) or (dpl != (selector & 3) and not is_conforming(d.attributes)):
        return selector_error(cpu, EXC_TS, selector, cpu.task_ext)
    if not d.attributes & AR_P:
        return selector_error(cpu, EXC_NP, selector, cpu.task_ext)
    status = mark_accessed(cpu, d)
    if status == NEXT:
        set_segment(cpu, CS, selector, d)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_task_segment(cpu: cython.pointer(Cpu), segment: cython.int, selector: u32) -> cython.int:
    """SS, ES, DS, FS or GS of the new task: the usual checks, but #TS instead of #GP."""
    status: cython.int
    if segment == SS and (selector & 0xFFFC) == 0:
        return selector_error(cpu, EXC_TS, selector, cpu.task_ext)
    status = load_stack_segment(cpu, selector) if segment == SS else load_data_segment(cpu, segment, selector)
    if status == FAULT and cpu.exception != EXC_PF:
        cpu.exception_error |= cpu.task_ext
        if cpu.exception == EXC_GP:
            cpu.exception = EXC_TS
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_task_segments(cpu: cython.pointer(Cpu), image: cython.pointer(TaskImage)) -> cython.int:
    """The hidden parts of a new task's segments; faults are the new task's own (SDM 3A 7.3): NEXT, FAULT or EXIT."""
    i: cython.int
    status: cython.int = load_ldtr(cpu, cython.cast(u32, image.ldt), EXC_TS)
    if status == FAULT and cpu.exception == EXC_TS:
        cpu.exception_error |= cpu.task_ext
    if status == NEXT and image.flags & FLAG_VM:
        for i in range(6):
            set_v86_segment(cpu, i, cython.cast(u32, image.selector[i]))
        update_mode(cpu)
        return NEXT
    if status == NEXT:
        status = load_task_code(cpu, cython.cast(u32, image.selector[CS]))
    if status == NEXT:
        status = load_task_segment(cpu, SS, cython.cast(u32, image.selector[SS]))
    for i in range(6):
        if status == NEXT and i != CS and i != SS:
            status = load_task_segment(cpu, i, cython.cast(u32, image.selector[i]))
    update_mode(cpu)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push_task_error(cpu: cython.pointer(Cpu), error: u32, wide: cython.bint) -> cython.int:
    """The error code of the exception that led through a task gate, on the new task's stack: NEXT, FAULT or EXIT."""
    size: cython.int = 4 if wide else 2
    sp: u64 = cpu.gpr[RSP] - size
    status: cython.int = stack_write(cpu, sp, size, error)
    if status == NEXT:
        set_sp(cpu, sp)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def switch_task(cpu: cython.pointer(Cpu), selector: u32, source: cython.int, has_error: u32, error: u32) -> cython.int:
    """Switch to the task of a TSS selector (SDM 3A 7.3): BRANCH, FAULT (perhaps already in the new task) or EXIT."""
    space: Descriptor
    d: cython.pointer(Descriptor) = cython.address(space)
    image_space: TaskImage
    image: cython.pointer(TaskImage) = cython.address(image_space)
    undo: TaskUndo
    status: cython.int
    if source != TASK_GATE:
        cpu.task_return_rip = cpu.next_rip
        cpu.task_ext = 0
        cpu.task_rf = 0
    status = task_fault(cpu, selector, source, d)
    if status == NEXT and cpu.in_guest:
        status = vmx_task_switch(cpu, selector, source)
    if status == NEXT:
        status = read_task(cpu, d, image)
    if status == NEXT and cpu.cr0 & CR0_PG and d.attributes & 8:
        status = prepare_task_cr3(cpu, image.cr3)
    if status == NEXT:
        status = leave_task(cpu, d, image, source)
    if status != NEXT:
        return status
    remember_task(cpu, cython.address(undo))
    if cpu.cr0 & CR0_PG and d.attributes & 8:
        cpu.cr3 = image.cr3
        flush_tlb_nonglobal(cpu)
    load_task_registers(cpu, d, image)
    status = load_task_segments(cpu, image)
    if status == NEXT and has_error:
        status = push_task_error(cpu, error, (d.attributes & 8) != 0)
    if status == EXIT:
        undo_switch(cpu, cython.address(undo), d, source)
    return BRANCH if status == NEXT else status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def prepare_task_cr3(cpu: cython.pointer(Cpu), cr3: u64) -> cython.int:
    """With PAE paging, a new CR3 brings new PDPTEs: NEXT, FAULT or EXIT before anything else changed."""
    return load_pdptes(cpu, cr3) if cpu.cr4 & CR4_PAE else NEXT
