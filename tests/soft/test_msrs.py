"""MSRs and CPUID: what exists, what values it takes, and features that the user switched off."""

from __future__ import annotations

import struct

import pytest
from bare_guest import (
    HALTED,
    RAX,
    RBX,
    RCX,
    RDX,
    RSI,
    TRIPLE_FAULT,
    LongGuest,
    ProtectedGuest,
)  # fmt: skip
from guest_msrs import EFER, FMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE, LSTAR, STAR, TSC_AUX, rdmsr, wrmsr
from hypothesis import given
from hypothesis import strategies as st

from belljar.soft.processor import features

# -- MSRs


@pytest.mark.parametrize("index", [LSTAR, FS_BASE, GS_BASE, KERNEL_GS_BASE, 0x175, 0x176])
def test_address_msrs_take_canonical_values_only(index):
    with LongGuest() as guest:
        assert wrmsr(guest, index, 0xFFFF800012345678).vector is None
        assert rdmsr(guest, index) == 0xFFFF800012345678
        end = wrmsr(guest, index, 0x0100000000000000)
        assert (end.vector, end.error) == (13, 0)
        assert rdmsr(guest, index) == 0xFFFF800012345678


@pytest.mark.parametrize("index", [LSTAR, FS_BASE, GS_BASE, KERNEL_GS_BASE, 0x175, 0x176])
def test_address_msrs_go_by_the_widest_address_that_the_processor_has(index):
    with LongGuest() as guest:
        assert wrmsr(guest, index, 1 << 47).vector is None
    with LongGuest() as guest:
        guest.cpu.switch_features(features.off_mask(["la57"]))
        assert wrmsr(guest, index, 1 << 47).vector == 13


@pytest.mark.parametrize(
    ("index", "value", "good"),
    [
        (0x277, 0x0007040600070406, True),
        (0x277, 0x0007040600070402, False),
        (TSC_AUX, 0xFFFFFFFF, True),
        (TSC_AUX, 1 << 32, False),
        (FMASK, 0x47700, True),
        (FMASK, 1 << 32, False),
        (EFER, 0xD00, True),
        (EFER, 0xD02, False),
        (EFER, 0xC00, False),  # LME while paging
        (STAR, 0xFFFFFFFFFFFFFFFF, True),
        (0x12345, 0, False),
        (0xFE, 0x508, False),  # IA32_MTRRCAP is read-only
        (0x2FF, 0xC06, True),
        (0x2FF, 0xC02, False),  # no memory type
        (0x2FF, 0x1006, False),
        (0x200, 0x3FFFFFFFF006, True),
        (0x200, 0x106, False),
        (0x20E, 1 << 46, False),  # beyond the physical address width
        (0x20F, 0x3FFFFFFFF800, True),
        (0x20F, 0x400, False),
        (0x210, 0, False),  # a ninth pair
        (0x250, 0x0606060606060606, True),
        (0x26F, 0x0006060606060607, False),
        (0x10A, 0, False),  # IA32_ARCH_CAPABILITIES is read-only
        (0x1D9, 0, True),
        (0x1D9, 2, False),  # no single-stepping on branches
        (0x1A0, 0x400451809, True),
        (0x1A0, 0x1803, False),
        (0x1B, 0xFEE00900, True),
        (0x1B, 0xFEE00901, False),
    ],
)
def test_msr_takes_good_values_and_faults_on_others(index, value, good):
    with LongGuest() as guest:
        end = wrmsr(guest, index, value)
        assert end.vector == (None if good else 13)
        if good:
            assert rdmsr(guest, index) == value


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1))
def test_no_msr_write_is_more_than_a_fault(index, value):
    with LongGuest() as guest:
        end = wrmsr(guest, index, value)
        assert end.reason in (HALTED, TRIPLE_FAULT)


def test_misc_enable_limits_cpuid_and_takes_no_execute_pages_away():
    with LongGuest() as guest:
        assert rdmsr(guest, 0x1A0) == 0x1801
        assert guest.cpu.cpuid(0, 0)[0] > 2
        assert wrmsr(guest, 0x1A0, 0x1801 | 1 << 22 | 1 << 34).vector is None
        assert guest.cpu.cpuid(0, 0)[0] == 2
        assert not guest.cpu.cpuid(0x80000001, 0)[3] >> 20 & 1
        assert wrmsr(guest, EFER, 0x501).vector is None
        assert wrmsr(guest, EFER, 0xD01).vector == 13


def test_time_stamp_counter_counts_instructions():
    with LongGuest() as guest:
        guest.cpu.put(RCX, TSC_AUX)
        guest.cpu.put(RAX, 77)
        guest.cpu.put(RDX, 0)
        end = guest.run("""
        0f30      wrmsr
        0f31      rdtsc
        4889c3    mov rbx, rax
        90        nop
        90        nop
        0f01f9    rdtscp
        4829d8    sub rax, rbx
        f30fc7fe  rdpid rsi
        f4        hlt
        """)
        assert [end.registers[n] for n in (RAX, RCX, RSI)] == [4, 77, 77]


def test_tsd_keeps_the_counter_from_users():
    with ProtectedGuest(3) as guest:
        guest.cr4(4)
        assert (
            guest.run("""
        0f31  rdtsc
        """).error
            == 0
        )


# -- CPUID


def test_cpuid_names_itself():
    with LongGuest() as guest:
        _, ebx, ecx, edx = guest.cpu.cpuid(0, 0)
        assert struct.pack("<3I", ebx, edx, ecx) == b"GenuineIntel"
        brand = b"".join(struct.pack("<4I", *guest.cpu.cpuid(0x80000002 + i, 0)) for i in range(3))
        assert brand.rstrip(b"\0") == b"belljar soft processor"
        assert guest.cpu.cpuid(0x80000008, 0)[0] == 46 | 57 << 8
        end = guest.run("""
        31c0  xor eax, eax
        0fa2  cpuid
        f4    hlt
        """)
        assert (end.registers[RBX], end.registers[RCX], end.registers[RDX]) == (ebx, ecx, edx)


def test_the_host_reads_the_time_stamp_counter_of_a_processor_at_rest():
    with LongGuest() as guest:
        assert guest.cpu.rdmsr(0x10) == 0
        guest.run("""
        90  nop
        90  nop
        f4  hlt
        """)
        assert guest.cpu.rdmsr(0x10) == guest.cpu.retired == 3
        guest.cpu.wrmsr(0x10, 1000)
        guest.run("""
        90    nop
        0f31  rdtsc
        f4    hlt
        """)
        assert guest.cpu.get(RAX) == 1001
