"""What is on a machine's board where it has interrupt chips: the chips, the rest of a small PC, and the test device."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from belljar.devices.bus import Bus, LockedBus
from belljar.devices.clock import Clock
from belljar.devices.lapic_msrs import X2APIC_MSRS
from belljar.devices.rtc import DEFAULT_START
from belljar.devices.serial import Serial
from belljar.devices.small_pc import SmallPc
from belljar.errors import FeatureUnsupported
from belljar.machine._monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from belljar.devices.console import Output
    from belljar.machine.machine import Machine
    from belljar.machine.own_interrupts import OwnInterrupts


COM1_GSI = 4
"""The first serial port's interrupt line on a PC."""


def attach_chips(machine: Machine) -> Bus:
    """Make the chips that the machine chose, and the PC around them, on a new bus."""
    bus = LockedBus(Monitor()) if machine.engine.threaded else Bus()
    connect_pit: Callable[[bool], None]
    clock: Clock
    assert machine.vm is not None
    if machine.chips.which == "kernel":
        from belljar.machine.interrupts import EngineInterrupts
        from belljar.machine.timer_thread import TimerThread

        machine.interrupts = EngineInterrupts(machine.vm)
        assert isinstance(bus, LockedBus)
        assert isinstance(bus.lock, Monitor)
        clock = machine.timers = TimerThread(bus.lock)
        connect_pit = machine.vm.connect_timer
    else:
        machine.interrupts = machine.own_interrupts = own = _own_chips(machine, bus)
        clock, connect_pit = own.clock, own.pit.connect
    start = int(time.time()) if machine.real_time else DEFAULT_START
    if machine.own_interrupts is not None and not machine.engine.threaded:
        from belljar.machine.guest_platform import GuestPlatform

        machine.vm.use_platform(GuestPlatform(machine.own_interrupts, start, machine.reset_requested))
    machine.pc = SmallPc(
        clock,
        machine.interrupts.line,
        reset=machine.reset_requested,
        power_off=machine.power_off_requested,
        firmware=machine.guest.image.strict,
        send_msi=machine.interrupts.signal_msi,
        connect_pit=connect_pit,
        ram=machine.config.memory_layout(),
        start=start,
    )
    machine.pc.attach(bus)
    return bus


def make_serial(machine: Machine, output: Output) -> Serial:
    """The first serial port, on its interrupt line. Input for it wakes a guest that waits for that."""
    source, own = machine.config.input, machine.own_interrupts
    assert machine.interrupts is not None
    serial = Serial(output, source, line=machine.interrupts.line(COM1_GSI, "serial"))
    if own is not None:
        own.listeners.append(serial)
    fileno = getattr(source, "fileno", None)
    if fileno is None:
        return serial

    def begin_to_listen(wanted: bool) -> None:
        """The guest has looked for input, or wants an interrupt for it."""
        from belljar.machine.input_thread import InputThread  # few guests wait for input

        lock = own.lock if own is not None else machine.bus.lock  # type: ignore[attr-defined]
        machine.input_thread = InputThread(serial, fileno(), lock)
        serial.input_wanted(wanted)

    serial.input_wanted = begin_to_listen
    return serial


def _own_chips(machine: Machine, bus: Bus) -> OwnInterrupts:
    """Belljar's own chips. Each kind is imported where it is wanted: start-up time."""
    own: OwnInterrupts
    vm = machine.vm
    assert vm is not None
    if machine.chips.which == "split":
        from belljar.machine.split_interrupts import SplitInterrupts

        return SplitInterrupts(vm, machine.cpus, bus)
    if machine.engine.threaded:
        from belljar.machine.own_interrupts import OwnInterrupts

        own = OwnInterrupts(machine.cpus, bus, optional=machine.chips.optional)
    elif machine.config.clock == "host":
        from belljar.machine.host_turns import HostTurns

        own = HostTurns(machine.cpus, bus, optional=machine.chips.optional)
    else:
        from belljar.machine.turn_interrupts import TurnInterrupts

        own = TurnInterrupts(machine.cpus, bus, optional=machine.chips.optional)
    with suppress(FeatureUnsupported):  # without, there is no x2APIC mode: its registers are not there
        vm.exit_on_msrs(only=X2APIC_MSRS)
    return own


def devices_of_tests(machine: Machine) -> list[Any]:
    """What the images of the KVM unit tests expect beside a PC."""
    from belljar.devices.fw_cfg import FwCfg
    from belljar.devices.testdev import TestDevice
    from belljar.machine.guest import command_line

    vm = machine.vm
    assert vm is not None

    def flush(gpa: int) -> None:
        """Forget both translations of a page."""
        machine.memory.flush_page(gpa)
        vm.flush_page(gpa)

    def line_of(gsi: int) -> Callable[[bool], object]:
        """What drives a line."""
        return _nowhere if machine.interrupts is None else machine.interrupts.line(gsi, "test device")

    configuration = FwCfg(
        cpus=len(machine.cpus),
        ram_size=machine.config.memory_size,
        command_line=command_line(machine.config).encode("utf-8", "surrogateescape"),
    )
    devices: list[Any] = [*TestDevice(line_of, flush).devices, configuration]
    if machine.config.hyperv:
        from belljar.devices.hyperv_testdev import HypervTestDevice

        with suppress(FeatureUnsupported):
            devices.append(HypervTestDevice(vm.hyperv_connections()))
    return devices


def _nowhere(level: bool) -> None:
    """Where lines lead in a machine without interrupt chips."""
