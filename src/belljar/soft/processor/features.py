"""The processor's features by name: what can be switched off, as on a CPU without them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from belljar.errors import ConfigurationError


class Feature(IntEnum):
    """A feature of the soft processor; the number is its bit in the core (FEATURE_* in `declarations/features.pxi`).

    Without one, its instructions raise #UD, its control bits are reserved and CPUID does not show it. CRC32 alone has no
    CPUID bit of its own: it came with SSE4.2, which this processor does not have.
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

    @property
    def label(self) -> str:
        """The name as options write it."""
        return self.name.lower()


def off_mask(names: Iterable[str]) -> int:
    """The bits of the features named (any case), for `Processor.switch_features`; ConfigurationError for an unknown one."""
    mask = 0
    for name in names:
        feature = Feature.__members__.get(name.upper())
        if feature is None:
            known = ", ".join(each.label for each in Feature)
            raise ConfigurationError(
                f"the soft processor has no feature {name!r} to switch off", hint=f"features: {known}"
            )
        mask |= 1 << feature
    return mask
