"""Connections of Hyper-V's interface by the KVM unit tests' device, between vCPUs and with slots that are taken."""

from __future__ import annotations

from struct import pack

import pytest

from belljar.devices.hyperv_testdev import Command, HypervTestDevice
from belljar.errors import FeatureUnsupported
from belljar.machine import End, Machine
from conformance.assembly import guest
from soft.test_hyperv import OPTIONS, PRELUDE

SLOT = 0xA800
"""Source 8 in the message page."""

MACROS = (
    PRELUDE
    + """
.macro tell command, sint, connection=0
    mov eax, (\\connection << 24) | (\\command << 16) | \\sint
    mov dx, 0x3000
    out dx, eax
.endm
"""
)


def ran(text: str) -> Machine:
    """A machine with the device whose guest has run to its end; the caller closes it."""
    machine = Machine(guest(MACROS + text), **OPTIONS)
    assert machine.vm is not None
    machine.bus.attach(HypervTestDevice(machine.vm.hyperv_connections()))
    result = machine.run(timeout=20)
    assert result.end is End.HALT, result.message
    return machine


MESSAGES = f"""
.macro post
    inc qword ptr [0xD010]
    hypercall 0x5C, 0xD000
    mov [r15], rax
    add r15, 8
    chance_all
.endm
.macro chance_all
    sti
    chance
    cli
.endm
main:
    gate 0x60, handler
    with_hypercalls
    with_synic
    mov r15d, 0x9000
    wrmsr64 0x40000098, 0x20060         # source 8, ends by itself
    tell {int(Command.MSG_CONN_CREATE)}, 8, 0x10
    mov dword ptr [0xD000], 0x10        # connection
    mov dword ptr [0xD008], 0x1234      # type
    mov dword ptr [0xD00C], 8           # size
    post
    post                                # the slot is taken: it waits
    post                                # another would be too many
    mov rdi, [0xA810]
    mov r9b, [0xA805]
    mov r12, r14
    mov dword ptr [0xA800], 0
    wrmsr64 0x40000084, 0               # end of message
    chance_all
    mov r10, [0xA810]
    mov r11b, [0xA805]
    tell {int(Command.MSG_CONN_DESTROY)}, 8, 0x10
    post
    done
handler:
    inc r14
    iretq
"""


def test_message_for_a_slot_that_is_taken_waits_and_one_more_is_refused() -> None:
    with ran(MESSAGES.replace("main:\n", "main:\n    xor r14, r14\n    xor r9, r9\n    xor r11, r11\n")) as machine:
        reg = machine.cpu
        statuses = [machine.memory.read_u64(0x9000 + 8 * i) for i in range(4)]
        assert statuses == [0, 0, 19, 18]
        assert (reg["rdi"], reg["r9"], reg["r12"]) == (1, 1, 1)
        assert (reg["r10"], reg["r11"], reg["r14"]) == (2, 0, 2)
        assert machine.memory.read(SLOT, 16) == pack("<IBB2xQ", 0x1234, 8, 0, 0x10)


EVENTS = f"""
.macro event
    hypercall 0x1005D, 0x21
    mov r8, rax
    sti
    chance
    cli
.endm
main:
    gate 0x60, handler
    with_hypercalls
    with_synic
    xor r14, r14
    wrmsr64 0x40000099, 0x20060
    tell {int(Command.EVT_CONN_CREATE)}, 9, 0x21
    event
    mov r12, r14
    event                               # set already
    mov r13, r14
    mov dword ptr [0xB904], 0
    event
    tell {int(Command.EVT_CONN_DESTROY)}, 9, 0x21
    mov r9, r14
    event
    done
handler:
    inc r14
    iretq
"""


def test_event_interrupts_when_its_flag_changes() -> None:
    with ran(EVENTS) as machine:
        reg = machine.cpu
        assert (reg["r12"], reg["r13"], reg["r9"], reg["r14"]) == (1, 1, 2, 2)
        assert reg["r8"] == 18
        assert machine.memory.read_u32(0xB904) == 2  # flag 0x21


ROUTES = f"""
main:
    gate 0x60, handler
    with_synic
    xor r14, r14
    wrmsr64 0x40000093, 0x20060
    tell {int(Command.SINT_ROUTE_SET_SINT)}, 3      # no route yet
    sti
    chance
    tell {int(Command.SINT_ROUTE_CREATE)}, 3
    tell {int(Command.SINT_ROUTE_SET_SINT)}, 3
    chance
    tell {int(Command.SINT_ROUTE_DESTROY)}, 3
    tell {int(Command.SINT_ROUTE_SET_SINT)}, 3
    chance
    tell 99, 3
    tell {int(Command.MSG_CONN_CREATE)}, 0xFF, 7    # no such source
    tell {int(Command.EVT_CONN_CREATE)}, 0xFF, 7
    tell {int(Command.MSG_CONN_DESTROY)}, 0xFF, 9
    in eax, dx
    mov r13d, eax
    cli
    done
handler:
    inc r14
    iretq
"""


def test_routes_raise_sources() -> None:
    with ran(ROUTES) as machine:
        assert (machine.cpu["r14"], machine.cpu["r13"]) == (1, 0xFFFF_FFFF)


def test_machine_without_the_interface_has_no_connections() -> None:
    with Machine(b"\xf4", engine="soft", mode="long") as machine:
        vm = machine.vm
        assert vm is not None
        with pytest.raises(FeatureUnsupported, match="Hyper-V"):
            vm.hyperv_connections()
