"""Whose interrupt chips a machine has, and whether its vCPUs start together: what was asked for, and what the engine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.errors import FeatureUnsupported
from belljar.machine.config import MachineConfig
from belljar.records import dataclass

if TYPE_CHECKING:
    from belljar.engine import Engine, Vm


@dataclass(frozen=True, slots=True)
class ChipChoice:
    """`which` is one of `IRQCHIPS`, or None: there are none. `reason` says why it is not what was asked for, else ''.

    `together`: every vCPU starts at the entry; else all but the first wait for INIT and a start-up IPI. `optional`: nobody
    asked for chips, so that a guest may know nothing of them.
    """

    which: str | None
    together: bool
    optional: bool
    reason: str = ""


def choose_chips(config: MachineConfig, engine: Engine, *, needs_chips: bool) -> ChipChoice:
    """The choice for a guest that `needs_chips`, as kernels do, or for a bare one."""
    asked = config.irqchip
    if asked is None:
        if needs_chips:
            return ChipChoice(engine.chips[0], together=False, optional=False)
        # An engine that has no chips of its own has the machine's, always: they cost nothing until they are used.
        return ChipChoice("user" if engine.chips == ("user",) else None, together=True, optional=True)
    if asked in engine.chips:
        return ChipChoice(asked, together=False, optional=False)
    there = engine.chips[0]
    what = "interrupt chips" if asked == "kernel" else "local APICs"
    reason = f"the {engine.name} engine has no kernel beneath with {what}: belljar's own serve --irqchip {asked}"
    return ChipChoice(there, together=False, optional=False, reason=reason)


def use_chips(config: MachineConfig, engine: Engine, vm: Vm, *, needs_chips: bool) -> ChipChoice:
    """Choose, and tell the new VM. Raises FeatureUnsupported if it has not what was asked for by name."""
    choice = choose_chips(config, engine, needs_chips=needs_chips)
    if choice.which is None:
        return choice
    try:
        vm.use_chips(choice.which)
    except FeatureUnsupported as error:
        if config.irqchip is not None:
            raise
        reason = f"{error.message}: belljar's own instead"
        choice = ChipChoice("user", choice.together, choice.optional, reason)
        vm.use_chips("user")
    return choice
