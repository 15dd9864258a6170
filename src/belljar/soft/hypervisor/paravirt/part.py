"""What every part of a paravirtual interface is: some MSRs, and a state that is plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

ENABLED = 1
"""Bit 0 of most of these MSRs."""

PAGE_SIZE = 4096
U64 = (1 << 64) - 1


class Register(NamedTuple):
    """An MSR. `read` gives its value, None for #GP(0); `write` takes 64 bits, False for #GP(0)."""

    read: Callable[[], int | None]
    write: Callable[[int], bool]


def refuse(value: int) -> bool:
    """A register that cannot be written."""
    return False


class Part:
    """One part of one vCPU's interface. Subclasses say which MSRs they have."""

    name = ""
    feature = 0
    """Which of KVM's features (`cpuid.Feature`) it is; 0: none."""

    def __init__(self, vcpu: SoftVcpu) -> None:
        self.vcpu = vcpu

    @classmethod
    def fits(cls, vcpu: SoftVcpu) -> bool:
        """Whether a vCPU can have this part."""
        return True

    def msrs(self) -> Mapping[int, Register]:
        """Its MSRs by number."""
        return {}

    def reset(self) -> None:
        """The vCPU is reset, by INIT for one."""

    def turn_begins(self) -> None:
        """It is the vCPU's turn to run; this and what follows for parts that asked for it (`Interfaces.watch`)."""

    def turn_ends(self, halted: bool) -> None:
        """It is others' turn."""

    def before_entry(self) -> None:
        """The vCPU is about to run."""

    def taken(self, vector: int) -> None:
        """An interrupt of its local APIC is injected now."""

    def decode(self) -> dict[str, Any]:
        """What the part says now, by the field's own names; empty if the guest did not switch it on."""
        return {}

    def state(self) -> dict[str, Any]:
        """Plain data, without what lies in the guest's memory."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
