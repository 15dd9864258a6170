"""vCPUs that are added and removed while the guest runs, whatever they do at that moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest

from belljar.errors import ConfigurationError, EngineError
from belljar.exits import PortIo
from belljar.machine import End, Machine, RunResult
from belljar.machine.config import MAX_CPUS
from belljar.observe.report import run_report
from belljar.observe.report_text import report_lines
from belljar.x86.mp_state import MpState
from conformance.assembly import guest
from conformance.chips import options_for

CHIPS = [("kvm", "kernel"), ("kvm", "split"), ("kvm", "user"), ("soft", "user"), ("soft-host", "user")]
DEADLINE = 20


@pytest.fixture(params=CHIPS, ids="-".join)
def options(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """The options for a machine with each kind of chips, and of time."""
    name, irqchip = request.param
    with options_for(name.removesuffix("-host"), irqchip) as found:
        yield found | ({"clock": "host"} if name.endswith("-host") else {})


class Signals:
    """Port 0x80: the guest is where the test wants it. Port 0x90: how often the host has answered."""

    port_width = 1

    def __init__(self) -> None:
        self.ports = range(0x80, 0x91)
        self.come = threading.Semaphore(0)
        self.answers = 0

    def port_read(self, port: int, size: int) -> int:
        return self.answers

    def port_write(self, port: int, size: int, value: int) -> None:
        if port == 0x80:
            self.come.release()


def run(machine: Machine, *acts: Callable[[], object], timeout: float = DEADLINE) -> RunResult:
    """Run on a thread; do the acts on this one, one each time the guest writes to port 0x80."""
    signals = Signals()
    machine.bus.attach(signals)
    results: list[RunResult] = []
    runner = threading.Thread(target=lambda: results.append(machine.run(timeout=timeout)))
    runner.start()
    try:
        for act in acts:
            assert signals.come.acquire(timeout=DEADLINE)
            act()
            signals.answers += 1
        runner.join(DEADLINE)
    finally:
        if runner.is_alive():
            machine.stop()
            runner.join()
    return results[0]


GUEST = """
.set AP, 0x2000
.set COUNT, 0x5000
.macro tell number              # and wait for the host's answer
    out 0x80, al
1:  in al, 0x90
    cmp al, \\number
    jne 1b
.endm
.macro start_other number       # and wait until it has come up
    lapic 0x310, 0x1000000
    lapic 0x300, 0x4500
    lapic 0x300, 0x4602
1:  pause
    cmp byte ptr [COUNT], \\number
    jne 1b
.endm
main:
    mov rsi, offset trampoline
    mov rdi, AP
    mov ecx, trampoline_end - trampoline
    rep movsb
    %(main)s
    %(end)s
.code16
trampoline:
    mov al, 'a'
    out 0xE9, al
    xor ax, ax
    mov ds, ax
    lock inc byte ptr [COUNT]
    %(other)s
