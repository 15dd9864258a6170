"""Random programs of many instructions: arithmetic, memory, stack, branches and loops, whose result is defined.

A program keeps RBX pointing into the data window and RSP into the stack; everything else is free. Flags that an
instruction leaves undefined are defined again before anything can read them.
"""

from __future__ import annotations

import random
from functools import lru_cache

from iced_x86 import Encoder, Instruction, OpCodeOperandKind, OpKind, Register

from .cases import STATUS, Case
from .flags import undefined_flags
from .forms import Form, forms, words
from .operands import BY_SIZE, EITHER_KINDS, FIXED, IMMEDIATE_BITS, IMMEDIATES, REGISTER_KINDS, CannotEncode, corner
from .worlds import CODE, CODE_SIZE, DATA, DATA_SIZE, World

SIMPLE = words(
    "ADC ADCX ADD ADOX AND ANDN BEXTR BLSI BLSMSK BLSR BSWAP BT BTC BTR BTS BZHI CBW CDQ CDQE CLC CLD CMC CMOVA CMOVAE CMOVB "
    "CMOVBE CMOVE CMOVG CMOVGE CMOVL CMOVLE CMOVNE CMOVNO CMOVNP CMOVNS CMOVO CMOVP CMOVS CMP CMPXCHG CQO CWD CWDE DEC DIV "
    "IDIV IMUL INC LAHF LEA LZCNT MOV MOVBE MOVSX MOVSXD MOVZX MUL MULX NEG NOP NOT OR PDEP PEXT POPCNT PUSH POP RCL RCR ROL "
    "ROR RORX SAHF SAR SARX SBB SETA SETAE SETB SETBE SETE SETG SETGE SETL SETLE SETNE SETNO SETNP SETNS SETO SETP SETS SHL "
    "SHLX SHR SHRX STC STD SUB TEST TZCNT XADD XCHG XOR AAA AAS DAA DAS AAD AAM SALC CMPSB MOVSB STOSB LODSB SCASB MOVSD STOSD"
)
BASE, STACK_POINTER = 3, 4
KINDS = OpCodeOperandKind


@lru_cache(maxsize=4)
def simple_forms(bits: int) -> tuple[Form, ...]:
    """The forms that a sequence is made of."""
    usable = {*REGISTER_KINDS, *EITHER_KINDS, *IMMEDIATES, KINDS.MEM, KINDS.IMM8_CONST_1, KINDS.CL, KINDS.AL, KINDS.AX,
              KINDS.EAX, KINDS.RAX}  # fmt: skip
    return tuple(
        form
        for form in forms(bits)
        if form.mnemonic in SIMPLE
        and set(form.operand_kinds) <= usable
        and "SREG" not in form.name
        and not form.privileged
        if form.mnemonic not in ("PUSH", "POP") or _stack_bits(form) == bits
        if bits != 16 or "VEX" not in form.name
    )


def _stack_bits(form: Form) -> int:
    """How wide a PUSH or POP is; only full words keep the stack as the loops expect it."""
    letter = form.name.split("_")[0][-1]
    if letter in "QDW":
        return {"Q": 64, "D": 32, "W": 16}[letter]
    return 64 if "64" in form.name else 32 if "32" in form.name else 16


