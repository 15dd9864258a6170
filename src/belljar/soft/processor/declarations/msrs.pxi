# Model-specific registers and CPUID leaves.

cdef enum:  # MSRs (SDM 4 table 2-2); those above bit 30 are constants at the top
    MSR_TSC = 0x10
    MSR_PLATFORM_ID = 0x17
    MSR_APIC_BASE = 0x1B
    MSR_BIOS_SIGN_ID = 0x8B
    MSR_SYSENTER_CS = 0x174
    MSR_SYSENTER_ESP = 0x175
    MSR_SYSENTER_EIP = 0x176
    MSR_MISC_ENABLE = 0x1A0
    MSR_DEBUGCTL = 0x1D9
    MSR_PAT = 0x277
    MSR_MTRRCAP = 0xFE
    MSR_ARCH_CAPABILITIES = 0x10A
    MSR_MTRR_VARIABLE = 0x200   # base and mask in turn
    MSR_MTRR_FIX64K = 0x250
    MSR_MTRR_FIX16K = 0x258
    MSR_MTRR_FIX4K = 0x268
    MSR_MTRR_DEFAULT = 0x2FF

cdef enum:
    DEBUGCTL_DEFINED = 0            # no branch records, no single-stepping on branches, no branch trace

cdef enum:  # IA32_MISC_ENABLE (SDM 4 table 2-2)
    MISC_ENABLE_FIXED = 0x1800      # no branch trace storage, no PEBS
    MISC_ENABLE_WRITABLE = 0xC50009 # fast strings, thermal control, SpeedStep, MONITOR, CPUID limit, xTPR; XD disable above
    MISC_ENABLE_LIMIT = 0x400000    # CPUID goes no further than leaf 2
    MISC_ENABLE_NO_NX = 34          # by number: there are no no-execute pages

cdef enum:  # MTRRs (SDM 3A 12.11)
    MTRRS = 8                   # pairs of base and mask
    MTRR_FIXED = 11
    MTRRCAP = 0x508             # 8 pairs, fixed ranges, write-combining; no SMRR
    MTRR_VALID = 0x800          # of a mask
    MTRR_DEFAULT_BITS = 0xCFF   # type, fixed enable, enable

cdef enum:  # CPUID
    CPUID_LAST_BASIC = 0x16     # the last ones are the hypervisor's to answer
    CACHE_LINE = 64
    CACHE_L1_WAYS = 8
    CACHE_L1_SETS = 64
    CACHE_L2_WAYS = 4
    CACHE_L2_SETS = 1024

cdef extern from *:
    # Neither branches nor loads are ever speculated: RDCL_NO, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO,
    # SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO (SDM 4 table 2-2).
    const u64 ARCH_CAPABILITIES "0xD10E179ULL"
    const u64 MICROCODE_REVISION "0x100000000ULL"
