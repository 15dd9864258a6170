"""CPUID: exactly what this processor has, with the features that were switched off left out (SDM 2A, CPUID)."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cpuid_basic(cpu: cython.pointer(Cpu), answer: cython.pointer(u32)) -> cython.void:
    """Leaf 1: signature, CLFLUSH size, features."""
    answer[0] = 0x506E3
    answer[1] = (8 << 8) if has_feature(cpu, FEATURE_CLFLUSH) else 0
    answer[2] = (
        feature_at(cpu, FEATURE_MONITOR, 3)
        | feature_at(cpu, FEATURE_CX16, 13)
        | feature_at(cpu, FEATURE_PCID, 17)
        | feature_at(cpu, FEATURE_MOVBE, 22)
        | feature_at(cpu, FEATURE_POPCNT, 23)
        | feature_at(cpu, FEATURE_XSAVE, 26)
        | ((1 << 27) if cpu.cr4 & CR4_OSXSAVE else 0)
        | feature_at(cpu, FEATURE_RDRAND, 30)
    )
    answer[3] = (
        (1 << 5)  # MSRs
        | feature_at(cpu, FEATURE_VME, 1)
        | feature_at(cpu, FEATURE_DE, 2)
        | feature_at(cpu, FEATURE_PSE, 3)
        | feature_at(cpu, FEATURE_TSC, 4)
        | feature_at(cpu, FEATURE_PAE, 6)
        | feature_at(cpu, FEATURE_MCE, 7)
        | feature_at(cpu, FEATURE_CX8, 8)
        | feature_at(cpu, FEATURE_SEP, 11)
        | feature_at(cpu, FEATURE_MTRR, 12)
        | feature_at(cpu, FEATURE_PGE, 13)
        | feature_at(cpu, FEATURE_MCA, 14)
        | feature_at(cpu, FEATURE_CMOV, 15)
        | feature_at(cpu, FEATURE_PAT, 16)
        | feature_at(cpu, FEATURE_PSE36, 17)
        | feature_at(cpu, FEATURE_CLFLUSH, 19)
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cpuid_structured(cpu: cython.pointer(Cpu), answer: cython.pointer(u32)) -> cython.void:
    """Leaf 7, subleaf 0."""
    answer[1] = (
        feature_at(cpu, FEATURE_FSGSBASE, 0)
        | feature_at(cpu, FEATURE_BMI1, 3)
        | feature_at(cpu, FEATURE_SMEP, 7)
        | feature_at(cpu, FEATURE_BMI2, 8)
        | feature_at(cpu, FEATURE_INVPCID, 10)
        | feature_at(cpu, FEATURE_RDSEED, 18)
        | feature_at(cpu, FEATURE_ADX, 19)
        | feature_at(cpu, FEATURE_SMAP, 20)
        | feature_at(cpu, FEATURE_CLFLUSHOPT, 23)
        | feature_at(cpu, FEATURE_CLWB, 24)
    )
    answer[2] = (
        feature_at(cpu, FEATURE_UMIP, 2)
        | feature_at(cpu, FEATURE_PKU, 3)
        | ((1 << 4) if cpu.cr4 & CR4_PKE else 0)
        | feature_at(cpu, FEATURE_LA57, 16)
        | feature_at(cpu, FEATURE_RDPID, 22)
    )
    answer[3] = feature_at(cpu, FEATURE_ARCH_CAPABILITIES, 29)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cpuid_extended(cpu: cython.pointer(Cpu), answer: cython.pointer(u32)) -> cython.void:
    """Leaf 0x80000001; SYSCALL is reported in 64-bit mode only, as Intel's processors do."""
    answer[2] = (
        feature_at(cpu, FEATURE_LAHF64, 0)
        | feature_at(cpu, FEATURE_LZCNT, 5)
        | feature_at(cpu, FEATURE_PREFETCHW, 8)
    )
    answer[3] = (
        (feature_at(cpu, FEATURE_SYSCALL, 11) if in_long_code(cpu) else 0)
        | ((1 << 20) if has_no_execute(cpu) else 0)
        | feature_at(cpu, FEATURE_PAGE1G, 26)
        | feature_at(cpu, FEATURE_RDTSCP, 27)
        | feature_at(cpu, FEATURE_LM, 29)
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cpuid_cache(subleaf: u32, answer: cython.pointer(u32)) -> cython.void:
    """Leaf 4: the inner caches of the model whose signature leaf 1 gives, for programs that size their buffers by them.

    EAX: type, level, self-initializing; EBX: ways, lines of 64 bytes; ECX: sets; each number less one. Whatever they hold
    is coherent at once, so that nothing else can be seen of them.
    """
    if subleaf > 2:
        return
    answer[0] = (subleaf + 1 if subleaf < 2 else 3) | ((1 if subleaf < 2 else 2) << 5) | (1 << 8)
    answer[1] = ((CACHE_L1_WAYS if subleaf < 2 else CACHE_L2_WAYS) - 1) << 22 | (CACHE_LINE - 1)
    answer[2] = (CACHE_L1_SETS if subleaf < 2 else CACHE_L2_SETS) - 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cpuid_text(answer: cython.pointer(u32), text: cython.p_char, length: cython.int) -> cython.void:
    """Sixteen bytes of a text, padded with zeros, in the four registers."""
    i: cython.int
    for i in range(length):
        answer[i >> 2] |= cython.cast(u32, text[i] & 0xFF) << (8 * (i & 3))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cpuid_leaf(cpu: cython.pointer(Cpu), leaf: u32, subleaf: u32, answer: cython.pointer(u32)) -> cython.void:
    """The four registers EAX, EBX, ECX, EDX for a leaf. Past the last basic leaf Intel's processors answer with that one."""
    kind: u32 = leaf
    answer[0] = answer[1] = answer[2] = answer[3] = 0
    if kind >> 28 == 4:
        return  # no processor ever says anything in 40000000H to 4FFFFFFFH (SDM 2A CPUID): a hypervisor's
    if kind > CPUID_LAST_BASIC and (kind < CPUID_EXTENDED or kind > CPUID_LAST_EXTENDED):
        kind = CPUID_LAST_BASIC
    if kind == 0:
        answer[0] = 2 if cpu.misc_enable & MISC_ENABLE_LIMIT else CPUID_LAST_BASIC
        answer[1] = 0x756E6547  # "GenuineIntel"
        answer[3] = 0x49656E69
        answer[2] = 0x6C65746E
    elif kind == 1:
        cpuid_basic(cpu, answer)
    elif kind == 2:
        answer[0] = 0xFF01  # no descriptors, but one that refers to leaf 4
    elif kind == 4:
        cpuid_cache(subleaf, answer)
    elif kind == 7 and subleaf == 0:
        cpuid_structured(cpu, answer)
    elif kind == 0xD and subleaf == 0 and has_feature(cpu, FEATURE_XSAVE):
        answer[0] = 1
        answer[1] = answer[2] = 576  # legacy region and XSAVE header (SDM 1 13.4)
    elif kind == 0x15:
        answer[0] = answer[1] = 1
        answer[2] = 1000000000  # the TSC counts as often as the crystal: a nanosecond an instruction
    elif kind == 0x16:
        answer[0] = answer[1] = answer[2] = 1000  # MHz: processor, at most, bus
    elif kind == CPUID_EXTENDED:
        answer[0] = CPUID_LAST_EXTENDED
    elif kind == CPUID_EXTENDED + 1:
        cpuid_extended(cpu, answer)
    elif kind == CPUID_EXTENDED + 2:
        cpuid_text(answer, b"belljar soft pro", 16)
    elif kind == CPUID_EXTENDED + 3:
        cpuid_text(answer, b"cessor", 6)
    elif kind == CPUID_EXTENDED + 6:
        # kilobytes of the second-level cache, 4 ways (coded 4), line size
        answer[2] = (CACHE_LINE * CACHE_L2_WAYS * CACHE_L2_SETS >> 10) << 16 | 4 << 12 | CACHE_LINE
    elif kind == CPUID_EXTENDED + 7:
        answer[3] = feature_at(cpu, FEATURE_TSC, 8)  # it counts instructions, whatever the power state
    elif kind == CPUID_EXTENDED + 8:
        answer[0] = PHYSICAL_BITS | ((57 if has_feature(cpu, FEATURE_LA57) else 48) << 8)
        if not has_feature(cpu, FEATURE_LM):
            answer[0] = PHYSICAL_BITS | (32 << 8)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def op_cpuid(cpu: cython.pointer(Cpu), insn: cython.pointer(Insn)) -> cython.int:
    """CPUID."""
    answer: u32[4]
    status: cython.int = vmx_intercept(cpu, EXIT_REASON_CPUID)
    if status != NEXT:
        return status
    cpuid_leaf(cpu, cython.cast(u32, cpu.gpr[RAX] & LOW32), cython.cast(u32, cpu.gpr[RCX] & LOW32), answer)
    cpu.gpr[RAX] = answer[0]
    cpu.gpr[RBX] = answer[1]
    cpu.gpr[RCX] = answer[2]
    cpu.gpr[RDX] = answer[3]
    return NEXT
