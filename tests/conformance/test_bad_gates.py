"""Interrupts that the IDT cannot deliver: the guest gets what the processor makes of that, and every run ends."""

from __future__ import annotations

import pytest

from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

SENT = """
main:
    gate 0x40, handler
    {fault}
    {bad}
    {send}
    sti
    chance
    chance
    say 'e'
    done
handler:
    push rax
    say 'h'
    pop rax
    end_of_interrupt
    iretq
fault:
    add rsp, 8                  # the error code
    inc r15d
    iretq
"""

BAD = {
    "not present": "mov word ptr [IDT + 0x404], 0x0E00",
    "beyond the limit": "mov word ptr [idtr], 0x3FF\n lidt [idtr]",
    "null selector": "mov word ptr [IDT + 0x402], 0",
    "selector beyond the GDT": "mov word ptr [IDT + 0x402], 0xFFF8",
    "IDT that is not mapped": "mov dword ptr [idtr + 6], 0xFFFF8000\n mov dword ptr [idtr + 2], 0\n lidt [idtr]",
}
"""What is wrong with it. The type is not among them: KVM without hardware's help delivers whatever it is."""

SENDS = {"message": "lapic 0x300, 0x44040", "timer": "lapic 0x320, 0x40\n lapic 0x380, 1"}


@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("bad", BAD)
def test_without_a_handler_for_the_fault_the_guest_crashes(chips: dict[str, object], bad: str, send: str) -> None:
    with Machine(guest(SENT.format(bad=BAD[bad], fault="", send=SENDS[send])), **chips) as machine:
        result = machine.run(timeout=20)
        assert (result.end, machine.console) == (End.CRASH, b""), result.message
        assert "triple fault" in result.message


@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("bad", [name for name in BAD if not name.startswith("IDT")])
def test_the_interrupt_is_lost_and_the_fault_comes_once(chips: dict[str, object], bad: str, send: str) -> None:
    handlers = "gate 11, fault\n gate 13, fault"
    with Machine(guest(SENT.format(bad=BAD[bad], fault=handlers, send=SENDS[send])), **chips) as machine:
        result = machine.run(timeout=20)
        assert (result.end, machine.console) == (End.HALT, b"e"), result.message
        assert machine.cpu["r15"] == 1
