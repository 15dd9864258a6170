"""Every form of the integer instruction set, from iced-x86's tables and not from belljar's decoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from iced_x86 import Code, CpuidFeature, EncodingKind, Instruction, Mnemonic, OpCodeInfo


def _names(enumeration: type) -> dict[int, str]:
    """Numbers and names of an iced-x86 enumeration module."""
    items = ((getattr(enumeration, name), name) for name in dir(enumeration) if name[0].isupper())
    return {value: name for value, name in items if isinstance(value, int)}


def words(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


CODE_NAMES, FEATURE_NAMES, MNEMONICS = _names(Code), _names(CpuidFeature), _names(Mnemonic)

FEATURES = words(
    "INTEL8086 INTEL186 INTEL286 INTEL386 INTEL486 X64 CMOV MULTIBYTENOP BMI1 BMI2 FSGSBASE MOVBE ADX SYSCALL SEP RDRAND "
    "RDSEED POPCNT LZCNT PREFETCHW PKU SMAP CX8 CPUID CMPXCHG16B CLWB CLFSH CLFLUSHOPT PAUSE TSC RDTSCP RDPID INVPCID "
    "MSR RDPMC"
)
"""What "the integer instruction set" is, in CPUID's words."""

OTHER_CPUS = words(
    "LOADALL286 LOADALL386 STOREALL IBTS_RM16_R16 IBTS_RM32_R32 XBTS_R16_RM16 XBTS_R32_RM32 CMPXCHG486_RM16_R16 "
    "CMPXCHG486_RM32_R32 CMPXCHG486_RM8_R8 POPW_CS RDMSRLIST WRMSRLIST PREFETCHWT1_M8 UD0 "
    "JRCXZ_REL8_16 JECXZ_REL8_64_16 LOOP_REL8_16_RCX LOOPE_REL8_16_RCX LOOPNE_REL8_16_RCX"
)
"""Forms that iced-x86 knows and that no 64-bit Intel CPU has in this shape."""

FAR = ("CALL_M16", "CALL_PTR", "JMP_M16", "JMP_PTR")


@dataclass(frozen=True)
class Form:
    """One opcode form: iced-x86's `Code` number, its name, and what its tables say."""

    code: int
    name: str
    mnemonic: str
    operand_kinds: tuple[int, ...]
    privileged: bool
    lockable: bool
    repeatable: bool
    opcode: str


@lru_cache(maxsize=4)
def forms(bits: int) -> tuple[Form, ...]:
    """All forms that are legal on Intel's CPUs in 16, 32 or 64-bit code, ordered by name."""
    found = []
    for number, name in CODE_NAMES.items():
        info = OpCodeInfo(number)
        if (
            not info.is_instruction
            or name in OTHER_CPUS
            or info.encoding not in (EncodingKind.LEGACY, EncodingKind.VEX)
        ):
            continue
        features = {FEATURE_NAMES[feature] for feature in Instruction.create(number).cpuid_features()}
        legal = {16: info.mode16 and info.intel_decoder16, 32: info.mode32 and info.intel_decoder32,
                 64: info.mode64 and info.intel_decoder64}[bits]  # fmt: skip
        if not features <= FEATURES or not legal or "AMD" in name:
            continue
        mnemonic = MNEMONICS[info.mnemonic] + ("_FAR" if name.startswith(FAR) else "")
        repeatable = info.can_use_rep_prefix or info.can_use_repne_prefix
        kinds = tuple(info.op_kinds())
        privileged, lockable = info.must_be_cpl0, info.can_use_lock_prefix
        found.append(Form(number, name, mnemonic, kinds, privileged, lockable, repeatable, info.op_code_string))
    return tuple(sorted(found, key=lambda form: form.name))
