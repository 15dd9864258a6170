"""Exceptions that the host injects: delivered once, before the next instruction, with error code and payload."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from belljar.errors import ConfigurationError, EngineError
from belljar.exits import PortIo
from belljar.machine import Cpu, End, Machine
from common import open_or_skip
from conformance.assembly import guest
from conformance.chips import options_for

CHIPS = [("kvm", None), ("kvm", "kernel"), ("kvm", "user"), ("soft", None), ("soft", "user")]
DB, UD, GP, PF = 1, 6, 13, 14


@pytest.fixture(params=CHIPS, ids=lambda param: f"{param[0]}-{param[1] or 'none'}")
def options(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """The options for a machine with each kind of chips."""
    with options_for(*request.param) as found:
        yield found


def at_mark(machine: Machine, act: Callable[[Cpu], None]) -> bytes:
    """Run to the guest's end; when it prints 'x', call `act` while it stands behind that."""
    for exit in machine.exits(timeout=20):
        if isinstance(exit, PortIo) and exit.data == b"x":
            act(machine.cpu)
    assert machine.result is not None
    assert machine.result.end is End.HALT, machine.result.message
    return machine.console


HANDLERS = """
main:
    gate 1, debug
    gate 6, undefined
    gate 13, protection
    gate 14, page
    mov rax, cr0
    mov r15, 0x1234
    mov cr2, r15
    xor eax, eax
    mov dr6, rax
    say 'x'
at:
    say 'e'
    done
check:                          # that RIP in the frame at RDX is right
    mov rcx, [rdx]
    mov rax, offset at
    cmp rcx, rax
    je 1f
    say '!'
1:  ret
debug:
    mov rdx, rsp
    call check
    mov rax, dr6
    shr eax, 13                 # BD, BS, BT
    and al, 7
    add al, '0'
    out 0xE9, al
    mov rax, dr6
    and al, 15
    add al, '0'
    out 0xE9, al
    iretq
undefined:
    mov rdx, rsp
    call check
    say 'u'
    iretq
protection:
    pop rax
    out 0xE9, al
    mov rdx, rsp
    call check
    say 'g'
    iretq
page:
    pop rax
    add al, 'a'
    out 0xE9, al
    mov rdx, rsp
    call check
    mov rax, cr2
    out 0xE9, al
    iretq
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((UD,), b"xue"),
        ((GP, 0x50), b"xPge"),
        ((PF, 2, 0x7FFF_0000_0041), b"xcAe"),
        ((PF, 2), b"xc4e"),
        ((DB, None, 0x4001), b"x21e"),
        ((DB, None, 0x8000), b"x40e"),
    ],
    ids=["ud", "gp", "pf", "pf-without-payload", "db-step", "db-task"],
)
def test_exception_reaches_its_handler_with_what_belongs_to_it(
    options: dict[str, object], arguments: tuple[int, ...], expected: bytes
) -> None:
    with Machine(guest(HANDLERS), **options) as machine:
        assert at_mark(machine, lambda cpu: cpu.inject_exception(*arguments)) == expected


def test_payload_changes_nothing_before_the_exception_is_delivered(options: dict[str, object]) -> None:
    seen = []

    def act(cpu: Cpu) -> None:
        cpu.inject_exception(PF, 0, 0x41)
        seen.append(cpu.special.cr2)

    with Machine(guest(HANDLERS), **options) as machine:
        assert at_mark(machine, act) == b"xaAe"
    assert seen == [0x1234]


@pytest.mark.parametrize(
    "arguments",
    [(2,), (32,), (-1,), (GP,), (UD, 0), (GP, 0x10000), (UD, None, 1), (DB, None, 0x10), (PF, 0, 1 << 64), (PF, 0, -1)],
)
def test_what_is_no_exception_is_refused(options: dict[str, object], arguments: tuple[int, ...]) -> None:
    with Machine(guest(HANDLERS), **options) as machine, pytest.raises(ConfigurationError):
        machine.cpu.inject_exception(*arguments)


def test_second_exception_is_refused_while_one_waits(options: dict[str, object]) -> None:
    def act(cpu: Cpu) -> None:
        cpu.inject_exception(UD)
        with pytest.raises(EngineError, match="#UD"):
            cpu.inject_exception(GP, 0)

    with Machine(guest(HANDLERS), **options) as machine:
        assert at_mark(machine, act) == b"xue"


def test_exception_wakes_a_vcpu_that_has_halted_for_good(options: dict[str, object]) -> None:
    with Machine(guest("main:\n gate 6, h\n done\n h: say 'u'\n done\n"), **options) as machine:
        assert machine.run(timeout=20).end is End.HALT
        machine.cpu.inject_exception(UD)
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"u"


INTERRUPT_AND_EXCEPTION = """
main:
    gate 6, undefined
    gate 0x40, interrupt
    sti
    nop
    say 'x'
    nop
    cli
    say 'e'
    done
undefined:
    say 'u'
    chance
    iretq
interrupt:
    say 'i'
    iretq
"""


@pytest.mark.parametrize("name", ["kvm", "soft"])
def test_exception_comes_before_an_interrupt_that_was_to_be_delivered(name: str) -> None:
    def act(cpu: Cpu) -> None:
        assert cpu.vcpu.inject_interrupt(0x40)
        cpu.inject_exception(UD)

    with (
        open_or_skip(name) as engine,  # type: ignore[attr-defined]
        Machine(guest(INTERRUPT_AND_EXCEPTION), engine=engine, irqchip="user", mode="long") as machine,
    ):
        assert at_mark(machine, act) == b"xuie"
