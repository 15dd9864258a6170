"""What an engine's guests see of the processor: the supported CPUID, each vCPU's own APIC id in it."""

from __future__ import annotations

from collections.abc import Sequence
from struct import iter_unpack, pack_into, unpack_from

from belljar.errors import ConfigurationError, FeatureUnsupported
from belljar.kvm.abi.structs import kvm_cpuid2, kvm_cpuid_entry2

LEAF_FEATURES = 1
"""EBX[31:24] is the initial APIC id (SDM 2A, CPUID)."""

LEAVES_TOPOLOGY = (0xB, 0x1F)
"""EDX is the x2APIC id (SDM 2A, CPUID)."""

LEAF_EXTENDED_FEATURES = 0x8000_0001
EDX_NX = 1 << 20
EDX_PAGE_1G = 1 << 26

ECX_BYTE_3 = 4
"""From the highest byte of EBX to that of ECX."""

TSC_DEADLINE = "tsc_deadline_timer"

ECX_TSC_DEADLINE_BYTE_3 = 1 << 24 - 24
"""CPUID.1:ECX[24] (SDM 2A, CPUID), within its highest byte."""

EAX_OFFSET, EBX_OFFSET, EDX_OFFSET = 12, 16, 24
"""Where EAX, EBX and EDX lie in `struct kvm_cpuid_entry2`."""


class CpuModel:
    """The CPUID table that new vCPUs get."""

    def __init__(self, table: bytes, *, no_deadlines: bool = False) -> None:
        """`table` as KVM_GET_SUPPORTED_CPUID gave it: a kvm_cpuid2; it names the host CPU that was asked, which no guest is.

        `no_deadlines`: nobody is to have a TSC deadline timer.
        """
        self._table = table
        self.no_deadlines = no_deadlines
        self._apic_id_offsets: list[int] = []
        self._x2apic_id_offsets: list[int] = []
        self._features: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        at = kvm_cpuid2.size
        for function, index, _, *values in iter_unpack("<7I12x", memoryview(self._table)[at:]):
            eax, ebx, ecx, edx = values
            self._features[function, index] = eax, ebx, ecx, edx
            if function == LEAF_FEATURES:
                self._apic_id_offsets.append(at + EBX_OFFSET + 3)
            elif function in LEAVES_TOPOLOGY:
                self._x2apic_id_offsets.append(at + EDX_OFFSET)
            at += kvm_cpuid_entry2.size

    def without(self, names: Sequence[str]) -> CpuModel:
        """The same without the bits of some features. Raises FeatureUnsupported for a name that CPUID has no bit for."""
        from belljar.x86.cpuid import REGISTERS, feature  # hundreds of names that few machines need

        table = bytearray(self._table)
        cleared: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for name in names:
            try:
                bit = feature(name)
            except ConfigurationError:
                raise FeatureUnsupported(f"KVM cannot take {name} away: CPUID has no bit of its own for it") from None
            register = EAX_OFFSET + 4 * REGISTERS.index(bit.register)
            cleared.setdefault((bit.leaf, bit.subleaf), []).append((register, ~(1 << bit.bit)))
        for at in range(kvm_cpuid2.size, len(table), kvm_cpuid_entry2.size):
            leaf: tuple[int, int] = unpack_from("<2I", table, at)
            for offset, mask in cleared.get(leaf, ()):
                (value,) = unpack_from("<I", table, at + offset)
                pack_into("<I", table, at + offset, value & mask)
        return CpuModel(bytes(table), no_deadlines=self.no_deadlines or TSC_DEADLINE in names)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features that guests see, sorted."""
        from belljar.x86.cpuid import feature_names  # as above

        return tuple(sorted(name for leaf, values in self._features.items() for name in feature_names(*leaf, values)))

    @property
    def has_no_execute(self) -> bool:
        """Whether guests may set EFER.NXE."""
        return bool(self.leaf(LEAF_EXTENDED_FEATURES)[3] & EDX_NX)

    def table_for(self, apic_id: int, *, tsc_deadline: bool = False) -> bytearray:
        """The argument of KVM_SET_CPUID2 for one vCPU.

        The TSC deadline timer is part of the kernel's local APIC, whatever KVM says it supports (api.rst 4.46).
        """
        table = bytearray(self._table)
        for offset in self._apic_id_offsets:
            if tsc_deadline and not self.no_deadlines:
                table[offset + ECX_BYTE_3] |= ECX_TSC_DEADLINE_BYTE_3
            else:
                table[offset + ECX_BYTE_3] &= ~ECX_TSC_DEADLINE_BYTE_3
        for offset in self._apic_id_offsets:
            table[offset] = apic_id & 0xFF
        for offset in self._x2apic_id_offsets:
            pack_into("<I", table, offset, apic_id)
        return table

    @property
    def table(self) -> bytes:
        """As it was given."""
        return self._table

    def leaf(self, function: int, index: int = 0) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of a leaf; zeros where there is none."""
        return self._features.get((function, index), (0, 0, 0, 0))

    @property
    def has_1g_pages(self) -> bool:
        """Whether guests may map pages of 1 GiB."""
        return bool(self.leaf(LEAF_EXTENDED_FEATURES)[3] & EDX_PAGE_1G)
