"""Which features the processor has: all, but those that the user switched off and those that later parts will bring."""

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def has_feature(cpu: cython.pointer(Cpu), feature: cython.int) -> cython.bint:
    """Whether the processor has a FEATURE_*."""
    return (cpu.features >> feature) & 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def feature_at(cpu: cython.pointer(Cpu), feature: cython.int, bit: cython.int) -> u32:
    """A CPUID word with one bit set if the processor has a feature."""
    return cython.cast(u32, (cpu.features >> feature) & 1) << bit


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def feature_bit(feature: cython.int) -> u64:
    """A feature as a bit of cpu.features."""
    return cython.cast(u64, 1) << feature


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def features_missing() -> u64:
    """What there is a number for, and no processor has: XSAVE and SSE wait for x87 state; MONITOR is what hypervisors hide."""
    return (
        feature_bit(FEATURE_XSAVE)
        | feature_bit(FEATURE_SSE)
        | feature_bit(FEATURE_MONITOR)
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reset_features(cpu: cython.pointer(Cpu)) -> cython.void:
    """Every feature there is."""
    cpu.features = (feature_bit(FEATURES) - 1) & ~features_missing()


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_address(cpu: cython.pointer(Cpu), value: u64) -> cython.bint:
    """Whether a base that is only stored is canonical: for MSRs, table registers and INVPCID the widest linear address that
    the processor has counts, whatever CR4.LA57 says (SDM 3A 4.5.3); what uses it checks again.
    """
    return canonical_for(value, 57 if has_feature(cpu, FEATURE_LA57) else 48)
