"""Instructions as text. The disassembler is iced-x86, imported when the first instruction is shown."""

from __future__ import annotations

from collections.abc import Iterator

from belljar.records import dataclass

MAX_INSTRUCTION = 15
"""The longest an x86 instruction may be, in bytes (SDM 2A 2.3.11)."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One disassembled instruction: where its bytes lie, the bytes, the text (Intel syntax as NASM writes it)."""

    gva: int
    code: bytes
    text: str
    valid: bool


def disassemble_all(code: bytes, gva: int, bits: int) -> Iterator[Instruction]:
    """The instructions in `code`, which lies at `gva` and runs with `bits` (16, 32, 64) of default size."""
    from iced_x86 import Decoder, Formatter, FormatterSyntax

    formatter = Formatter(FormatterSyntax.NASM)
    formatter.space_after_operand_separator = True
    formatter.hex_prefix, formatter.hex_suffix = "0x", ""
    formatter.uppercase_hex, formatter.branch_leading_zeros = False, False
    decoder = Decoder(bits, code, ip=gva)
    position = 0
    for instruction in decoder:
        raw = code[position : position + instruction.len]
        position += instruction.len
        yield Instruction(instruction.ip, raw, formatter.format(instruction), not instruction.is_invalid)


def disassemble(code: bytes, gva: int, bits: int) -> Instruction:
    """The first instruction in `code`; `valid` False, with all bytes, if there is none."""
    for instruction in disassemble_all(code[:MAX_INSTRUCTION], gva, bits):
        if instruction.valid:
            return instruction
        break
    return Instruction(gva, code[:MAX_INSTRUCTION], "(bad)", False)
