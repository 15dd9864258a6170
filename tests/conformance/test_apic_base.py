"""IA32_APIC_BASE: what a guest writes there has its effect at once, also if it takes it back before anything else happens."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine
from belljar.observe.trace_kinds import KindTrace
from conformance.assembly import guest
from conformance.chips import chips
from conftest import open_or_skip

__all__ = ["chips"]

OFF_AND_ON = """
main:
    lapic 0x80, 0x50
    lapic 0x350, 0x20077
    mov ecx, 0x1B
    rdmsr
    and eax, ~0x800
    wrmsr
    or eax, 0x800
    wrmsr
    mov r12d, dword ptr [rbx + 0xF0]
    mov r13d, dword ptr [rbx + 0x80]
    mov r14, cr8
    done
"""

MOVED = """
main:
    mov ecx, 0x1B
    rdmsr
    and eax, 0xFFF
    or eax, 0xFEC80000
    wrmsr
    mov ebx, 0xFEC80000
    mov r12d, dword ptr [rbx + 0xF0]
    rdmsr
    mov r13d, eax
    done
"""

REFUSED = """
main:
    gate 13, refused
    mov ecx, 0x1B
    rdmsr
    mov r12d, eax
    mov eax, -1
    mov edx, -1
    wrmsr
    say '?'
    done
refused:
    rdmsr
    mov r13d, eax
    done
"""


@pytest.mark.parametrize("engine", ["kvm", "soft"])
def test_an_apic_of_the_machines_that_was_off_is_reset(engine: str) -> None:
    open_or_skip(engine).close()
    with Machine(guest(OFF_AND_ON), engine=engine, irqchip="user", mode="long") as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert (machine.cpu["r12"], machine.cpu["r13"], machine.cpu["r14"]) == (0xFF, 0, 0)


@pytest.mark.parametrize("engine", ["kvm", "soft"])
def test_an_apic_of_the_machines_moves(engine: str) -> None:
    open_or_skip(engine).close()
    with Machine(guest(MOVED), engine=engine, irqchip="user", mode="long") as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert (machine.cpu["r12"], machine.cpu["r13"]) == (0x1FF, 0xFEC8_0900)


def test_reserved_bits_are_refused(chips: dict[str, object]) -> None:
    with Machine(guest(REFUSED), **chips) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b""
        assert machine.cpu["r12"] == machine.cpu["r13"] == 0xFEE0_0900


def test_writes_are_traced(chips: dict[str, object]) -> None:
    written: list[str] = []
    with Machine(guest(OFF_AND_ON), **chips) as machine:
        trace = KindTrace(machine, frozenset({"msr"}), written.append)
        assert machine.run(timeout=20, observer=trace.observe).end is End.HALT
    assert [line.split("msr   ")[1] for line in written if "APIC_BASE" in line and "write" in line] == [
        "write IA32_APIC_BASE (0x1b) value=0xfee00100\n",
        "write IA32_APIC_BASE (0x1b) value=0xfee00900\n",
    ]
