# Constants above 31 bits. As literals they would be Python objects: they get their value in C's notation here.

cdef extern from *:
    const u64 LARGE_MASK "0xFFFFFFFFFFE00000ULL"           # where 2 MiB begin
    const u64 LOW32 "0xFFFFFFFFULL"
    const u64 ALL_ONES "0xFFFFFFFFFFFFFFFFULL"
    const i64 FOREVER "0x3FFFFFFFFFFFFFFFLL"     # no limit: no run executes so much, no clock shows it
    const u64 PAGE_MASK "0xFFFFFFFFFFFFF000ULL"
    const u64 CR0_PG "0x80000000ULL"
    const u64 SIGN_BIT "0x8000000000000000ULL"
    const u64 FLAGS_VALID "0x3F7FD7ULL"          # RFLAGS without its reserved bits
    const u64 CR0_DEFINED "0xE005003FULL"        # CR0 without its reserved bits
    const u64 DR6_FIXED "0xFFFF0FF0ULL"          # ones that never change (SDM 3B figure 18-1; no RTM, no bus-lock debugging)
    const u64 DR6_WRITABLE "0xE00FULL"
    const u64 DR6_BD "0x2000ULL"                 # a debug register was touched while DR7.GD was set
    const u64 DR6_BS "0x4000ULL"                 # single step
    const u64 DR6_BT "0x8000ULL"                 # task switch to a TSS with T set
    const u64 DR7_FIXED "0x400ULL"
    const u64 DR7_WRITABLE "0xFFFF23FFULL"
    const u64 DR7_GD "0x2000ULL"
    const u32 VECTORING_VALID "0x80000000U"      # SDM 3C table 25-19
    const u64 RANDOM_SEED "0x9E3779B97F4A7C15ULL"
    const u64 RANDOM_FACTOR "0x2545F4914F6CDD1DULL"
    const u64 PAT_RESET "0x0007040600070406ULL"  # SDM 3A 12.12.4
    const u64 APIC_BASE_RESET "0xFEE00900ULL"     # SDM 3A 11.4.4: enabled, bootstrap processor
    const u32 MSR_EFER "0xC0000080U"             # SDM 4 table 2-2, here and in the enum of MSRs
    const u32 MSR_STAR "0xC0000081U"
    const u32 MSR_LSTAR "0xC0000082U"
    const u32 MSR_CSTAR "0xC0000083U"
    const u32 MSR_FMASK "0xC0000084U"
    const u32 MSR_FS_BASE "0xC0000100U"
    const u32 MSR_GS_BASE "0xC0000101U"
    const u32 MSR_KERNEL_GS_BASE "0xC0000102U"
    const u32 MSR_TSC_AUX "0xC0000103U"
    const u32 CPUID_EXTENDED "0x80000000U"
    const u32 CPUID_LAST_EXTENDED "0x80000008U"
