"""One guest-virtual address on its way: through the guest's page tables, to guest-physical, to host-virtual memory."""

from __future__ import annotations

from belljar.errors import GuestMemoryError
from belljar.machine import Cpu, Machine
from belljar.records import dataclass
from belljar.x86.walker import Step, Walk, WalkFailure, walk


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One entry of one table: what the walker read, and the host-virtual address of the entry, None outside guest memory."""

    step: Step
    entry_hva: int | None


@dataclass(frozen=True, slots=True)
class AddressWalk:
    """The walk of `gva` on one vCPU with its current state, and the engine's own answer to the same question.

    `hva` is None where no memory stands behind the guest-physical address (a device, or nothing). `engine_gpa` is None
    where the engine says that there is no translation; `agrees` says whether both came to the same end.
    """

    vcpu: int
    gva: int
    cr3: int
    walk: Walk
    steps: tuple[WalkStep, ...]
    hva: int | None
    region: str | None
    engine: str
    engine_gpa: int | None

    @property
    def agrees(self) -> bool | None:
        """Whether the walker and the engine found the same guest-physical address, or both none.

        None where they were not asked the same: KVM_TRANSLATE walks on from an address that is not canonical, or too wide
        for its mode, as if it were one.
        """
        if self.walk.failure in (WalkFailure.NON_CANONICAL, WalkFailure.TOO_WIDE):
            return None
        return self.walk.gpa == self.engine_gpa


def walk_address(machine: Machine, gva: int, cpu: Cpu | None = None) -> AddressWalk:
    """Walk `gva` (0 to 2^64 - 1) as `cpu`, by default the first, would translate it now; the machine must stand still.

    Never raises for anything the guest's tables hold: a walk that fails says where and why. Source of the walk: SDM 3A
    chapter 4, in `belljar.x86.walker`; of the engine's answer: KVM_TRANSLATE (api.rst 4.22) or its equivalent. The steps are
    what the entries held before the engine was asked: KVM sets their accessed bits, as a processor would.
    """
    cpu = cpu or machine.cpu
    special = cpu.special
    found = walk(special, gva, machine.memory.read)
    answer = cpu.translate(gva)
    region = None if found.gpa is None else machine.memory.find(found.gpa)
    return AddressWalk(
        vcpu=cpu.index,
        gva=gva,
        cr3=special.cr3,
        walk=found,
        steps=tuple(WalkStep(step, host_address(machine, step.entry_gpa, step.entry_size)) for step in found.steps),
        hva=None if found.gpa is None else host_address(machine, found.gpa),
        region=None if region is None else region.name,
        engine=machine.engine.name,
        engine_gpa=answer.gpa if answer.valid else None,
    )


def host_address(machine: Machine, gpa: int, size: int = 1) -> int | None:
    """Where `size` bytes at `gpa` lie in this process; None where they are not guest memory."""
    try:
        return machine.memory.hva(gpa, size)
    except GuestMemoryError:
        return None
