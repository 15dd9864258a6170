"""Flags, control registers, MSRs, CPUID, vectors, debug registers: names and numbers against the manual's examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.errors import ConfigurationError
from belljar.x86 import cpuid, debug, vectors
from belljar.x86.control import CR0_RESET, Cr0, Cr4, Efer, Xcr0, describe_bits
from belljar.x86.flags import Rflags, describe_rflags, iopl
from belljar.x86.msr import Msr, msr_name


def test_rflags_in_words():
    assert describe_rflags(0x3246) == "PF ZF IF IOPL=3"
    assert describe_rflags(2) == ""
    assert iopl(Rflags.IOPL0) == 1


def test_control_registers_in_words():
    assert describe_bits(Cr0, 0x80050033) == "PE MP ET NE WP AM PG"
    assert describe_bits(Cr0, CR0_RESET) == "ET NW CD"
    assert describe_bits(Cr4, 0x20 | 1 << 15) == "PAE bit 15"
    assert describe_bits(Efer, 0xD01) == "SCE LME LMA NXE"
    assert describe_bits(Xcr0, 7) == "X87 SSE AVX"


@given(value=st.integers(0, (1 << 64) - 1))
def test_every_value_has_words(value):
    for flags in (Cr0, Cr4, Efer, Xcr0):
        described = describe_bits(flags, value).replace("bit ", "bit_").split()
        assert len(described) == value.bit_count()
    describe_rflags(value)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0xC0000080, "IA32_EFER"),
        (0x1B, "IA32_APIC_BASE"),
        (0x415, "IA32_MC5_STATUS"),
        (0x283, "IA32_MC3_CTL2"),
        (0x213, "IA32_MTRR_PHYSMASK9"),
        (0x823, "IA32_X2APIC_IRR3"),
        (0x4B564D03, "KVM_STEAL_TIME"),
        (0x12345678, "0x12345678"),
    ],
)
def test_msr_has_the_name_of_the_manual(number, name):
    assert msr_name(number) == name


def test_no_msr_number_is_there_twice():
    assert len(Msr.__members__) == len(set(Msr))


def test_features_are_where_the_manual_says():
    assert str(cpuid.feature("LA57")) == "la57 (CPUID 0x7.0 ECX bit 16)"
    assert (cpuid.feature("nx").leaf, cpuid.feature("nx").bit) == (0x80000001, 20)
    with pytest.raises(ConfigurationError):
        cpuid.feature("warp")


def test_no_feature_name_is_there_twice():
    names = [name for bits in cpuid.FEATURES.values() for name in bits.values()]
    assert len(names) == len(set(names))
    assert all(0 <= bit < 32 for bits in cpuid.FEATURES.values() for bit in bits)


def test_common_features_are_named_as_the_kernel_names_them():
    path = Path("/proc/cpuinfo")
    flags = next((line.split(":")[1].split() for line in path.read_text().splitlines() if line.startswith("flags")), [])
    if not flags:
        pytest.skip("/proc/cpuinfo lists no flags here")
    baseline = {"fpu", "msr", "pae", "cx8", "cmov", "fxsr", "sse", "sse2", "syscall", "nx", "lm"} & set(flags)
    for name in baseline:
        cpuid.feature(name)
    assert baseline


def test_cpuid_strings():
    intel = tuple(int.from_bytes(part, "little") for part in (b"\x16\0\0\0", b"Genu", b"ntel", b"ineI"))
    assert cpuid.vendor(intel) == "GenuineIntel"
    kvm = tuple(int.from_bytes(part, "little") for part in (b"\1\0\0\x40", b"KVMK", b"VMKV", b"M\0\0\0"))
    assert cpuid.hypervisor_signature(kvm) == cpuid.KVM_SIGNATURE
    letters = b"Some CPU @ 1 GHz".ljust(48, b"\0")
    words = [int.from_bytes(letters[at : at + 4], "little") for at in range(0, 48, 4)]
    assert cpuid.brand(tuple(tuple(words[at : at + 4]) for at in (0, 4, 8))) == "Some CPU @ 1 GHz"


@given(values=st.tuples(*[st.integers(0, (1 << 32) - 1)] * 4))
def test_any_cpuid_result_decodes(values):
    assert len(cpuid.vendor(values)) == 12
    for leaf, subleaf, _ in cpuid.FEATURES:
        for name in cpuid.feature_names(leaf, subleaf, values):
            where = cpuid.feature(name)
            assert values[cpuid.REGISTERS.index(where.register)] >> where.bit & 1


def test_processor_signature_has_extended_family_and_model():
    skylake = cpuid.processor_signature(0x506E3)
    assert (skylake.family, skylake.model, skylake.stepping) == (6, 0x5E, 3)
    zen = cpuid.processor_signature(0x00800F11)
    assert (zen.family, zen.model, zen.stepping) == (0x17, 1, 1)
    assert cpuid.address_bits(0x3930) == (48, 57)


def test_exceptions_with_error_codes():
    coded = {info.mnemonic for info in vectors.EXCEPTIONS.values() if info.error_code}
    assert coded == {"#DF", "#TS", "#NP", "#SS", "#GP", "#PF", "#AC", "#CP", "#VC", "#SX"}
    assert vectors.vector_name(14) == "#PF"
    assert vectors.vector_name(77) == "vector 77"
    assert {int(vector) for vector in vectors.Vector} == set(vectors.EXCEPTIONS)


@pytest.mark.parametrize(
    ("first", "second", "double"),
    [(13, 13, True), (13, 14, False), (14, 14, True), (14, 13, True), (6, 13, False), (13, 6, False), (0, 11, True)],
)
def test_double_faults_follow_the_table(first, second, double):
    assert vectors.double_fault_follows(first, second) is double


def test_triple_fault_needs_a_double_fault_first():
    assert vectors.triple_fault_follows(8, 13)
    assert vectors.triple_fault_follows(8, 14)
    assert not vectors.triple_fault_follows(8, 6)
    assert not vectors.triple_fault_follows(13, 13)


def test_error_codes_in_words():
    assert vectors.describe_page_fault(7) == "user write to a present page"
    assert vectors.describe_page_fault(0x10) == "supervisor fetch from a page that is not present"
    assert vectors.describe_page_fault(9) == "supervisor read from a present page, a reserved bit was set"
    assert vectors.describe_selector_error(0x18) == "GDT selector 0x18"
    assert vectors.describe_selector_error(0x73) == "IDT vector 14, external"
    assert vectors.describe_selector_error(0) == ""


breakpoints = st.builds(
    lambda page, watch, size: debug.Breakpoint(page * 8, watch, 1 if watch is debug.Watch.EXECUTE else size),
    st.integers(0, 1 << 40),
    st.sampled_from(debug.Watch),
    st.sampled_from([1, 2, 4, 8]),
)


@given(items=st.lists(breakpoints, max_size=4))
def test_breakpoints_round_trip_through_dr7(items):
    breakpoints_gva = tuple([item.gva for item in items] + [0] * (4 - len(items)))
    assert list(debug.decode_dr7(debug.encode_dr7(items), breakpoints_gva).values()) == items


def test_dr7_known_value():
    # A 4-byte write watchpoint in DR1: G1, R/W1 = 01, LEN1 = 11
    items = [debug.Breakpoint(0x1000), debug.Breakpoint(0x2000, debug.Watch.WRITE, 4)]
    assert debug.encode_dr7(items) == 0x400 | 2 | 8 | 0b1101 << 20


@pytest.mark.parametrize(
    "items",
    [
        [debug.Breakpoint(0)] * 5,
        [debug.Breakpoint(0, debug.Watch.WRITE, 3)],
        [debug.Breakpoint(0, debug.Watch.EXECUTE, 4)],
        [debug.Breakpoint(2, debug.Watch.WRITE, 4)],
    ],
)
def test_impossible_breakpoints_are_refused(items):
    with pytest.raises(ConfigurationError):
        debug.encode_dr7(items)


def test_dr6_in_words():
    assert debug.describe_dr6(0x4001) == "breakpoint 0, single step"
