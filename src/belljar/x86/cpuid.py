"""CPUID: leaves, and every feature bit by name (SDM 2A CPUID; AMD APM 3 appendix E; kernel Documentation/virt/kvm/x86/cpuid.rst).

Names are lower case, as the kernel's /proc/cpuinfo writes them where it knows the feature.
"""

from __future__ import annotations

from enum import IntEnum

from belljar.errors import ConfigurationError
from belljar.records import dataclass


class Leaf(IntEnum):
    """Leaves of CPUID (EAX on entry)."""

    VENDOR = 0x0
    FEATURES = 0x1
    CACHE_DESCRIPTORS = 0x2
    CACHES = 0x4
    MONITOR = 0x5
    POWER = 0x6
    EXTENDED_FEATURES = 0x7
    PMU = 0xA
    TOPOLOGY = 0xB
    XSAVE = 0xD
    TSC_FREQUENCY = 0x15
    CPU_FREQUENCY = 0x16
    V2_TOPOLOGY = 0x1F
    HYPERVISOR = 0x40000000
    KVM_FEATURES = 0x40000001
    HV_INTERFACE = 0x40000001
    HV_VERSION = 0x40000002
    HV_FEATURES = 0x40000003
    HV_RECOMMENDATIONS = 0x40000004
    HV_LIMITS = 0x40000005
    TIMING = 0x40000010
    EXTENDED = 0x80000000
    EXTENDED_AMD_FEATURES = 0x80000001
    BRAND0 = 0x80000002
    BRAND1 = 0x80000003
    BRAND2 = 0x80000004
    AMD_CACHES = 0x80000005
    L2_CACHE = 0x80000006
    ADVANCED_POWER = 0x80000007
    ADDRESS_SIZES = 0x80000008
    SVM = 0x8000000A


REGISTERS = ("eax", "ebx", "ecx", "edx")
"""What CPUID returns, in this order everywhere here."""

KVM_SIGNATURE = b"KVMKVMKVM\0\0\0"
"""EBX, ECX, EDX of leaf 40000000H under KVM (cpuid.rst)."""

HYPERV_SIGNATURE = b"Microsoft Hv"
"""The same leaf under Hyper-V's interface (TLFS 2.4)."""


def _bits(text: str) -> dict[int, str]:
    """`0:fpu 1:vme` as a dictionary."""
    return {int(bit): name for bit, name in (item.split(":") for item in text.split())}


