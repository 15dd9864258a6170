"""The run loop on every engine: how runs end, and that they always do."""

from __future__ import annotations

import threading

import pytest

from belljar.engine import Engine
from belljar.errors import BelljarError, ClosedError, ConfigurationError, FeatureUnsupported, LoadError
from belljar.exits import Hlt, Mmio, PortIo
from belljar.machine import End, Machine
from common import ctrl_c

SPIN = b"\xeb\xfe"  # jmp $
HALT = b"\xf4"  # hlt
VMCALL = b"\x0f\x01\xc1\xf4"  # vmcall; hlt
PRINT_FOREVER = b"\xb0\x2e\xe6\xe9\xeb\xfc"  # mov al, '.'; again: out 0xe9, al; jmp again


def test_halt_ends_with_status_zero(engine: Engine) -> None:
    with Machine(HALT, engine=engine) as machine:
        result = machine.run(timeout=10)
    assert (result.end, result.status, result.vcpu) == (End.HALT, 0, 0)


@pytest.mark.parametrize("code", [SPIN, VMCALL, PRINT_FOREVER], ids=["spin", "vmcall", "print"])
def test_time_limit_ends_a_guest_that_never_exits(engine: Engine, code: bytes) -> None:
    with Machine(code, engine=engine) as machine:
        result = machine.run(timeout=0.05)
    if code is VMCALL and result.end is not End.TIMEOUT:
        assert result.end in (End.HALT, End.CRASH, End.GAVE_UP)  # where VMCALL is #UD or a hypercall
    else:
        assert (result.end, result.status) == (End.TIMEOUT, 124)


@pytest.mark.parametrize("code", [SPIN, PRINT_FOREVER], ids=["spin", "print"])
def test_stop_from_another_thread_ends_the_run(engine: Engine, code: bytes) -> None:
    with Machine(code, engine=engine) as machine:
        timer = threading.Timer(0.02, machine.stop)
        timer.start()
        result = machine.run(timeout=30)
        timer.join()
    assert (result.end, result.status) == (End.STOPPED, 130)


def test_stop_before_the_run_ends_it_at_once_and_only_that_one(engine: Engine) -> None:
    with Machine(SPIN, engine=engine) as machine:
        machine.stop()
        assert machine.run(timeout=30).end is End.STOPPED
        assert machine.run(timeout=0.02).end is End.TIMEOUT


def test_keyboard_interrupt_reaches_the_caller(engine: Engine) -> None:
    with Machine(SPIN, engine=engine) as machine:
        with ctrl_c():
            machine.run(timeout=30)
        assert machine.run(timeout=0.02).end is End.TIMEOUT


def test_keyboard_interrupt_stops_every_vcpu(engine: Engine) -> None:
    threads = threading.active_count()
    with Machine(SPIN, engine=engine, cpus=3) as machine:
        with ctrl_c():
            machine.run(timeout=30)
        assert threading.active_count() == threads


def test_running_on_after_a_time_limit_continues_where_the_guest_was(engine: Engine) -> None:
    code = b"\xb0\x21\xe6\xe9\xeb\xfe"  # print '!'; jmp $
    with Machine(code, engine=engine) as machine:
        while not machine.console:
            assert machine.run(timeout=0.02).end is End.TIMEOUT
        assert machine.run(timeout=0.02).end is End.TIMEOUT
        assert machine.console == b"!"


def test_running_on_after_a_halt_continues_behind_it(engine: Engine) -> None:
    code = b"\xb0\x31\xe6\xe9\xf4\xb0\x32\xe6\xe9\xf4"  # print 1; hlt; print 2; hlt
    with Machine(code, engine=engine) as machine:
        machine.run(timeout=10)
        assert machine.console == b"1"
        machine.run(timeout=10)
        assert machine.console == b"12"


def test_debug_exit_ends_the_run_with_its_status(engine: Engine) -> None:
    code = b"\xb0\x05\xe6\xf4\xb0\x21\xe6\xe9\xf4"  # mov al, 5; out 0xf4, al; print '!'; hlt
    with Machine(code, engine=engine) as machine:
        result = machine.run(timeout=10)
        assert (result.end, result.status) == (End.DEBUG_EXIT, 11)
        assert machine.console == b""


def test_triple_fault_is_a_crash(engine: Engine) -> None:
    with Machine(b"\x0f\x0b", engine=engine, mode="protected") as machine:  # ud2 without an IDT
        result = machine.run(timeout=10)
    assert (result.end, result.status) == (End.CRASH, 134)
    assert "triple fault" in result.message


def test_output_before_a_crash_is_not_lost(engine: Engine) -> None:
    code = bytes.fromhex("b9b80b0000 b02e e6e9 49 75fb 0f0b")  # mov ecx, 3000; mov al, '.'; out; dec ecx; jnz; ud2
    with Machine(code, engine=engine, mode="protected") as machine:
        assert machine.run(timeout=30).end is End.CRASH
        assert machine.console == b"." * 3000


def test_exits_are_iterated_in_order_with_their_values(engine: Engine) -> None:
    code = b"\xb0\x41\xe6\xe9\xe4\xe9\xf4"  # mov al, 'A'; out 0xe9, al; in al, 0xe9; hlt
    with Machine(code, engine=engine) as machine:
        exits = list(machine.exits(timeout=10))
        assert machine.result is not None
        assert machine.result.end is End.HALT
        assert machine.cpu["al"] == 0xE9
    write, read, halt = exits
    assert isinstance(write, PortIo)
    assert (write.port, write.size, write.write, write.data) == (0xE9, 1, True, b"A")
    assert isinstance(read, PortIo)
    assert (read.port, read.write, read.value) == (0xE9, False, 0xE9)
    assert isinstance(halt, Hlt)


