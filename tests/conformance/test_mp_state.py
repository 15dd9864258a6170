"""What vCPUs wait for: every multiprocessing state can be set, read back, and means the same whoever's the chips are."""

from __future__ import annotations

import pytest

from belljar.errors import FeatureUnsupported
from belljar.machine import End, Machine
from belljar.x86.mp_state import MpState
from common import open_or_skip
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]


def test_first_cpu_is_runnable_and_others_wait_for_init(chips: dict[str, object]) -> None:
    with Machine(guest("main:\n done\n"), cpus=3, **chips) as machine:
        assert [cpu.mp_state for cpu in machine.cpus] == [MpState.RUNNABLE, *[MpState.UNINITIALIZED] * 2]
        assert machine.run(timeout=20).end is End.HALT
        assert machine.cpu.mp_state is MpState.HALTED


@pytest.mark.parametrize("state", list(MpState), ids=lambda state: state.name)
@pytest.mark.parametrize("index", [0, 1])
def test_state_that_was_set_is_read_back(chips: dict[str, object], index: int, state: MpState) -> None:
    with Machine(guest("main:\n done\n"), cpus=2, **chips) as machine:
        machine.cpus[index].mp_state = state
        expected = {state, MpState.RUNNABLE} if state is MpState.SIPI_RECEIVED else {state}
        assert machine.cpus[index].mp_state in expected  # KVM may start a vCPU as soon as anybody looks


def test_halted_cpu_does_not_run_until_it_is_runnable(chips: dict[str, object]) -> None:
    with Machine(guest("main:\n say 'x'\n done\n"), **chips) as machine:
        machine.cpu.set(rflags=2)
        machine.cpu.mp_state = MpState.HALTED
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b""
        machine.cpu.mp_state = MpState.HALTED
        machine.cpu.mp_state = MpState.RUNNABLE
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"x"


SAYS_S = b"\xb0s\xe6\xe9\xfa\xf4"  # mov al, 's'; out 0xE9, al; cli; hlt


def test_cpu_that_received_a_start_up_ipi_starts_where_it_says(chips: dict[str, object]) -> None:
    with Machine(guest("main:\n done\n"), cpus=2, **chips) as machine:
        machine.memory.write(0, SAYS_S)
        machine.cpus[1].mp_state = MpState.SIPI_RECEIVED
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"s"
        assert machine.cpus[1].mp_state is MpState.HALTED


START_UP_WITHOUT_INIT = """
main:
    lapic 0x310, 0x1000000
    lapic 0x300, 0x4600         # start-up, vector 0, without INIT
    %s
    chance
    done
"""


@pytest.mark.parametrize(("init", "printed"), [("", b""), ("lapic 0x300, 0x4500\n lapic 0x300, 0x4600", b"s")])
def test_start_up_ipi_is_not_heard_before_init(chips: dict[str, object], init: str, printed: bytes) -> None:
    with Machine(guest(START_UP_WITHOUT_INIT % init), cpus=2, **chips) as machine:
        machine.memory.write(0, SAYS_S)
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == printed


def test_without_chips_there_is_only_runnable() -> None:
    with open_or_skip("kvm") as engine, Machine(b"\xf4", engine=engine) as machine:  # type: ignore[attr-defined]
        assert machine.cpu.mp_state is MpState.RUNNABLE
        machine.cpu.mp_state = MpState.RUNNABLE
        with pytest.raises(FeatureUnsupported):
            machine.cpu.mp_state = MpState.HALTED
