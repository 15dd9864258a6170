"""The partition's reference time, in units of 100 ns since the machine was made, and the frequencies (TLFS 12.3, 12.4; 2.6)."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.hyperv.part import PAGE_MASK, UNIT_NS, HypervPart
from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.hypervisor.paravirt.part import ENABLED, Register, refuse
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

TSC_PAGE = Struct("<IIQq")
"""HV_REFERENCE_TSC_PAGE: sequence, reserved, scale, offset; the time is (TSC * scale >> 64) + offset."""

SEQUENCE_BYTES = 4
INVALID_SEQUENCE = 0
LAST_SEQUENCE = 0xFFFF_FFFE
UNITS_PER_SECOND = 10_000_000
HZ_PER_KHZ = 1000


def decode_tsc_page(data: bytes) -> dict[str, int]:
    """An HV_REFERENCE_TSC_PAGE by the names of its fields."""
    sequence, _, scale, offset = TSC_PAGE.unpack(data)
    return {"sequence": sequence, "scale": scale, "offset": offset}


class ReferenceTime(HypervPart):
    """HV_X64_MSR_TIME_REF_COUNT, _REFERENCE_TSC, _TSC_FREQUENCY, _APIC_FREQUENCY."""

    name = "hyperv_reference_time"

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        vcpu.tsc.changed.append(self._tsc_changed)

    def msrs(self) -> Mapping[int, Register]:
        """Four."""
        return {
            Msr.HV_TIME_REF_COUNT: Register(self.now, refuse),
            Msr.HV_REFERENCE_TSC: Register(lambda: self.partition.reference_tsc, self._write_page),
            Msr.HV_TSC_FREQUENCY: Register(lambda: self.vcpu.tsc.khz * HZ_PER_KHZ, refuse),
            Msr.HV_APIC_FREQUENCY: Register(lambda: self.platform.bus_hz, refuse),
        }

    def now(self) -> int:
        """The reference time; by the page's own arithmetic where there is one, so that both agree."""
        partition = self.partition
        if partition.tsc_scale and self.platform.steady:
            return (self.vcpu.tsc.read() * partition.tsc_scale >> 64) + partition.tsc_offset
        return self.platform.now_ns() // UNIT_NS

    def _write_page(self, value: int) -> bool:
        self.partition.reference_tsc = value
        self.partition.tsc_scale = 0
        if value & ENABLED:
            self._store()
        return True

    def _tsc_changed(self) -> None:
        if self.partition.reference_tsc & ENABLED and self.partition.tsc_scale:
            self.partition.tsc_scale = 0
            self._store()

    def _store(self) -> None:
        """Write the page: with the sequence of an invalid one where the counter cannot tell the time."""
        partition, mmu, tsc = self.partition, self.vcpu.mmu, self.vcpu.tsc
        gpa = partition.reference_tsc & PAGE_MASK
        if not memory.write_u32(mmu, gpa, INVALID_SEQUENCE):
            return
        scale = (UNITS_PER_SECOND << 64) // (tsc.khz * HZ_PER_KHZ)
        if not self.platform.steady or scale >> 64:
            return
        now_ns = self.platform.now_ns()
        offset = now_ns // UNIT_NS - (tsc.at(now_ns) * scale >> 64)
        if not -(1 << 63) <= offset < 1 << 63:
            return
        partition.tsc_scale, partition.tsc_offset = scale, offset
        partition.tsc_sequence = partition.tsc_sequence % LAST_SEQUENCE + 1
        memory.write(mmu, gpa, TSC_PAGE.pack(INVALID_SEQUENCE, 0, scale, offset))
        memory.write_u32(mmu, gpa, partition.tsc_sequence)

    def decode(self) -> dict[str, Any]:
        """The page as it lies in the guest's memory."""
        value = self.partition.reference_tsc
        data = memory.read(self.vcpu.mmu, value & PAGE_MASK, TSC_PAGE.size) if value & ENABLED else None
        return {} if data is None else {"gpa": value & PAGE_MASK, **decode_tsc_page(data)}