FEATURES: dict[tuple[int, int, str], dict[int, str]] = {
    (Leaf.FEATURES, 0, "ecx"): _bits(
        "0:sse3 1:pclmulqdq 2:dtes64 3:monitor 4:ds_cpl 5:vmx 6:smx 7:est 8:tm2 9:ssse3 10:cnxt_id 11:sdbg 12:fma 13:cx16 "
        "14:xtpr 15:pdcm 17:pcid 18:dca 19:sse4_1 20:sse4_2 21:x2apic 22:movbe 23:popcnt 24:tsc_deadline_timer 25:aes "
        "26:xsave 27:osxsave 28:avx 29:f16c 30:rdrand 31:hypervisor"
    ),
    (Leaf.FEATURES, 0, "edx"): _bits(
        "0:fpu 1:vme 2:de 3:pse 4:tsc 5:msr 6:pae 7:mce 8:cx8 9:apic 11:sep 12:mtrr 13:pge 14:mca 15:cmov 16:pat 17:pse36 "
        "18:pn 19:clflush 21:dts 22:acpi 23:mmx 24:fxsr 25:sse 26:sse2 27:ss 28:ht 29:tm 31:pbe"
    ),
    (Leaf.POWER, 0, "eax"): _bits("0:dtherm 1:ida 2:arat 4:pln 6:pts 7:hwp"),
    (Leaf.POWER, 0, "ecx"): _bits("0:aperfmperf 3:epb"),
    (Leaf.EXTENDED_FEATURES, 0, "ebx"): _bits(
        "0:fsgsbase 1:tsc_adjust 2:sgx 3:bmi1 4:hle 5:avx2 6:fdp_excptn_only 7:smep 8:bmi2 9:erms 10:invpcid 11:rtm 12:cqm "
        "13:zero_fcs_fds 14:mpx 15:rdt_a 16:avx512f 17:avx512dq 18:rdseed 19:adx 20:smap 21:avx512ifma 23:clflushopt "
        "24:clwb 25:intel_pt 26:avx512pf 27:avx512er 28:avx512cd 29:sha_ni 30:avx512bw 31:avx512vl"
    ),
    (Leaf.EXTENDED_FEATURES, 0, "ecx"): _bits(
        "0:prefetchwt1 1:avx512vbmi 2:umip 3:pku 4:ospke 5:waitpkg 6:avx512_vbmi2 7:shstk 8:gfni 9:vaes 10:vpclmulqdq "
        "11:avx512_vnni 12:avx512_bitalg 13:tme 14:avx512_vpopcntdq 16:la57 22:rdpid 23:kl 24:bus_lock_detect 25:cldemote "
        "27:movdiri 28:movdir64b 29:enqcmd 30:sgx_lc 31:pks"
    ),
    (Leaf.EXTENDED_FEATURES, 0, "edx"): _bits(
        "2:avx512_4vnniw 3:avx512_4fmaps 4:fsrm 5:uintr 8:avx512_vp2intersect 9:srbds_ctrl 10:md_clear 13:rtm_force_abort "
        "14:serialize 15:hybrid_cpu 16:tsxldtrk 18:pconfig 19:arch_lbr 20:ibt 22:amx_bf16 23:avx512_fp16 24:amx_tile "
        "25:amx_int8 26:spec_ctrl 27:intel_stibp 28:flush_l1d 29:arch_capabilities 30:core_capabilities 31:spec_ctrl_ssbd"
    ),
    (Leaf.EXTENDED_FEATURES, 1, "eax"): _bits(
        "0:sha512 1:sm3 2:sm4 3:rao_int 4:avx_vnni 5:avx512_bf16 6:lass 7:cmpccxadd 10:fzrm 11:fsrs 12:fsrc 17:fred "
        "18:lkgs 19:wrmsrns 21:amx_fp16 22:hreset 23:avx_ifma 26:lam"
    ),
    (Leaf.XSAVE, 1, "eax"): _bits("0:xsaveopt 1:xsavec 2:xgetbv1 3:xsaves 4:xfd"),
    (Leaf.KVM_FEATURES, 0, "eax"): _bits(
        "0:kvm_clocksource 1:kvm_nop_io_delay 2:kvm_mmu_op 3:kvm_clocksource2 4:kvm_async_pf 5:kvm_steal_time 6:kvm_pv_eoi "
        "7:kvm_pv_unhalt 9:kvm_pv_tlb_flush 10:kvm_async_pf_vmexit 11:kvm_pv_send_ipi 12:kvm_poll_control "
        "13:kvm_pv_sched_yield 14:kvm_async_pf_int 15:kvm_msi_ext_dest_id 16:kvm_hc_map_gpa_range "
        "17:kvm_migration_control 24:kvm_clocksource_stable"
    ),
    (Leaf.KVM_FEATURES, 0, "edx"): _bits("0:kvm_hints_realtime"),
    (Leaf.EXTENDED_AMD_FEATURES, 0, "ecx"): _bits(
        "0:lahf_lm 1:cmp_legacy 2:svm 3:extapic 4:cr8_legacy 5:abm 6:sse4a 7:misalignsse 8:3dnowprefetch 9:osvw 10:ibs "
        "11:xop 12:skinit 13:wdt 15:lwp 16:fma4 17:tce 19:nodeid_msr 21:tbm 22:topoext 23:perfctr_core 24:perfctr_nb "
        "26:bpext 27:ptsc 28:perfctr_llc 29:mwaitx"
    ),
    (Leaf.EXTENDED_AMD_FEATURES, 0, "edx"): _bits(
        "11:syscall 19:mp 20:nx 22:mmxext 25:fxsr_opt 26:pdpe1gb 27:rdtscp 29:lm 30:3dnowext 31:3dnow"
    ),
    (Leaf.ADVANCED_POWER, 0, "edx"): _bits("8:constant_tsc 10:rapl"),
    (Leaf.ADDRESS_SIZES, 0, "ebx"): _bits(
        "0:clzero 1:irperf 2:xsaveerptr 4:rdpru 9:wbnoinvd 12:amd_ibpb 14:amd_ibrs 15:amd_stibp 24:amd_ssbd 25:virt_ssbd "
        "26:amd_ssb_no"
    ),
    (Leaf.SVM, 0, "edx"): _bits(
        "0:npt 1:lbrv 2:svm_lock 3:nrip_save 4:tsc_scale 5:vmcb_clean 6:flushbyasid 7:decodeassists 10:pausefilter "
        "12:pfthreshold 13:avic 15:v_vmsave_vmload 16:vgif 18:x2avic 25:vnmi"
    ),
}
"""The feature bits by (leaf, subleaf, register), each a dictionary from bit number to name."""


