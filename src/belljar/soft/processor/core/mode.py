"""What follows from a processor's state, kept ready: the mode that code is decoded for, TLB tables, events to look after."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def code_size(cpu: cython.pointer(Cpu)) -> cython.int:
    """0 for 64-bit code, 1 for 32, 2 for 16."""
    attributes: u32 = cpu.segment[CS].attributes
    if cpu.efer & EFER_LMA and attributes & AR_L:
        return 0
    return 1 if attributes & AR_DB else 2


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_flat(cpu: cython.pointer(Cpu), segment: cython.int) -> cython.bint:
    """Whether a data segment is writable, begins at 0 and spans 4 GiB upwards."""
    attributes: u32 = cpu.segment[segment].attributes
    return (
        cpu.base[segment] == 0
        and cpu.segment[segment].limit == LOW32
        and (attributes & (AR_UNUSABLE | AR_P | AR_S | AR_CODE | AR_DOWN | AR_WRITABLE)) == (AR_P | AR_S | AR_WRITABLE)
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def update_mode(cpu: cython.pointer(Cpu)) -> cython.void:
    """Derive what follows from CR0, CR4, EFER, segments, CPL, RFLAGS, DR7, activity and interruptibility."""
    code: u32 = code_size(cpu)
    mode: u32 = code
    events: u32 = cpu.events & (EVENT_TIMER | EVENT_INTERRUPT | EVENT_MTF)
    looked_at: cython.bint = (cpu.dr[7] & 0xFF) != 0 or cpu.watchpoint_count != 0
    if code:
        mode |= (1 if cpu.segment[SS].attributes & AR_DB else 2) << 2
        if cpu.base[CS] != 0 or cpu.segment[CS].limit != LOW32:
            mode |= MODE_CHECK_CS
        if not cpu.cr0 & CR0_PE or cpu.rflags & FLAG_VM:
            mode |= MODE_REAL
    if code == 0 or (is_flat(cpu, ES) and is_flat(cpu, SS) and is_flat(cpu, DS)):
        mode |= MODE_FLAT
    cpu.address_mask_bits = 64 if cpu.efer & EFER_LMA else 32
    if cpu.cpl == 3:
        mode |= MODE_USER
        cpu.context = 1
        if cpu.cr0 & CR0_AM and cpu.rflags & FLAG_AC:
            looked_at = True
    else:
        cpu.context = 2 if cpu.cr4 & CR4_SMAP and cpu.rflags & FLAG_AC else 0
    cpu.mode = mode
    cpu.bind = (cpu.epoch << 16) | mode
    cpu.tlb_read = cpu.tlb_none if looked_at else tlb_table(cpu, cpu.context, ACCESS_READ)
    cpu.tlb_write = cpu.tlb_none if looked_at else tlb_table(cpu, cpu.context, ACCESS_WRITE)
    cpu.tlb_fetch = tlb_table(cpu, cpu.context, ACCESS_FETCH)
    if cpu.rflags & (FLAG_TF | FLAG_RF) or cpu.dr[7] & 0xFF or cpu.watched:
        events |= EVENT_STEP
    if cpu.interruptibility & (SHADOW_STI | SHADOW_MOV_SS):
        events |= EVENT_SHADOW
    if cpu.activity != ACTIVE:
        events |= EVENT_INACTIVE
    if cpu.pending_debug:
        events |= EVENT_TRAP
    cpu.events = events
