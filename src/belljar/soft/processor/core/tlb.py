"""Flushing the TLB, and its banks, one a PCID (SDM 3A 4.10). Which entries are filled is logged, so that flushing is cheap."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def tlb_note(cpu: cython.pointer(Cpu), access: cython.int, gva: u64) -> cython.void:
    """Log an entry just filled; cpu.walk_global says of which kind."""
    bank: cython.pointer(TlbBank) = cpu.bank
    slot: cython.pointer(TlbEntry)
    if cpu.walk_shift > PAGE_SHIFT:
        if cpu.walk_shift > bank.largest:
            bank.largest = cpu.walk_shift
        bank.large_regions |= large_region(bank, gva)
    if bank.log_count >= TLB_LOG:
        bank.log_count = TLB_LOG + 1
        return
    slot = tlb_slot(cpu, access_context(cpu, access), access & ACCESS_KIND, gva)
    bank.log[bank.log_count] = cython.cast(u32, slot - bank.entries) | (TLB_LOG_GLOBAL if cpu.walk_global else 0)
    if cpu.walk_shift > PAGE_SHIFT:
        bank.log[bank.log_count] |= TLB_LOG_LARGE
    bank.log_count += 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def large_region(bank: cython.pointer(TlbBank), gva: u64) -> u64:
    """The bit that stands for the 2 MiB around an address, and for some others; all of them where pages are larger."""
    if bank.largest > LARGE_SHIFT:
        return ALL_ONES
    return cython.cast(u64, 1) << (((gva >> LARGE_SHIFT) ^ (gva >> 27) ^ (gva >> 39)) & 63)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def empty_bank(bank: cython.pointer(TlbBank)) -> cython.void:
    """Forget everything in one bank."""
    i: cython.int
    if bank.log_count > TLB_LOG:
        for i in range(TLB_CONTEXTS * (2 * TLB_ENTRIES + TLB_FETCH_ENTRIES)):
            bank.entries[i].tag = 1
    else:
        for i in range(cython.cast(cython.int, bank.log_count)):
            bank.entries[bank.log[i] & TLB_LOG_SLOT].tag = 1
    bank.log_count = 0
    bank.largest = PAGE_SHIFT
    bank.large_regions = 0
    bank.stale = 0
    forget_code_writes(bank)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def forget_directories(cpu: cython.pointer(Cpu)) -> cython.void:
    """Walk from the root again: INVLPG of whatever address asks for it (SDM 3A 4.10.4.1)."""
    cpu.walk_generation += 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def forget_code_writes(bank: cython.pointer(TlbBank)) -> cython.void:
    """They are few, and go with whatever is flushed."""
    i: cython.int
    for i in range(CODE_WRITES):
        bank.code_writes[i].tag = 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def present_pcid(cpu: cython.pointer(Cpu)) -> u32:
    """The current PCID: 000H without CR4.PCIDE."""
    return cython.cast(u32, cpu.cr3 & 0xFFF) if cpu.cr4 & CR4_PCIDE else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def void_other_banks(cpu: cython.pointer(Cpu)) -> cython.void:
    """Forget what all PCIDs but the one of the bank in use have."""
    i: cython.int
    for i in range(TLB_BANKS):
        if cython.address(cpu.banks[i]) != cpu.bank:
            cpu.banks[i].stale = 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb(cpu: cython.pointer(Cpu)) -> cython.void:
    """Forget all translations, of every PCID, global ones included."""
    forget_directories(cpu)
    void_other_banks(cpu)
    empty_bank(cpu.bank)
    cpu.bank.pcid = present_pcid(cpu)
    renew_epoch(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb_nonglobal(cpu: cython.pointer(Cpu)) -> cython.void:
    """Forget the translations of the current PCID, but keep those of global pages: MOV to CR3 (SDM 3A 4.10.4.1)."""
    bank: cython.pointer(TlbBank) = cpu.bank
    i: cython.int
    kept: u32 = 0
    forget_directories(cpu)
    if bank.log_count > TLB_LOG:
        empty_bank(bank)
    for i in range(cython.cast(cython.int, bank.log_count)):
        if bank.log[i] & TLB_LOG_GLOBAL:
            bank.log[kept] = bank.log[i]
            kept += 1
        else:
            bank.entries[bank.log[i] & TLB_LOG_SLOT].tag = 1
    bank.log_count = kept
    forget_code_writes(bank)
    renew_epoch(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_entry(cpu: cython.pointer(Cpu), bank: cython.pointer(TlbBank), slot: u32) -> cython.void:
    """Forget one translation. Blocks may be bound to its page if it is one for fetches."""
    entry: cython.pointer(TlbEntry) = bank.entries + slot
    if entry.tag != 1 and is_fetch_slot(slot):
        unbind_page(cpu.host, entry.tag + entry.addend)
    entry.tag = 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_bank_page(cpu: cython.pointer(Cpu), bank: cython.pointer(TlbBank), gva: u64) -> cython.void:
    """Forget the translations of the page of one linear address in one bank, in every context, and what was bound to them.

    A large page is in the TLB as its 4 KiB pieces, and all of them must go (SDM 3A 4.10.4.1).
    """
    i: cython.int
    kind: cython.int
    slot: u32
    kept: u32 = 0
    in_large: cython.bint = (bank.large_regions & large_region(bank, gva)) != 0
    forget_directories(cpu)
    if in_large and bank.log_count > TLB_LOG:
        empty_bank(bank)
        renew_bank(cpu, bank)
        return
    if bank.fetches_lost:
        renew_bank(cpu, bank)
    if in_large:
        bank.large_regions = 0
        for i in range(cython.cast(cython.int, bank.log_count)):
            slot = bank.log[i] & TLB_LOG_SLOT
            if ((bank.entries[slot].tag ^ gva) >> bank.largest) == 0:
                drop_entry(cpu, bank, slot)
            elif bank.entries[slot].tag != 1:
                bank.log[kept] = bank.log[i]
                kept += 1
                if bank.log[i] & TLB_LOG_LARGE:
                    bank.large_regions |= large_region(bank, bank.entries[slot].tag)
        bank.log_count = kept
    for i in range(TLB_CONTEXTS):
        for kind in range(3):
            slot = cython.cast(u32, bank_slot(bank.entries, i, kind, gva) - bank.entries)
            if bank.entries[slot].tag == (gva & PAGE_MASK):
                drop_entry(cpu, bank, slot)
    forget_code_writes(bank)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb_data(cpu: cython.pointer(Cpu), loads: cython.bint) -> cython.void:
    """Forget the translations for stores, of every PCID, and with `loads` those for loads: rights have changed by PKRU or CR0.WP.

    What is fetched where stays (SDM 3A 4.6.1, 4.6.2).
    """
    bank: cython.pointer(TlbBank) = cpu.bank
    i: cython.int
    kept: u32 = 0
    if bank.log_count > TLB_LOG:
        flush_tlb(cpu)
        return
    void_other_banks(cpu)
    for i in range(cython.cast(cython.int, bank.log_count)):
        if is_fetch_slot(bank.log[i] & TLB_LOG_SLOT) or not (loads or is_write_slot(bank.log[i] & TLB_LOG_SLOT)):
            bank.log[kept] = bank.log[i]
            kept += 1
        else:
            bank.entries[bank.log[i] & TLB_LOG_SLOT].tag = 1
    bank.log_count = kept
    forget_code_writes(bank)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb_page(cpu: cython.pointer(Cpu), gva: u64) -> cython.void:
    """Forget the translations of the page of one linear address (INVLPG): of all PCIDs, for the page may be global."""
    i: cython.int
    for i in range(TLB_BANKS):
        if cpu.banks[i].entries != cython.NULL and not cpu.banks[i].stale:
            flush_bank_page(cpu, cython.address(cpu.banks[i]), gva)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def renew_epoch(cpu: cython.pointer(Cpu)) -> cython.void:
    """Make every block prove again that its linear address leads to it."""
    cpu.host.epoch += 1
    cpu.epoch = cpu.bank.epoch = cpu.host.epoch
    cpu.bank.fetches_lost = 0
    update_mode(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def renew_bank(cpu: cython.pointer(Cpu), bank: cython.pointer(TlbBank)) -> cython.void:
    """The same for those bound while a bank was in use, whether or not it is now."""
    if bank == cpu.bank:
        renew_epoch(cpu)
        return
    cpu.host.epoch += 1
    bank.epoch = cpu.host.epoch
    bank.fetches_lost = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def bank_of(cpu: cython.pointer(Cpu), pcid: u32) -> cython.pointer(TlbBank):
    """The bank with the translations of a PCID; NULL if there are none."""
    i: cython.int
    for i in range(TLB_BANKS):
        if cpu.banks[i].entries != cython.NULL and not cpu.banks[i].stale and cpu.banks[i].pcid == pcid:
            return cython.address(cpu.banks[i])
    return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_bank(cpu: cython.pointer(Cpu)) -> cython.pointer(TlbBank):
    """An empty bank other than the one in use: the one that was not chosen for longest; NULL without memory."""
    i: cython.int
    found: cython.pointer(TlbBank) = cython.NULL
    for i in range(TLB_BANKS):
        if cython.address(cpu.banks[i]) == cpu.bank:
            continue
        if cpu.banks[i].entries == cython.NULL or cpu.banks[i].stale:
            found = cython.address(cpu.banks[i])
            break
        if found == cython.NULL or cpu.banks[i].used < found.used:
            found = cython.address(cpu.banks[i])
    if found.entries == cython.NULL:
        found.entries = new_tlb_entries()
        if found.entries == cython.NULL:
            return cython.NULL
    empty_bank(found)
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def use_present_pcid(cpu: cython.pointer(Cpu)) -> cython.void:
    """After CR3 was written: take up the translations of the PCID that is now current, if there are any."""
    pcid: u32 = present_pcid(cpu)
    bank: cython.pointer(TlbBank)
    forget_directories(cpu)
    if cpu.bank.pcid == pcid:
        return
    bank = bank_of(cpu, pcid)
    if bank == cython.NULL:
        bank = free_bank(cpu)
        if bank == cython.NULL:
            flush_tlb(cpu)
            return
        bank.pcid = pcid
        renew_bank(cpu, bank)
    elif bank.epoch <= cpu.host.wrote_epoch:
        renew_bank(cpu, bank)
    cpu.bank_clock += 1
    bank.used = cpu.bank_clock
    cpu.bank = bank
    cpu.tlb = bank.entries
    cpu.epoch = bank.epoch
    update_mode(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def invalidate_pcid(cpu: cython.pointer(Cpu), kind: u64, pcid: u64, gva: u64) -> cython.void:
    """INVPCID, checked: an address of a PCID, a PCID, everything, everything but global pages (SDM 2A)."""
    bank: cython.pointer(TlbBank) = bank_of(cpu, cython.cast(u32, pcid))
    forget_directories(cpu)
    if kind == 2:
        flush_tlb(cpu)
    elif kind == 3:
        void_other_banks(cpu)
        flush_tlb_nonglobal(cpu)
    elif bank == cython.NULL:
        return
    elif kind == 0:
        flush_bank_page(cpu, bank, gva)
    elif bank == cpu.bank:
        flush_tlb_nonglobal(cpu)
    else:
        bank.stale = 1