trampoline_end:
"""

OTHERS = {
    "halted": "cli\n hlt",
    "idle": "sti\n 1: hlt\n jmp 1b",
    "spinning": "1: jmp 1b",
    "touching": "1: in al, 0x80\n jmp 1b",
}
START_ADDED = "tell 1\n start_other 1"
REMOVE = "start_other 1\n tell 1"
TWICE = "start_other 1\n tell 1\n start_other 2\n tell 2"
END = "say 'b'\n done"
SPIN = "2: pause\n jmp 2b"


def text(main: str, other: str = "halted", end: str = END) -> bytes:
    return guest(GUEST % {"main": main, "other": OTHERS[other], "end": end})


def test_breakpoints_are_those_of_a_cpu_that_was_added_while_it_runs_too(options: dict[str, object]) -> None:
    with Machine(text(START_ADDED), **options) as machine:
        machine.add_breakpoint(0x2002)
        result = run(machine, machine.add_cpu)
        assert (result.end, result.vcpu, machine.cpus[1].pc_gva) == (End.DEBUG, 1, 0x2002)
        machine.remove_breakpoint(0x2002)
        assert machine.run(timeout=DEADLINE).end is End.HALT
        assert machine.console == b"ab"


def test_guest_brings_up_a_cpu_that_was_added_while_it_runs(options: dict[str, object]) -> None:
    with Machine(text(START_ADDED), **options) as machine:
        added = []
        result = run(machine, lambda: added.append(machine.add_cpu()))
        assert (result.end, machine.console) == (End.HALT, b"ab")
        assert [cpu.index for cpu in machine.cpus] == [0, 1]
        assert added[0] is machine.cpus[1]
        assert machine.cpus[1].mp_state is MpState.HALTED


def test_added_cpu_waits_for_init(options: dict[str, object]) -> None:
    with Machine(text("tell 1"), **options) as machine:
        assert run(machine, machine.add_cpu).end is End.HALT
        assert machine.cpus[1].mp_state is MpState.UNINITIALIZED
        assert machine.console == b"b"


@pytest.mark.parametrize("other", OTHERS)
def test_cpu_is_removed_whatever_it_does(options: dict[str, object], other: str) -> None:
    with Machine(text(REMOVE, other), cpus=2, **options) as machine:
        result = run(machine, lambda: machine.remove_cpu(1))
        assert (result.end, machine.console) == (End.HALT, b"ab"), result.message
        assert [cpu.index for cpu in machine.cpus] == [0]


def test_cpu_that_was_never_started_is_removed(options: dict[str, object]) -> None:
    with Machine(text("tell 1"), cpus=3, **options) as machine:
        result = run(machine, lambda: machine.remove_cpu(1))
        assert (result.end, machine.console) == (End.HALT, b"b")
        assert [cpu.index for cpu in machine.cpus] == [0, 2]
        assert machine.cpu_of(2).mp_state is MpState.UNINITIALIZED


@pytest.mark.parametrize("other", OTHERS)
def test_removed_cpu_is_added_again_and_starts_anew(options: dict[str, object], other: str) -> None:
    with Machine(text(TWICE, other), cpus=2, **options) as machine:

        def again() -> None:
            machine.remove_cpu(1)
            assert machine.add_cpu().index == 1

        result = run(machine, again, lambda: machine.remove_cpu(1))
        assert (result.end, machine.console) == (End.HALT, b"aab"), result.message


@pytest.mark.parametrize("other", OTHERS)
def test_stop_and_time_limit_hold_after_a_removal(options: dict[str, object], other: str) -> None:
    with Machine(text(REMOVE, other, SPIN), cpus=2, **options) as machine:

        def act() -> None:
            machine.remove_cpu(1)
            machine.stop()

        assert run(machine, act).end is End.STOPPED
        assert machine.run(timeout=0.05).end is End.TIMEOUT


@pytest.mark.parametrize("other", OTHERS)
def test_stop_and_time_limit_hold_after_an_addition(options: dict[str, object], other: str) -> None:
    with Machine(text(START_ADDED, other, SPIN), **options) as machine:
        result = run(machine, machine.add_cpu, timeout=1.0)
        assert result.end is End.TIMEOUT
        assert machine.console == b"a"
        timer = threading.Timer(0.05, machine.stop)
        timer.start()
        assert machine.run(timeout=DEADLINE).end is End.STOPPED


def test_removal_of_the_only_cpu_that_does_not_sleep_ends_the_run(options: dict[str, object]) -> None:
    """The first sleeps for good; the second spins, and could have woken it."""
    main = "start_other 1\n out 0x80, al"
    with Machine(text(main, "spinning"), cpus=2, **options) as machine:
        result = run(machine, lambda: machine.remove_cpu(1))
        assert (result.end, machine.console) == (End.HALT, b"ab"), result.message


def test_cpus_come_and_go_between_runs(options: dict[str, object]) -> None:
    with Machine(text("start_other 1"), **options) as machine:
        assert machine.add_cpu().index == 1
        assert machine.add_cpu().index == 2
        machine.remove_cpu(1)
        assert machine.add_cpu().index == 1
        machine.remove_cpu(2)
        assert machine.run(timeout=DEADLINE).end is End.HALT
        assert machine.console == b"ab"


def test_cpu_is_added_between_two_exits(options: dict[str, object]) -> None:
    with Machine(text(START_ADDED), **options) as machine:
        signals = Signals()
        machine.bus.attach(signals)
        for exit in machine.exits(timeout=DEADLINE):
            if isinstance(exit, PortIo) and exit.port == 0x80 and not signals.answers:
                machine.add_cpu()
                signals.answers = 1
        assert machine.console == b"ab"


def test_what_cannot_be_added_or_removed_is_refused(options: dict[str, object]) -> None:
    with Machine(b"\xf4", **{**options, "mode": "real"}) as machine:
        with pytest.raises(ConfigurationError, match="vCPU 0"):
            machine.remove_cpu(0)
        with pytest.raises(ConfigurationError, match="no vCPU 1"):
            machine.remove_cpu(1)
        for _ in range(MAX_CPUS - 1):
            machine.add_cpu()
        with pytest.raises(ConfigurationError, match=f"{MAX_CPUS} vCPUs"):
            machine.add_cpu()


class Acts(Signals):
    """Each write to port 0x80 does the next act, on the vCPU's own thread."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        super().__init__()
        self.acts = list(acts)

    def port_write(self, port: int, size: int, value: int) -> None:
        if port == 0x80:
            self.acts.pop(0)()


def test_a_device_cannot_wait_for_the_cpu_that_it_serves(options: dict[str, object]) -> None:
    def act() -> None:
        with pytest.raises(EngineError, match=r"Machine\.defer"):
            machine.add_cpu()
        device.answers = 1

    with Machine(text("tell 1"), **options) as machine:
        machine.bus.attach(device := Acts(act))
        assert machine.run(timeout=DEADLINE).end is End.HALT


def test_a_device_has_cpus_added_and_removed(options: dict[str, object]) -> None:
    def add() -> None:
        machine.add_cpu()
        device.answers += 1

    def again() -> None:
        machine.remove_cpu(1)
        add()

    with Machine(text("tell 1\n start_other 1\n tell 2\n start_other 2", "spinning"), **options) as machine:
        defer = machine.defer
        machine.bus.attach(device := Acts(lambda: defer(add), lambda: defer(again)))
        result = machine.run(timeout=1)
        assert (result.end, machine.console) == (End.TIMEOUT, b"aab"), result.message
        assert [cpu.index for cpu in machine.cpus] == [0, 1]


