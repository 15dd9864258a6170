"""What an engine's guests see of the processor: the supported CPUID, each vCPU's own APIC id in it."""

from __future__ import annotations

from struct import pack_into, unpack_from

from belljar.kvm.abi.structs import kvm_cpuid2, kvm_cpuid_entry2

LEAF_FEATURES = 1
"""EBX[31:24] is the initial APIC id (SDM 2A, CPUID)."""

LEAVES_TOPOLOGY = (0xB, 0x1F)
"""EDX is the x2APIC id (SDM 2A, CPUID)."""

LEAF_EXTENDED_FEATURES = 0x8000_0001
EDX_PAGE_1G = 1 << 26
EDX_LONG_MODE = 1 << 29
LEAF_STRUCTURED_FEATURES = 7
ECX_LA57 = 1 << 16

EBX_OFFSET, EDX_OFFSET = 16, 24
"""Where EBX and EDX lie in `struct kvm_cpuid_entry2`."""


class CpuModel:
    """The CPUID table that new vCPUs get."""

    def __init__(self, entries: list[kvm_cpuid_entry2]) -> None:
        """`entries` as KVM_GET_SUPPORTED_CPUID gave them; they name the host CPU that was asked, which no guest is."""
        tail = b"".join(bytes(entry) for entry in entries)
        self._table = bytearray(bytes(kvm_cpuid2(nent=len(entries))) + tail)
        self._apic_id_offsets: list[int] = []
        self._x2apic_id_offsets: list[int] = []
        self._features: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        for number in range(len(entries)):
            at = kvm_cpuid2.size + number * kvm_cpuid_entry2.size
            function, index, _, eax, ebx, ecx, edx = unpack_from("<7I", self._table, at)
            self._features[function, index] = (eax, ebx, ecx, edx)
            if function == LEAF_FEATURES:
                self._apic_id_offsets.append(at + EBX_OFFSET + 3)
            elif function in LEAVES_TOPOLOGY:
                self._x2apic_id_offsets.append(at + EDX_OFFSET)

    def table_for(self, apic_id: int) -> bytearray:
        """The argument of KVM_SET_CPUID2 for one vCPU; used up before the next call."""
        for offset in self._apic_id_offsets:
            self._table[offset] = apic_id & 0xFF
        for offset in self._x2apic_id_offsets:
            pack_into("<I", self._table, offset, apic_id)
        return self._table

    def leaf(self, function: int, index: int = 0) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of a leaf; zeros where there is none."""
        return self._features.get((function, index), (0, 0, 0, 0))

    @property
    def has_1g_pages(self) -> bool:
        """Whether guests may map pages of 1 GiB."""
        return bool(self.leaf(LEAF_EXTENDED_FEATURES)[3] & EDX_PAGE_1G)

    @property
    def has_long_mode(self) -> bool:
        """Whether guests may enter long mode."""
        return bool(self.leaf(LEAF_EXTENDED_FEATURES)[3] & EDX_LONG_MODE)

    @property
    def has_la57(self) -> bool:
        """Whether guests may have five levels of page tables."""
        return bool(self.leaf(LEAF_STRUCTURED_FEATURES)[2] & ECX_LA57)
