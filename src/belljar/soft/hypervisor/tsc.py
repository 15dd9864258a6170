"""A vCPU's time-stamp counter: the processor's own, scaled and moved by the VMCS (SDM 3C 25.6.5, 26.3; SDM 3B 18.17)."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from belljar.errors import ConfigurationError
from belljar.soft.hypervisor.controls import TSC_FRACTION_BITS, Secondary
from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field

PROCESSOR_KHZ = 1_000_000
"""The processor's own counter shows nanoseconds."""

MIN_KHZ, MAX_KHZ = 1_000, 100_000_000

U64 = (1 << 64) - 1


def check_khz(khz: int) -> None:
    """Raise ConfigurationError for a frequency that no guest gets."""
    if not MIN_KHZ <= khz <= MAX_KHZ:
        raise ConfigurationError(
            f"a time-stamp counter of {khz} kHz will not do", hint=f"from {MIN_KHZ} to {MAX_KHZ} kHz"
        )


class GuestTsc:
    """What RDTSC shows: the processor's counter at `khz` a millisecond, plus an offset.

    `now` tells the processor's counter, in nanoseconds. `changed` are called when a value jumps, or the frequency changes.
    """

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self.khz = PROCESSOR_KHZ
        self.multiplier = 1 << TSC_FRACTION_BITS
        self.offset = 0
        self.adjust = 0
        """IA32_TSC_ADJUST (SDM 3B 18.17.3)."""
        self.now: Callable[[], int] = self._processor_ns
        self.changed: list[Callable[[], None]] = []

    def _processor_ns(self) -> int:
        return self._processor.tsc

    def detach(self, instead: Processor) -> None:
        """Let go of the processor, which owns much memory; `instead` is asked from now on."""
        self._processor = instead

    def at(self, ns: int) -> int:
        """The counter when the processor's shows `ns`."""
        return (ns * self.multiplier >> TSC_FRACTION_BITS) + self.offset & U64

    def read(self) -> int:
        """The counter now."""
        return self.at(self.now())

    def ns_at(self, value: int) -> int:
        """When the counter first shows `value` or more, in the processor's nanoseconds: now if it does already."""
        now_ns = self.now()
        left = value - self.at(now_ns)
        if left <= 0:
            return now_ns
        counted = (now_ns * self.multiplier >> TSC_FRACTION_BITS) + left
        return -(-(counted << TSC_FRACTION_BITS) // self.multiplier)

    def set_khz(self, khz: int) -> None:
        """Another frequency; the counter goes on from what it shows. Raises ConfigurationError."""
        check_khz(khz)
        shown = self.read()
        self.khz = khz
        self.multiplier = (khz << TSC_FRACTION_BITS) // PROCESSOR_KHZ
        self._scale()
        self.set(shown)

    def set(self, value: int) -> None:
        """The host's way of setting it, which leaves IA32_TSC_ADJUST alone."""
        self._move_to(value - (self.now() * self.multiplier >> TSC_FRACTION_BITS))

    def write(self, value: int) -> bool:
        """WRMSR of IA32_TIME_STAMP_COUNTER: IA32_TSC_ADJUST moves by the same amount.

        What its exit costs passes behind it: guests find out by IA32_TSC_ADJUST how long before the write they have read the
        counter, and take more than the time to the next reading for a mistake.
        """
        begun_ns = self.now() - self._processor.exit_ns
        self.adjust = self.adjust + value - self.at(begun_ns) & U64
        self._move_to(value - (begun_ns * self.multiplier >> TSC_FRACTION_BITS))
        return True

    def write_adjust(self, value: int) -> bool:
        """WRMSR of IA32_TSC_ADJUST: the counter moves by the same amount."""
        moved = value - self.adjust
        self.adjust = value
        self._move_to(self.offset + moved)
        return True

    def _move_to(self, offset: int) -> None:
        self.offset = offset & U64
        self._processor.vmwrite(Field.TSC_OFFSET, self.offset)
        for each in self.changed:
            each()

    def _scale(self) -> None:
        processor = self._processor
        controls = processor.vmread(Field.SECONDARY_CONTROLS) & ~Secondary.TSC_SCALING
        if self.khz != PROCESSOR_KHZ:
            controls |= Secondary.TSC_SCALING
        processor.vmwrite(Field.TSC_MULTIPLIER, self.multiplier)
        processor.vmwrite(Field.SECONDARY_CONTROLS, controls)

    def crystal_ratio(self) -> tuple[int, int]:
        """Denominator and numerator of the ratio of this frequency to the processor's (CPUID leaf 15H, EAX and EBX)."""
        divisor = gcd(self.khz, PROCESSOR_KHZ)
        return PROCESSOR_KHZ // divisor, self.khz // divisor

    def state(self) -> dict[str, int]:
        """Everything but the processor's counter."""
        return {"khz": self.khz, "offset": self.offset, "adjust": self.adjust}

    def restore(self, state: dict[str, int]) -> None:
        """Take it back."""
        self.set_khz(state["khz"])
        self.adjust = state["adjust"]
        self._move_to(state["offset"])
