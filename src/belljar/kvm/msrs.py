"""Model-specific registers: the tables of KVM_GET_MSRS and KVM_SET_MSRS, and filters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

from belljar.errors import ConfigurationError
from belljar.kvm import _calls
from belljar.kvm.abi.flags import (
    KVM_MSR_FILTER_DEFAULT_ALLOW,
    KVM_MSR_FILTER_DEFAULT_DENY,
    KVM_MSR_FILTER_MAX_BITMAP_SIZE,
    KVM_MSR_FILTER_MAX_RANGES,
    KVM_MSR_FILTER_READ,
    KVM_MSR_FILTER_WRITE,
)
from belljar.kvm.abi.structs import kvm_msr_filter
from belljar.records import dataclass

_HEAD = Struct("<II")  # struct kvm_msrs
_ENTRY = Struct("<IIQ")  # struct kvm_msr_entry


def msr_table(entries: Sequence[tuple[int, int]]) -> bytearray:
    """A `struct kvm_msrs` with its entries, from (index, value) pairs."""
    table = bytearray(_HEAD.size + len(entries) * _ENTRY.size)
    _HEAD.pack_into(table, 0, len(entries), 0)
    for number, (index, value) in enumerate(entries):
        _ENTRY.pack_into(table, _HEAD.size + number * _ENTRY.size, index, 0, value)
    return table


def msr_entries(table: bytes | bytearray, count: int) -> list[tuple[int, int]]:
    """The first `count` (index, value) pairs of a `struct kvm_msrs`."""
    return [
        (index, value) for index, _, value in _ENTRY.iter_unpack(table[_HEAD.size : _HEAD.size + count * _ENTRY.size])
    ]


@dataclass(frozen=True, slots=True)
class MsrRange:
    """`size` MSRs from `base`, of which those in `allowed` may be touched; the others give #GP, or an exit.

    The exit needs KVM_CAP_X86_USER_SPACE_MSR with KVM_MSR_EXIT_REASON_FILTER (`Vm.exit_on_msr`).
    """

    base: int
    size: int
    allowed: Iterable[int] = ()
    reads: bool = True
    writes: bool = True


class MsrFilter:
    """The argument of KVM_X86_SET_MSR_FILTER (api.rst 4.97) and the bitmaps it points to, which live as long as it does."""

    def __init__(self, ranges: Sequence[MsrRange], *, default_deny: bool = False) -> None:
        """Raises ConfigurationError for more than 16 ranges, or one of more than 12,288 MSRs or without a direction."""
        if len(ranges) > KVM_MSR_FILTER_MAX_RANGES:
            raise ConfigurationError(f"an MSR filter has at most {KVM_MSR_FILTER_MAX_RANGES} ranges, not {len(ranges)}")
        self.structure = kvm_msr_filter(
            flags=KVM_MSR_FILTER_DEFAULT_DENY if default_deny else KVM_MSR_FILTER_DEFAULT_ALLOW
        )
        self._bitmaps = []
        for slot, wanted in zip(self.structure.ranges, ranges, strict=False):
            bitmap = _bitmap(wanted)
            self._bitmaps.append(bitmap)
            slot.flags = KVM_MSR_FILTER_READ * wanted.reads | KVM_MSR_FILTER_WRITE * wanted.writes
            slot.base = wanted.base
            slot.nmsrs = wanted.size
            slot.bitmap = _calls.address_of(bitmap)


def _bitmap(wanted: MsrRange) -> bytearray:
    if not 0 < wanted.size <= KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8:
        raise ConfigurationError(
            f"an MSR range holds 1 to {KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8} MSRs, not {wanted.size}"
        )
    if not (wanted.reads or wanted.writes):
        raise ConfigurationError(f"the MSR range at {wanted.base:#x} is about neither reads nor writes")
    bitmap = bytearray(-(-wanted.size // 64) * 8)  # the kernel reads whole longs
    for index in wanted.allowed:
        bit = index - wanted.base
        if not 0 <= bit < wanted.size:
            raise ConfigurationError(f"MSR {index:#x} is not in the range of {wanted.size} at {wanted.base:#x}")
        bitmap[bit // 8] |= 1 << bit % 8
    return bitmap
