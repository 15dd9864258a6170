"""The lock that devices share: who waits under it is woken by notifications, deadlines and signals, and by nothing else."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable

import pytest

from belljar.errors import EngineError
from belljar.machine._monitor import Monitor

LONG_NS = 20_000_000_000


def at_work(work: Callable[[], object]) -> threading.Thread:
    """A thread that does this."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_deadline_that_has_passed_ends_a_wait_at_once() -> None:
    with (bell := Monitor()):
        assert not bell.wait_until(time.monotonic_ns())
        assert not bell.wait_until(-1)


def test_wait_does_not_end_before_its_deadline() -> None:
    with (bell := Monitor()):
        for wait_ns in (1, 1_000, 100_000, 3_000_000, 1_100_000_000):
            deadline_ns = time.monotonic_ns() + wait_ns
            assert not bell.wait_until(deadline_ns)
            assert time.monotonic_ns() >= deadline_ns


@pytest.mark.parametrize("deadline_ns", [None, 1 << 80, (1 << 63) - 1, "far"])
def test_notification_ends_a_wait(deadline_ns: object) -> None:
    bell = Monitor()
    until_ns = time.monotonic_ns() + LONG_NS if deadline_ns == "far" else deadline_ns

    def ring() -> None:
        with bell:
            bell.notify_all()

    with bell:
        thread = at_work(ring)  # which gets the lock when the wait begins
        assert bell.wait_until(until_ns)  # type: ignore[arg-type]
    thread.join()


def test_lock_taken_twice_is_let_go_of_while_waiting_and_taken_back_as_often() -> None:
    bell, inside = Monitor(), []

    def ring() -> None:
        with bell:
            inside.append(threading.get_ident())
            bell.notify_all()

    with bell, bell:
        thread = at_work(ring)
        assert bell.wait_until(None)
        assert inside == [thread.ident]
        assert not is_free(bell)
    thread.join()
    assert is_free(bell)


def is_free(bell: Monitor) -> bool:
    """Whether another thread gets the lock without waiting for it."""
    taken = []

    def take() -> None:
        taken.append(bell.acquire(blocking=False))
        if taken[0]:
            bell.release()

    at_work(take).join()
    return taken[0]


def test_waiting_and_notifying_need_the_lock() -> None:
    bell = Monitor()
    for call in (bell.notify_all, lambda: bell.notify(0), lambda: bell.wait_until(0)):
        with pytest.raises(EngineError, match="who has its lock"):
            call()


def test_notification_for_one_leaves_others_asleep() -> None:
    bell, woken = Monitor(), []
    waiting = threading.Semaphore(0)

    def sleep(who: int) -> None:
        with bell:
            waiting.release()
            bell.wait_until(time.monotonic_ns() + LONG_NS, who)
            woken.append(who)
            bell.notify(5)

    threads = [at_work(lambda who=who: sleep(who)) for who in (1, 2)]  # type: ignore[misc]
    for _ in threads:
        assert waiting.acquire(timeout=20)
    with bell:  # both have let go of it, that is, wait
        for who in (2, 1):
            bell.notify(who)
            while not woken:
                assert bell.wait_until(time.monotonic_ns() + LONG_NS, 5)
            assert woken == [who]
            woken.clear()
    for thread in threads:
        thread.join()


def test_no_wake_up_is_lost_between_two_threads_that_take_turns() -> None:
    """Each waits, most times with a deadline that is just about to pass, for the other to move on."""
    rounds, bell, state = 4_000, Monitor(), {"turn": 0, "late": 0}

    def play(me: int) -> None:
        for count in range(rounds):
            with bell:
                while state["turn"] % 2 != me:
                    end_ns = time.monotonic_ns() + LONG_NS
                    bell.wait_until(min(end_ns, time.monotonic_ns() + 20_000) if count % 3 else end_ns)
                    state["late"] += time.monotonic_ns() >= end_ns
                state["turn"] += 1
                bell.notify(1 - me)

    threads = [at_work(lambda me=me: play(me)) for me in (0, 1)]  # type: ignore[misc]
    for thread in threads:
        thread.join(timeout=60)
    assert state == {"turn": 2 * rounds, "late": 0}


def test_lock_keeps_threads_apart_that_all_want_it() -> None:
    bell, state = Monitor(), {"inside": 0, "count": 0, "most": 0}

    def work() -> None:
        for _ in range(2_000):
            with bell, bell:
                state["inside"] += 1
                state["most"] = max(state["most"], state["inside"])
                count = state["count"]
                time.sleep(0)  # lets go of the GIL: others come and find the lock taken
                state["count"] = count + 1
                state["inside"] -= 1

    threads = [at_work(work) for _ in range(4)]
    for thread in threads:
        thread.join(timeout=60)
    assert state == {"inside": 0, "count": 8_000, "most": 1}


def test_lock_of_another_thread_is_not_let_go_of() -> None:
    bell = Monitor()
    with pytest.raises(EngineError):
        bell.release()
    with bell:
        failures = []

        def let_go() -> None:
            try:
                bell.release()
            except EngineError as failure:
                failures.append(failure)

        at_work(let_go).join()
        assert failures
        assert not is_free(bell)


def test_what_a_signal_handler_raises_ends_the_wait_for_a_lock() -> None:
    bell, taken, over, asked = Monitor(), threading.Event(), threading.Event(), []

    def hold() -> None:
        with bell:
            taken.set()
            while not over.wait(0.01):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def interrupt(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt

    def ask() -> None:
        asked.append(True)
        try:
            bell.acquire()
        finally:
            asked.clear()

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        thread = at_work(hold)
        assert taken.wait(20)
        with pytest.raises(KeyboardInterrupt):
            ask()
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert is_free(bell)


def test_signal_handler_runs_during_a_wait_which_goes_on() -> None:
    handled = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    try:
        with (bell := Monitor()):
            deadline_ns = time.monotonic_ns() + 30_000_000
            killer = at_work(lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1))
            assert not bell.wait_until(deadline_ns)
            assert time.monotonic_ns() >= deadline_ns
        killer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1]


def test_signal_that_interrupts_no_sleep_ends_a_wait_all_the_same() -> None:
    bell = Monitor()

    def interrupt() -> None:
        with bell:  # which the wait has let go of
            _thread.interrupt_main()  # as by a signal, but without one: its handler is only marked as due

    began_ns = time.monotonic_ns()
    with bell:
        thread = at_work(interrupt)
        with pytest.raises(KeyboardInterrupt):
            bell.wait_until(began_ns + LONG_NS)
    assert time.monotonic_ns() < began_ns + LONG_NS
    thread.join()


def test_what_a_signal_handler_raises_ends_a_wait_with_the_lock_taken() -> None:
    bell = Monitor()

    def interrupt() -> None:
        with bell:  # which the wait has let go of
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with bell:
        thread = at_work(interrupt)
        with pytest.raises(KeyboardInterrupt):
            bell.wait_until(time.monotonic_ns() + LONG_NS)
        assert not is_free(bell)
    thread.join()
    assert is_free(bell)
