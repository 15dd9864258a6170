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
    MISC_ENABLE_FIXED = 0x1800  # no branch trace storage, no PEBS
    CPUID_LAST_BASIC = 0xD
