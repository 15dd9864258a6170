"""What an engine shows of its inside to whoever looks on: the registers of its chips, and what its processor does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class PicRegisters(NamedTuple):
    """One 8259: pins are bits, `base` is the vector of its pin 0 (8259A data sheet)."""

    base: int
    irr: int
    isr: int
    imr: int
    elcr: int
    auto_eoi: bool
    special_mask: bool
    initialized: bool


class ChipRegisters(NamedTuple):
    """What the interrupt chips hold; empty: elsewhere, or not there.

    `lapics` is the 1 KiB register page of each local APIC (SDM 3A 11.4.1) by vCPU index, `redirection` the IOAPIC's 64-bit
    entries (82093AA 3.2.4), `pics` master and slave.
    """

    lapics: Mapping[int, bytes]
    redirection: tuple[int, ...] = ()
    ioapic_id: int = 0
    pics: tuple[PicRegisters, ...] = ()


class ExitWatch(Protocol):
    """Told of what a processor does that no device and no machine sees; `Vcpu.watch_exits`. `vcpu` is a vCPU's index."""

    def vm_exit(self, vcpu: int, rip: int, name: str, details: str) -> None:
        """A VM exit with the SDM's name; the details are its qualification, as it stands and in words."""

    def cpuid(self, vcpu: int, leaf: int, subleaf: int, answer: Sequence[int]) -> None:
        """CPUID, answered with EAX, EBX, ECX and EDX."""

    def msr(self, vcpu: int, msr: int, write: bool, value: int, done: bool) -> None:
        """RDMSR or WRMSR of a 64-bit value; not `done`: it was refused with an exception."""
