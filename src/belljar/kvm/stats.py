"""Binary statistics: what KVM has counted about a VM or a vCPU (KVM_GET_STATS_FD, api.rst 4.133)."""

from __future__ import annotations

import os

from belljar.errors import KvmCallFailed
from belljar.kvm._descriptor import Descriptor
from belljar.kvm.abi.flags import (
    KVM_STATS_BASE_MASK,
    KVM_STATS_BASE_POW2,
    KVM_STATS_TYPE_MASK,
    KVM_STATS_UNIT_MASK,
    KVM_STATS_UNIT_SHIFT,
)
from belljar.kvm.abi.structs import kvm_stats_desc, kvm_stats_header
from belljar.records import dataclass

KINDS = ("cumulative", "instant", "peak", "linear histogram", "logarithmic histogram")
UNITS = ("", "bytes", "seconds", "cycles", "boolean")


@dataclass(frozen=True, slots=True)
class Statistic:
    """What one statistic is. Its values, times `scale`, are in `unit`; a histogram has `buckets` of `bucket_size`."""

    name: str
    kind: str
    unit: str
    scale: float
    buckets: int
    bucket_size: int
    offset: int


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else f"kind {number}"


def _describe(descriptor: kvm_stats_desc, name: bytes) -> Statistic:
    flags = descriptor.flags
    exponent = int.from_bytes(descriptor.exponent_u16.to_bytes(2, "little"), "little", signed=True)
    base = 2.0 if flags & KVM_STATS_BASE_MASK == KVM_STATS_BASE_POW2 else 10.0
    return Statistic(
        name.split(b"\0", 1)[0].decode("ascii", "replace"),
        _named(KINDS, flags & KVM_STATS_TYPE_MASK),
        _named(UNITS, (flags & KVM_STATS_UNIT_MASK) >> KVM_STATS_UNIT_SHIFT),
        base**exponent,
        descriptor.count,
        descriptor.bucket_size,
        descriptor.offset,
    )


class Statistics(Descriptor):
    """The statistics file of a VM or a vCPU; a descriptor of its own that keeps neither open."""

    what = "this statistics file"

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._header = kvm_stats_header.from_bytes(self._read(kvm_stats_header.size, 0))
        self.id = (
            self._read(self._header.name_size, self._header.id_offset).split(b"\0", 1)[0].decode("ascii", "replace")
        )
        self.statistics = self._read_descriptors()
        """Every statistic, in the kernel's order."""

    def _read(self, size: int, offset: int) -> bytes:
        """pread(2) until `size` bytes are there. Raises KvmCallFailed."""
        data = b""
        while len(data) < size:
            try:
                more = os.pread(self.fd, size - len(data), offset + len(data))
            except OSError as error:
                raise KvmCallFailed("pread of KVM's statistics", error.errno or 0) from None
            if not more:
                raise KvmCallFailed("pread of KVM's statistics", 5)
            data += more
        return data

    def _read_descriptors(self) -> list[Statistic]:
        header = self._header
        stride = kvm_stats_desc.size + header.name_size
        block = self._read(stride * header.num_desc, header.desc_offset)
        found = []
        for start in range(0, len(block), stride):
            descriptor = kvm_stats_desc.from_bytes(block[start : start + stride])
            found.append(_describe(descriptor, bytes(descriptor.tail)))
        return found

    def read(self) -> dict[str, tuple[int, ...]]:
        """The values now, by name: one number each, or as many as a histogram has buckets."""
        end = max((each.offset + 8 * each.buckets for each in self.statistics), default=0)
        block = self._read(end, self._header.data_offset)
        return {
            each.name: tuple(memoryview(block)[each.offset : each.offset + 8 * each.buckets].cast("Q"))
            for each in self.statistics
        }
