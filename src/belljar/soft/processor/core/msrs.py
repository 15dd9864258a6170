"""Model-specific registers (SDM 4, chapter 2): those that exist are listed here; any other raises #GP(0)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_pat_valid(value: u64) -> cython.bint:
    """Whether each byte is a memory type that the PAT may hold: 0, 1, 4, 5, 6 or 7 (SDM 3A 12.12.2)."""
    i: cython.int
    entry: u64
    for i in range(8):
        entry = (value >> (8 * i)) & 0xFF
        if entry > 7 or entry == 2 or entry == 3:
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def has_msr(cpu: cython.pointer(Cpu), index: u32) -> cython.bint:
    """Whether the features are there that an MSR came with; True for those that came with none, or do not exist."""
    if index == MSR_TSC:
        return has_feature(cpu, FEATURE_TSC)
    if index >= MSR_SYSENTER_CS and index <= MSR_SYSENTER_EIP:
        return has_feature(cpu, FEATURE_SEP)
    if index == MSR_PAT:
        return has_feature(cpu, FEATURE_PAT)
    if index == MSR_MTRRCAP or (index >= MSR_MTRR_VARIABLE and index <= MSR_MTRR_DEFAULT):
        return has_feature(cpu, FEATURE_MTRR)
    if index == MSR_ARCH_CAPABILITIES:
        return has_feature(cpu, FEATURE_ARCH_CAPABILITIES)
    if index == MSR_TSC_AUX:
        return has_feature(cpu, FEATURE_RDTSCP) or has_feature(cpu, FEATURE_RDPID)
    if index == MSR_EFER:
        return has_feature(cpu, FEATURE_LM) or has_feature(cpu, FEATURE_NX)
    if index >= MSR_STAR and index <= MSR_KERNEL_GS_BASE:
        return has_feature(cpu, FEATURE_LM)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_msr_system(cpu: cython.pointer(Cpu), index: u32, value: cython.pointer(u64)) -> cython.bint:
    """The MSRs below 0xC0000000: False if there is no such MSR."""
    if index == MSR_TSC:
        value[0] = vmx_tsc(cpu, read_tsc(cpu))
    elif index == MSR_APIC_BASE:
        value[0] = cpu.apic_base
    elif index == MSR_SYSENTER_CS:
        value[0] = cpu.sysenter_cs
    elif index == MSR_SYSENTER_ESP:
        value[0] = cpu.sysenter_esp
    elif index == MSR_SYSENTER_EIP:
        value[0] = cpu.sysenter_eip
    elif index == MSR_MISC_ENABLE:
        value[0] = cpu.misc_enable | MISC_ENABLE_FIXED
    elif index == MSR_DEBUGCTL:
        value[0] = cpu.debugctl
    elif index == MSR_PAT:
        value[0] = cpu.pat
    elif index == MSR_PLATFORM_ID:
        value[0] = 0
    elif index == MSR_BIOS_SIGN_ID:
        value[0] = MICROCODE_REVISION
    elif index == MSR_ARCH_CAPABILITIES:
        value[0] = ARCH_CAPABILITIES
    else:
        return read_mtrr(cpu, index, value)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_msr_extended(cpu: cython.pointer(Cpu), index: u32, value: cython.pointer(u64)) -> cython.bint:
    """The MSRs from 0xC0000080 on: False if there is no such MSR."""
    if index == MSR_EFER:
        value[0] = cpu.efer
    elif index == MSR_STAR:
        value[0] = cpu.star
    elif index == MSR_LSTAR:
        value[0] = cpu.lstar
    elif index == MSR_CSTAR:
        value[0] = cpu.cstar
    elif index == MSR_FMASK:
        value[0] = cpu.fmask
    elif index == MSR_FS_BASE:
        value[0] = cpu.base[FS]
    elif index == MSR_GS_BASE:
        value[0] = cpu.base[GS]
    elif index == MSR_KERNEL_GS_BASE:
        value[0] = cpu.kernel_gs_base
    elif index == MSR_TSC_AUX:
        value[0] = cpu.tsc_aux
    else:
        return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_msr(cpu: cython.pointer(Cpu), index: u32, value: cython.pointer(u64)) -> cython.int:
    """RDMSR without privilege and intercepts: NEXT or #GP(0)."""
    if not has_msr(cpu, index):
        return raise_fault(cpu, EXC_GP, 0)
    if read_msr_system(cpu, index, value) or read_msr_extended(cpu, index, value):
        return NEXT
    return raise_fault(cpu, EXC_GP, 0)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def has_no_execute(cpu: cython.pointer(Cpu)) -> cython.bint:
    """Whether no-execute pages exist: the feature, unless IA32_MISC_ENABLE disables it."""
    return has_feature(cpu, FEATURE_NX) and not (cpu.misc_enable >> MISC_ENABLE_NO_NX) & 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def efer_allowed(cpu: cython.pointer(Cpu)) -> u64:
    """The bits of IA32_EFER that this processor has (SDM 3A 2.2.1)."""
    allowed: u64 = 0
    if has_feature(cpu, FEATURE_SYSCALL):
        allowed |= EFER_SCE
    if has_feature(cpu, FEATURE_LM):
        allowed |= EFER_LME | EFER_LMA
    if has_feature(cpu, FEATURE_NX):
        allowed |= EFER_NXE
    return allowed


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_efer(cpu: cython.pointer(Cpu), value: u64) -> cython.bint:
    """IA32_EFER; LMA follows CR0.PG and cannot be written. False: the value is refused."""
    changed: u64
    value = (value & ~cython.cast(u64, EFER_LMA)) | (cpu.efer & EFER_LMA)
    changed = value ^ cpu.efer
    if changed & value & EFER_NXE and not has_no_execute(cpu):
        return False
    if value & ~efer_allowed(cpu) or (changed & EFER_LME and cpu.cr0 & CR0_PG):
        return False
    cpu.efer = value
    if changed & (EFER_NXE | EFER_LME):
        flush_tlb(cpu)
    update_mode(cpu)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_apic_base(cpu: cython.pointer(Cpu), value: u64) -> cython.bint:
    """IA32_APIC_BASE: an aligned physical address, BSP and the global enable; no x2APIC."""
    if value >> PHYSICAL_BITS or value & 0x6FF:
        return False
    cpu.apic_base = value
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_misc_enable(cpu: cython.pointer(Cpu), value: u64) -> cython.bint:
    """IA32_MISC_ENABLE: what is told of CPUID and of no-execute pages has effect, speed and heat have none here."""
    writable: u64 = MISC_ENABLE_WRITABLE | (cython.cast(u64, 1) << MISC_ENABLE_NO_NX)
    if value & ~(writable | MISC_ENABLE_FIXED):
        return False
    cpu.misc_enable = value & writable
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_msr_system(cpu: cython.pointer(Cpu), index: u32, value: u64) -> cython.bint:
    """The MSRs below 0xC0000000: False if there is no such MSR, or not with such a value."""
    address_bad: cython.bint = not is_address(cpu, value)
    if index == MSR_TSC:
        set_tsc(cpu, value)
    elif index == MSR_APIC_BASE:
        return write_apic_base(cpu, value)
    elif index == MSR_SYSENTER_CS:
        cpu.sysenter_cs = value & LOW32
    elif index == MSR_SYSENTER_ESP and not address_bad:
        cpu.sysenter_esp = value
    elif index == MSR_SYSENTER_EIP and not address_bad:
        cpu.sysenter_eip = value
    elif index == MSR_MISC_ENABLE:
        return write_misc_enable(cpu, value)
    elif index == MSR_DEBUGCTL and not value & ~cython.cast(u64, DEBUGCTL_DEFINED):
        cpu.debugctl = value
    elif index == MSR_PAT and is_pat_valid(value):
        cpu.pat = value
    elif index == MSR_BIOS_SIGN_ID:
        return True  # asks for the revision, which reading then tells anyway
    else:
        return write_mtrr(cpu, index, value)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_msr_extended(cpu: cython.pointer(Cpu), index: u32, value: u64) -> cython.bint:
    """The MSRs from 0xC0000080 on: False if there is no such MSR, or not with such a value."""
    address_bad: cython.bint = not is_address(cpu, value)
    if index == MSR_EFER:
        return write_efer(cpu, value)
    if index == MSR_STAR:
        cpu.star = value
    elif index == MSR_LSTAR and not address_bad:
        cpu.lstar = value
    elif index == MSR_CSTAR and not address_bad:
        cpu.cstar = value
    elif index == MSR_FMASK and value <= LOW32:
        cpu.fmask = value
    elif index == MSR_FS_BASE and not address_bad:
        cpu.base[FS] = value
    elif index == MSR_GS_BASE and not address_bad:
        cpu.base[GS] = value
    elif index == MSR_KERNEL_GS_BASE and not address_bad:
        cpu.kernel_gs_base = value
    elif index == MSR_TSC_AUX and value <= LOW32:
        cpu.tsc_aux = value
    else:
        return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_msr(cpu: cython.pointer(Cpu), index: u32, value: u64) -> cython.int:
    """WRMSR without privilege and intercepts: NEXT or #GP(0) with nothing changed."""
    if not has_msr(cpu, index):
        return raise_fault(cpu, EXC_GP, 0)
    if write_msr_system(cpu, index, value) or write_msr_extended(cpu, index, value):
        return NEXT
    return raise_fault(cpu, EXC_GP, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_rdmsr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """RDMSR."""
    value: u64 = 0
    index: u32 = cython.cast(u32, cpu.gpr[RCX] & LOW32)
    status: cython.int
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_msr(cpu, index, False)
    if status == NEXT:
        status = read_msr(cpu, index, cython.address(value))
    if status == NEXT:
        set_edx_eax(cpu, value)
    return status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_wrmsr(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """WRMSR."""
    index: u32 = cython.cast(u32, cpu.gpr[RCX] & LOW32)
    status: cython.int
    if cpu.cpl:
        return raise_fault(cpu, EXC_GP, 0)
    status = vmx_msr(cpu, index, True)
    if status == NEXT:
        status = write_msr(cpu, index, (cpu.gpr[RDX] << 32) | (cpu.gpr[RAX] & LOW32))
    return end_block(cpu) if status == NEXT else status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reset_msrs(cpu: cython.pointer(Cpu)) -> cython.void:
    """The MSRs after reset (SDM 3A table 9-1), and the random numbers from their beginning."""
    cpu.pat = PAT_RESET
    cpu.apic_base = APIC_BASE_RESET
    cpu.efer = 0
    cpu.star = cpu.lstar = cpu.cstar = cpu.fmask = cpu.kernel_gs_base = 0
    cpu.sysenter_cs = cpu.sysenter_esp = cpu.sysenter_eip = 0
    cpu.tsc_base = cpu.tsc_aux = cpu.debugctl = 0
    cpu.misc_enable = 1
    reset_mtrrs(cpu)
    cpu.random = RANDOM_SEED