@dataclass(frozen=True, slots=True)
class FeatureBit:
    """Where CPUID tells of a feature."""

    name: str
    leaf: int
    subleaf: int
    register: str
    bit: int

    def __str__(self) -> str:
        return f"{self.name} (CPUID {self.leaf:#x}.{self.subleaf} {self.register.upper()} bit {self.bit})"


ALIASES = {"lzcnt": "abm", "page1g": "pdpe1gb", "lahf64": "lahf_lm", "prefetchw": "3dnowprefetch"}
"""Names by which Intel's manual or habit calls features that /proc/cpuinfo calls otherwise."""

_BY_NAME = {
    name: FeatureBit(name, leaf, subleaf, register, bit)
    for (leaf, subleaf, register), bits in FEATURES.items()
    for bit, name in bits.items()
}


def feature(name: str) -> FeatureBit:
    """Where the feature called `name` is told. Raises ConfigurationError for an unknown one."""
    name = name.lower()
    found = _BY_NAME.get(ALIASES.get(name, name))
    if found is None:
        raise ConfigurationError(f"there is no CPU feature {name!r}", hint="features are named as in /proc/cpuinfo")
    return found


def all_feature_names() -> tuple[str, ...]:
    """Every name that `feature` takes."""
    return (*_BY_NAME, *ALIASES)


def feature_names(leaf: int, subleaf: int, values: tuple[int, int, int, int]) -> tuple[str, ...]:
    """The features that one leaf's result (EAX, EBX, ECX, EDX) announces; bits without a name are left out."""
    return tuple(
        name
        for register, value in zip(REGISTERS, values, strict=True)
        for bit, name in FEATURES.get((leaf, subleaf, register), {}).items()
        if value >> bit & 1
    )


def vendor(values: tuple[int, int, int, int]) -> str:
    """The vendor's twelve letters from leaf 0's result: EBX, EDX, ECX; bytes that are not ASCII become `?`."""
    _, ebx, ecx, edx = values
    return _text(ebx, edx, ecx)


def hypervisor_signature(values: tuple[int, int, int, int]) -> bytes:
    """The hypervisor's twelve bytes from leaf 40000000H's result: EBX, ECX, EDX."""
    return b"".join(value.to_bytes(4, "little") for value in values[1:])


def brand(leaves: tuple[tuple[int, int, int, int], ...]) -> str:
    """The processor's name from the results of leaves 80000002H to 80000004H."""
    return _text(*(value for values in leaves for value in values)).strip("\0 ")


def _text(*values: int) -> str:
    return b"".join(value.to_bytes(4, "little") for value in values).decode("ascii", "replace").replace("�", "?")


@dataclass(frozen=True, slots=True)
class ProcessorSignature:
    """Leaf 1's EAX: family and model with their extensions added, and the stepping (SDM 2A figure 3-6)."""

    family: int
    model: int
    stepping: int


def processor_signature(eax: int) -> ProcessorSignature:
    """Decode leaf 1's EAX."""
    family, model = eax >> 8 & 0xF, eax >> 4 & 0xF
    if family in (6, 15):
        model |= (eax >> 16 & 0xF) << 4
    if family == 15:
        family += eax >> 20 & 0xFF
    return ProcessorSignature(family, model, eax & 0xF)


def address_bits(eax: int) -> tuple[int, int]:
    """MAXPHYADDR and the width of linear addresses from leaf 80000008H's EAX."""
    return eax & 0xFF, eax >> 8 & 0xFF
