"""Every feature: CPUID shows it and it works, or it was switched off and is not there, as on a CPU without it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bare_guest import CODE, PAGE_TABLES, RAX, RBX, RCX, RDX, RSP, STACK, BareGuest, LongGuest, ProtectedGuest

from belljar.errors import ConfigurationError
from belljar.machine import End, Machine
from belljar.soft.engine import SoftEngine
from belljar.soft.processor import features
from belljar.soft.processor.features import CPUINFO_NAMES, NEEDED_BY, Feature, off_mask
from belljar.x86.cpuid import FEATURES

UD, GP, PF = 6, 13, 14
EFER, LSTAR = 0xC0000080, 0xC0000082
SCE, LME, NXE = 1 << 0, 1 << 8, 1 << 11
PAE = 1 << 5
MSRS = (1, 0, "edx", 5)
"""RDMSR and WRMSR: always there."""

MANUALS_NAMES = {label: feature for feature, label in CPUINFO_NAMES.items()}


@dataclass(frozen=True)
class Use:
    """What a feature is good for: a guest that does it, and the exception that it gets without the feature."""

    guest: Callable[[], BareGuest]
    text: str
    without: int
    registers: dict[int, int]


def instruction(text: str, guest: Callable[[], BareGuest] = LongGuest, without: int = UD, **registers: int) -> Use:
    """An instruction that is undefined without the feature."""
    numbers = {"rax": RAX, "rcx": RCX, "rdx": RDX, "rbx": RBX, "rsp": RSP}
    return Use(guest, text, without, {numbers[name]: value for name, value in registers.items()})


def control(bit: int) -> Use:
    """A bit of CR4 that is reserved without the feature."""
    return instruction("0f22e0 mov cr4, rax", with_supervisor_pages, GP, rax=PAE | 1 << bit)


def protected_control(bit: int) -> Use:
    """The same where paging is off."""
    return instruction("0f22e0 mov cr4, eax", ProtectedGuest, GP, rax=1 << bit)


def msr(index: int) -> Use:
    """A model-specific register that is not there without the feature."""
    return instruction("0f32 rdmsr", without=GP, rcx=index)


def efer(value: int, guest: Callable[[], BareGuest] = LongGuest) -> Use:
    """A bit of IA32_EFER that is reserved without the feature."""
    return instruction("0f30 wrmsr", guest, GP, rcx=EFER, rax=value, rdx=0)


def with_supervisor_pages() -> LongGuest:
    """Code goes on where SMEP and SMAP are switched on."""
    guest = LongGuest()
    guest.write(PAGE_TABLES + 0x2000, struct.pack("<Q", 0x83))
    return guest


def with_system_call() -> LongGuest:
    """SYSCALL goes to the instruction behind it."""
    guest = LongGuest()
    guest.cpu.wrmsr(LSTAR, CODE + 2)
    return guest


def with_page_of_1g() -> LongGuest:
    """Linear addresses from 1 GiB are the first GiB in one page."""
    guest = LongGuest()
    guest.write(PAGE_TABLES + 0x1008, struct.pack("<Q", 0x87))
    return guest


def with_pat_bit() -> LongGuest:
    """Linear addresses from 2 MiB are the first page again, its PAT bit set."""
    guest = LongGuest()
    guest.write(PAGE_TABLES + 0x2008, struct.pack("<Q", 0x1087))
    return guest


def with_page_above_4g() -> ProtectedGuest:
    """32-bit paging; linear addresses from 4 MiB lie at 4 GiB, where no memory is."""
    guest = ProtectedGuest()
    guest.write(PAGE_TABLES, struct.pack("<2I", 0x87, 0x2087))
    guest.cpu.put_control(0x80000011, PAGE_TABLES, 1 << 4, 0, 0)
    return guest


LOAD = "8b03 mov eax, [rbx]"

USES: dict[Feature, tuple[Use, ...]] = {
    Feature.CMOV: (instruction("0f44c3 cmove eax, ebx"),),
    Feature.CX8: (instruction("0fc70c24 cmpxchg8b [rsp]"),),
    Feature.CX16: (instruction("480fc70c24 cmpxchg16b [rsp]", rsp=STACK),),
    Feature.MOVBE: (instruction("0f38f00424 movbe eax, [rsp]"), instruction("0f38f10424 movbe [rsp], eax")),
    Feature.POPCNT: (instruction("f30fb8c3 popcnt eax, ebx"),),
    Feature.LZCNT: (),
    Feature.BMI1: (
        instruction("c4e260f2c1 andn eax, ebx, ecx"),
        instruction("c4e260f7c1 bextr eax, ecx, ebx"),
        instruction("c4e278f3cb blsr eax, ebx"),
    ),
    Feature.BMI2: (
        instruction("c4e263f5c1 pdep eax, ebx, ecx"),
        instruction("c4e262f5c1 pext eax, ebx, ecx"),
        instruction("c4e260f5c1 bzhi eax, ecx, ebx"),
        instruction("c4e263f6c1 mulx eax, ebx, ecx"),
        instruction("c4e261f7c1 shlx eax, ecx, ebx"),
        instruction("c4e37bf0c301 rorx eax, ebx, 1"),
    ),
    Feature.ADX: (instruction("660f38f6c3 adcx eax, ebx"), instruction("f30f38f6c3 adox eax, ebx")),
    Feature.CRC32: (instruction("f20f38f1c3 crc32 eax, ebx"),),
    Feature.RDRAND: (instruction("0fc7f0 rdrand eax"),),
    Feature.RDSEED: (instruction("0fc7f8 rdseed eax"),),
    Feature.RDTSCP: (instruction("0f01f9 rdtscp"),),
    Feature.RDPID: (instruction("f30fc7f8 rdpid rax"),),
    Feature.CLFLUSH: (instruction("0fae3c24 clflush [rsp]"),),
    Feature.CLFLUSHOPT: (instruction("660fae3c24 clflushopt [rsp]"),),
    Feature.CLWB: (instruction("660fae3424 clwb [rsp]"),),
    Feature.SYSCALL: (instruction("0f05 syscall", with_system_call), efer(SCE | LME | NXE)),
    Feature.SEP: (instruction("0f34 sysenter"), instruction("0f35 sysexit"), msr(0x174), msr(0x175), msr(0x176)),
    Feature.FSGSBASE: (control(16),),
    Feature.SMEP: (control(20),),
    Feature.SMAP: (control(21), instruction("0f01cb stac"), instruction("0f01ca clac")),
    Feature.UMIP: (control(11),),
    Feature.INVPCID: (instruction("660f38820424 invpcid rax, [rsp]", rax=2, rsp=STACK),),
    Feature.PCID: (control(17),),
    Feature.PKU: (control(22),),
    Feature.LA57: (protected_control(12),),
    Feature.PAGE1G: (instruction(LOAD, with_page_of_1g, PF, rbx=0x40010000),),
    Feature.NX: (efer(SCE | LME | NXE),),
    Feature.LAHF64: (instruction("9f lahf"), instruction("9e sahf")),
    Feature.VME: (control(0), control(1)),
    Feature.DE: (control(3),),
    Feature.PSE: (control(4),),
    Feature.PSE36: (instruction("8b03 mov eax, [ebx]", with_page_above_4g, PF, rbx=0x400000),),
    Feature.TSC: (instruction("0f31 rdtsc"), control(2), msr(0x10)),
    Feature.PAE: (protected_control(5),),
    Feature.PGE: (control(7),),
    Feature.PAT: (msr(0x277), instruction(LOAD, with_pat_bit, PF, rbx=0x210000)),
    Feature.MTRR: (msr(0xFE), msr(0x2FF), msr(0x200), msr(0x20F), msr(0x250), msr(0x26F)),
    Feature.MCE: (control(6),),
    Feature.MCA: (),
    Feature.LM: (efer(LME, ProtectedGuest),),
    Feature.PREFETCHW: (instruction("0f0d0c24 prefetchw [rsp]"),),
    Feature.ARCH_CAPABILITIES: (msr(0x10A),),
    Feature.FENCE: (instruction("0faee8 lfence"), instruction("0faef0 mfence"), instruction("0faef8 sfence")),
}
WITHOUT_CPUID = {Feature.CRC32, Feature.FENCE}


def run(use: Use, off: int) -> int | None:
    """Do it on a processor without the features of `off`; the exception that the instruction itself got."""
    with use.guest() as guest:
        guest.cpu.switch_features(off)
        for number, value in use.registers.items():
            guest.cpu.put(number, value)
        return guest.run(use.text + "\nf4 hlt").vector


def announced(off: int) -> set[tuple[int, int, str, int]]:
    """Every feature bit that CPUID sets in 64-bit mode: leaf, subleaf, register, bit."""
    with LongGuest() as guest:
        guest.cpu.switch_features(off)
        return {
            (leaf, subleaf, register, bit)
            for leaf, subleaf, register in FEATURES
            for bit in range(32)
            if guest.cpu.cpuid(leaf, subleaf)[("eax", "ebx", "ecx", "edx").index(register)] >> bit & 1
        }


def place(feature: Feature) -> set[tuple[int, int, str, int]]:
    """Where CPUID tells of a feature."""
    names = {feature.label, {Feature.NX: "nx", Feature.TSC: "constant_tsc"}.get(feature, "")}
    return {
        (leaf, subleaf, register, bit)
        for (leaf, subleaf, register), bits in FEATURES.items()
        for bit, name in bits.items()
        if name in names
    }


def with_what_builds_on(feature: Feature) -> set[Feature]:
    """A feature, and those that go with it."""
    return {feature}.union(*(with_what_builds_on(other) for other in NEEDED_BY.get(feature, ())))


def test_cpuid_announces_exactly_the_features_that_there_are():
    assert announced(0) == {MSRS}.union(*(place(feature) for feature in Feature))
    assert {feature for feature in Feature if not place(feature)} == WITHOUT_CPUID


@pytest.mark.parametrize("feature", Feature, ids=lambda feature: feature.label)
def test_a_feature_switched_off_is_gone_from_cpuid_with_what_builds_on_it(feature):
    gone = announced(0) - announced(off_mask([feature.label]))
    assert gone == set().union(*(place(each) for each in with_what_builds_on(feature)))


@pytest.mark.parametrize(
    ("feature", "use"),
    [(feature, use) for feature, uses in USES.items() for use in uses],
    ids=lambda value: str(value)[:24],
)
def test_a_feature_works_and_switched_off_is_an_exception(feature, use):
    assert run(use, 0) != use.without
    assert run(use, off_mask([feature.label])) == use.without
    if feature is not Feature.LM and LME not in use.registers.values():  # the rest of the processor does not miss it
        assert run(use, sum(1 << other for other in Feature if other not in needed_by_use(feature))) != use.without


def needed_by_use(feature: Feature) -> set[Feature]:
    """A feature, what it builds on, and what the guests here start with."""
    return {
        *(other for other in Feature if feature in with_what_builds_on(other)),
        *(Feature.PAE, Feature.LM, Feature.PSE, Feature.NX, Feature.SYSCALL),
    }


@pytest.mark.parametrize(
    ("feature", "text", "expected"),
    [
        (Feature.LZCNT, "f30fbdc3 lzcnt eax, ebx", (27, 4)),
        (Feature.BMI1, "f30fbcc3 tzcnt eax, ebx", (4, 4)),
    ],
)
def test_without_the_feature_a_prefixed_bit_scan_is_a_bit_scan(feature, text, expected):
    answers = []
    for off in (0, 1 << feature):
        with LongGuest() as guest:
            guest.cpu.switch_features(off)
            guest.cpu.put(RBX, 0x10)
            answers.append(guest.run(text + "\nf4 hlt").registers[RAX])
    assert tuple(answers) == expected


def test_every_feature_is_tried():
    assert set(USES) == set(Feature)


@pytest.mark.parametrize("bit", [9, 10, 13, 14, 18, *range(23, 64)])
def test_control_bits_without_a_feature_are_reserved(bit):
    """OSFXSR, OSXMMEXCPT, VMXE, SMXE, OSXSAVE, and all that came later."""
    with LongGuest() as guest:
        guest.cpu.put(RAX, PAE | 1 << bit)
        assert guest.run("0f22e0 mov cr4, rax").vector == GP


def test_feature_numbers_are_the_cores():
    header = (Path(features.__file__).parent / "declarations/features.pxi").read_text()
    core = {name: int(bit) for name, bit in re.findall(r"^ +FEATURE_(\w+) = (\d+)", header, re.MULTILINE)}
    with LongGuest() as guest:
        there = {name: bit for name, bit in core.items() if guest.cpu.has(bit)}
    assert there == {feature.name: int(feature) for feature in Feature}


def test_features_are_switched_off_by_either_name_in_any_case():
    assert off_mask(["bmi1", "CMOV"]) == 1 << Feature.BMI1 | 1 << Feature.CMOV
    for label, feature in MANUALS_NAMES.items():
        assert off_mask([label]) == off_mask([feature.name])
    with pytest.raises(ConfigurationError, match="no CPU feature 'sse9'"):
        off_mask(["sse9"])


def random_numbers(seed: int) -> list[tuple[int, int]]:
    """What RDRAND and RDSEED give first on each of two vCPUs."""
    code = bytes.fromhex("480fc7f0 480fc7fb f4")  # rdrand rax; rdseed rbx; hlt
    with SoftEngine(seed=seed) as engine, Machine(code, mode="long", engine=engine, cpus=2) as machine:
        assert machine.run(timeout=5).end is End.HALT
        return [(cpu.registers.rax, cpu.registers.rbx) for cpu in machine.cpus]


def test_random_numbers_differ_by_vcpu_and_seed_and_repeat_with_the_run():
    drawn = random_numbers(1)
    assert drawn == random_numbers(1)
    assert len({*sum(drawn, ()), *sum(random_numbers(2), ())}) == 8
