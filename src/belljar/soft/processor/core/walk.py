"""The page walk of the hardware: guest tables, nested tables, and the TLB."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def tlb_fill(cpu: cython.pointer(Cpu), gva: u64, access: cython.int) -> cython.int:
    """Walk for one access, fill the TLB: NEXT with cpu.fill_host and fill_hpa, FAULT (#PF) or EXIT (EPT violation)."""
    host: cython.pointer(u8) = host_pointer(cpu.host, gva)
    if host == cython.NULL:
        return request_exit(cpu, EXIT_REASON_EPT_VIOLATION, gva)
    cpu.fill_host = host
    cpu.fill_hpa = gva
    tlb_insert(cpu, access, gva, host, gva)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb(cpu: cython.pointer(Cpu)) -> cython.void:
    """Forget all translations, global ones included."""
    i: cython.int
    for i in range(TLB_CONTEXTS * (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES)):
        cpu.tlb[i].tag = 1
    cpu.host.epoch += 1
    cpu.epoch = cpu.host.epoch
    update_mode(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb_page(cpu: cython.pointer(Cpu), gva: u64) -> cython.void:
    """Forget the translations of one page."""
    flush_tlb(cpu)