def test_observer_sees_the_same_exits_as_iteration(engine: Engine) -> None:
    code = b"\xb0\x41\xe6\xe9\xe4\xe9\xf4"
    with Machine(code, engine=engine) as machine:
        iterated = list(machine.exits(timeout=10))
    seen: list[object] = []
    with Machine(code, engine=engine) as machine:
        machine.run(timeout=10, observer=seen.append)
    assert seen == iterated


def test_memory_mapped_access_without_a_device_reads_all_ones(engine: Engine) -> None:
    code = bytes.fromhex("a10000 00d0 a31000 00d0 f4")  # mov eax, [0xd0000000]; mov [0xd0000010], eax; hlt
    with Machine(code, engine=engine, mode="protected") as machine:
        accesses = [exit for exit in machine.exits(timeout=10) if isinstance(exit, Mmio)]
        assert machine.cpu.rax == 0xFFFFFFFF
    assert [(a.gpa, a.size, a.write, a.value) for a in accesses] == [
        (0xD0000000, 4, False, 0xFFFFFFFF),
        (0xD0000010, 4, True, 0xFFFFFFFF),
    ]


def test_single_step_executes_one_instruction_at_a_time(engine: Engine) -> None:
    code = b"\x40\x40\x40\xf4"  # inc ax, three times; hlt
    with Machine(code, engine=engine) as machine:
        rips = []
        for _ in range(3):
            assert machine.step().end is End.DEBUG
            rips.append(machine.cpu.rip)
        assert rips == [0x1001, 0x1002, 0x1003]
        assert machine.step().end is End.HALT


@pytest.mark.timeout(60)
def test_step_goes_on_behind_a_halt_though_another_vcpu_has_not_halted(engine: Engine) -> None:
    code = b"\xf4\x40\x40\xf4"  # hlt; inc ax, twice; hlt
    with Machine(code, engine=engine, cpus=2) as machine:
        assert machine.step().end is End.HALT
        assert [machine.step().end for _ in range(2)] == [End.DEBUG] * 2
        assert (machine.cpu.rip, machine.cpus[1].rip) == (0x1003, 0x1000)
        assert machine.step().end is End.HALT


def test_breakpoint_stops_before_its_instruction_every_time_round(engine: Engine) -> None:
    code = b"\xb9\x03\x00\x40\x49\x75\xfc\xf4"  # mov cx, 3; again: inc ax; dec cx; jnz again; hlt
    with Machine(code, engine=engine) as machine:
        machine.add_breakpoint(0x1003)
        seen = []
        while (result := machine.run(timeout=10)).end is End.DEBUG:
            seen.append((machine.cpu.rip, machine.cpu.rax))
        assert seen == [(0x1003, 0), (0x1003, 1), (0x1003, 2)]
        assert result.end is End.HALT


def test_instruction_limit_needs_an_engine_that_counts(kvm: Engine) -> None:
    with Machine(SPIN, engine=kvm) as machine, pytest.raises(FeatureUnsupported):
        machine.run(instructions=10)


def test_registers_are_set_by_name_and_by_part(engine: Engine) -> None:
    with Machine(HALT, engine=engine, registers={"rax": -1, "bl": 0x12, "r9d": 7}) as machine:
        machine.run(timeout=10)
        assert (machine.cpu.rax, machine.cpu["ebx"] & 0xFF, machine.cpu.r9) == (2**64 - 1, 0x12, 7)
        machine.cpu.set(eax=1, ah=2)
        assert machine.cpu.rax == 0x201
        with pytest.raises(ConfigurationError, match="no register"):
            machine.cpu["xyzzy"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"memory": 5}, ConfigurationError),
        ({"memory": 0}, ConfigurationError),
        ({"memory": 1 << 60}, ConfigurationError),
        ({"cpus": 0}, ConfigurationError),
        ({"cpus": 100000}, ConfigurationError),
        ({"mode": "imaginary"}, ConfigurationError),
        ({"page_size": 3}, ConfigurationError),
        ({"cpl": 1}, ConfigurationError),
        ({"registers": {"rax": 1 << 64}}, ConfigurationError),
        ({"registers": {"zax": 1}}, ConfigurationError),
        ({"load_gpa": 1 << 63}, BelljarError),
        ({"load_gpa": (1 << 64) - 1}, BelljarError),
        ({"entry_gva": 1 << 40}, BelljarError),
        ({"engine": "warp"}, ConfigurationError),
        ({"colour": "blue"}, ConfigurationError),
    ],
)
@pytest.mark.usefixtures("leaves_nothing")
def test_impossible_options_are_refused_and_leave_nothing(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Machine(HALT, **{"engine": "kvm", **options})


def test_guest_over_its_own_page_tables_is_refused(engine: Engine) -> None:
    with pytest.raises(LoadError, match="would overwrite"):
        Machine(bytes(0x10000), engine=engine, mode="protected", memory=1 << 16, load_gpa=0)


@pytest.mark.usefixtures("leaves_nothing")
def test_machines_leave_nothing_behind() -> None:
    for _ in range(20):
        with Machine("hello-real") as machine:
            machine.run(timeout=10)
        machine.close()


def test_an_interrupted_close_gives_everything_back_all_the_same(engine: Engine, leaves_nothing: None) -> None:
    machine = Machine(b"\xf4", engine=engine.name)
    vm = machine.vm
    assert vm is not None

    class Interrupted:
        """The VM, and Ctrl-C while it is closed."""

        def close(self) -> None:
            vm.close()
            raise KeyboardInterrupt

    machine.vm = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        machine.close()
    with pytest.raises(ClosedError):
        machine.memory.read(0, 1)
