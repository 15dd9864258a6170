"""A trace: one line an exit, in the order in which they happened."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from belljar.exits import (
    Debug,
    Exit,
    FailEntry,
    Hypercall,
    InternalError,
    IoapicEoi,
    MemoryFault,
    Mmio,
    PortIo,
    ReadMsr,
    SystemEvent,
    TprAccess,
    UnknownExit,
    WriteMsr,
)
from belljar.machine import Cpu, Machine
from belljar.observe.words import character

SHOWN_BYTES = 32
"""How many bytes of one exit's data a line shows before it only counts them."""


class Trace:
    """An observer for `Machine.run` that writes a line for every exit; lines are numbered from 1 over all vCPUs.

    A line reads `NUMBER vcpuN rip=ADDRESS REASON FIELD=VALUE...`; RIP is where the vCPU stood when it came back. What is
    not printable in a value's character is left out.
    """

    def __init__(self, machine: Machine, write: Callable[[str], object]) -> None:
        self._machine = machine
        self._write = write
        self._lock = Lock()
        self.count = 0

    def __call__(self, exit: Exit) -> None:
        """Write one line; called on the vCPU's own thread."""
        rip = cpu_of(self._machine, exit).registers.rip
        with self._lock:
            self.count += 1
            self._write(f"{self.count:>6} vcpu{exit.vcpu} rip={rip:#x} {describe(exit)}\n")


def cpu_of(machine: Machine, exit: Exit) -> Cpu:
    """The vCPU that came back with an exit; vCPUs may come and go."""
    return next(cpu for cpu in machine.cpus if cpu.index == exit.vcpu)


def describe(exit: Exit) -> str:
    """The exit in one line without vCPU and RIP: its reason, then what belongs to it."""
    text = exit.reason.label
    if isinstance(exit, PortIo):
        direction = "write" if exit.write else "read"
        text += f" {direction} port={exit.port:#x} size={exit.size}"
        if exit.count > 1:
            return f"{text} count={exit.count} data={shown(exit.data)}"
        return f"{text} value={exit.value:#x}{character(exit.value, exit.size)}"
    if isinstance(exit, Mmio):
        direction = "write" if exit.write else "read"
        return f"{text} {direction} gpa={exit.gpa:#x} size={exit.size} value={exit.value:#x}"
    if isinstance(exit, TprAccess):
        return f"{text} {'write' if exit.write else 'read'} at={exit.rip:#x}"
    return text + "".join(f" {name}={value}" for name, value in details(exit).items())


def details(exit: Exit) -> dict[str, str]:
    """What an exit other than a port or memory access says, by name."""
    if isinstance(exit, FailEntry):
        return {"hardware_reason": f"{exit.hardware_reason:#x}"}
    if isinstance(exit, InternalError):
        found = {"suberror": str(exit.suberror)}
        return {**found, "instruction": exit.instruction.hex()} if exit.instruction else found
    if isinstance(exit, Debug):
        return {"exception": str(exit.exception), "pc": f"{exit.pc_gva:#x}", "dr6": f"{exit.dr6:#x}"}
    if isinstance(exit, ReadMsr):
        return {"msr": f"{exit.msr:#x}"}
    if isinstance(exit, WriteMsr):
        return {"msr": f"{exit.msr:#x}", "value": f"{exit.value:#x}"}
    if isinstance(exit, Hypercall):
        return {"number": f"{exit.number:#x}"}
    if isinstance(exit, SystemEvent):
        return {"type": str(exit.type)}
    if isinstance(exit, MemoryFault):
        return {"gpa": f"{exit.gpa:#x}", "size": f"{exit.size:#x}"}
    if isinstance(exit, IoapicEoi):
        return {"vector": f"{exit.vector:#x}"}
    if isinstance(exit, UnknownExit):
        return {"number": str(exit.number)}
    return {}


def shown(data: bytes) -> str:
    """Bytes in hexadecimal, the rest counted."""
    if len(data) <= SHOWN_BYTES:
        return data.hex()
    return f"{data[:SHOWN_BYTES].hex()}...({len(data)} bytes)"
