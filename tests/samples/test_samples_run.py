"""Every sample does on every engine what its summary says."""

from __future__ import annotations

import pytest

from belljar import samples
from belljar.engine import Engine
from belljar.errors import FeatureUnsupported, ModeUnsupported
from belljar.exits import Mmio
from belljar.machine import End, Machine

GREETINGS = [name for name in samples.NAMES if name.startswith("hello-")]
SIZES = (1, 2, 4, 8)


def machine_or_skip(name: str, engine: Engine, **options: object) -> Machine:
    """The machine, or a skip that names the mode that this host refuses."""
    try:
        return Machine(name, engine=engine, **options)
    except ModeUnsupported as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", GREETINGS)
def test_greeting_is_printed_and_42_is_left(engine: Engine, name: str) -> None:
    with machine_or_skip(name, engine) as machine:
        result = machine.run(timeout=10)
        assert (result.end, result.status) == (End.HALT, 0), result.message
        assert machine.console == b"Hello, world!\n"
        assert machine.cpu.rax == 42
        assert machine.memory.read_u64(0x400) == 42


@pytest.mark.parametrize("name", [name for name in GREETINGS if samples.get(name).mode in ("compat", "long", "la57")])
def test_greeting_does_not_depend_on_the_page_size(engine: Engine, name: str) -> None:
    with machine_or_skip(name, engine, page_size=4096) as machine:
        machine.run(timeout=10)
        assert machine.console == b"Hello, world!\n"


@pytest.mark.parametrize(
    ("registers", "console"),
    [({}, b"4\n"), ({"rax": 2, "rbx": 2}, b"4\n"), ({"rax": 4, "rbx": 5}, b"9\n"), ({"rbx": 0}, b"2\n")],
)
def test_add_prints_the_sum(engine: Engine, registers: dict[str, int], console: bytes) -> None:
    with Machine("add", engine=engine, registers=registers) as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert machine.console == console


@pytest.mark.parametrize("page_size", [None, 4096])
def test_mmio_leaves_for_each_access_and_reads_all_ones(engine: Engine, page_size: int | None) -> None:
    with machine_or_skip("mmio", engine, page_size=page_size) as machine:
        accesses = [exit for exit in machine.exits(timeout=10) if isinstance(exit, Mmio)]
        base = accesses[0].gpa
        stores = [(exit.gpa - base, exit.data) for exit in accesses if exit.write]
        loads = [(exit.gpa - base, len(exit.data)) for exit in accesses if not exit.write]
        assert stores == [(0, b"\x11"), (2, b"\x22" * 2), (4, b"\x33" * 4), (8, b"\x44" * 8)]
        assert loads == [(0x10, 1), (0x12, 2), (0x14, 4), (0x18, 8)]
        assert machine.memory.find(base) is None
        cpu = machine.cpu
        assert (cpu.rbx, cpu.rcx, cpu.rdx, cpu.rax) == tuple((1 << 8 * size) - 1 for size in SIZES)


def test_fault_at_cpl3_is_reported_by_the_guests_own_handler(engine: Engine) -> None:
    with machine_or_skip("fault", engine) as machine:
        assert machine.cpu.special.cs.selector & 3 == 3
        result = machine.run(timeout=10)
        assert (result.end, result.status) == (End.HALT, 0), result.message
        assert machine.console == b"page fault at 0x0000700000000000, error code 0x06\n"
        assert machine.cpu.special.cs.selector & 3 == 0
        assert machine.cpu.special.cr2 == 0x7000_0000_0000


def test_triple_fault_is_a_crash_of_the_guest(engine: Engine) -> None:
    with Machine("triple-fault", engine=engine) as machine:
        result = machine.run(timeout=10)
        assert (result.end, result.status) == (End.CRASH, 134)
        assert "triple fault" in result.message


def test_spin_is_ended_by_the_host_only(engine: Engine) -> None:
    with Machine("spin", engine=engine) as machine:
        assert machine.run(timeout=0.05).end is End.TIMEOUT
        assert machine.cpu.rip == 0x1000


PING_PONG = b"ping\npong\n" * 5


def test_ping_and_pong_take_turns(engine: Engine) -> None:
    with machine_or_skip("ping-pong", engine) as machine:
        result = machine.run(timeout=20)
        assert (result.end, result.status) == (End.HALT, 0), result.message
        assert machine.console == PING_PONG
        assert [cpu.halted for cpu in machine.cpus] == [True, True]


def test_ping_and_pong_take_turns_on_one_thread(engine: Engine) -> None:
    with machine_or_skip("ping-pong", engine) as machine:
        for _ in machine.exits(timeout=30):
            pass
        assert machine.result is not None
        assert machine.result.end is End.HALT, machine.result.message
        assert machine.console == PING_PONG


@pytest.mark.parametrize("irqchip", ["kernel", "split", "user"])
def test_tick_is_woken_three_times(engine: Engine, irqchip: str) -> None:
    try:
        machine = Machine("tick", engine=engine, irqchip=irqchip)
    except FeatureUnsupported as error:
        pytest.skip(str(error))
    with machine:
        result = machine.run(timeout=10)
        assert (result.end, machine.console) == (End.HALT, b"ttt\n")
