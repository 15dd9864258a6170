"""A vCPU's time-stamp counter: its frequency, and what it shows, told from the host's own without stopping the vCPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from belljar.errors import CapabilityMissing, FeatureUnsupported, KvmCallFailed
from belljar.kvm._calls import read_tsc
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.kvm.vcpu import Vcpu

U64 = (1 << 64) - 1
NS_PER_MS = 1_000_000
"""A counter of so many kHz shows as many ticks in this time."""

TOLERATED_NS = 100_000
"""So exact is a comparison; taking more for a jump, where this thread was preempted in it, does no harm."""


class KvmTsc:
    """What RDTSC shows the guest: the host's counter, scaled by the ratio of their frequencies, plus an offset.

    The two are compared by `look`, on the thread that runs the vCPU; from then on `read` tells what the host's counter says of
    it, on any thread. What the guest writes to its counter is seen by the next `look` only, which calls `changed` then.
    """

    def __init__(self, vcpu: Vcpu, host_khz: int | None) -> None:
        """`host_khz` is the frequency of the host's counter where the guest's is another; else None."""
        self._vcpu = vcpu
        self.khz = vcpu.get_tsc_khz()
        self._host_khz = host_khz or self.khz
        self.changed: list[Callable[[], None]] = []
        self._host = self._guest = 0
        self.look()

    def look(self) -> None:
        """Compare the guest's counter with the host's (IA32_TSC through KVM_GET_MSRS, api.rst 4.18). While it does not run."""
        expected = self.read()
        before = read_tsc()
        self._guest = self._vcpu.get_msrs([Msr.IA32_TIME_STAMP_COUNTER])[Msr.IA32_TIME_STAMP_COUNTER]
        self._host = before + read_tsc() >> 1
        jump = self.read() - expected & U64
        if TOLERATED_NS * self.khz // NS_PER_MS < jump < -TOLERATED_NS * self.khz // NS_PER_MS & U64:
            for each in self.changed:
                each()

    def read(self) -> int:
        """The counter now, 64 bits."""
        passed = read_tsc() - self._host
        if self.khz != self._host_khz:
            passed = passed * self.khz // self._host_khz
        return self._guest + passed & U64

    def ns_at(self, value: int) -> int:
        """When it first shows `value` or more, as a time of time.monotonic_ns(): now if it does already."""
        left = value - self.read()
        return time.monotonic_ns() + max(0, -(-left * NS_PER_MS // self.khz))


def no_frequency(khz: int, why: object) -> FeatureUnsupported:
    """What to say where a host's time-stamp counter cannot be scaled."""
    return FeatureUnsupported(
        f"this host's KVM gives guests no time-stamp counter of {khz} kHz: {getattr(why, 'message', why)}",
        hint="`--engine soft` does",
    )


def counter_of(vcpu: Vcpu, host_khz: int | None) -> KvmTsc | None:
    """A vCPU's counter; None where KVM does not tell its frequency, as on hosts whose own counter is unstable (EIO, api.rst
    4.56): nobody could say when a deadline comes."""
    try:
        return KvmTsc(vcpu, host_khz)
    except (CapabilityMissing, KvmCallFailed, KeyError):
        return None


def set_frequency(vcpu: Vcpu, khz: int) -> None:
    """KVM_SET_TSC_KHZ (api.rst 4.55) where the VM could not be told; read back, for some hosts take it and do nothing.

    Raises FeatureUnsupported.
    """
    try:
        if vcpu.get_tsc_khz() != khz:
            vcpu.set_tsc_khz(khz)
        actual = vcpu.get_tsc_khz()
    except (CapabilityMissing, KvmCallFailed) as error:
        raise no_frequency(khz, error) from None
    if actual != khz:
        raise no_frequency(khz, f"it is {actual} kHz")
