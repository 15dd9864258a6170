"""A machine's face of one vCPU: registers by name, and nothing that only one engine has."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Protocol, SupportsIndex

from belljar.errors import ConfigurationError
from belljar.x86.code import code_bits, linear_pc
from belljar.x86.registers import PARTS, REGISTERS
from belljar.x86.state import Registers, SpecialRegisters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from belljar.engine import Vcpu
    from belljar.engine_data import EngineTranslation, RunPage
    from belljar.x86.machine_check import Consequence
    from belljar.x86.mp_state import MpState


class _Register:
    """A 64-bit register as an attribute of `Cpu`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.__doc__ = f"{name.upper()}, 64 bits."

    def __get__(self, cpu: Cpu, owner: type[Cpu] | None = None) -> int:
        value: int = getattr(cpu.vcpu.get_registers(), self._name)
        return value

    def __set__(self, cpu: Cpu, value: int) -> None:
        cpu.set(**{self._name: value})


class Keeper(Protocol):
    """Who knows what a vCPU does, where its interrupt chips are the machine's own."""

    def leave_halt(self) -> None:
        """Go on behind the HLT."""

    @property
    def mp_state(self) -> MpState:
        """What it waits for."""

    @mp_state.setter
    def mp_state(self, value: MpState) -> None:
        """Have it wait for something else, or for nothing."""

    def raise_cmci(self) -> None:
        """A corrected machine check (SDM 3A 11.5.1)."""


class Cpu:
    """One vCPU of a machine. Its registers may be read and written whenever the machine is not running.

    `cpu.rax`, `cpu["eax"]` and `cpu.registers` read; `cpu.rax = 1` and `cpu.set(rax=1, cl=2)` write.
    """

    rax, rcx, rdx, rbx = _Register("rax"), _Register("rcx"), _Register("rdx"), _Register("rbx")
    rsp, rbp, rsi, rdi = _Register("rsp"), _Register("rbp"), _Register("rsi"), _Register("rdi")
    r8, r9, r10, r11 = _Register("r8"), _Register("r9"), _Register("r10"), _Register("r11")
    r12, r13, r14, r15 = _Register("r12"), _Register("r13"), _Register("r14"), _Register("r15")
    rip, rflags = _Register("rip"), _Register("rflags")

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.index = vcpu.index
        self.halted = False
        """Whether it has halted and nothing wakes it any more."""
        self.asleep = False
        """The same by the look of it, where vCPUs sleep inside the engine (`Vcpu.sleeps`) and may wake each other."""
        self.keeper: Keeper | None = None
        """Set by the chips, where they are the machine's own."""

    @property
    def registers(self) -> Registers:
        """A copy of the general registers, RIP and RFLAGS."""
        return self.vcpu.get_registers()

    @property
    def special(self) -> SpecialRegisters:
        """A copy of segments, tables, control registers and EFER."""
        return self.vcpu.get_special()

    @special.setter
    def special(self, special: SpecialRegisters) -> None:
        """Set all of them."""
        self.vcpu.set_special(special)

    @property
    def run_page(self) -> RunPage:
        """Where this vCPU and its engine share state."""
        return self.vcpu.run_page

    def __getitem__(self, name: str) -> int:
        """A register or a part of one by name (`rax`, `eax`, `ah`). Raises ConfigurationError for an unknown name."""
        part = PARTS.get(name.lower())
        if part is None:
            raise unknown_register(name)
        value: int = getattr(self.vcpu.get_registers(), part.full)
        return (value >> part.shift) % part.limit

    def set(self, **values: SupportsIndex) -> None:
        """Set registers or parts of them by name; the rest keep their values. Raises ConfigurationError for bad ones."""
        self.vcpu.set_registers(with_parts(self.vcpu.get_registers(), values))

    @property
    def pc_gva(self) -> int:
        """The linear address of the next instruction: CS base plus RIP, 32 bits wide outside 64-bit mode."""
        return linear_pc(self.vcpu.get_special(), self.vcpu.get_registers().rip)

    @property
    def bits(self) -> int:
        """The default operand and address size of the code that runs: 16, 32 or 64 (SDM 3A 5.2.1, 3.4.5)."""
        return code_bits(self.vcpu.get_special())

    def translate(self, gva: SupportsIndex) -> EngineTranslation:
        """The engine's own answer where `gva` lies in guest-physical memory."""
        return self.vcpu.translate(operator.index(gva))

    def inject_exception(
        self, vector: SupportsIndex, error_code: SupportsIndex | None = None, payload: SupportsIndex | None = None
    ) -> None:
        """An exception before the next instruction (`belljar.engine.Vcpu.inject_exception`); it ends a halt."""
        self.vcpu.inject_exception(operator.index(vector), _plain(error_code), _plain(payload))
        self.leave_halt()

    def inject_machine_check(
        self,
        bank: SupportsIndex,
        status: SupportsIndex,
        mcg_status: SupportsIndex = 0,
        address: SupportsIndex = 0,
        misc: SupportsIndex = 0,
    ) -> Consequence:
        """An error of the hardware, and what becomes of it (`belljar.engine.Vcpu.inject_machine_check`); #MC ends a halt.

        Which kind of address `address` is, the address mode in `misc` says (IA32_MCi_MISC, bits 6 to 8; SDM 3B 16.3.2.4).
        """
        from belljar.x86.machine_check import Consequence  # few guests ever see one

        what = self.vcpu.inject_machine_check(*map(operator.index, (bank, status, mcg_status, address, misc)))
        if what in (Consequence.EXCEPTION, Consequence.SHUTDOWN):
            self.leave_halt()
        elif what is Consequence.INTERRUPT and self.keeper is not None:
            self.keeper.raise_cmci()
        return what

    @property
    def mp_state(self) -> MpState:
        """What this vCPU waits for: INIT, a start-up IPI, the end of a halt, nothing (api.rst 4.38).

        Without `irqchip`, vCPUs know no such states: always RUNNABLE, and FeatureUnsupported for setting another.
        """
        return self.vcpu.mp_state if self.keeper is None else self.keeper.mp_state

    @mp_state.setter
    def mp_state(self, value: MpState) -> None:
        """Have it wait for something else, or for nothing."""
        (self.vcpu if self.keeper is None else self.keeper).mp_state = value
        self.halted = self.asleep = False

    def leave_halt(self) -> None:
        """Go on behind the HLT with the next run."""
        self.halted = self.asleep = False
        self.vcpu.leave_halt()
        if self.keeper is not None:
            self.keeper.leave_halt()

    def as_dict(self) -> dict[str, int]:
        """The registers by name, for reports."""
        return as_dict(self.vcpu.get_registers())


