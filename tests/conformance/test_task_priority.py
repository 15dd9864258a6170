"""The task priority, which a guest has in two places: CR8 and its local APIC's TPR."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

SAME_CLASS = """
main:
    lapic 0x80, 0x45
    mov eax, 4
    mov cr8, rax
    mov r14d, dword ptr [rbx + 0x80]
    lapic 0x80, 0x46            # the newer one again
    mov r15d, dword ptr [rbx + 0x80]
    done
"""

SET = """
main:
    mov eax, 5
    mov cr8, rax
here:
    nop
    mov r14, cr8
    mov r15d, dword ptr [rbx + 0x80]
    done
"""


def test_cr8_clears_the_lower_half_of_tpr_though_the_class_stays(chips: dict[str, object]) -> None:
    with Machine(guest(SAME_CLASS), **chips) as machine:
        assert machine.run(timeout=20).end is End.HALT
        if (machine.engine.name, chips["irqchip"]) == ("kvm", "user"):
            assert machine.cpu["r14"] in (0x40, 0x45)
            pytest.skip("KVM tells nobody of a MOV to CR8 that changes nothing there")
        assert (machine.cpu["r14"], machine.cpu["r15"]) == (0x40, 0x46)


def test_cr8_that_was_written_in_a_step_is_kept(chips: dict[str, object]) -> None:
    code = guest(SET)
    with Machine(code, **chips) as machine:
        write = 0x1000 + code.index(b"\x44\x0f\x22\xc0")
        machine.add_breakpoint(write)
        assert machine.run(timeout=20).end is End.DEBUG
        machine.remove_breakpoint(write)
        assert machine.step().end is End.DEBUG
        assert machine.cpu.special.cr8 == 5
        assert machine.run(timeout=20).end is End.HALT
        assert (machine.cpu["r14"], machine.cpu["r15"]) == (5, 0x50)


def test_cr8_that_the_host_sets_is_the_guests(chips: dict[str, object]) -> None:
    code = guest(SET)
    with Machine(code, **chips) as machine:
        here = 0x1000 + code.index(b"\x44\x0f\x22\xc0") + 4
        machine.add_breakpoint(here)
        assert machine.run(timeout=20).end is End.DEBUG
        special = machine.cpu.special
        special.cr8 = 9
        machine.cpu.special = special
        assert machine.run(timeout=20).end is End.HALT
        assert (machine.cpu["r14"], machine.cpu["r15"]) == (9, 0x90)
