"""System instructions that have no larger home: descriptor tables, caches and TLB, halting, counters, random numbers, XCR0."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_table(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), which: cython.int, base: cython.pointer(u64), limit: cython.pointer(u64)) -> cython.int:
    """Common to LGDT and LIDT: privilege, intercept, operand: NEXT, FAULT or EXIT."""
    wide: cython.bint = in_long_code(cpu)
    place: cython.pointer(u8)
    status: cython.int
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_intercept_operand(cpu, insn, EXIT_REASON_GDTR_IDTR, which)
    if status != NEXT:
        return status
    place = access_memory(cpu, insn_segment(insn), effective_address(cpu, insn), 10 if wide else 6, ACCESS_READ)
    if place == cython.NULL:
        return cpu.memory_status
    limit[0] = load(place, 2)
    base[0] = load(place + 2, 8 if wide else 4)
    if operand_size(insn) == 2 and not wide:
        base[0] &= 0xFFFFFF
    if wide and not is_address(cpu, base[0]):
        return raise_fault(cpu, EXC_GP, 0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lgdt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LGDT."""
    base: u64 = 0
    limit: u64 = 0
    status: cython.int = load_table(cpu, insn, 2, cython.address(base), cython.address(limit))
    if status != NEXT:
        return status
    cpu.gdt_base = base
    cpu.gdt_limit = cython.cast(u32, limit)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_lidt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """LIDT."""
    base: u64 = 0
    limit: u64 = 0
    status: cython.int = load_table(cpu, insn, 3, cython.address(base), cython.address(limit))
    if status != NEXT:
        return status
    cpu.idt_base = base
    cpu.idt_limit = cython.cast(u32, limit)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def store_table(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), which: cython.int, base: u64, limit: u32) -> cython.int:
    """SGDT and SIDT: NEXT, FAULT or EXIT."""
    wide: cython.bint = in_long_code(cpu)
    place: cython.pointer(u8)
    status: cython.int
    if cpu.cr4 & CR4_UMIP and cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_intercept_operand(cpu, insn, EXIT_REASON_GDTR_IDTR, which)
    if status != NEXT:
        return status
    place = access_memory(cpu, insn_segment(insn), effective_address(cpu, insn), 10 if wide else 6, ACCESS_WRITE)
    if place == cython.NULL:
        return cpu.memory_status
    store(place, 2, limit)
    store(place + 2, 8 if wide else 4, base)
    if place == cpu.bounce:
        commit(cpu)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sgdt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SGDT."""
    return store_table(cpu, insn, 0, cpu.gdt_base, cpu.gdt_limit)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_sidt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """SIDT."""
    return store_table(cpu, insn, 1, cpu.idt_base, cpu.idt_limit)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_invlpg(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INVLPG: an address that is not canonical is nobody's."""
    segment: cython.int = insn_segment(insn)
    gva: u64 = effective_address(cpu, insn)
    status: cython.int
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    if not in_long_code(cpu):
        gva = (gva + cpu.base[segment]) & LOW32
    elif segment >= FS:
        gva += cpu.base[segment]
    status = vmx_intercept_address(cpu, EXIT_REASON_INVLPG, gva)
    if status != NEXT:
        return status
    if not in_long_code(cpu) or is_canonical(cpu, gva):
        flush_tlb_page(cpu, gva)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_invpcid(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INVPCID: the type in ModRM.reg, PCID and linear address in memory (SDM 2A)."""
    kind: u64 = get_reg(cpu, insn.reg, 8 if in_long_code(cpu) else 4)
    pcid: u64
    gva: u64
    place: cython.pointer(u8)
    status: cython.int
    if not insn.flags & INSN_MEM or not has_feature(cpu, FEATURE_INVPCID):
        return raise_plain(cpu, EXC_UD)
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_intercept_operand(cpu, insn, EXIT_REASON_INVPCID, 0)
    if status != NEXT:
        return status
    if kind > 3:
        return raise_fault(cpu, EXC_GP, 0)
    place = access_memory(cpu, insn_segment(insn), effective_address(cpu, insn), 16, ACCESS_READ)
    if place == cython.NULL:
        return cpu.memory_status
    pcid = load(place, 8)
    gva = load(place + 8, 8)
    if pcid >> 12 or (kind < 2 and pcid and not cpu.cr4 & CR4_PCIDE) or (kind == 0 and not is_address(cpu, gva)):
        return raise_fault(cpu, EXC_GP, 0)
    invalidate_pcid(cpu, kind, pcid, gva)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def privileged(cpu: cython.pointer(Cpu), reason: u32) -> cython.int:
    """CPL 0 only, then the VM's controls: NEXT, #GP(0) or EXIT."""
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    return vmx_intercept(cpu, reason)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_invd(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """INVD: there are no caches whose contents could be lost."""
    return privileged(cpu, EXIT_REASON_INVD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_wbinvd(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """WBINVD: there are no caches to write back."""
    return privileged(cpu, EXIT_REASON_WBINVD)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_stac(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """STAC."""
    if cpu.cpl or not has_feature(cpu, FEATURE_SMAP):
        return raise_plain(cpu, EXC_UD)
    cpu.rflags |= FLAG_AC
    update_mode(cpu)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_clac(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CLAC."""
    if cpu.cpl or not has_feature(cpu, FEATURE_SMAP):
        return raise_plain(cpu, EXC_UD)
    cpu.rflags &= ~cython.cast(u64, FLAG_AC)
    update_mode(cpu)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_hlt(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """HLT."""
    status: cython.int = privileged(cpu, EXIT_REASON_HLT)
    if status != NEXT:
        return status
    cpu.activity = ACTIVITY_HLT
    update_mode(cpu)
    return end_block(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_tsc(cpu: cython.pointer(Cpu)) -> u64:
    """The time-stamp counter before any offset, in nanoseconds.

    It counts what the guest did, so that runs repeat exactly, or follows the host's clock.
    """
    return cpu.tsc_base + (clock_ns() if cpu.tsc_host else counted_ns(cpu))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_tsc(cpu: cython.pointer(Cpu), value: u64) -> cython.void:
    """Have it go on from `value`."""
    cpu.tsc_base = value - (clock_ns() if cpu.tsc_host else counted_ns(cpu))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def counted_ns(cpu: cython.pointer(Cpu)) -> u64:
    """A nanosecond for each instruction, or round charged in place of one, and what exits were charged."""
    return instructions_retired(cpu) + cpu.charged + cpu.exits_ns


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def charge_exit(cpu: cython.pointer(Cpu)) -> cython.void:
    """The hypervisor serves an exit: time passes for the guest."""
    cpu.exits_ns += cpu.exit_ns


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def left_until(cpu: cython.pointer(Cpu), limit: i64, until_ns: i64) -> i64:
    """How many instructions there may be until `limit` was spent, or the counter shows `until_ns` if that is not FOREVER."""
    left: i64 = limit - cython.cast(i64, cpu.retired + cpu.charged)
    ns: i64
    if until_ns != FOREVER:
        ns = until_ns - cython.cast(i64, read_tsc(cpu))
        if ns < left:
            return ns
    return left


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def tsc_fault(cpu: cython.pointer(Cpu), reason: u32) -> cython.int:
    """CR4.TSD, then the VM's controls: NEXT, #GP(0) or EXIT."""
    if cpu.cr4 & CR4_TSD and cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    return vmx_intercept(cpu, reason)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_edx_eax(cpu: cython.pointer(Cpu), value: u64) -> cython.void:
    """Give a 64-bit answer in EDX:EAX, upper halves cleared."""
    cpu.gpr[RAX] = value & LOW32
    cpu.gpr[RDX] = value >> 32


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdtsc(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDTSC."""
    status: cython.int
    if not has_feature(cpu, FEATURE_TSC):
        return raise_plain(cpu, EXC_UD)
    status = tsc_fault(cpu, EXIT_REASON_RDTSC)
    if status == NEXT:
        set_edx_eax(cpu, vmx_tsc(cpu, read_tsc(cpu)))
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdtscp(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDTSCP."""
    status: cython.int
    if not has_feature(cpu, FEATURE_RDTSCP):
        return raise_plain(cpu, EXC_UD)
    status = tsc_fault(cpu, EXIT_REASON_RDTSCP)
    if status == NEXT:
        set_edx_eax(cpu, vmx_tsc(cpu, read_tsc(cpu)))
        cpu.gpr[RCX] = cpu.tsc_aux & LOW32
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdpid(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDPID."""
    if not has_feature(cpu, FEATURE_RDPID):
        return raise_plain(cpu, EXC_UD)
    set_reg(cpu, insn.rm, 8 if in_long_code(cpu) else 4, cpu.tsc_aux)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdpmc(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDPMC: there are no performance counters, so every number of one is wrong."""
    status: cython.int
    if cpu.cpl and not cpu.cr4 & CR4_PCE:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_intercept(cpu, EXIT_REASON_RDPMC)
    return raise_fault(cpu, EXC_GP, 0) if status == NEXT else status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def next_random(cpu: cython.pointer(Cpu)) -> u64:
    """A xorshift64* generator (Marsaglia 2003, Vigna 2016): random numbers that repeat with the run."""
    x: u64 = cpu.random if cpu.random else RANDOM_SEED
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    cpu.random = x
    return x * RANDOM_FACTOR


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def give_random(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), reason: u32) -> cython.int:
    """RDRAND and RDSEED: always successful, CF set and the other flags clear."""
    status: cython.int = vmx_intercept(cpu, reason)
    if status != NEXT:
        return status
    set_reg(cpu, insn.rm, operand_size(insn), next_random(cpu))
    set_arithmetic_flags(cpu, FLAG_CF)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdrand(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDRAND."""
    if not has_feature(cpu, FEATURE_RDRAND):
        return raise_plain(cpu, EXC_UD)
    return give_random(cpu, insn, EXIT_REASON_RDRAND)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdseed(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDSEED."""
    if not has_feature(cpu, FEATURE_RDSEED):
        return raise_plain(cpu, EXC_UD)
    return give_random(cpu, insn, EXIT_REASON_RDSEED)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_monitor(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MONITOR: the address must be readable; nothing is armed, because MWAIT may end at once (SDM 2B, MWAIT)."""
    value: u64 = 0
    status: cython.int
    if cpu.cpl or not has_feature(cpu, FEATURE_MONITOR):
        return raise_plain(cpu, EXC_UD)
    status = vmx_intercept(cpu, EXIT_REASON_MONITOR)
    if status != NEXT:
        return status
    if cpu.gpr[RCX] & LOW32:
        return raise_fault(cpu, EXC_GP, 0)
    return read_memory(cpu, insn_segment(insn), cpu.gpr[RAX] & address_mask(insn), 1, cython.address(value))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_mwait(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """MWAIT: as a no-operation, which the manual allows."""
    status: cython.int
    if cpu.cpl or not has_feature(cpu, FEATURE_MONITOR):
        return raise_plain(cpu, EXC_UD)
    status = vmx_intercept(cpu, EXIT_REASON_MWAIT)
    if status == NEXT and cpu.gpr[RCX] & LOW32 > 1:
        return raise_fault(cpu, EXC_GP, 0)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdpkru(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDPKRU."""
    if not cpu.cr4 & CR4_PKE:
        return raise_plain(cpu, EXC_UD)
    if cpu.gpr[RCX] & LOW32:
        return raise_fault(cpu, EXC_GP, 0)
    set_edx_eax(cpu, cpu.pkru)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_wrpkru(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """WRPKRU."""
    if not cpu.cr4 & CR4_PKE:
        return raise_plain(cpu, EXC_UD)
    if cpu.gpr[RCX] & LOW32 or cpu.gpr[RDX] & LOW32:
        return raise_fault(cpu, EXC_GP, 0)
    if cpu.pkru != cpu.gpr[RAX] & LOW32:
        cpu.pkru = cython.cast(u32, cpu.gpr[RAX] & LOW32)
        flush_tlb_data(cpu, True)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_xgetbv(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XGETBV: XCR0 is the only one."""
    if not cpu.cr4 & CR4_OSXSAVE:
        return raise_plain(cpu, EXC_UD)
    if cpu.gpr[RCX] & LOW32:
        return raise_fault(cpu, EXC_GP, 0)
    set_edx_eax(cpu, cpu.xcr0)
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_xsetbv(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """XSETBV: bit 0 (x87) must be set, and is all there is."""
    status: cython.int
    if not cpu.cr4 & CR4_OSXSAVE:
        return raise_plain(cpu, EXC_UD)
    status = privileged(cpu, EXIT_REASON_XSETBV)
    if status != NEXT:
        return status
    if cpu.gpr[RCX] & LOW32 or cpu.gpr[RDX] & LOW32 or cpu.gpr[RAX] & LOW32 != 1:
        return raise_fault(cpu, EXC_GP, 0)
    cpu.xcr0 = 1
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rsm(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RSM: outside system-management mode, which this processor never enters, it is #UD."""
    return raise_plain(cpu, EXC_UD)
