"""Cases for a form: random and corner-case operands, prefixes, faults on purpose."""

from __future__ import annotations

from iced_x86 import Instruction, OpKind, Register

from belljar.x86.state import GENERAL_REGISTERS

from .cases import STATUS, Case
from .flags import undefined_flags
from .forms import Form
from .operands import (
    CANONICAL_END,
    EITHER_KINDS,
    FIXED,
    MASK64,
    REGISTER_KINDS,
    SEGMENTS,
    CannotEncode,
    Draft,
    Operands,
    corner,
)
from .worlds import CODE, CODE_SIZE, DATA, DATA_SIZE, ODD_DESCRIPTORS, STACK

LAR_UNDEFINED = 0xF0000
"""The limit's bits of what LAR loads (SDM 2A LAR: "ANDed with 00FxFF00H", x undefined)."""


class Generator(Operands):
    """Makes cases for one world. `rng` decides everything, so a seed reproduces a case."""

    def case(self, form: Form) -> Case:
        """A case for the form; draws operands until iced-x86 can encode them."""
        for _ in range(50):
            try:
                return self._draw(form)
            except CannotEncode:
                continue
        raise CannotEncode(form.name)

    def _draw(self, form: Form) -> Case:
        rng = self.rng
        offset = CODE + rng.choice((0, 0, 0x100, 0x100, CODE_SIZE // 2 - rng.randrange(1, 15)))
        draft = Draft(Instruction.create(form.code), self._registers())
        self._operands(form, draft, offset)
        self._special_operands(form, draft)
        if form.lockable and rng.random() < 0.2:
            draft.instruction.has_lock_prefix = True
        code = self._encode(form, draft, offset)
        rflags = self._rflags()
        count = self._shift_count(form, draft)
        size = self._operand_size(form)
        if form.mnemonic in ("SHLD", "SHRD") and size == 16 and (count & 31) > 16:
            raise CannotEncode("the result is undefined")
        undefined, undefined_bits = "", MASK64
        if form.mnemonic in ("BSF", "BSR"):
            undefined = self._register_name(draft.instruction.op0_register)
        elif form.mnemonic == "LAR":
            undefined, undefined_bits = self._register_name(draft.instruction.op0_register), LAR_UNDEFINED
        return Case(
            code, draft.registers, rflags, draft.memory, form.mnemonic, f"{form.name} in {self.world.name}", offset,
            undefined_flags(form, size, count), undefined, undefined_bits,
        )  # fmt: skip

    def _registers(self) -> dict[str, int]:
        width = 64 if self.bits == 64 else 32
        registers = {name: corner(self.rng, width) for name in GENERAL_REGISTERS[: self.count]}
        registers["rsp"] = STACK + self.rng.choice((0x800, 0x804, 0x7F8, 0x400, 0x801))
        return registers

    def _rflags(self) -> int:
        flags = 2 | self.rng.getrandbits(12) & STATUS
        if self.rng.random() < 0.3:
            flags |= 1 << 10
        if self.world.cpl == 0:
            return flags
        alignment_check = 1 << 18 if self.rng.random() < 0.08 else 0
        return flags | 0x200 | alignment_check

    def _operand_size(self, form: Form) -> int:
        for size in (64, 32, 16):
            if f"M{size}" in form.name or f"R{size}" in form.name:
                return size
        return 8

    def _shift_count(self, form: Form, draft: Draft) -> int:
        instruction = draft.instruction
        last = instruction.op_count - 1
        if last < 0:
            return 0
        kind = instruction.op_kind(last)
        if kind == OpKind.REGISTER and instruction.op_register(last) == Register.CL:
            return draft.registers["rcx"] & 0xFF
        if kind == OpKind.IMMEDIATE8:
            return int(instruction.immediate8)
        return 0

    def _special_operands(self, form: Form, draft: Draft) -> None:
        rng, registers, instruction = self.rng, draft.registers, draft.instruction
        name = form.mnemonic
        uses_memory = draft.memory_gva is not None
        if form.name.endswith("_CL") or name in ("SHLX", "SHRX", "SARX"):
            if not (uses_memory and self._addresses_with(instruction, "rcx")):
                registers["rcx"] = registers["rcx"] & ~0xFF | rng.choice((rng.randrange(70), rng.getrandbits(8)))
        elif name in ("DIV", "IDIV") and rng.random() < 0.8:
            self._make_divisible(form, draft)
        elif name in ("BT", "BTS", "BTR", "BTC") and uses_memory and form.operand_kinds[1] in REGISTER_KINDS:
            self._bound_bit_offset(draft, REGISTER_KINDS[form.operand_kinds[1]])
        elif name in ("JMP", "CALL") and form.operand_kinds[0] in EITHER_KINDS:
            self._indirect_target(draft, EITHER_KINDS[form.operand_kinds[0]])
        elif name in ("RET", "RETF", "IRET") or name.startswith("IRET"):
            self._return_target(form, draft)
        elif name in ("ENTER", "LEAVE"):
            self._frame_pointer(form, draft)
        elif name.startswith("POPF"):
            self._pushed_flags(draft)
        elif name.startswith("CMPXCHG"):
            self._make_equal(form, draft)
        elif name in ("JCXZ", "JECXZ", "JRCXZ", "LOOP", "LOOPE", "LOOPNE"):
            registers["rcx"] = rng.choice((0, 1, 2, 1 << 16, 1 << 32, registers["rcx"])) & (
                MASK64 if self.bits == 64 else 0xFFFFFFFF
            )
        elif name in ("CALL_FAR", "JMP_FAR", "LDS", "LES", "LFS", "LGS", "LSS"):
            self._far_pointer(form, draft)
        elif name in ("LAR", "LSL", "VERR", "VERW"):
            self._looked_at(draft)
        elif name == "MOV" and "SREG" in form.name and instruction.op0_kind == OpKind.REGISTER:
            self._selector(draft)
        elif name == "POP" and form.operand_kinds[0] in FIXED:
            draft.memory[self._stack_gva(draft)] = self._any_selector().to_bytes(8, "little")
        elif name == "BOUND":
            low = rng.randrange(-5, 5)
            size = 2 if "R16" in form.name else 4
            data = b"".join((v & ((1 << size * 8) - 1)).to_bytes(size, "little") for v in (low, low + rng.randrange(6)))
            self._patch(draft, data)
            target = self._register_name(instruction.op0_register)
            if not self._addresses_with(instruction, target):
                registers[target] = rng.randrange(-6, 10) & 0xFFFFFFFF
        elif form.repeatable:
            self._repeat(form, draft)

    def _addresses_with(self, instruction: Instruction, name: str) -> bool:
        parts = (instruction.memory_base, instruction.memory_index)
        return name in [self._register_name(part) for part in parts if part]

    def _patch(self, draft: Draft, data: bytes) -> None:
        """Place data at the memory operand where that lies in a window."""
        at = draft.memory_gva
        if at is None or draft.instruction.memory_base in (Register.RIP, Register.EIP):
            return
        if any(start <= at and at + len(data) <= start + size for start, size in self.world.windows[-2:]):
            draft.memory[at] = data

    def _make_divisible(self, form: Form, draft: Draft) -> None:
        """A high half small enough that the quotient often fits."""
        size = self._operand_size(form)
        registers, rng = draft.registers, self.rng
        if draft.memory_gva is not None and any(self._addresses_with(draft.instruction, n) for n in ("rax", "rdx")):
            return
        if size == 8:
            registers["rax"] = registers["rax"] & ~0xFFFF | rng.choice(
                (rng.randrange(300), 0x10000 - rng.randrange(1, 300))
            )
        else:
            mask = (1 << size) - 1
            high = rng.choice((0, 0, 1, mask, rng.randrange(1 << 10)))
            registers["rdx"] = registers["rdx"] & ~mask | high

    def _bound_bit_offset(self, draft: Draft, size: int) -> None:
        name = self._register_name(draft.instruction.op1_register)
        if self._addresses_with(draft.instruction, name):
            raise CannotEncode("the bit offset is an address register")
        offset = self.rng.randrange(-0x400, 0x400) * self.rng.choice((1, 1, 8))
        if draft.memory_gva is not None and not DATA + 0x500 < draft.memory_gva & 0xFFFF < DATA + DATA_SIZE - 0x500:
            offset = self.rng.randrange(8)
        upper = draft.registers[name] >> size << size if size < 64 else 0
        draft.registers[name] = upper | (offset & ((1 << size) - 1))

    def _indirect_target(self, draft: Draft, size: int) -> None:
        target = CODE + self.rng.randrange(CODE_SIZE)
        if size == 64 and self.rng.random() < self.wild:
            target = self.rng.choice((CANONICAL_END, 0xA000, MASK64, 0x6000))
        if draft.instruction.op0_kind == OpKind.REGISTER:
            name = self._register_name(draft.instruction.op0_register)
            if name == "rsp":
                raise CannotEncode("a branch into the stack")
            mask = (1 << size) - 1
            draft.registers[name] = draft.registers[name] & ~mask | target
        else:
            self._patch(draft, target.to_bytes(8, "little")[: size // 8])

    def _any_selector(self) -> int:
        """Mostly one that loads; the null selector; rarely one that does not."""
        special, rng = self.world.state.special, self.rng
        if self.world.name == "real":
            return rng.choice((0x1000, 0x2000, 0x2100, 0x3000, 0x2ABC))
        usable = [getattr(special, name).selector for name in ("ds", "es", "fs", "gs", "ss")]
        if rng.random() < 0.4:
            return rng.choice(tuple(ODD_DESCRIPTORS)) | rng.choice((0, 0, 0, 3, 1))
        return rng.choice((*usable, 0, 3, special.cs.selector, 0x48, 0xFFF8, 4, special.tr.selector, usable[0] ^ 3))

    def _selector(self, draft: Draft) -> None:
        """MOV Sreg: something to load."""
        instruction = draft.instruction
        if instruction.op1_kind == OpKind.REGISTER and instruction.op0_register in SEGMENTS.values():
            name = self._register_name(instruction.op1_register)
            draft.registers[name] = draft.registers[name] & ~0xFFFF | self._any_selector()
        elif instruction.op1_kind == OpKind.MEMORY:
            self._patch(draft, self._any_selector().to_bytes(2, "little"))

    def _looked_at(self, draft: Draft) -> None:
        """LAR, LSL, VERR, VERW: a selector to ask about, in the last operand."""
        instruction = draft.instruction
        last = instruction.op_count - 1
        if instruction.op_kind(last) == OpKind.MEMORY:
            self._patch(draft, self._any_selector().to_bytes(2, "little"))
            return
        name = self._register_name(instruction.op_register(last))
        draft.registers[name] = draft.registers[name] & ~0xFFFF | self._any_selector()

    def _far_pointer(self, form: Form, draft: Draft) -> None:
        """An offset and a selector in memory."""
        size = 8 if "M1664" in form.name else 4 if "M1632" in form.name else 2
        if form.mnemonic.endswith("_FAR"):
            target, selector = CODE + self.rng.randrange(CODE_SIZE), self.world.state.special.cs.selector
            if self.rng.random() < 0.1:
                selector = self._any_selector()
        else:
            target, selector = self.rng.getrandbits(8 * size), self._any_selector()
        self._patch(draft, target.to_bytes(8, "little")[:size] + selector.to_bytes(2, "little"))

    def _stack_gva(self, draft: Draft) -> int:
        return self.world.bases["ss"] + (draft.registers["rsp"] & 0xFFFF)

    def _return_target(self, form: Form, draft: Draft) -> None:
        size = {"W": 2, "D": 4, "Q": 8}[next(c for c in form.name.removeprefix("IRET").removeprefix("RET")
                                             if c in "WDQ")]  # fmt: skip
        draft.registers["rsp"] = STACK + self.rng.choice((0x800, 0x806, 0x400))
        target = CODE + self.rng.randrange(CODE_SIZE)
        if size == 8 and self.rng.random() < self.wild:
            target = self.rng.choice((CANONICAL_END, 0xA000, MASK64))
        special = self.world.state.special
        words = [target, special.cs.selector]
        if form.name.startswith("IRET"):
            words += [self._rflags() & ~0x100, draft.registers["rsp"] - 0x100, special.ss.selector]
        elif self.rng.random() < 0.1 and self.world.bits != 64:
            words[1] = (
                self.rng.choice((0, 0x48, 0xFFF8, special.ds.selector)) if self.world.name != "real" else words[1]
            )
        data = b"".join((word & ((1 << 8 * size) - 1)).to_bytes(size, "little") for word in words)
        draft.memory[self._stack_gva(draft)] = data
        if form.operand_kinds:
            draft.instruction.set_immediate_u64(0, self.rng.choice((0, 2, 4, 8, 0x10, 0x7F0)))

    def _frame_pointer(self, form: Form, draft: Draft) -> None:
        draft.registers["rbp"] = STACK + 0xA00 + self.rng.randrange(0, 0x100, 2)
        if form.mnemonic == "ENTER":
            draft.instruction.set_immediate_u64(0, self.rng.choice((0, 1, 8, 0x100, 0x3FF)))
            draft.instruction.set_immediate_u64(1, self.rng.choice((0, 1, 2, 3, 31, 32, 35)))

    def _pushed_flags(self, draft: Draft) -> None:
        flags = self.rng.getrandbits(32) & ~0x100  # TF would single-step the filler
        if self.world.cpl == 3:
            flags |= 0x200
        draft.memory[self._stack_gva(draft)] = flags.to_bytes(8, "little")

    def _make_equal(self, form: Form, draft: Draft) -> None:
        """Half the time, a destination that compares equal."""
        if self.rng.random() < 0.5:
            return
        registers, instruction = draft.registers, draft.instruction
        if instruction.op0_kind == OpKind.REGISTER:
            name = self._register_name(instruction.op0_register)
            if name and name != "rsp":
                registers[name] = registers["rax"]
            return
        if form.mnemonic in ("CMPXCHG8B", "CMPXCHG16B"):
            half = 4 if form.mnemonic == "CMPXCHG8B" else 8
            mask = (1 << 8 * half) - 1
            data = b"".join((registers[n] & mask).to_bytes(half, "little") for n in ("rax", "rdx"))
        else:
            data = registers["rax"].to_bytes(8, "little")[: self._operand_size(form) // 8]
        self._patch(draft, data)

    def _repeat(self, form: Form, draft: Draft) -> None:
        """REP and REPNE with a small count; half of the comparisons meet equal data."""
        rng, instruction = self.rng, draft.instruction
        kind = rng.choice(("none", "rep", "repne"))
        if kind == "none":
            return
        if kind == "rep":
            instruction.has_rep_prefix = True
        else:
            instruction.has_repne_prefix = True
        count = rng.choice((0, 1, 2, 3, 5, 16, rng.randrange(40)))
        bits = self._address_bits(draft)
        garbage = rng.getrandbits(64) >> bits << bits if bits < 64 else 0
        draft.registers["rcx"] = (count | garbage) & (MASK64 if self.bits == 64 else 0xFFFFFFFF)
        if rng.random() < 0.5:
            start = self.world.bases["ds"] + DATA + 0x200
            draft.memory[start] = bytes([rng.choice((draft.registers["rax"] & 0xFF, 0))]) * 0x1C00