def _plain(value: SupportsIndex | None) -> int | None:
    return None if value is None else operator.index(value)


def as_dict(registers: Registers) -> dict[str, int]:
    """The general registers, RIP and RFLAGS by name."""
    return {name: getattr(registers, name) for name in REGISTERS}


def unknown_register(name: str) -> ConfigurationError:
    """The error for a name that is no register's."""
    return ConfigurationError(
        f"there is no register called {name!r}",
        hint=f"registers: {', '.join(REGISTERS)}, and their parts (eax, ax, al, ah)",
    )


def with_parts(registers: Registers, values: Mapping[str, SupportsIndex]) -> Registers:
    """A copy of `registers` with the named registers or parts set, upper halves cleared as the processor does it.

    Negative values stand for their two's complement. Raises ConfigurationError for an unknown name or a value that
    does not fit.
    """
    changed: dict[str, int] = {}
    for name, given in values.items():
        value = operator.index(given)
        part = PARTS.get(name.lower())
        if part is None:
            raise unknown_register(name)
        if not -(part.limit >> 1) <= value < part.limit:
            raise ConfigurationError(f"{value:#x} does not fit register {name} ({part.width} bits)")
        before = changed.get(part.full, getattr(registers, part.full))
        kept = 0 if part.zero_extends else before & ~((part.limit - 1) << part.shift)
        changed[part.full] = kept | (value % part.limit) << part.shift
    return Registers(**as_dict(registers) | changed)
