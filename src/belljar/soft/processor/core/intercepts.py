"""What a VM's controls may take from its guest: each hook stands in an instruction, after its own #UD, privilege and #GP checks.

All answer NEXT (go on) or EXIT (a VM exit was requested; the instruction has not happened), and NEXT outside a guest (SDM 3C 26.1).
"""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_intercept(cpu: cython.pointer(Cpu), reason: u32) -> cython.int:
    """Exits that a control alone decides, without qualification: CPUID, HLT, RDTSC and so on."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_intercept_address(cpu: cython.pointer(Cpu), reason: u32, gva: u64) -> cython.int:
    """INVLPG: the qualification is the linear address."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_intercept_operand(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), reason: u32, which: cython.int) -> cython.int:
    """Exits that carry instruction information: INVPCID, descriptor-table accesses (`which`: 0 SGDT SLDT, 1 SIDT STR, 2 LGDT LLDT, 3 LIDT LTR)."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_write_cr(cpu: cython.pointer(Cpu), number: cython.int, gpr: cython.int, value: cython.pointer(u64)) -> cython.int:
    """MOV to CR0, CR3, CR4 or CR8; value[0] is adjusted by the guest/host masks."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_lmsw(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), value: cython.pointer(u64)) -> cython.int:
    """LMSW: value[0] is the whole new CR0, adjusted by the mask."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_clts(cpu: cython.pointer(Cpu)) -> cython.int:
    """CLTS; BRANCH: done, CR0 stays as it is."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_cr_seen(cpu: cython.pointer(Cpu), number: cython.int) -> u64:
    """What a read of CR0 or CR4 shows the guest."""
    return cpu.cr0 if number == 0 else cpu.cr4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_read_cr(cpu: cython.pointer(Cpu), number: cython.int, gpr: cython.int) -> cython.int:
    """MOV from CR3 or CR8."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_debug_register(cpu: cython.pointer(Cpu), number: cython.int, write: cython.bint, gpr: cython.int) -> cython.int:
    """MOV to or from a debug register."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_io(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn), port: u32, size: cython.int, is_in: cython.bint, gva: u64) -> cython.int:
    """IN, OUT, INS, OUTS (cpu.io_string: a string instruction with its memory operand at `gva`)."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_msr(cpu: cython.pointer(Cpu), index: u32, write: cython.bint) -> cython.int:
    """RDMSR, WRMSR."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_task_switch(cpu: cython.pointer(Cpu), selector: u32, source: cython.int) -> cython.int:
    """Task switches: source 0 CALL, 1 IRET, 2 JMP, 3 task gate in the IDT."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_exception_exit(cpu: cython.pointer(Cpu)) -> cython.int:
    """The pending exception or NMI, before it is delivered."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmx_tsc(cpu: cython.pointer(Cpu), tsc: u64) -> u64:
    """What the guest sees of a time-stamp counter value."""
    return tsc + cpu.tsc_offset


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def port_in(cpu: cython.pointer(Cpu), port: u32, size: cython.int) -> u64:
    """IN that no control intercepts: nothing answers on this processor's own bus."""
    return ALL_ONES


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def port_out(cpu: cython.pointer(Cpu), port: u32, size: cython.int, value: u64) -> cython.void:
    """OUT that no control intercepts."""
    pass


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_pdptes(cpu: cython.pointer(Cpu), cr3: u64) -> cython.int:
    """PAE paging's four registers: NEXT, FAULT or EXIT (SDM 3A 4.4.1)."""
    return NEXT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb_nonglobal(cpu: cython.pointer(Cpu)) -> cython.void:
    """Forget the translations that a write of CR3 forgets."""
    flush_tlb(cpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def invalidate_pcid(cpu: cython.pointer(Cpu), kind: u64, pcid: u64, gva: u64) -> cython.void:
    """INVPCID, checked: kinds 0 to 3 (SDM 2A)."""
    flush_tlb(cpu)