def test_a_cpu_has_itself_removed(options: dict[str, object]) -> None:
    other = "touching"
    with Machine(text("start_other 1\n 1: in al, 0x90\n cmp al, 1\n jne 1b", other), cpus=2, **options) as machine:
        device = Acts()

        def remove() -> None:
            machine.remove_cpu(1)
            device.answers = 1

        def port_read(port: int, size: int) -> int:
            """The second CPU reads port 0x80 in a loop."""
            if port == 0x80 and not device.answers and not device.acts:
                device.acts.append(remove)
                machine.defer(remove)
            return device.answers

        device.port_read = port_read  # type: ignore[method-assign]
        machine.bus.attach(device)
        result = machine.run(timeout=DEADLINE)
        assert (result.end, machine.console) == (End.HALT, b"ab"), result.message
        assert [cpu.index for cpu in machine.cpus] == [0]


def test_what_a_deferred_change_raises_ends_the_run(options: dict[str, object]) -> None:
    with Machine(text("tell 1"), **options) as machine:
        machine.bus.attach(Acts(lambda: machine.defer(lambda: machine.remove_cpu(7))))
        with pytest.raises(ConfigurationError, match="no vCPU 7"):
            machine.run(timeout=DEADLINE)


def test_an_observer_has_a_cpu_added(options: dict[str, object]) -> None:
    def observe(exit: object) -> None:
        if isinstance(exit, PortIo) and exit.port == 0x80 and not device.answers:
            device.answers = 1
            machine.defer(machine.add_cpu)

    with Machine(text(START_ADDED), **options) as machine:
        machine.bus.attach(device := Signals())
        result = machine.run(timeout=DEADLINE, observer=observe)
        assert (result.end, machine.console) == (End.HALT, b"ab"), result.message


def test_what_is_deferred_while_nothing_runs_is_done_at_once(options: dict[str, object]) -> None:
    with Machine(b"\xf4", **{**options, "mode": "real"}) as machine:
        machine.defer(machine.add_cpu)
        assert len(machine.cpus) == 2


def test_what_is_deferred_as_the_run_ends_is_done(options: dict[str, object]) -> None:
    with Machine(text("out 0x80, al\n mov al, 0\n out 0xF4, al"), **options) as machine:
        machine.bus.attach(Acts(lambda: (machine.stop(), machine.defer(machine.add_cpu))))
        assert machine.run(timeout=DEADLINE).end is End.STOPPED
        assert len(machine.cpus) == 2


def test_without_chips_no_cpu_can_be_added(kvm: object) -> None:
    with Machine(b"\xf4", engine=kvm) as machine, pytest.raises(ConfigurationError, match="chips"):
        machine.add_cpu()


@pytest.mark.usefixtures("leaves_nothing")
def test_added_and_removed_cpus_leave_nothing_behind(options: dict[str, object]) -> None:
    with Machine(text(TWICE, "spinning"), cpus=2, **options) as machine:

        def again() -> None:
            machine.remove_cpu(1)
            machine.add_cpu()

        assert run(machine, again, lambda: machine.remove_cpu(1)).end is End.HALT


def test_what_a_removed_cpu_counted_stays_in_the_report(options: dict[str, object]) -> None:
    with Machine(text(TWICE, "touching"), cpus=2, **options) as machine:
        before: list[dict[str, int]] = []

        def again() -> None:
            machine.remove_cpu(1)
            before.append({reason.label: count for reason, count in machine.removed_cpus[1].exits.items()})
            machine.add_cpu()

        result = run(machine, again, lambda: machine.remove_cpu(1))
        assert result.end is End.HALT
        report = run_report(machine, result)
        (removed,) = report["removed_vcpus"]
        (left,) = report["vcpus"]
        assert removed["index"] == 1
        assert removed["exits"]["io"] >= before[0]["io"] + 2, "of both"
        assert report["exits"]["io"] == removed["exits"]["io"] + left["exits"]["io"]
        (heading,) = [line for line in report_lines(report) if line.lstrip().startswith("reason")]
        assert heading.split()[2:] == ["vCPU", "0", "vCPU", "1,", "removed"]
        assert json.loads(json.dumps(report)) == report
        taken = report["interrupts"]["engine"]
        assert not taken or {"0", "1"} == set(taken)


def test_what_a_cpu_counts_that_is_there_again_is_counted_once(options: dict[str, object]) -> None:
    with Machine(text(TWICE, "touching"), cpus=2, **options) as machine:

        def again() -> None:
            machine.remove_cpu(1)
            machine.add_cpu()

        result = run(machine, again, machine.stop)
        report = run_report(machine, result)
        parts = report["vcpus"] + report["removed_vcpus"]
        assert report["exits"]["io"] == sum(part["exits"]["io"] for part in parts)
        engine = options["engine"]
        assert len(report["removed_vcpus"]) == (0 if engine.name == "kvm" else 1)  # type: ignore[attr-defined]
