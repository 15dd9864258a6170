"""Every run ends: kicks, deadlines, Ctrl-C and closing, whatever the guest does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from belljar.errors import ClosedError, EngineError
from belljar.exits import ExitReason, Interrupted
from belljar.kvm._loop import signal_number
from belljar.kvm.engine import KvmEngine
from kvm.guest import CODE_GPA, HLT, SPIN, VMCALL_FOREVER, deadline
from kvm.machines import RecordingBus, Small

ENDLESS = pytest.mark.parametrize("code", [SPIN, VMCALL_FOREVER, b"\xe6\x80\xeb\xfc"], ids=["spin", "vmcall", "out"])
PATIENCE = 10.0


class Runner:
    """A vCPU on a thread of its own; `started` is set from inside its run."""

    def __init__(self, run: Callable[[], ExitReason]) -> None:
        self.reason: ExitReason | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(run,))
        self.thread.start()

    def _run(self, run: Callable[[], ExitReason]) -> None:
        try:
            self.reason = run()
        except BaseException as error:
            self.error = error

    def join(self) -> ExitReason | None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the run did not end"
        return self.reason


class Announcing(RecordingBus):
    """Says when the guest has made its first port access."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def port_write(self, port: int, size: int, value: int) -> None:
        self.reached.set()


def start(small: Small, **options: int) -> Runner:
    """Run on a thread, and come back once the guest runs: it writes to a port first."""
    bus = Announcing()
    runner = Runner(lambda: small.vcpu.run(bus, **options))  # type: ignore[arg-type]
    assert bus.reached.wait(PATIENCE)
    return runner


def announced(code: bytes) -> bytes:
    return b"\xe6\x81" + code  # out 0x81, al


@ENDLESS
def test_kick_from_another_thread_ends_a_run(kvm: KvmEngine, code: bytes) -> None:
    with Small(kvm, announced(code)) as small:
        runner = start(small)
        small.vcpu.kick()
        assert runner.join() is ExitReason.INTERRUPTED
        assert small.vcpu.last_exit() == Interrupted(0)
        assert small.vcpu.exit_counts()[ExitReason.INTERRUPTED] == 1


@ENDLESS
def test_deadline_ends_a_run(kvm: KvmEngine, code: bytes) -> None:
    with Small(kvm, code) as small:
        limit = time.monotonic_ns() + 20_000_000
        assert small.vcpu.run(small.bus, deadline_ns=limit) is ExitReason.INTERRUPTED
        assert time.monotonic_ns() >= limit


@ENDLESS
def test_deadline_ends_a_run_on_another_thread(kvm: KvmEngine, code: bytes) -> None:
    with Small(kvm, code) as small:
        limit = time.monotonic_ns() + 20_000_000
        assert Runner(lambda: small.vcpu.run(small.bus, deadline_ns=limit)).join() is ExitReason.INTERRUPTED
        # and then on this thread: the timer moves with the run
        limit = time.monotonic_ns() + 20_000_000
        assert small.vcpu.run(small.bus, deadline_ns=limit) is ExitReason.INTERRUPTED


