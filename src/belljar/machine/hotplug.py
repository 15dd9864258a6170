"""vCPUs that come and go while a machine lives, also while its guest runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from belljar.engine_data import DebugControl
from belljar.errors import ConfigurationError
from belljar.exits import ExitReason
from belljar.machine.config import MAX_CPUS
from belljar.machine.cpu import Cpu

if TYPE_CHECKING:
    from belljar.machine.machine import Machine
    from belljar.machine.runner import Runner

Key = TypeVar("Key")

BOOTSTRAP = 0
"""The bootstrap processor, which keeps the time and gets what 8259s have."""


class RemovedCpu(NamedTuple):
    """What is left of vCPUs of one index that were removed: exits by reason, and what the engine counted of interrupts."""

    exits: dict[ExitReason, int]
    interrupts: dict[str, int]


def _sum(some: dict[Key, int], others: dict[Key, int]) -> dict[Key, int]:
    return {key: some.get(key, 0) + others.get(key, 0) for key in (*some, *others)}


def add_cpu(machine: Machine, runner: Runner) -> Cpu:
    """One more vCPU (`Machine.add_cpu`)."""
    if machine.interrupts is None:
        raise ConfigurationError(
            "without interrupt chips nobody can start another vCPU", hint='Machine(..., irqchip="kernel")'
        )
    added: list[Cpu] = []
    runner.change(lambda: added.append(_add(machine, runner)))
    return added[0]


def _add(machine: Machine, runner: Runner) -> Cpu:
    taken = {cpu.index for cpu in machine.cpus}
    index = next((index for index in range(MAX_CPUS) if index not in taken), None)
    if index is None:
        raise ConfigurationError(f"a machine has {MAX_CPUS} vCPUs at most")
    assert machine.vm is not None
    cpu = Cpu(machine.vm.create_vcpu(index))
    if cpu.vcpu.exit_counts() or any(cpu.vcpu.interrupt_statistics().values()):
        machine.removed_cpus.pop(index, None)  # on KVM it is the same again, and goes on counting
    if machine.own_interrupts is not None:
        machine.own_interrupts.add_cpu(cpu, machine.bus, running=runner.running)
    if machine.debug_control.active:
        cpu.vcpu.set_debug(machine.debug_control)
    _settle(machine, runner, (*machine.cpus, cpu))
    return cpu


def remove_cpu(machine: Machine, runner: Runner, index: int) -> None:
    """One vCPU less (`Machine.remove_cpu`)."""
    if index == BOOTSTRAP:
        raise ConfigurationError("vCPU 0, the bootstrap processor, cannot be removed")
    runner.change(lambda: _remove(machine, runner, index))


def _remove(machine: Machine, runner: Runner, index: int) -> None:
    left = tuple(cpu for cpu in machine.cpus if cpu.index != index)
    if len(left) == len(machine.cpus):
        raise ConfigurationError(
            f"there is no vCPU {index}", hint=f"vCPUs: {', '.join(str(cpu.index) for cpu in left)}"
        )
    vcpu = machine.cpu_of(index).vcpu
    before = machine.removed_cpus.get(index, RemovedCpu({}, {}))
    machine.removed_cpus[index] = RemovedCpu(
        _sum(before.exits, vcpu.exit_counts()), _sum(before.interrupts, vcpu.interrupt_statistics())
    )
    if machine.debug_control.active:
        vcpu.set_debug(DebugControl())  # it may come again, when nobody debugs any more
    if runner.pins is not None:
        runner.pins.move(index, None)
    if machine.own_interrupts is not None:
        machine.own_interrupts.remove_cpu(index)
    assert machine.vm is not None
    machine.vm.retire_vcpu(index)
    _settle(machine, runner, left)


def _settle(machine: Machine, runner: Runner, cpus: tuple[Cpu, ...]) -> None:
    machine.cpus = tuple(sorted(cpus, key=lambda cpu: cpu.index))
    runner.use(machine.cpus)
    if machine.own_interrupts is not None:
        machine.own_interrupts.cpus_changed(machine.cpus)
