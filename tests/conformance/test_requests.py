"""What other threads change while a guest runs is seen before its next instruction: memory slots, code, translations, exits."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from belljar.engine import Engine
from belljar.errors import EngineError
from belljar.exits import ReadMsr
from belljar.machine import End, Machine, RunResult
from conformance.assembly import guest

DEADLINE = 20
SLOT_GPA = 0xD000_0000
"""Where no device and no memory is, within what long mode maps."""


class Begun:
    """Port 0x80: the guest says that it is where the test wants it."""

    ports = range(0x80, 0x81)
    port_width = 1

    def __init__(self) -> None:
        self.event = threading.Event()

    def port_read(self, port: int, size: int) -> int:
        return 0xFF

    def port_write(self, port: int, size: int, value: int) -> None:
        self.event.set()


def while_it_spins(machine: Machine, act: Callable[[], None]) -> RunResult:
    """Run on a thread; call `act` on this one when the guest writes to port 0x80; how the run ended."""
    begun = Begun()
    machine.bus.attach(begun)
    results: list[RunResult] = []
    runner = threading.Thread(target=lambda: results.append(machine.run(timeout=DEADLINE)))
    runner.start()
    try:
        assert begun.event.wait(DEADLINE)
        act()
        runner.join(DEADLINE)
    finally:
        machine.stop()
        runner.join()
    return results[0]


WAIT_FOR_MEMORY = """
main:
    mov rdi, 0xD0000000
    mov eax, [rdi]
    out 0x80, al
1:  cmp byte ptr [rdi], %s
    jne 1b
    cli
    hlt
"""


def test_new_memory_slot_is_seen_by_a_running_guest(engine: Engine) -> None:
    with Machine(guest(WAIT_FOR_MEMORY % "0x55"), engine=engine, mode="long") as machine:
        vm = machine.vm
        assert vm is not None

        def act() -> None:
            region = machine.memory.add(SLOT_GPA, 0x1000, name="late")
            machine.memory.write(SLOT_GPA, b"\x55")
            vm.map(region)

        assert while_it_spins(machine, act).end is End.HALT


def test_memory_slot_taken_away_is_gone_for_a_running_guest(engine: Engine) -> None:
    with Machine(guest(WAIT_FOR_MEMORY % "0xFF"), engine=engine, mode="long") as machine:
        vm = machine.vm
        assert vm is not None
        region = machine.memory.add(SLOT_GPA, 0x1000, name="early")
        vm.map(region)
        assert while_it_spins(machine, lambda: vm.unmap(region)).end is End.HALT


SPIN = """
main:
    mov ecx, 100
    out 0x80, al
again:
    jmp again
"""


def test_code_that_the_host_writes_runs_after_a_kick(engine: Engine) -> None:
    code = guest(SPIN)
    with Machine(code, engine=engine, mode="long") as machine:
        at = 0x1000 + code.rindex(b"\xeb\xfe")

        def act() -> None:
            machine.memory.write(at, b"\xfa\xf4")  # cli; hlt
            machine.cpu.vcpu.kick()

        assert while_it_spins(machine, act).end is End.HALT


def test_code_that_the_host_writes_runs_after_a_flush() -> None:
    code = guest(SPIN)
    with Machine(code, engine="soft", mode="long") as machine:
        at = 0x1000 + code.rindex(b"\xeb\xfe")

        def act() -> None:
            machine.memory.write(at, b"\xfa\xf4")
            machine.vm.flush()  # type: ignore[union-attr]

        assert while_it_spins(machine, act).end is End.HALT


def test_page_table_that_the_host_changes_is_walked_again_after_a_flush() -> None:
    """Linear 0x400000 is moved to where 0x55 stands; without the flush the TLB has the old page."""
    with Machine(
        guest(WAIT_FOR_MEMORY.replace("0xD0000000", "0x400000") % "0x55"), engine="soft", mode="long"
    ) as machine:
        machine.memory.write(0x600000, b"\x55")

        table = machine.cpu.special.cr3 & ~0xFFF
        for shift in (39, 30):
            entry = machine.memory.read_u64(table + (0x400000 >> shift & 511) * 8)
            table = entry & 0x000F_FFFF_FFFF_F000
        place = table + (0x400000 >> 21 & 511) * 8
        entry = machine.memory.read_u64(place)
        assert entry & 0x80  # a page of 2 MiB

        def move() -> None:
            machine.memory.write_u64(place, entry - 0x400000 + 0x600000)
            machine.vm.flush()  # type: ignore[union-attr]

        assert while_it_spins(machine, move).end is End.HALT


READ_MSR = """
main:
    gate 13, protection
    out 0x80, al
again:
    mov ecx, 0x9999
    rdmsr
    cmp eax, 0x55
    jne again
    cli
    hlt
protection:
    pop rax
    mov qword ptr [rsp], offset again
    iretq
"""


def test_msr_exits_that_are_switched_on_are_taken_by_a_running_guest() -> None:
    def answer(exit: object) -> int:
        assert isinstance(exit, ReadMsr)
        return 0x55

    with Machine(guest(READ_MSR), engine="soft", mode="long", msr_handler=answer) as machine:
        vm = machine.vm
        assert vm is not None
        vm.exit_on_msrs(range(0))
        assert while_it_spins(machine, vm.exit_on_msrs).end is End.HALT


def test_state_of_a_running_vcpu_is_refused(engine: Engine) -> None:
    code = guest(SPIN)
    with Machine(code, engine=engine, mode="long") as machine:

        def act() -> None:
            for _ in range(3):
                with pytest.raises(EngineError, match="running"):
                    machine.cpu.set(rip=0)
            machine.stop()

        assert while_it_spins(machine, act).end is End.STOPPED


def test_requests_of_many_threads_are_all_served() -> None:
    code = guest(SPIN)
    with Machine(code, engine="soft", mode="long") as machine:
        vm = machine.vm
        assert vm is not None
        served = []

        def hammer() -> None:
            for _ in range(200):
                vm.requests.perform(lambda: served.append(1))  # type: ignore[attr-defined]

        def act() -> None:
            threads = [threading.Thread(target=hammer) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(DEADLINE)
            machine.stop()

        assert while_it_spins(machine, act).end is End.STOPPED
        assert len(served) == 800


@pytest.mark.parametrize("instructions", [1, 1000, 20_000])
def test_requests_between_short_runs_are_served(instructions: int) -> None:
    with Machine(guest(SPIN), engine="soft", mode="long") as machine:
        vm = machine.vm
        assert vm is not None
        served = threading.Event()

        def hammer() -> None:
            for _ in range(100):
                vm.requests.perform(lambda: None)  # type: ignore[attr-defined]
            served.set()

        thread = threading.Thread(target=hammer)
        thread.start()
        while not served.is_set():
            assert machine.run(instructions=instructions).end is End.INSTRUCTION_LIMIT
        thread.join()


def test_what_a_request_raises_goes_to_who_made_it() -> None:
    def fail() -> None:
        raise RuntimeError("mine")

    with Machine(guest(SPIN), engine="soft", mode="long") as machine:
        vm = machine.vm
        assert vm is not None

        def act() -> None:
            with pytest.raises(RuntimeError, match="mine"):
                vm.requests.perform(fail)  # type: ignore[attr-defined]
            machine.stop()

        assert while_it_spins(machine, act).end is End.STOPPED
