"""Steal time: how long a vCPU could have run and did not, because others did (MSR_KVM_STEAL_TIME, kernel msr.rst)."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.hypervisor.paravirt.clock import odd_after
from belljar.soft.hypervisor.paravirt.cpuid import Feature
from belljar.soft.hypervisor.paravirt.part import ENABLED, U64, Part, Register
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

STEAL_TIME = Struct("<QIIB3x44x")
"""struct kvm_steal_time: steal, version, flags, preempted."""

STEAL_BYTES, VERSION_OFFSET, PREEMPTED_OFFSET = 8, 8, 16
PREEMPTED = 1
"""KVM_VCPU_PREEMPTED."""

RESERVED = 0x3E
"""The structure is aligned to 64 bytes; bit 0 switches it on."""


def decode_steal_time(data: bytes) -> dict[str, int]:
    """A kvm_steal_time by the names of its fields."""
    return dict(zip(("steal", "version", "flags", "preempted"), STEAL_TIME.unpack(data), strict=True))


class StealTime(Part):
    """The MSR, and the time stolen since it was switched on; idle time is not."""

    name = "steal_time"
    feature = Feature.STEAL_TIME

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        self.value = 0
        self._left_ns: int | None = None

    def msrs(self) -> Mapping[int, Register]:
        """One."""
        return {Msr.KVM_STEAL_TIME: Register(lambda: self.value, self._write)}

    @property
    def _gpa(self) -> int:
        return self.value & ~(RESERVED | ENABLED)

    def _now_ns(self) -> int:
        return self.vcpu.shared.now_ns(self.vcpu.processor.tsc)

    def _write(self, value: int) -> bool:
        if value & RESERVED:
            return False
        self.value = value
        self._left_ns = None
        if value & ENABLED:
            self._store(0)
            self.vcpu.interfaces.watch(self)
        return True

    def turn_begins(self) -> None:
        """What passed since the last turn was stolen, unless the vCPU slept."""
        left_ns, self._left_ns = self._left_ns, None
        if self.value & ENABLED:
            self._store(0 if left_ns is None else self._now_ns() - left_ns)

    def turn_ends(self, halted: bool) -> None:
        """If others may run now, say so to them."""
        self._left_ns = None if halted else self._now_ns()
        platform = self.vcpu.shared.platform
        if self.value & ENABLED and platform is not None and platform.cpus > 1:
            memory.write(self.vcpu.mmu, self._gpa + PREEMPTED_OFFSET, bytes([PREEMPTED]))

    def _store(self, stolen_ns: int) -> None:
        mmu, gpa = self.vcpu.mmu, self._gpa
        data = memory.read(mmu, gpa, STEAL_TIME.size)
        if data is None:
            return
        steal, version, _, preempted = STEAL_TIME.unpack(data)
        if preempted:
            memory.write(mmu, gpa + PREEMPTED_OFFSET, b"\0")
        if version and not stolen_ns:
            return
        version = odd_after(version)
        memory.write_u32(mmu, gpa + VERSION_OFFSET, version)
        memory.write(mmu, gpa, (steal + stolen_ns & U64).to_bytes(STEAL_BYTES, "little"))
        memory.write_u32(mmu, gpa + VERSION_OFFSET, version + 1)

    def decode(self) -> dict[str, Any]:
        """The structure as it lies in the guest's memory."""
        data = memory.read(self.vcpu.mmu, self._gpa, STEAL_TIME.size) if self.value & ENABLED else None
        return {} if data is None else {"gpa": self._gpa, **decode_steal_time(data)}

    def state(self) -> dict[str, Any]:
        """The MSR, and when the vCPU last stopped though it could have gone on."""
        return {"value": self.value, "left_ns": self._left_ns}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.value, self._left_ns = state["value"], state["left_ns"]
        if self.value & ENABLED:
            self.vcpu.interfaces.watch(self)
