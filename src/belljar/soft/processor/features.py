"""The processor's features by name: what can be switched off, as on a CPU without them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from belljar.engine_data import LAPIC_TSC_DEADLINE, LAPIC_X2APIC
from belljar.errors import FeatureUnsupported


class Feature(IntEnum):
    """A feature of the soft processor; the number is its bit in the core (FEATURE_* in `declarations/features.pxi`).

    Without one, its instructions raise #UD, its control bits and MSRs #GP, its bits in paging structures are reserved, and
    CPUID does not show it. Two have no CPUID bit of their own, and are there without it: CRC32, which came with SSE4.2, and
    FENCE (LFENCE, MFENCE, SFENCE), which came with SSE and SSE2. Of those this processor has nothing else. RDMSR and WRMSR
    are always there.
    """

    CMOV = 0
    CX8 = 1
    CX16 = 2
    MOVBE = 3
    POPCNT = 4
    LZCNT = 5
    BMI1 = 6
    BMI2 = 7
    ADX = 8
    CRC32 = 9
    RDRAND = 10
    RDSEED = 11
    RDTSCP = 12
    RDPID = 13
    CLFLUSH = 14
    CLFLUSHOPT = 15
    CLWB = 16
    SYSCALL = 17
    SEP = 18
    FSGSBASE = 19
    SMEP = 20
    SMAP = 21
    UMIP = 22
    INVPCID = 23
    PCID = 24
    PKU = 25
    LA57 = 26
    PAGE1G = 27
    NX = 28
    LAHF64 = 29
    VME = 32
    DE = 33
    PSE = 34
    PSE36 = 35
    TSC = 36
    PAE = 37
    PGE = 38
    PAT = 39
    MTRR = 40
    MCE = 41
    MCA = 42
    LM = 43
    PREFETCHW = 44
    ARCH_CAPABILITIES = 45
    FENCE = 47

    @property
    def label(self) -> str:
        """The name as options write it: that of /proc/cpuinfo, where it has one."""
        return CPUINFO_NAMES.get(self, self.name.lower())


CPUINFO_NAMES = {
    Feature.LZCNT: "abm",
    Feature.PAGE1G: "pdpe1gb",
    Feature.LAHF64: "lahf_lm",
    Feature.PREFETCHW: "3dnowprefetch",
}

NEEDED_BY = {
    Feature.CX8: (Feature.CX16,),
    Feature.PAE: (Feature.LM, Feature.NX),
    Feature.LM: (
        Feature.SYSCALL, Feature.LAHF64, Feature.CX16, Feature.FSGSBASE, Feature.PCID, Feature.PKU, Feature.LA57, Feature.PAGE1G,
    ),
    Feature.PSE: (Feature.PSE36,),
    Feature.MCE: (Feature.MCA,),
    Feature.TSC: (Feature.RDTSCP,),
    Feature.PCID: (Feature.INVPCID,),
}  # fmt: skip
"""What goes with a feature because it builds on it."""


def _check_absent(name: str) -> None:
    from belljar.x86.cpuid import feature  # a table of hundreds of names, only for names that are not known here

    feature(name)
    if name.lower() in ALWAYS or name.lower().startswith(PARAVIRTUAL):
        known = ", ".join(each.label for each in Feature)
        raise FeatureUnsupported(f"the soft engine cannot switch off {name}", hint=f"it can: {known}")


def feature_named(name: str) -> Feature | None:
    """A feature by the manual's name or that of /proc/cpuinfo, in any case."""
    found = Feature.__members__.get(name.upper())
    if found is None:
        found = next((feature for feature, label in CPUINFO_NAMES.items() if label == name.lower()), None)
    return found


ALWAYS = frozenset(
    (
        "msr",
        "apic",
        "ht",
        "arat",
        "hypervisor",
        "osxsave",
        "ospke",
        "constant_tsc",
        "tsc_adjust",
    )
)
"""Bits of CPUID that follow from the machine, from other features or from the guest's own doing."""

LAPIC_FEATURES = {"x2apic": LAPIC_X2APIC, "tsc_deadline_timer": LAPIC_TSC_DEADLINE}
"""Bits of CPUID that the hypervisor adds for the machine's local APICs."""

PARAVIRTUAL = ("kvm_", "hv_")


def off_mask(names: Iterable[str]) -> int:
    """The bits of the features named, and of those that build on them, for `Processor.switch_features`.

    What the processor does not have anyway is passed over. Raises FeatureUnsupported for what cannot be switched off,
    ConfigurationError for a name that no feature has.
    """
    mask = 0
    for name in names:
        feature = feature_named(name)
        if feature is None:
            if name.lower() not in LAPIC_FEATURES:
                _check_absent(name)
            continue
        mask |= _with_what_needs(feature)
    return mask


def _with_what_needs(feature: Feature) -> int:
    mask = 1 << feature
    for other in NEEDED_BY.get(feature, ()):
        mask |= _with_what_needs(other)
    return mask
