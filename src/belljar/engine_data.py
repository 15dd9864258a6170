"""What goes in and out of an engine as plain data, and the numbers that every engine holds to (`belljar.engine`)."""

from __future__ import annotations

from typing import Final

from belljar.records import dataclass

FOREVER: Final = (1 << 62) - 1
"""No limit: later than every time in nanoseconds, more than every number of instructions."""

MACHINE_CHECK_BANKS = 10
"""Banks of error registers that every engine gives a vCPU, as other hypervisors on KVM do."""

LAPIC_X2APIC, LAPIC_TSC_DEADLINE = 1 << 21, 1 << 24
"""CPUID leaf 1, ECX: what a processor offers of its local APIC (SDM 2A CPUID)."""

MCG_CAP_OFFERED = 1 << 24 | 1 << 10 | 1 << 8
"""What machine checks are offered with, as far as the engine has it: error recovery, CMCI, IA32_MCG_CTL (SDM 3B 16.3.1.1)."""

GAVE_TURN: Final = 1
WAITS: Final = 2
WAITS_STILL: Final = 3
"""What `Vcpu.gave_turn` tells."""


@dataclass(frozen=True, slots=True)
class DebugControl:
    """What the host wants to be stopped for. Addresses are linear (guest-virtual, segment base included)."""

    single_step: bool = False
    breakpoints_gva: tuple[int, ...] = ()
    watchpoints: tuple[Watchpoint, ...] = ()

    @property
    def active(self) -> bool:
        """Whether there is anything to stop for."""
        return self.single_step or bool(self.breakpoints_gva) or bool(self.watchpoints)


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """Stop after an access to `size` (1, 2, 4, 8) bytes at `gva`: writes, or reads and writes (SDM 3B 18.2.4)."""

    gva: int
    size: int
    on_read: bool = False


@dataclass(frozen=True, slots=True)
class RunPage:
    """Where a vCPU and its engine share state: `hva` and `size` (bytes) of the page, or of the engine's equivalent."""

    hva: int
    size: int
    what: str


@dataclass(frozen=True, slots=True)
class EngineTranslation:
    """The engine's own answer to a guest-virtual address (KVM_TRANSLATE, api.rst 4.22); `valid` False: not mapped."""

    gva: int
    gpa: int
    valid: bool
    writeable: bool = True
    usermode: bool = False
