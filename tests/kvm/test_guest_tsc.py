"""A vCPU's counter as it is told from the host's: jumps are noticed when it is compared again."""

from __future__ import annotations

import time
from typing import Any

from belljar.kvm._calls import read_tsc
from belljar.kvm.guest_tsc import KvmTsc
from belljar.x86.msr import Msr

KHZ = 2_000_000


class ShiftedVcpu:
    """The host's counter plus an offset."""

    offset = 0

    def get_tsc_khz(self) -> int:
        return KHZ

    def get_msrs(self, indices: list[int]) -> dict[int, int]:
        return {Msr.IA32_TIME_STAMP_COUNTER: read_tsc() + self.offset & (1 << 64) - 1}


def test_jumps_are_told_by_the_next_look_and_nothing_else_is() -> None:
    vcpu: Any = ShiftedVcpu()
    tsc = KvmTsc(vcpu, None)
    jumps: list[int] = []
    tsc.changed.append(lambda: jumps.append(vcpu.offset))
    for offset in (0, 1 << 40, -(1 << 40), 5 << 33):
        vcpu.offset = offset
        before = tsc.read()
        tsc.look()
        assert abs(tsc.read() - before) > 1 << 30 if offset else True
    assert [jump for jump in jumps if jump] == [1 << 40, -(1 << 40), 5 << 33]


def test_deadlines_that_are_past_come_now() -> None:
    vcpu: Any = ShiftedVcpu()
    tsc = KvmTsc(vcpu, None)
    assert tsc.ns_at(tsc.read() - 1000) <= time.monotonic_ns()
    assert tsc.ns_at(tsc.read() + 3600 * KHZ * 1000) > time.monotonic_ns() + 3599 * 10**9
