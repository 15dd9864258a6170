"""MSRs and CPUID: what exists, what values it takes, and features that the user switched off."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from bare_guest import (
    CODE,
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
from hypothesis import given
from hypothesis import strategies as st

from belljar.errors import ConfigurationError
from belljar.soft.processor import features

R8, R9, R10, R11 = 8, 9, 10, 11
SYSCALL_TARGET, USER_TARGET = 0x10100, 0x10200
STAR, LSTAR, FMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX, EFER = (
    0xC0000081, 0xC0000082, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103, 0xC0000080,
)  # fmt: skip
AC, IOPL3, ID, VIF, VIP = 1 << 18, 0x3000, 1 << 21, 1 << 19, 1 << 20


def wrmsr(guest, index, value):
    """Write an MSR as the guest does: the outcome."""
    guest.cpu.put(RCX, index)
    guest.cpu.put(RAX, value & 0xFFFFFFFF)
    guest.cpu.put(RDX, value >> 32)
    return guest.run("0f30 wrmsr\nf4 hlt")


def rdmsr(guest, index):
    """Read an MSR as the guest does; None if that faults."""
    guest.cpu.put(RCX, index)
    end = guest.run("0f32 rdmsr\nf4 hlt")
    return None if end.vector else end.registers[RDX] << 32 | end.registers[RAX]


# -- MSRs


@pytest.mark.parametrize("index", [LSTAR, FS_BASE, GS_BASE, KERNEL_GS_BASE, 0x175, 0x176])
def test_address_msrs_take_canonical_values_only(index):
    with LongGuest() as guest:
        assert wrmsr(guest, index, 0xFFFF800012345678).vector is None
        assert rdmsr(guest, index) == 0xFFFF800012345678
        end = wrmsr(guest, index, 0x0000800000000000)
        assert (end.vector, end.error) == (13, 0)
        assert rdmsr(guest, index) == 0xFFFF800012345678


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
        (0x1B, 0xFEE00900, True),
        (0x1B, 0xFEE00901, False),
    ],
)
def test_msr_values(index, value, good):
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


FEATURES = {  # bit of cpu.features, (leaf, register, bit) in CPUID, an instruction that goes with it
    "movbe": (
        3,
        (1, 2, 22),
        """
        0f38f00424  movbe eax, [rsp]
        """,
    ),
    "popcnt": (
        4,
        (1, 2, 23),
        """
        f30fb8c3  popcnt eax, ebx
        """,
    ),
    "bmi1": (
        6,
        (7, 1, 3),
        """
        c4e260f2c1  andn eax, ebx, ecx
        """,
    ),
    "bmi2": (
        7,
        (7, 1, 8),
        """
        c4e263f5c1  pdep eax, ebx, ecx
        """,
    ),
    "adx": (
        8,
        (7, 1, 19),
        """
        660f38f6c3  adcx eax, ebx
        """,
    ),
    "rdrand": (
        10,
        (1, 2, 30),
        """
        0fc7f0  rdrand eax
        """,
    ),
    "rdseed": (
        11,
        (7, 1, 18),
        """
        0fc7f8  rdseed eax
        """,
    ),
    "rdtscp": (
        12,
        (0x80000001, 3, 27),
        """
        0f01f9  rdtscp
        """,
    ),
    "rdpid": (
        13,
        (7, 2, 22),
        """
        f30fc7f8  rdpid rax
        """,
    ),
    "syscall": (
        17,
        (0x80000001, 3, 11),
        """
        0f05  syscall
        """,
    ),
    "sep": (
        18,
        (1, 3, 11),
        """
        0f34  sysenter
        """,
    ),
    "smap": (
        21,
        (7, 1, 20),
        """
        0f01cb  stac
        """,
    ),
    "invpcid": (
        23,
        (7, 1, 10),
        """
        660f38820424  invpcid rax, [rsp]
        """,
    ),
    "cmov": (
        0,
        (1, 3, 15),
        """
        0f44c3  cmove eax, ebx
        """,
    ),
    "cx16": (
        2,
        (1, 2, 13),
        """
        480fc70c24  cmpxchg16b [rsp]
        """,
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_switched_off_is_gone_from_cpuid_and_undefined(name):
    bit, (leaf, register, cpuid_bit), text = FEATURES[name]
    with LongGuest() as guest:
        assert guest.cpu.cpuid(leaf, 0)[register] >> cpuid_bit & 1
        end = guest.run(text + "\nf4 hlt")
        assert end.vector != 6 or end.returns[0] != CODE
    with LongGuest() as guest:
        guest.cpu.switch_features(1 << bit)
        assert not guest.cpu.cpuid(leaf, 0)[register] >> cpuid_bit & 1
        assert guest.run(text).vector == 6


def test_feature_names_are_the_cores():
    header = (Path(features.__file__).parent / "declarations/features.pxi").read_text()
    core = {name: int(bit) for name, bit in re.findall(r"^ +FEATURE_(\w+) = (\d+)", header, re.MULTILINE)}
    hidden = {"XSAVE", "MONITOR"}  # not there yet, and hidden from guests
    assert {feature.name: int(feature) for feature in features.Feature} == {
        k: v for k, v in core.items() if k not in hidden
    }


def test_features_are_switched_off_by_name():
    assert features.off_mask(["bmi1", "CMOV"]) == 1 << 6 | 1
    with pytest.raises(ConfigurationError, match="no feature 'sse9'"):
        features.off_mask(["sse9"])


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
