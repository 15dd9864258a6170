"""Port and memory-mapped accesses in a trace, each before a device acts on a write and after it answered a read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from belljar.engine import Bus
from belljar.engine_data import FOREVER
from belljar.exits import Exit, ExitReason, WriteMsr
from belljar.machine import Cpu, Machine
from belljar.observe.trace import shown
from belljar.observe.trace_exits import ExitTrace
from belljar.observe.trace_lines import TraceLines, spoken
from belljar.observe.vcpu_proxy import VcpuProxy
from belljar.observe.words import character
from belljar.x86.local_apic import Reg

IO, MMIO = "io", "mmio"

_REGISTERS = {int(register): register.name for register in Reg}


class TracedBus:
    """A bus as one vCPU sees it, with a word to the trace for every access."""

    def __init__(self, machine: Machine, cpu: int, bus: Bus, kinds: frozenset[str], lines: TraceLines) -> None:
        self._machine = machine
        self._cpu = cpu
        self._bus = bus
        self._lines = lines
        if IO not in kinds:
            self.port_read, self.port_write = bus.port_read, bus.port_write  # type: ignore[method-assign]
            self.port_read_block, self.port_write_block = bus.port_read_block, bus.port_write_block  # type: ignore[method-assign]
        if MMIO not in kinds:
            self.mmio_read, self.mmio_write = bus.mmio_read, bus.mmio_write  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def port_read(self, port: int, size: int) -> int:
        """As `belljar.engine.Bus`."""
        value = self._bus.port_read(port, size) & (1 << 8 * size) - 1
        self._port("read", port, size, f"value={value:#x}")
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        """As `belljar.engine.Bus`."""
        value &= (1 << 8 * size) - 1
        self._port("write", port, size, f"value={value:#x}{character(value, size)}")
        self._bus.port_write(port, size, value)

    def port_read_block(self, port: int, size: int, count: int) -> bytes:
        """As `belljar.engine.Bus`."""
        data = self._bus.port_read_block(port, size, count)
        self._port("read", port, size, f"count={count} data={shown(data)}")
        return data

    def port_write_block(self, port: int, size: int, data: bytes) -> None:
        """As `belljar.engine.Bus`."""
        self._port("write", port, size, f"count={len(data) // size} data={shown(data)}")
        self._bus.port_write_block(port, size, data)

    def mmio_read(self, gpa: int, size: int) -> int:
        """As `belljar.engine.Bus`."""
        value = self._bus.mmio_read(gpa, size) & (1 << 8 * size) - 1
        self._memory("read", gpa, size, value)
        return value

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """As `belljar.engine.Bus`."""
        self._memory("write", gpa, size, value & (1 << 8 * size) - 1)
        self._bus.mmio_write(gpa, size, value)

    def _port(self, direction: str, port: int, size: int, data: str) -> None:
        device = device_name(self._machine.bus.port_device(port))
        self._lines(self._cpu, IO, f"{direction} port={port:#x} size={size} {data} ({device})")

    def _memory(self, direction: str, gpa: int, size: int, value: int) -> None:
        device = self._lapic_register(gpa) or device_name(self._machine.bus.mmio_device(gpa))
        self._lines(self._cpu, MMIO, f"{direction} gpa={gpa:#x} size={size} value={value:#x} ({device})")

    def _lapic_register(self, gpa: int) -> str:
        own = self._machine.own_interrupts
        lapic = None if own is None else own.chips.lapics.get(self._cpu)
        if lapic is None or not lapic.present or lapic.x2apic or (gpa ^ lapic.base) >> 12:
            return ""
        return f"lapic {_REGISTERS.get(gpa >> 4 & 0xFF, f'register {gpa & 0xFF0:#x}')}"


def device_name(device: object) -> str:
    """What a trace calls a device; `no device` for None."""
    return "no device" if device is None else spoken(type(device).__name__)


class TracedVcpu(VcpuProxy):
    """A vCPU whose accesses, and the answers to whose MSR accesses, are told to a trace."""

    def __init__(self, machine: Machine, cpu: Cpu, kinds: frozenset[str], lines: TraceLines, exits: ExitTrace) -> None:
        super().__init__(cpu.vcpu)
        self.__dict__.update(_machine=machine, _kinds=kinds, _lines=lines, _exits=exits, _buses={})

    def run(
        self,
        bus: Bus,
        *,
        deadline_ns: int | None = None,
        instructions: int | None = None,
        until_ns: int = FOREVER,
        single_exit: bool = False,
        observer: Callable[[Exit], None] | None = None,
    ) -> ExitReason:
        """As `belljar.engine.Vcpu.run`."""
        traced = self._buses.get(id(bus))
        if traced is None:
            traced = self._buses[id(bus)] = TracedBus(self._machine, self._inner.index, bus, self._kinds, self._lines)
        reason: ExitReason = self._inner.run(
            traced,
            deadline_ns=deadline_ns,
            instructions=instructions,
            until_ns=until_ns,
            single_exit=single_exit,
            observer=observer,
        )
        return reason

    def answer(self, value: int | None) -> None:
        """As `belljar.engine.Vcpu.answer`."""
        exit = self._inner.last_exit()
        self._inner.answer(value)
        if not self._exits.from_within and exit.reason in (ExitReason.RDMSR, ExitReason.WRMSR):
            write = isinstance(exit, WriteMsr)
            told = exit.value if isinstance(exit, WriteMsr) else value or 0
            self._exits.msr(exit.vcpu, exit.msr, write, told, value is not None)
