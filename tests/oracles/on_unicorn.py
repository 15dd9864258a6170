"""Answers from Unicorn (QEMU's translator) for 16, 32 and 64-bit code.

Unicorn delivers no exceptions through an IDT: a fault is reported with its vector where Unicorn tells it, and with RIP
at the instruction. It has one privilege level, so worlds at CPL 3 are answered only for instructions without privilege.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from iced_x86 import Decoder
from unicorn import (
    UC_ARCH_X86,
    UC_ERR_EXCEPTION,
    UC_ERR_FETCH_PROT,
    UC_ERR_FETCH_UNMAPPED,
    UC_ERR_INSN_INVALID,
    UC_ERR_READ_PROT,
    UC_ERR_READ_UNMAPPED,
    UC_ERR_WRITE_PROT,
    UC_ERR_WRITE_UNMAPPED,
    UC_HOOK_INSN,
    UC_HOOK_INTR,
    UC_MODE_16,
    UC_MODE_32,
    UC_MODE_64,
    UC_PROT_ALL,
    UC_PROT_READ,
    Uc,
    UcError,
)
from unicorn import x86_const as x86

from belljar.x86.state import GENERAL_REGISTERS, SEGMENT_REGISTERS

from .cases import PAGE, Case, Outcome, Stop, Unsupported, prefixes
from .forms import words
from .on_engine import answer
from .worlds import (
    CODE,
    FILLER,
    FLAT,
    GDT,
    READ_ONLY,
    World,
    world,
)

INSTRUCTIONS = 10_000
GENERAL_64 = [getattr(x86, f"UC_X86_REG_{name.upper()}") for name in GENERAL_REGISTERS]
GENERAL_32 = [getattr(x86, f"UC_X86_REG_E{name[1:].upper()}") for name in GENERAL_REGISTERS[:8]]
ALIGNMENT_CHECK = 1 << 18
PAGE_FAULTS = (
    UC_ERR_READ_UNMAPPED, UC_ERR_WRITE_UNMAPPED, UC_ERR_FETCH_UNMAPPED, UC_ERR_READ_PROT, UC_ERR_WRITE_PROT, UC_ERR_FETCH_PROT,
)  # fmt: skip
MODES = {16: UC_MODE_16, 32: UC_MODE_32, 64: UC_MODE_64}
FAR = words("CALL_FAR JMP_FAR RETF IRET IRETD LDS LES LFS LGS LSS LAR LSL VERR VERW")
SYSTEM = words("IRETQ LLDT LTR LGDT LIDT SYSEXIT SYSEXITQ SYSRET SYSRETQ SYSCALL SYSENTER")
RANDOM = words(
    "RDTSC RDTSCP RDRAND RDSEED CPUID RDPMC RDPID RDMSR WRMSR SGDT SIDT SLDT STR SMSW LMSW CLTS INVLPG INVPCID"
)
NEEDS_TABLES = "needs descriptor tables"
SEGMENT_FORM = re.compile(r"SREG|(POP|PUSH)[DWQ]_[CDESFG]S")
CANNOT = {
    **dict.fromkeys(SYSTEM, "needs more of a system"),
    **dict.fromkeys(FAR, NEEDS_TABLES),
    **dict.fromkeys(RANDOM, "its answer is a property of the CPU model"),
    **dict.fromkeys(words("INT INT1 INT3 INTO BOUND"), "delivers no interrupts"),
    **dict.fromkeys(words("STI CLI HLT SWAPGS WBINVD INVD WRPKRU RDPKRU CLAC STAC"), "system state"),
    **dict.fromkeys(words("ADCX ADOX CLFLUSHOPT CLWB RESERVEDNOP UD0 UD1"), "its CPU models do not have it"),
    "BLSI": "sets CF the wrong way round",
    "BEXTR": "loses a bit of lengths beyond the operand",
    "CLFLUSH": "does not look at the address",
    "ENTER": "does not probe the new stack pointer",
    **dict.fromkeys(words("WRFSBASE WRGSBASE"), "knows no canonical addresses"),
    "PDEP": "deposits beyond 32 bits",
    "BZHI": "takes the index modulo the operand size",
}
"""Mnemonics that Unicorn has no comparable answer for, and why."""


class UnicornOracle:
    """One world in one Unicorn instance. Worlds with 16-bit protected segments are not offered."""

    def __init__(self, world_name: str) -> None:
        if world_name not in ("real", "protected", "long", "long-user"):
            raise Unsupported(f"unicorn: no {world_name}")
        self.world: World = world(world_name)
        self.tables = world_name == "protected"
        self.log: list[tuple[object, ...]] = []
        self.vector: int | None = None
        self._start()

    def _start(self) -> None:
        uc = self.uc = Uc(UC_ARCH_X86, MODES[self.world.bits])
        self.general = GENERAL_64 if self.world.bits == 64 else GENERAL_32
        if self.world.long_mode:
            for start, size in self.world.windows:
                uc.mem_map(start, size, UC_PROT_ALL)
            uc.mem_map(READ_ONLY, PAGE, UC_PROT_READ)
            uc.mem_write(READ_ONLY, self.world.memory[READ_ONLY : READ_ONLY + PAGE])
        else:
            uc.mem_map(0, len(self.world.memory), UC_PROT_ALL)
            uc.mem_write(0, self.world.memory)
        if self.tables:
            uc.reg_write(x86.UC_X86_REG_GDTR, (0, GDT, self.world.state.special.gdt.limit, 0))
        uc.hook_add(UC_HOOK_INTR, self._on_interrupt)
        uc.hook_add(UC_HOOK_INSN, self._on_in, None, 1, 0, x86.UC_X86_INS_IN)
        uc.hook_add(UC_HOOK_INSN, self._on_out, None, 1, 0, x86.UC_X86_INS_OUT)

    def __enter__(self) -> UnicornOracle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the instance back (its memory goes with the object)."""
        del self.uc

    def _on_interrupt(self, uc: Uc, number: int, _data: object) -> None:
        self.vector = number
        uc.emu_stop()

    def _on_in(self, _uc: Uc, port: int, size: int, _data: object) -> int:
        self.log.append(("in", port, size))
        return answer(port, size)

    def _on_out(self, _uc: Uc, port: int, size: int, value: int, _data: object) -> None:
        self.log.append(("out", port, size, value & ((1 << 8 * size) - 1)))

    def ask(self, case: Case) -> Outcome:
        """Run one case. Raises Unsupported for what Unicorn cannot do."""
        self._refuse(case)
        self.log.clear()
        self.vector = None
        windows = self.world.windows
        before = self._prepare(case)
        offset = CODE if case.offset is None else case.offset
        start = self.world.linear("cs", offset)
        stop, vector = Stop.HALT, None
        try:
            self.uc.emu_start(start, 0xFFFFFFFFFFFFFFF0 if self.world.bits == 64 else 0xFFFFFFF0, count=INSTRUCTIONS)
        except UcError as error:
            stop, vector = Stop.FAULT, self._vector_of(error)
        if self.vector is not None:
            # A fault after a fault of an earlier case comes as a double fault: Unicorn forgets to forget.
            stop, vector = Stop.FAULT, None if self.vector == 8 else self.vector
        rip = self.uc.reg_read(x86.UC_X86_REG_RIP if self.world.bits == 64 else x86.UC_X86_REG_EIP)
        if stop is Stop.HALT:
            rip -= 1
            if rip == offset - 1 or not self._halted_at(rip):  # it also stops silently before what it cannot translate
                self._start()
                raise Unsupported("unicorn: stopped, and not at a HLT")
        values = [self.uc.reg_read(register) for register in self.general]
        values += [0] * (16 - len(values))
        rflags = self.uc.reg_read(x86.UC_X86_REG_EFLAGS)
        memory = {}
        for (begin, size), old in zip(windows, before, strict=True):
            new = bytes(self.uc.mem_read(begin, size))
            if new != old:
                pages = range(0, size, PAGE)
                memory.update({begin + p: new[p : p + PAGE] for p in pages if new[p : p + PAGE] != old[p : p + PAGE]})
        selectors: tuple[int, ...] = ()
        if self.tables or self.world.bits == 16:
            selectors = tuple(
                self.uc.reg_read(getattr(x86, f"UC_X86_REG_{name.upper()}")) for name in SEGMENT_REGISTERS
            )
        return Outcome(stop, tuple(values), rip, rflags, vector, None, None, selectors, (), memory, tuple(self.log))

    def _refuse(self, case: Case) -> None:
        """Raise Unsupported for what is known to be wrong or fatal in Unicorn 2.1."""
        found = prefixes(case.code)
        reason = CANNOT.get(case.mnemonic)
        if reason is not None and not (reason is NEEDS_TABLES and self.tables):
            raise Unsupported(f"unicorn: {case.mnemonic}: {reason}")
        if case.rflags & ALIGNMENT_CHECK and self.world.cpl == 3:
            raise Unsupported("unicorn: has no CPL 3 and so no alignment check")
        if 0xF0 in found and Decoder(self.world.bits, case.code).decode().is_invalid:
            raise Unsupported("unicorn: LOCK where it is not allowed aborts the process or is ignored")
        if 0xF0 in found and case.mnemonic == "NEG":
            raise Unsupported("unicorn: LOCK NEG gets flags wrong")
        if not self.tables and SEGMENT_FORM.search(case.note):
            raise Unsupported("unicorn: segment registers need a descriptor table")
        if case.note.startswith("PUSHD_") and SEGMENT_FORM.search(case.note):
            raise Unsupported("unicorn: writes 32 bits, other CPUs 16, as the manual allows (PUSH, Description)")
        if self.world.bits == 64 and case.mnemonic in ("SHLD", "SHRD", "RORX") and "IMM8" in case.note:
            raise Unsupported("unicorn: forgets the immediate in the RIP-relative address of SHLD, SHRD and RORX")
        if self.world.bits == 64 and case.note.startswith("CMPXCHG_RM32"):
            raise Unsupported("unicorn: clears the upper half of a register that CMPXCHG leaves alone")
        if self.world.bits == 16 and case.mnemonic in ("MOVBE", "POPCNT"):
            raise Unsupported("unicorn: takes MOVBE and POPCNT of 16 bits for 32 in 16-bit code")
        if lands_in_itself(case, self.world.bits):
            raise Unsupported("unicorn: executes POP with ModRM.reg above 0, which a jump into its own bytes may make")
        if "_F7R1" in case.note or "_F6R1" in case.note:
            raise Unsupported("unicorn: does not know the second encoding of TEST")
        if "_CR" in case.note or "_DR" in case.note:
            raise Unsupported("unicorn: control registers are system state")

    def _halted_at(self, rip: int) -> bool:
        """Whether the emulation ended at a HLT and not because its budget ran out."""
        try:
            return bool(self.uc.mem_read(self.world.linear("cs", rip), 1)[0] == FILLER)
        except UcError:
            return False

    def _prepare(self, case: Case) -> list[bytes]:
        write: Callable[[int, bytes], None] = self.uc.mem_write
        before = []
        for start, size in self.world.windows:
            data = bytearray(self.world.memory[start : start + size])
            for address, patch in [(self.world.linear("cs", CODE if case.offset is None else case.offset), case.code),
                                   *case.memory.items()]:  # fmt: skip
                if start <= address < start + size:
                    data[address - start : address - start + len(patch)] = patch
            write(start, bytes(data))
            before.append(bytes(data))
        self.uc.ctl_flush_tb()
        for name, register in zip(GENERAL_REGISTERS, self.general, strict=False):
            self.uc.reg_write(register, case.registers.get(name, getattr(self.world.state.registers, name)))
        self.uc.reg_write(x86.UC_X86_REG_EFLAGS, case.rflags)
        special = self.world.state.special
        if self.world.bits == 64:
            self.uc.reg_write(x86.UC_X86_REG_FS_BASE, FLAT["fs"])
            self.uc.reg_write(x86.UC_X86_REG_GS_BASE, FLAT["gs"])
        elif self.tables or self.world.bits == 16:
            for name in ("ds", "es", "fs", "gs", "ss", "cs"):
                self.uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), getattr(special, name).selector)
        return before

    def _vector_of(self, error: UcError) -> int | None:
        """The vector that a Unicorn error stands for; None where it does not tell (a #GP and others come as one error)."""
        if error.errno == UC_ERR_INSN_INVALID:
            return 6
        if error.errno in PAGE_FAULTS:
            return 14 if self.world.long_mode else None  # or #GP, #SS: it knows no canonical addresses
        if error.errno == UC_ERR_EXCEPTION:
            return None
        raise Unsupported(f"unicorn: {error}")


def lands_in_itself(case: Case, bits: int) -> bool:
    """Whether a case is a near branch to its own bytes."""
    start = CODE if case.offset is None else case.offset
    instruction = Decoder(bits, case.code, ip=start).decode()
    return instruction.is_jcc_short_or_near and start < instruction.near_branch_target < start + instruction.len
