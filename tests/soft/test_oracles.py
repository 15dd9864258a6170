"""The oracles against each other, so that what they say about the engine can be believed; and the forms they are asked about."""

from __future__ import annotations

import pytest

from oracles.cases import Case, Stop
from oracles.exam import examine, form_cases, like_unicorn
from oracles.forms import CODE_NAMES, forms
from oracles.on_linux import KERNEL_HALF, like_process, offset_not_canonical

SAMPLE = 8


def sample(world, mnemonics=None):
    """A few cases of every form, or of some."""
    chosen = [form for form in forms(world.bits) if mnemonics is None or form.mnemonic in mnemonics]
    return form_cases(world, chosen, SAMPLE, "oracles")


def test_unicorn_agrees_with_the_real_cpu_in_64_bit_code(on_linux, on_unicorn):
    exam = examine(
        sample(on_linux("long-user").world), on_unicorn("long-user"), on_linux("long-user"), like_real_or_refused
    )
    exam.wrong = [text for text in exam.wrong if "no answer" not in text]
    exam.verdict(pytest.skip)


def like_real_or_refused(case, expected, got):
    """CMPXCHG of 32 bits that succeeds: Unicorn clears the upper half of RAX, no CPU does."""
    return [] if case.mnemonic == "CMPXCHG" and "RM32" in case.note else like_unicorn(case, expected, got)


def test_kvm_at_cpl3_is_the_same_cpu(on_linux, on_kvm):
    exam = examine(sample(on_linux("long-user").world), on_linux("long-user"), on_kvm("long-user"), like_process)
    exam.wrong = [text for text in exam.wrong if "no answer" not in text]
    exam.verdict(pytest.skip)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_every_form_is_asked_about(bits):
    names = {form.name for form in forms(bits)}
    assert len(names) > {16: 650, 32: 650, 64: 700}[bits]
    for name in (
        "ADD_RM32_R32",
        "CMPXCHG8B_M64",
        "VEX_PDEP_R32_R32_RM32",
        "SHLD_RM16_R16_CL",
        "MOVBE_R16_M16",
        "RDTSCP",
    ):
        assert name in names, name
    assert ("AAA" in names) is (bits != 64)
    assert ("SYSRETQ" in names) is (bits == 64)
    assert names <= set(CODE_NAMES.values())


def test_a_wrong_answer_is_noticed(on_unicorn):
    """The comparison itself: one flipped bit in any part of an outcome is a difference."""
    oracle = on_unicorn("long")
    case = Case(bytes.fromhex("0107"), {"rax": 5, "rdi": 0xB100})
    outcome = oracle.ask(case)
    assert outcome.stop is Stop.HALT
    assert not like_unicorn(case, outcome, outcome)
    page = dict(outcome.memory)
    page[0xB000] = bytes([page[0xB000][0] ^ 1]) + page[0xB000][1:]
    wrong = [
        {"registers": (outcome.registers[0] ^ 1, *outcome.registers[1:])},
        {"rip": outcome.rip + 1},
        {"rflags": outcome.rflags ^ 0x40},
        {"memory": page},
        {"stop": Stop.FAULT, "vector": 13},
    ]
    for change in wrong:
        changed = {name: getattr(outcome, name) for name in outcome.__dataclass_fields__} | change
        assert like_unicorn(case, outcome, type(outcome)(**changed)), change


def test_an_offset_that_is_not_canonical_is_wrong_on_amds_cpus_alone(on_linux):
    load = bytes.fromhex("65 48 8b 03")  # mov rax, gs:[rbx]
    outcome = on_linux("long-user").ask(Case(load, {"rbx": KERNEL_HALF - 0x10}, mnemonic="MOV"))
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        amd = any("AuthenticAMD" in line for line in lines)
    assert outcome.vector == (13 if amd else 14)
    assert offset_not_canonical(outcome.cr2) == (not amd)
