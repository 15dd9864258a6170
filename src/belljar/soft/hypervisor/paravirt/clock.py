"""kvmclock: the time of the machine and of day in structures that the guest reads by itself (kernel msr.rst)."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.mmu.mmu import Mmu
from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.hypervisor.paravirt.cpuid import Feature, offered
from belljar.soft.hypervisor.paravirt.part import ENABLED, PAGE_SIZE, Part, Register
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

TIME_INFO = Struct("<IIQQIbB2x")
"""struct pvclock_vcpu_time_info: version, pad0, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags."""

WALL_CLOCK = Struct("<III")
"""struct pvclock_wall_clock: version, sec, nsec."""

VERSION_BYTES = 4
FLAGS_OFFSET = 29
TSC_STABLE, GUEST_STOPPED = 1, 2
"""Flags of the former."""

NS_PER_SECOND = 1_000_000_000


def scale(khz: int) -> tuple[int, int]:
    """(tsc_to_system_mul, tsc_shift) for a counter of `khz`: the multiplier has 32 bits behind the point and its top bit set."""
    numerator, denominator = NS_PER_SECOND, khz * 1000
    shift = 0
    while numerator >= denominator:
        denominator *= 2
        shift += 1
    while numerator * 2 < denominator:
        numerator *= 2
        shift -= 1
    return (numerator << 32) // denominator, shift


def to_ns(ticks: int, multiplier: int, shift: int) -> int:
    """What a guest makes of so many ticks."""
    shifted = ticks << shift if shift >= 0 else ticks >> -shift
    return shifted * multiplier >> 32


def decode_time_info(data: bytes) -> dict[str, int]:
    """A pvclock_vcpu_time_info by the names of its fields."""
    names = ("version", "pad0", "tsc_timestamp", "system_time", "tsc_to_system_mul", "tsc_shift", "flags")
    return dict(zip(names, TIME_INFO.unpack(data), strict=True))


def decode_wall_clock(data: bytes) -> dict[str, int]:
    """A pvclock_wall_clock by the names of its fields."""
    return dict(zip(("version", "sec", "nsec"), WALL_CLOCK.unpack(data), strict=True))


def odd_after(version: int) -> int:
    """The version that says that an update goes on; the next one says that it is over."""
    return version + 1 | 1


class KvmClock(Part):
    """MSR_KVM_SYSTEM_TIME and MSR_KVM_WALL_CLOCK, by their old and new numbers.

    As in KVM, any value may be written; where there is no RAM, or where the structure would cross a page, nothing is stored.
    """

    name = "kvmclock"

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        self.value = 0
        vcpu.tsc.changed.append(self.update)

    def msrs(self) -> Mapping[int, Register]:
        """Old and new numbers mean the same."""
        system_time = Register(lambda: self.value, self._write_system_time)
        wall_clock = Register(lambda: self.vcpu.shared.wall_clock, self._write_wall_clock)
        there = offered(self.vcpu)
        found: dict[int, Register] = {}
        if there & Feature.CLOCKSOURCE:
            found.update({Msr.KVM_SYSTEM_TIME: system_time, Msr.KVM_WALL_CLOCK: wall_clock})
        if there & Feature.CLOCKSOURCE2:
            found.update({Msr.KVM_SYSTEM_TIME_NEW: system_time, Msr.KVM_WALL_CLOCK_NEW: wall_clock})
        return found

    @property
    def _gpa(self) -> int:
        return self.value & ~ENABLED

    def _write_system_time(self, value: int) -> bool:
        self.value = value
        self.update()
        platform = self.vcpu.shared.platform
        if platform is not None and not platform.steady:
            self.vcpu.interfaces.watch(self)
        return True

    def turn_begins(self) -> None:
        """Where the counter does not keep step with the machine's time by itself."""
        self.update()

    def update(self) -> None:
        """Write the structure anew: when it was asked for, and when the counter does not go on as it did."""
        if not self.value & ENABLED or self._gpa % PAGE_SIZE + TIME_INFO.size > PAGE_SIZE:
            return
        vcpu, gpa = self.vcpu, self._gpa
        before = memory.read(vcpu.mmu, gpa, TIME_INFO.size)
        if before is None:
            return
        stable = bool(offered(vcpu) & Feature.CLOCKSOURCE_STABLE)
        flags = before[FLAGS_OFFSET] & GUEST_STOPPED | (TSC_STABLE if stable else 0)
        now_ns = vcpu.shared.now_ns(vcpu.processor.tsc)
        multiplier, shift = scale(vcpu.tsc.khz)
        version = odd_after(int.from_bytes(before[:VERSION_BYTES], "little")) & 0xFFFF_FFFF
        memory.write_u32(vcpu.mmu, gpa, version)
        data = TIME_INFO.pack(version, 0, vcpu.tsc.at(now_ns), now_ns, multiplier, shift, flags)
        memory.write(vcpu.mmu, gpa, data)
        memory.write_u32(vcpu.mmu, gpa, version + 1)

    def _write_wall_clock(self, value: int) -> bool:
        shared = self.vcpu.shared
        shared.wall_clock = value
        if value:
            now_ns = shared.now_ns(self.vcpu.processor.tsc)
            wall_ns = now_ns if shared.platform is None else shared.platform.wall_ns()
            write_wall_clock(shared.mmu, value, wall_ns - now_ns)
        return True

    def reset(self) -> None:
        """KVM forgets the structure with the rest of the vCPU's state."""
        self.value = 0

    def decode(self) -> dict[str, Any]:
        """The structure as it lies in the guest's memory."""
        data = memory.read(self.vcpu.mmu, self._gpa, TIME_INFO.size) if self.value & ENABLED else None
        return {} if data is None else {"gpa": self._gpa, **decode_time_info(data)}

    def state(self) -> dict[str, Any]:
        """The MSR, and the VM's other one."""
        return {"system_time": self.value, "wall_clock": self.vcpu.shared.wall_clock}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back; the structure is written anew, because the counter need not be where it was."""
        self.value, self.vcpu.shared.wall_clock = state["system_time"], state["wall_clock"]
        self.update()


def write_wall_clock(mmu: Mmu, gpa: int, boot_ns: int) -> None:
    """Store the time of day at which the machine's time was 0."""
    version = memory.read_u32(mmu, gpa)
    if version is None or memory.host_address(mmu, gpa, WALL_CLOCK.size) is None:
        return
    version = odd_after(version) & 0xFFFF_FFFF
    memory.write_u32(mmu, gpa, version)
    memory.write(mmu, gpa, WALL_CLOCK.pack(version, boot_ns // NS_PER_SECOND & 0xFFFF_FFFF, boot_ns % NS_PER_SECOND))
    memory.write_u32(mmu, gpa, version + 1)