def test_past_deadline_lets_the_guest_do_nothing(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe6\xe9\xf4") as small:
        assert small.vcpu.run(small.bus, deadline_ns=1) is ExitReason.INTERRUPTED
        assert small.bus.calls == []
        assert small.vcpu.get_registers().rip == CODE_GPA


def test_kick_before_a_run_ends_the_next_one_and_only_that(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe6\xe9\xf4") as small:
        small.vcpu.kick()
        small.vcpu.kick()
        assert small.vcpu.run(small.bus) is ExitReason.INTERRUPTED
        assert small.bus.calls == []
        assert small.vcpu.run(small.bus) is ExitReason.HLT


def test_kick_between_an_exit_and_the_next_run_finishes_the_instruction(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe4\x60\xeb\xfe") as small:
        assert small.vcpu.run(small.bus, single_exit=True) is ExitReason.IO
        small.vcpu.kick()
        assert small.vcpu.run(small.bus) is ExitReason.INTERRUPTED
        registers = small.vcpu.get_registers()
        assert (registers.rip, registers.rax & 0xFF) == (CODE_GPA + 2, 0x5A)


def test_kick_from_a_device_ends_the_run_after_the_access(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe4\x60\xeb\xfe") as small:

        class Kicking(RecordingBus):
            def port_read(self, port: int, size: int) -> int:
                small.vcpu.kick()
                return 0x33

        assert small.vcpu.run(Kicking()) is ExitReason.INTERRUPTED
        assert small.vcpu.get_registers().rax & 0xFF == 0x33


def test_kicks_from_many_threads_at_once(kvm: KvmEngine) -> None:
    """However kicks and runs fall together, every run is ended by one and none is lost."""
    with Small(kvm, SPIN) as small:
        stop = threading.Event()

        def kick_on() -> None:
            while not stop.is_set():
                small.vcpu.kick()

        kickers = [threading.Thread(target=kick_on) for _ in range(2)]
        for kicker in kickers:
            kicker.start()
        try:
            for _ in range(50):
                assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.INTERRUPTED
        finally:
            stop.set()
            for kicker in kickers:
                kicker.join()


def test_run_goes_on_where_it_was_interrupted(kvm: KvmEngine) -> None:
    code = b"\x66\x40\x66\x3d\x00\x00\x01\x00\x75\xf6\xf4"  # again: inc eax; cmp eax, 0x10000; jne again; hlt
    with Small(kvm, code) as small:
        reasons = [ExitReason.INTERRUPTED]
        while reasons[-1] is ExitReason.INTERRUPTED:
            reasons.append(small.vcpu.run(small.bus, deadline_ns=time.monotonic_ns() + 2_000_000))
        assert reasons[-1] is ExitReason.HLT
        assert small.vcpu.get_registers().rax == 0x10000


@pytest.fixture
def interrupt_soon() -> Iterator[Callable[[], None]]:
    """Has this process get SIGINT, as from Ctrl-C, 20 ms from when it is called."""
    previous = signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.02) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@ENDLESS
def test_ctrl_c_ends_a_run_and_leaves_the_guest_whole(
    kvm: KvmEngine, code: bytes, interrupt_soon: Callable[[], None]
) -> None:
    with Small(kvm, code) as small:
        interrupt_soon()
        with pytest.raises(KeyboardInterrupt):
            small.vcpu.run(small.bus)
        assert CODE_GPA <= small.vcpu.get_registers().rip <= CODE_GPA + len(code)
        small.restart(HLT)
        assert small.vcpu.run(small.bus) is ExitReason.HLT


def test_ctrl_c_that_comes_just_before_the_guest_is_entered_is_not_lost(kvm: KvmEngine) -> None:
    """The C handler of a signal may run between the last look and KVM_RUN, which then knows nothing of it."""

    class Late(RecordingBus):
        def port_write(self, port: int, size: int, value: int) -> None:
            signal.raise_signal(signal.SIGINT)  # the Python handler runs when this method is left, or later

    with Small(kvm, b"\xe6\x80\xeb\xfe") as small, pytest.raises(KeyboardInterrupt):
        small.vcpu.run(Late(), deadline_ns=deadline())


def test_python_handlers_of_signals_run_during_a_run(kvm: KvmEngine) -> None:
    with Small(kvm, SPIN) as small:
        previous = signal.signal(signal.SIGALRM, lambda number, frame: small.vcpu.kick())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.INTERRUPTED
        finally:
            signal.signal(signal.SIGALRM, previous)


def test_blocked_signals_do_not_keep_a_run_from_ending(kvm: KvmEngine) -> None:
    with Small(kvm, SPIN) as small:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            limit = time.monotonic_ns() + 10_000_000
            assert small.vcpu.run(small.bus, deadline_ns=limit) is ExitReason.INTERRUPTED
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked  # left as it was found
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_signal_is_real_time_and_nobody_elses() -> None:
    number = signal_number()
    assert signal.SIGRTMIN <= number <= signal.SIGRTMAX
    assert signal_number() == number


def test_vcpu_runs_on_one_thread_at_a_time(kvm: KvmEngine) -> None:
    with Small(kvm, announced(SPIN)) as small:
        runner = start(small)
        for use in (lambda: small.vcpu.run(small.bus), small.vcpu.get_registers, lambda: small.vcpu.translate(0)):
            with pytest.raises(EngineError, match="running"):
                use()
        small.vcpu.kick()
        assert runner.join() is ExitReason.INTERRUPTED


def test_closing_ends_a_run_on_another_thread(kvm: KvmEngine, leaves_nothing: None) -> None:
    with Small(kvm, announced(SPIN)) as small:
        runner = start(small)
        small.vm.close()
        assert runner.join() is ExitReason.INTERRUPTED
        assert small.vcpu.raw.closed
        with pytest.raises(ClosedError):
            small.vcpu.run(small.bus)


def test_device_may_close_the_machine_under_its_own_access(kvm: KvmEngine, leaves_nothing: None) -> None:
    with Small(kvm, b"\xe4\x60\xeb\xfe") as small:

        class Closing(RecordingBus):
            def port_read(self, port: int, size: int) -> int:
                small.vm.close()
                return 0

        assert small.vcpu.run(Closing()) is ExitReason.INTERRUPTED
        assert small.vcpu.raw.closed


def test_several_vcpus_run_and_end_at_once(kvm: KvmEngine) -> None:
    with Small(kvm, announced(SPIN)) as small:
        small.add_vcpu(1)
        bus = [Announcing(), Announcing()]
        runners = [Runner(lambda i=i: small.vm.vcpus[i].run(bus[i])) for i in range(2)]  # type: ignore[misc]
        for each in bus:
            assert each.reached.wait(PATIENCE)
        for vcpu in small.vm.vcpus:
            vcpu.kick()
        assert [runner.join() for runner in runners] == [ExitReason.INTERRUPTED] * 2


def test_nothing_is_left_of_machines_that_ran(kvm: KvmEngine, leaves_nothing: None) -> None:
    for _ in range(10):
        with Small(kvm, SPIN) as small:
            small.vcpu.run(small.bus, deadline_ns=time.monotonic_ns() + 100_000)
