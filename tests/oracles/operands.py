"""An instruction's operands, drawn for its form: registers, immediates, and every way to address memory."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from iced_x86 import Encoder, Instruction, OpCodeOperandKind, OpKind, Register

from belljar.x86.state import GENERAL_REGISTERS

from .forms import Form
from .worlds import CODE, CODE_SIZE, DATA, DATA_SIZE, READ_ONLY, STACK, STACK_SIZE, World

K = OpCodeOperandKind
R8_LEGACY = [Register.AL, Register.CL, Register.DL, Register.BL, Register.AH, Register.CH, Register.DH, Register.BH]
R8_REX = [*R8_LEGACY[:4], Register.SPL, Register.BPL, Register.SIL, Register.DIL,
          *range(Register.R8L, Register.R15L + 1)]  # fmt: skip
BY_SIZE = {16: Register.AX, 32: Register.EAX, 64: Register.RAX}
REGISTER_KINDS = {
    **{getattr(K, f"R{size}_{suffix}"): size for size in (16, 32, 64)
       for suffix in ("REG", "RM", "OPCODE", "REG_MEM")},
    K.R32_VVVV: 32, K.R64_VVVV: 64, K.R8_REG: 8, K.R8_OPCODE: 8,
}  # fmt: skip
EITHER_KINDS = {K.R8_OR_MEM: 8, K.R16_OR_MEM: 16, K.R32_OR_MEM: 32, K.R64_OR_MEM: 64}
FIXED = {
    K.AL: Register.AL, K.AX: Register.AX, K.EAX: Register.EAX, K.RAX: Register.RAX, K.CL: Register.CL,
    K.DX: Register.DX, K.ES: Register.ES, K.CS: Register.CS, K.SS: Register.SS, K.DS: Register.DS, K.FS: Register.FS,
    K.GS: Register.GS,
}  # fmt: skip
IMMEDIATES = {
    K.IMM8: OpKind.IMMEDIATE8, K.IMM16: OpKind.IMMEDIATE16, K.IMM32: OpKind.IMMEDIATE32, K.IMM64: OpKind.IMMEDIATE64,
    K.IMM8SEX16: OpKind.IMMEDIATE8TO16, K.IMM8SEX32: OpKind.IMMEDIATE8TO32, K.IMM8SEX64: OpKind.IMMEDIATE8TO64,
    K.IMM32SEX64: OpKind.IMMEDIATE32TO64,
}  # fmt: skip
IMMEDIATE_BITS = {K.IMM8: 8, K.IMM16: 16, K.IMM32: 32, K.IMM64: 64, K.IMM8SEX16: 8, K.IMM8SEX32: 8, K.IMM8SEX64: 8,
                  K.IMM32SEX64: 32}  # fmt: skip
NEAR_BRANCHES = {K.BR16_1: OpKind.NEAR_BRANCH16, K.BR16_2: OpKind.NEAR_BRANCH16, K.BR32_1: OpKind.NEAR_BRANCH32,
                 K.BR32_4: OpKind.NEAR_BRANCH32, K.BR64_1: OpKind.NEAR_BRANCH64,
                 K.BR64_4: OpKind.NEAR_BRANCH64}  # fmt: skip
SHORT = {K.BR16_1, K.BR32_1, K.BR64_1}
SEGMENTS = {"es": Register.ES, "cs": Register.CS, "ss": Register.SS, "ds": Register.DS, "fs": Register.FS,
            "gs": Register.GS}  # fmt: skip
CORNERS = (0, 1, 2, 3, 7, 8, 0xF, 0x10, 0x11, 0x1F, 0x20, 0x21, 0x3F, 0x40, 0x41, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000,
           0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000,
           0xFFFFFFFFFFFFFFFF, 0x5555555555555555, 0xAAAAAAAAAAAAAAAA, 0xFFFFFFFFFFFFFF80, 0xFFFFFFFF80000000)  # fmt: skip
MASK64 = (1 << 64) - 1
CANONICAL_END = 1 << 47


class CannotEncode(Exception):
    """This combination of operands has no encoding; the caller draws again."""


@dataclass
class Draft:
    """A case while it is being made."""

    instruction: Instruction
    registers: dict[str, int]
    memory: dict[int, bytes] = field(default_factory=dict)
    prefixes: bytes = b""
    rex_forbidden: bool = False
    memory_gva: int | None = None


def corner(rng: random.Random, bits: int = 64) -> int:
    """A value that instructions trip over, or noise."""
    if rng.random() < 0.5:
        return rng.choice(CORNERS) & ((1 << bits) - 1)
    return rng.getrandbits(bits)


class Operands:
    """Fills the operands of drafts for one world. `rng` decides everything."""

    def __init__(self, world: World, rng: random.Random, *, wild: float = 0.04) -> None:
        self.world, self.rng, self.wild = world, rng, wild
        self.bits = world.bits
        self.count = 16 if self.bits == 64 else 8

    @staticmethod
    def _register_name(register: int) -> str:
        for base in BY_SIZE.values():
            if base <= register < base + 16:
                return GENERAL_REGISTERS[register - base]
        return ""

    def _operands(self, form: Form, draft: Draft, offset: int) -> None:
        instruction, rng = draft.instruction, self.rng
        for index, kind in enumerate(form.operand_kinds):
            if kind in REGISTER_KINDS:
                self._set_register(draft, index, self._any_register(REGISTER_KINDS[kind]))
            elif kind in EITHER_KINDS and rng.random() < 0.5:
                self._set_register(draft, index, self._any_register(EITHER_KINDS[kind]))
            elif kind in EITHER_KINDS or kind == K.MEM:
                self._set_memory(form, draft, index)
            elif kind in FIXED:
                self._set_register(draft, index, FIXED[kind])
            elif kind in IMMEDIATES:
                second = kind == K.IMM8 and index == 1 and form.operand_kinds[0] in (K.IMM16, K.IMM8)
                instruction.set_op_kind(index, OpKind.IMMEDIATE8_2ND if second else IMMEDIATES[kind])
                self._set_immediate(instruction, index, IMMEDIATE_BITS[kind])
            elif kind == K.IMM8_CONST_1:
                instruction.set_op_kind(index, OpKind.IMMEDIATE8)
                instruction.set_immediate_u64(index, 1)
            elif kind in NEAR_BRANCHES:
                instruction.set_op_kind(index, NEAR_BRANCHES[kind])
                self._set_target(instruction, kind, offset)
            elif kind == K.MEM_OFFS:
                self._set_moffs(draft, index)
            elif kind == K.SEG_REG:
                self._set_register(draft, index, rng.choice(list(SEGMENTS.values())))
            elif kind in (K.CR_REG, K.DR_REG):
                self._set_control(instruction, index, kind)
            elif kind in (K.FARBR2_2, K.FARBR4_2):
                self._set_far(instruction, index, kind)
            else:
                self._set_implied(draft, index, kind)

    def _set_register(self, draft: Draft, index: int, register: int) -> None:
        draft.instruction.set_op_kind(index, OpKind.REGISTER)
        draft.instruction.set_op_register(index, register)

    def _any_register(self, size: int) -> int:
        if size == 8:
            return self.rng.choice(R8_LEGACY if self.bits != 64 or self.rng.random() < 0.4 else R8_REX)
        return BY_SIZE[size] + self.rng.randrange(self.count)

    def _set_immediate(self, instruction: Instruction, index: int, bits: int) -> None:
        value = corner(self.rng, bits)
        if bits == 8 and self.rng.random() < 0.5:
            value = self.rng.randrange(70)
        signed = value - (1 << bits) if value >> (bits - 1) else value
        kind = instruction.op_kind(index)
        widened = kind in (OpKind.IMMEDIATE8TO16, OpKind.IMMEDIATE8TO32, OpKind.IMMEDIATE8TO64, OpKind.IMMEDIATE32TO64)
        if widened:
            instruction.set_immediate_i64(index, signed)
        else:
            instruction.set_immediate_u64(index, value)

    def _set_target(self, instruction: Instruction, kind: int, offset: int) -> None:
        if kind in SHORT:
            target = max(CODE, offset + self.rng.choice((self.rng.randrange(-100, 0), self.rng.randrange(8, 120))))
        else:
            target = CODE + self.rng.randrange(CODE_SIZE)
            if self.rng.random() < self.wild and self.world.long_mode:
                target = self.rng.choice((0xA000, 0x20000, 0x7000, 0x100, 0x6000))
        instruction.near_branch64 = target & (0xFFFF if kind in (K.BR16_1, K.BR16_2) else MASK64)

    def _set_moffs(self, draft: Draft, index: int) -> None:
        address_bits = self._address_bits()
        instruction = draft.instruction
        instruction.set_op_kind(index, OpKind.MEMORY)
        instruction.memory_displ_size = address_bits // 8
        instruction.memory_displacement = self._memory_target(draft, "ds", address_bits)

    def _set_control(self, instruction: Instruction, index: int, kind: int) -> None:
        if kind == K.CR_REG:
            register = Register.CR0 + self.rng.choice((0, 2, 3, 4, 8) if self.bits == 64 else (0, 2, 3, 4))
        else:
            register = Register.DR0 + self.rng.randrange(8)
        instruction.set_op_kind(index, OpKind.REGISTER)
        instruction.set_op_register(index, register)

    def _set_far(self, instruction: Instruction, index: int, kind: int) -> None:
        instruction.set_op_kind(index, OpKind.FAR_BRANCH16 if kind == K.FARBR2_2 else OpKind.FAR_BRANCH32)
        instruction.far_branch_selector = self.world.state.special.cs.selector
        if kind == K.FARBR2_2:
            instruction.far_branch16 = CODE + self.rng.randrange(CODE_SIZE)
        else:
            instruction.far_branch32 = CODE + self.rng.randrange(CODE_SIZE)

    def _set_implied(self, draft: Draft, index: int, kind: int) -> None:
        """String operands: pointers into the data window, a small count."""
        bits = self._address_bits(draft)
        source = {16: OpKind.MEMORY_SEG_SI, 32: OpKind.MEMORY_SEG_ESI, 64: OpKind.MEMORY_SEG_RSI}
        target = {16: OpKind.MEMORY_ESDI, 32: OpKind.MEMORY_ESEDI, 64: OpKind.MEMORY_ESRDI}
        instruction, registers = draft.instruction, draft.registers
        if kind == K.SEG_RSI:
            instruction.set_op_kind(index, source[bits])
            self._point(registers, "rsi", "ds", bits)
        elif kind == K.ES_RDI:
            instruction.set_op_kind(index, target[bits])
            self._point(registers, "rdi", "es", bits)
        elif kind == K.SEG_RBX_AL:
            instruction.set_op_kind(index, OpKind.MEMORY)
            instruction.memory_base = {16: Register.BX, 32: Register.EBX, 64: Register.RBX}[bits]
            instruction.memory_index = Register.AL
            self._point(registers, "rbx", "ds", bits)
        else:
            raise CannotEncode(f"operand kind {kind}")

    def _point(self, registers: dict[str, int], name: str, segment: str, bits: int) -> None:
        gva = DATA + self.rng.randrange(0x200, DATA_SIZE - 0x200)
        if self.rng.random() < 0.2:
            gva = self.rng.choice((DATA + DATA_SIZE // 2, DATA + DATA_SIZE)) + self.rng.randrange(-12, 1)
        gva += self.world.bases["ds"] - self.world.bases[segment]
        garbage = self.rng.getrandbits(64) >> bits << bits if bits < 64 else 0
        registers[name] = (gva | garbage) & (MASK64 if self.bits == 64 else 0xFFFFFFFF)

    def _address_bits(self, draft: Draft | None = None) -> int:
        choices = {16: (16, 16, 32), 32: (32, 32, 16), 64: (64, 64, 64, 32)}[self.bits]
        if draft is None:
            return self.rng.choice(choices)
        for index in range(draft.instruction.op_count):
            if draft.instruction.op_kind(index) in (OpKind.MEMORY_SEG_SI, OpKind.MEMORY_ESDI):
                return 16
            if draft.instruction.op_kind(index) in (OpKind.MEMORY_SEG_ESI, OpKind.MEMORY_ESEDI):
                return 32
            if draft.instruction.op_kind(index) in (OpKind.MEMORY_SEG_RSI, OpKind.MEMORY_ESRDI):
                return 64
        return self.rng.choice(choices)

    def _set_memory(self, form: Form, draft: Draft, index: int) -> None:
        instruction, rng = draft.instruction, self.rng
        bits = self._address_bits()
        instruction.set_op_kind(index, OpKind.MEMORY)
        shape = rng.choice(("base", "base8", "base32", "sib", "sib8", "sib32", "index", "absolute", "rip"))
        if bits == 16:
            self._address16(draft, shape)
        else:
            self._address32(draft, shape, bits)
        if self.bits == 64 and not instruction.segment_prefix and rng.random() < 0.1:
            self._override(draft)

    def _override(self, draft: Draft) -> None:
        """A segment override that 64-bit code ignores."""
        draft.instruction.segment_prefix = self.rng.choice([SEGMENTS[name] for name in ("es", "cs", "ss", "ds")])

    def _segment(self, draft: Draft, default: str) -> str:
        """The segment to address through; sets the override prefix."""
        names = ("fs", "gs") if self.bits == 64 else ("fs", "gs", "es", "ss", "ds")
        if self.rng.random() < 0.75:
            return default
        name = self.rng.choice(names)
        draft.instruction.segment_prefix = SEGMENTS[name]
        return name

    def _memory_target(self, draft: Draft, default: str, bits: int) -> int:
        """An offset that leads into the data (or stack) window through a segment; rarely a place that faults."""
        rng = self.rng
        segment = self._segment(draft, default)
        if segment == "ss" and self.world.bases["ss"] != self.world.bases["ds"]:
            gva = self.world.bases["ss"] + STACK + rng.randrange(0x100, STACK_SIZE - 0x100)
        else:
            gva = self.world.bases["ds"] + DATA + rng.randrange(DATA_SIZE - 16)
            if rng.random() < 0.3:
                gva = self.world.bases["ds"] + DATA + DATA_SIZE // 2 - rng.randrange(0, 16)
            elif rng.random() < 0.3:
                gva &= ~15
            if rng.random() < self.wild and self.world.long_mode:
                places = [READ_ONLY + 8, DATA - 2, DATA + DATA_SIZE - 3, 0x6100, 0x7FFE, 0x40000, 0x10]
                if bits == 64:
                    places += [CANONICAL_END, CANONICAL_END - 3, MASK64 - 2, MASK64 + 1 - CANONICAL_END]
                gva = rng.choice(places)
        draft.memory_gva = gva
        return (gva - self.world.bases[segment]) & ((1 << bits) - 1)

    def _address16(self, draft: Draft, shape: str) -> None:
        instruction, rng = draft.instruction, self.rng
        bx, bp, si, di = Register.BX, Register.BP, Register.SI, Register.DI
        base, other = rng.choice(((bx, si), (bx, di), (bp, si), (bp, di), (si, 0), (di, 0), (bp, 0), (bx, 0)))
        if shape == "absolute":
            base, other = 0, 0
        displacement = {"base": 0, "sib": 0, "base8": rng.randrange(-128, 128)}.get(shape, rng.getrandbits(16))
        if base == bp and displacement == 0:
            displacement = rng.randrange(-128, 128)
        instruction.memory_base, instruction.memory_index = base, other
        target = self._memory_target(draft, "ss" if base == bp else "ds", 16)
        if base == 0:
            displacement = target
        else:
            other_value = draft.registers[self._register_name(other)] if other else 0
            name = self._register_name(base)
            low = (target - displacement - other_value) & 0xFFFF
            draft.registers[name] = draft.registers[name] & ~0xFFFF | low
        instruction.memory_displacement = displacement & 0xFFFF
        short = -128 <= displacement < 128 and base != 0
        instruction.memory_displ_size = 0 if displacement == 0 and base != bp and base else (1 if short else 2)

    def _address32(self, draft: Draft, shape: str, bits: int) -> None:
        instruction, rng = draft.instruction, self.rng
        first = BY_SIZE[bits]
        mask = (1 << bits) - 1
        if shape == "rip":
            shape = "rip" if self.bits == 64 else "absolute"
        if shape == "rip":
            instruction.memory_base = Register.RIP if bits == 64 else Register.EIP
            instruction.memory_displ_size = bits // 8
            instruction.memory_displacement = self._memory_target(draft, "ds", bits) & 0x7FFFFFFF
            return
        displacement = {"base8": rng.randrange(-128, 128), "sib8": rng.randrange(-128, 128)}.get(shape, 0)
        if shape in ("base32", "sib32", "index"):
            displacement = rng.randrange(-(1 << 31), 1 << 31) if rng.random() < 0.5 else rng.randrange(-4096, 4096)
        base = first + rng.randrange(self.count) if shape not in ("index", "absolute") else 0
        index = first + rng.randrange(self.count) if shape in ("sib", "sib8", "sib32", "index") else 0
        if index == first + 4:  # RSP cannot be an index (SDM 2A 2.1.5)
            index = first + 1
        scale = rng.choice((1, 2, 4, 8)) if index else 1
        default = "ss" if base in (first + 4, first + 5) else "ds"
        target = self._memory_target(draft, default, bits)
        if shape == "absolute":
            displacement = target - (1 << bits) if target >> 31 and bits == 64 else target
            if not -(1 << 31) <= displacement < 1 << 32 or (bits == 64 and displacement >= 1 << 31):
                raise CannotEncode("a 32-bit displacement cannot reach it")
        else:
            self._solve(draft.registers, base, index, scale, (target - displacement) & mask, bits)
        instruction.memory_base, instruction.memory_index, instruction.memory_index_scale = base, index, scale
        size = bits // 8
        if base and -128 <= displacement < 128:
            size = 1 if displacement or base in (first + 5, first + 13) or rng.random() < 0.2 else 0
        instruction.memory_displ_size = size
        instruction.memory_displacement = displacement & (MASK64 if bits == 64 else 0xFFFFFFFF)

    def _solve(self, registers: dict[str, int], base: int, index: int, scale: int, target: int, bits: int) -> None:
        """Choose register values so that base + index * scale is the target, modulo the address size."""
        mask = (1 << bits) - 1
        keep = self.rng.getrandbits(64) & ~mask & (MASK64 if self.bits == 64 else 0xFFFFFFFF)
        base_name, index_name = self._register_name(base), self._register_name(index)
        if base and index and base == index:
            registers[base_name] = (target // (1 + scale)) | keep
        elif base and index:
            value = self.rng.choice((self.rng.getrandbits(bits), self.rng.randrange(64), mask))
            registers[index_name] = value | keep
            registers[base_name] = ((target - value * scale) & mask) | keep
        elif base:
            registers[base_name] = target | keep
        elif index:
            registers[index_name] = (target // scale) | keep

    def _encode(self, form: Form, draft: Draft, offset: int) -> bytes:
        encoder = Encoder(self.bits)
        try:
            encoder.encode(draft.instruction, offset)
        except ValueError as error:
            raise CannotEncode(str(error)) from error
        code: bytes = encoder.take_buffer()
        if self.rng.random() < 0.1 and "VEX" not in form.name:
            prefix = self.rng.choice((b"\x26", b"\x2e", b"\x36", b"\x3e"))
            if self.bits == 64 and len(code) < 15:  # ignored there
                code = prefix + code if draft.instruction.segment_prefix == 0 else code
        return code