class Sequencer:
    """Makes programs for one world; `rng` decides everything."""

    def __init__(self, world: World, rng: random.Random, *, without: frozenset[str] = frozenset()) -> None:
        self.world, self.rng, self.bits = world, rng, world.bits
        self.forms = tuple(form for form in simple_forms(world.bits) if form.mnemonic not in without)
        self.count = 16 if self.bits == 64 else 8
        self.free = [n for n in range(self.count) if n not in (BASE, STACK_POINTER)]

    def case(self, length: int) -> Case:
        """A program of about `length` instructions, ended by the filler."""
        rng = self.rng
        offset = CODE + rng.randrange(0, CODE_SIZE // 2)
        code = bytearray()
        while length > 0:
            body = self._block(min(length, rng.randrange(1, 8)), offset + len(code))
            length -= 8
            code += self._wrap(bytes(body))
            if len(code) > CODE_SIZE // 2 - 200:
                break
        registers = {f"r{n}" if n > 7 else _LOW[n]: corner(rng, 64 if self.bits == 64 else 32) for n in self.free}
        registers["rbx"] = DATA + DATA_SIZE // 2 + rng.randrange(-64, 64)
        for name in ("rsi", "rdi"):
            if rng.random() < 0.7:
                registers[name] = DATA + rng.randrange(0x300, DATA_SIZE - 0x300)
        rflags = 2 | rng.getrandbits(12) & STATUS | (0x200 if self.world.cpl == 3 else 0)
        return Case(bytes(code), registers, rflags, {}, "", f"sequence in {self.world.name}", offset)

    def _wrap(self, body: bytes) -> bytes:
        """Leave the body straight, or jump over it on a condition, or loop over it a few times."""
        rng = self.rng
        shape = rng.choice(("straight", "straight", "skip", "loop"))
        if shape == "skip" and len(body) < 120:
            return bytes([0x70 | rng.randrange(16), len(body)]) + body
        if shape == "loop" and len(body) < 100:
            # The count lives on the stack, so that no register is lost: push n; body; dec [rsp]; jnz; pop.
            decrement = self._decrement()
            back = -(len(body) + len(decrement) + 2)
            push = bytes([0x6A, rng.randrange(1, 5)])
            return push + body + decrement + bytes([0x75, back & 0xFF]) + self._drop()
        return body

    def _drop(self) -> bytes:
        """LEA RSP, [RSP + one word]."""
        return {64: b"\x48\x8d\x64\x24\x08", 32: b"\x8d\x64\x24\x04", 16: b"\x67\x66\x8d\x64\x24\x02"}[self.bits]

    def _decrement(self) -> bytes:
        """DEC word at the top of the stack (16-bit code addresses it through a 32-bit ESP)."""
        return {64: b"\xff\x0c\x24", 32: b"\xff\x0c\x24", 16: b"\x67\xff\x0c\x24"}[self.bits]

    def _block(self, length: int, offset: int) -> bytearray:
        code = bytearray()
        depth = 0
        while length > 0:
            form = self.rng.choice(self.forms)
            if form.mnemonic == "POP" and depth == 0:
                continue
            try:
                data = self._instruction(form)
            except CannotEncode:
                continue
            length -= 1
            depth += {"PUSH": 1, "POP": -1}.get(form.mnemonic, 0)
            code += data
        while depth > 0:  # what is left on the stack goes, and LEA leaves the flags alone
            code += self._drop()
            depth -= 1
        return code

    def _instruction(self, form: Form) -> bytes:
        rng = self.rng
        instruction = Instruction.create(form.code)
        count = 0
        for index, kind in enumerate(form.operand_kinds):
            if kind in REGISTER_KINDS or (kind in EITHER_KINDS and rng.random() < 0.6):
                size = REGISTER_KINDS.get(kind) or EITHER_KINDS[kind]
                instruction.set_op_kind(index, OpKind.REGISTER)
                instruction.set_op_register(index, self._register(size))
            elif kind in EITHER_KINDS or kind == KINDS.MEM:
                self._memory(instruction, index)
            elif kind in FIXED:
                instruction.set_op_kind(index, OpKind.REGISTER)
                instruction.set_op_register(index, FIXED[kind])
                count = 35 if kind == KINDS.CL else 0
            else:
                bits = IMMEDIATE_BITS.get(kind, 8)
                value = 1 if kind == KINDS.IMM8_CONST_1 else corner(rng, bits)
                instruction.set_op_kind(index, IMMEDIATES.get(kind, OpKind.IMMEDIATE8))
                if bits == 8 and kind != KINDS.IMM8 and value > 127:
                    value -= 256
                if kind == KINDS.IMM32SEX64 and value >> 31:
                    value -= 1 << 32
                instruction.set_immediate_i64(index, value if value < 1 << 63 else value - (1 << 64))
                count = value & 0xFF
        encoder = Encoder(self.bits)
        try:
            encoder.encode(instruction, CODE)
        except ValueError as error:
            raise CannotEncode(str(error)) from error
        code: bytes = encoder.take_buffer()
        if undefined_flags(form, 8, count) or undefined_flags(form, 64, count) or count == 35:
            code += self._define_flags()
        return code

    def _define_flags(self) -> bytes:
        """CMP of two registers: every status flag is defined after it."""
        first, second = self.rng.choice(self.free) & 7, self.rng.choice(self.free) & 7
        return bytes([0x39, 0xC0 | first << 3 | second])

    def _register(self, size: int) -> int:
        number = self.rng.choice(self.free)
        if size != 8:
            return BY_SIZE[size] + number
        if number > 7:
            return Register.R8L + number - 8
        return (Register.AL, Register.CL, Register.DL, Register.AH, Register.CH, Register.DH)[number % 6]

    def _memory(self, instruction: Instruction, index: int) -> None:
        instruction.set_op_kind(index, OpKind.MEMORY)
        instruction.memory_base = {16: Register.BX, 32: Register.EBX, 64: Register.RBX}[self.bits]
        displacement = self.rng.randrange(-128, 128) if self.rng.random() < 0.6 else self.rng.randrange(-0x800, 0x800)
        if self.rng.random() < 0.1:
            displacement = self.rng.randrange(-8, 8)
        short = -128 <= displacement < 128
        instruction.memory_displ_size = 1 if short else self.bits // 8
        width = {16: 16, 32: 32, 64: 64}[self.bits]
        instruction.memory_displacement = displacement & ((1 << width) - 1)


_LOW = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
