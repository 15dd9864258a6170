"""What the real CPU under KVM cannot tell: instructions whose result is the host's own state, and what paravirtual KVM bends."""

from __future__ import annotations

import re

from .cases import PAGE, RF, Case, Outcome, Stop, Unsupported, differences, prefixes
from .exam import disassembly
from .forms import words
from .on_engine import EngineOracle
from .on_linux import KERNEL_HALF, UNSUITED, LinuxOracle, like_process

HOST_STATE = {
    **dict.fromkeys(
        words("RDTSC RDTSCP RDRAND RDSEED CPUID RDPMC RDPID RDPKRU WRPKRU XGETBV"),
        "its answer is a property of the host",
    ),
    **dict.fromkeys(
        words("SGDT SIDT SLDT STR SMSW"), "it reads the host's own tables (or is stopped by the host's UMIP)"
    ),
    **dict.fromkeys(words("LAR LSL VERR VERW LDS LES LFS LGS LSS"), "it reads the host's own descriptor table"),
    **dict.fromkeys(words("CALL_FAR JMP_FAR RETF IRET IRETD IRETQ"), "it loads from the host's own descriptor table"),
    **dict.fromkeys(
        words("SYSCALL SYSRET SYSRETQ SYSENTER SYSEXIT SYSEXITQ INT INT1 INT3 INTO"),
        "it enters the host's kernel first",
    ),
    **dict.fromkeys(words("WRFSBASE WRGSBASE RDFSBASE RDGSBASE"), "the host keeps these registers for itself"),
}
"""Mnemonics without a comparable answer at CPL 3 on a host whose KVM is paravirtual, and why."""

EMULATOR_LIES = {
    **dict.fromkeys(words("LZCNT TZCNT"), "executed as BSR and BSF"),
    **dict.fromkeys(words("MOVBE POPCNT"), "not there"),
    **dict.fromkeys(words("ENTER"), "pushes a full word whatever the operand size"),
    **dict.fromkeys(words("IRET IRETD IRETQ"), "not there in protected mode"),
    **dict.fromkeys(words("INT INT1 INT3 INTO"), "not there in protected mode, or answered with another fault"),
    **dict.fromkeys(words("SLDT STR SMSW"), "writes 64 bits with REX.W where memory gets 16"),
    **dict.fromkeys(words("LTR LLDT"), "faults without the selector in the error code"),
    **dict.fromkeys(words("RESERVEDNOP"), "some are decoded without their ModRM byte"),
    **dict.fromkeys(words("AAM AAD"), "SF is taken from AX instead of AL"),
    **dict.fromkeys(
        words("CPUID RDTSC RDTSCP RDMSR WRMSR RDPMC RDRAND RDSEED RDPID"), "its answer is a property of the host"
    ),
    **dict.fromkeys(words("SYSCALL SYSRET SYSRETQ SYSENTER SYSEXIT SYSEXITQ"), "needs MSRs that the case does not set"),
}
"""Mnemonics that the kernel's instruction emulator gets wrong on its own, and how."""

CONTROL = re.compile(r"_[CD]R_|_[CD]R$|_[CD]R in ")
CMPXCHG_32 = "CMPXCHG_RM32"
REGISTER_LOADS = re.compile(r"SREG|P[DWQ]_[CDESFG]S")


class Trusted:
    """An oracle on KVM that refuses what KVM is known not to tell: the real CPU at CPL 3, else the kernel's emulator.

    Paravirtual KVM finishes some faulting accesses in its emulator. `witness`, a process on the same CPU, must agree on
    everything it can see; KVM adds what only an IDT handler sees.
    """

    def __init__(self, oracle: EngineOracle, witness: LinuxOracle | None = None) -> None:
        self.oracle, self.world, self.witness = oracle, oracle.world, witness
        self.user = oracle.world.cpl == 3
        self.known = HOST_STATE if self.user else EMULATOR_LIES

    def ask(self, case: Case) -> Outcome:
        """The oracle's answer; raises Unsupported with the reason where it cannot be trusted."""
        who = "the real CPU at CPL 3" if self.user else "KVM's emulator"
        if case.mnemonic in self.known:
            raise Unsupported(f"{who}: {case.mnemonic}: {self.known[case.mnemonic]}")
        if self.user and REGISTER_LOADS.search(case.note):
            raise Unsupported(f"{who}: segment registers hold the host's selectors")
        if not self.user:
            self._refuse_to_emulate(case)
        outcome = self.oracle.ask(case)
        if self.user and (outcome.cr2 or 0) >= KERNEL_HALF:
            raise Unsupported(f"{who}: the upper half of the addresses is the host's, with the host's error codes")
        if not self.user and outcome.stop is Stop.FAULT:
            self._check_fault(case, outcome)
        if self._contradicted(case, outcome):
            raise Unsupported(f"{who}: KVM answers otherwise than a process on the same CPU")
        return outcome

    def _refuse_to_emulate(self, case: Case) -> None:
        who = "KVM's emulator"
        if 0xF0 in prefixes(case.code) and "(bad)" in disassembly(case, self.world.bits):
            raise Unsupported(f"{who}: accepts LOCK where it must not")
        if case.note.startswith("PUSHD_") and REGISTER_LOADS.search(case.note):
            raise Unsupported(f"{who}: writes 16 of 32 bits, as the manual allows (PUSH, Description)")
        if case.note.startswith("MOV_R64M16_SREG"):
            raise Unsupported(f"{who}: writes 64 bits with REX.W where memory gets 16")
        if CONTROL.search(case.note):
            raise Unsupported(f"{who}: control registers are what the host allows")
        if case.note.startswith(CMPXCHG_32) and self.world.bits == 64:
            raise Unsupported(f"{who}: clears the upper half of a register that CMPXCHG leaves alone")

    def _check_fault(self, case: Case, outcome: Outcome) -> None:
        who = "KVM's emulator"
        if self.world.name == "protected16":
            raise Unsupported(f"{who}: delivers exceptions to the wrong place where SS has a base")
        if self.world.name == "real" and case.registers.get("rsp", 0) >> 16:
            raise Unsupported(f"{who}: clears the upper half of ESP when it delivers an exception in real mode")
        if outcome.vector == 14 and (outcome.cr2 or 0) % PAGE == 0:
            raise Unsupported(f"{who}: writes the first half of a store whose second half faults")
        if self.world.long_mode and (outcome.cr2 or 0) >> 12 in ((1 << 35) - 1, 1 << 35):
            raise Unsupported(f"{who}: does not see that an access crosses the end of canonical addresses")

    def _contradicted(self, case: Case, outcome: Outcome) -> bool:
        if self.witness is None or case.mnemonic in UNSUITED:
            return False
        return bool(like_process(case, self.witness.ask(case), outcome))

    def __enter__(self) -> Trusted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the oracle back."""
        self.oracle.close()
        if self.witness is not None:
            self.witness.close()


def like_real_cpu(case: Case, expected: Outcome, got: Outcome) -> list[str]:
    """Compare with the real CPU at CPL 3. RF in a saved image is the paravirtual host's doing, not the CPU's."""
    return differences(case, expected, got, ignore_flags=RF)
