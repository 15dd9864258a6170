"""Flushing the TLB: what the manual demands at least (SDM 3A 4.10.4). Which entries are filled is logged, so that flushing is cheap."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def tlb_note(cpu: cython.pointer(Cpu), access: cython.int, gva: u64) -> cython.void:
    """Log an entry just filled; cpu.walk_global says of which kind."""
    slot: cython.pointer(TlbEntry)
    if cpu.walk_shift > cpu.tlb_largest:
        cpu.tlb_largest = cpu.walk_shift
    if cpu.tlb_log_count >= TLB_LOG:
        cpu.tlb_log_count = TLB_LOG + 1
        return
    slot = tlb_slot(cpu, access_context(cpu, access), access & ACCESS_KIND, gva)
    cpu.tlb_log[cpu.tlb_log_count] = cython.cast(u32, slot - cpu.tlb) | (TLB_LOG_GLOBAL if cpu.walk_global else 0)
    cpu.tlb_log_count += 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb(cpu: cython.pointer(Cpu)) -> cython.void:
    """Forget all translations, global ones included."""
    i: cython.int
    if cpu.tlb_log_count > TLB_LOG:
        for i in range(TLB_CONTEXTS * (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES)):
            cpu.tlb[i].tag = 1
    else:
        for i in range(cython.cast(cython.int, cpu.tlb_log_count)):
            cpu.tlb[cpu.tlb_log[i] & TLB_LOG_SLOT].tag = 1
    cpu.tlb_log_count = 0
    cpu.tlb_largest = PAGE_SHIFT
    renew_epoch(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb_nonglobal(cpu: cython.pointer(Cpu)) -> cython.void:
    """Forget translations, but keep those of global pages: MOV to CR3 (SDM 3A 4.10.4.1)."""
    i: cython.int
    kept: u32 = 0
    if cpu.tlb_log_count > TLB_LOG:
        flush_tlb(cpu)
        return
    for i in range(cython.cast(cython.int, cpu.tlb_log_count)):
        if cpu.tlb_log[i] & TLB_LOG_GLOBAL:
            cpu.tlb_log[kept] = cpu.tlb_log[i]
            kept += 1
        else:
            cpu.tlb[cpu.tlb_log[i] & TLB_LOG_SLOT].tag = 1
    cpu.tlb_log_count = kept
    renew_epoch(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb_page(cpu: cython.pointer(Cpu), gva: u64) -> cython.void:
    """Forget the translations of the page of one linear address, in every context (INVLPG).

    A large page is in the TLB as its 4 KiB pieces, and all of them must go (SDM 3A 4.10.4.1).
    """
    context: cython.int
    kind: cython.int
    i: cython.int
    entry: cython.pointer(TlbEntry)
    if cpu.tlb_largest > PAGE_SHIFT:
        if cpu.tlb_log_count > TLB_LOG:
            flush_tlb(cpu)
            return
        for i in range(cython.cast(cython.int, cpu.tlb_log_count)):
            entry = cpu.tlb + (cpu.tlb_log[i] & TLB_LOG_SLOT)
            if ((entry.tag ^ gva) >> cpu.tlb_largest) == 0:
                entry.tag = 1
    for context in range(TLB_CONTEXTS):
        for kind in range(3):
            entry = tlb_slot(cpu, context, kind, gva)
            if entry.tag == (gva & PAGE_MASK):
                entry.tag = 1
    renew_epoch(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def renew_epoch(cpu: cython.pointer(Cpu)) -> cython.void:
    """Make every block prove again that its linear address leads to it."""
    cpu.host.epoch += 1
    cpu.epoch = cpu.host.epoch
    update_mode(cpu)
