"""Register names: the sixteen general registers, RIP and RFLAGS, and the narrower names for parts of them."""

from __future__ import annotations

from belljar.records import dataclass
from belljar.x86.state import GENERAL_REGISTERS

REGISTERS = (*GENERAL_REGISTERS, "rip", "rflags")
"""The 64-bit names, as `belljar.x86.state.Registers` has them."""


@dataclass(frozen=True, slots=True)
class RegisterPart:
    """`width` bits of the register `full`, from bit `shift` up; `zero_extends`: writing it clears the upper half."""

    full: str
    shift: int
    width: int
    zero_extends: bool = False

    @property
    def limit(self) -> int:
        """One more than the largest value it holds."""
        return 1 << self.width


def _parts() -> dict[str, RegisterPart]:
    parts = {name: RegisterPart(name, 0, 64) for name in REGISTERS}
    for name in GENERAL_REGISTERS[:8]:
        letters = name[1:]
        parts["e" + letters] = RegisterPart(name, 0, 32, zero_extends=True)
        parts[letters] = RegisterPart(name, 0, 16)
        low = letters[0] + "l" if letters.endswith("x") else letters + "l"
        parts[low] = RegisterPart(name, 0, 8)
        if letters.endswith("x"):
            parts[letters[0] + "h"] = RegisterPart(name, 8, 8)
    for name in GENERAL_REGISTERS[8:]:
        parts[name + "d"] = RegisterPart(name, 0, 32, zero_extends=True)
        parts[name + "w"] = RegisterPart(name, 0, 16)
        parts[name + "b"] = RegisterPart(name, 0, 8)
    for name in ("rip", "rflags"):
        parts["e" + name[1:]] = RegisterPart(name, 0, 32, zero_extends=True)
        parts[name[1:]] = RegisterPart(name, 0, 16)
    return parts


PARTS = _parts()
"""Every register name a user may write, and what it stands for (SDM 1 3.4.1)."""
