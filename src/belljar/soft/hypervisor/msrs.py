"""MSRs from the host's side: some live in the VMCS, the rest in the processor (SDM 3C 25.4)."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from itertools import chain

from belljar.engine_data import MACHINE_CHECK_BANKS
from belljar.soft.processor._core import Processor
from belljar.soft.processor.fields import Field
from belljar.x86.msr import Msr

IN_VMCS: dict[int, Field] = {
    Msr.IA32_SYSENTER_CS: Field.GUEST_SYSENTER_CS,
    Msr.IA32_SYSENTER_ESP: Field.GUEST_SYSENTER_ESP,
    Msr.IA32_SYSENTER_EIP: Field.GUEST_SYSENTER_EIP,
    Msr.IA32_EFER: Field.GUEST_EFER,
    Msr.IA32_PAT: Field.GUEST_PAT,
    Msr.IA32_DEBUGCTL: Field.GUEST_DEBUGCTL,
    Msr.IA32_FS_BASE: Field.GUEST_FS_BASE,
    Msr.IA32_GS_BASE: Field.GUEST_GS_BASE,
}

ADDRESSES = {Msr.IA32_SYSENTER_ESP, Msr.IA32_SYSENTER_EIP, Msr.IA32_FS_BASE, Msr.IA32_GS_BASE}
"""Those that hold a canonical address."""

EFER_BITS = 0xD01
"""SCE, LME, LMA, NXE (SDM 3A 2.2.1)."""

DEBUGCTL_BITS = 0
"""Of IA32_DEBUGCTL (SDM 4 table 2-2) the processor has nothing: no branch records, no single-stepping on branches."""

PAT_TYPES = frozenset((0, 1, 4, 5, 6, 7))
"""SDM 3A 12.12.2."""

BITMAP_RANGES = ((0, 0), (0xC000_0000, 1024))
"""First MSR, and where the bits for reading 8,192 of them begin in the bitmap page; writing is 2,048 behind (SDM 3C 25.6.9)."""

BITMAP_MSRS = 8192
BITMAP_WRITES = 2048

CANONICAL_57 = range(-(1 << 56), 1 << 56)


MACHINE_CHECK_MSRS = (
    range(Msr.IA32_MCG_CAP, Msr.IA32_MCG_CTL + 1),
    range(Msr.IA32_MC0_CTL2, Msr.IA32_MC0_CTL2 + MACHINE_CHECK_BANKS),
    range(Msr.IA32_MC0_CTL, Msr.IA32_MC0_CTL + 4 * MACHINE_CHECK_BANKS),
)
"""Those of machine checks, which the hypervisor keeps (`machine_checks.py`)."""

_MACHINE_CHECK = frozenset(chain(*MACHINE_CHECK_MSRS))


def is_machine_check(index: int) -> bool:
    """Whether an MSR belongs to machine checks."""
    return index in _MACHINE_CHECK


HYPERVISORS_OWN = (Msr.IA32_TSC_ADJUST, Msr.KVM_WALL_CLOCK, Msr.KVM_SYSTEM_TIME)
"""MSRs in the bitmap's ranges that exit in every VM, as do writes to IA32_TIME_STAMP_COUNTER: the hypervisor knows them."""

_IN_BITMAP = frozenset(map(int, (*HYPERVISORS_OWN, Msr.IA32_TIME_STAMP_COUNTER)))
_OWN_HUNDREDS = frozenset((0x40_0000, 0x40_0001, 0x4B_564D))
"""Numbers, less their last byte, that Hyper-V's interface (TLFS, appendix on synthetic MSRs) and KVM's (kernel msr.rst)
have for themselves."""


def is_own(index: int) -> bool:
    """Whether an MSR would be the hypervisor's, if it exists."""
    return index >> 8 in _OWN_HUNDREDS or index in _IN_BITMAP


def own_bitmap() -> bytearray:
    """An MSR bitmap page that makes those exit which the hypervisor itself knows."""
    page = bytearray(4096)
    for msr in chain(HYPERVISORS_OWN, *MACHINE_CHECK_MSRS):
        page[msr // 8] |= 1 << msr % 8
        page[BITMAP_WRITES + msr // 8] |= 1 << msr % 8
    page[BITMAP_WRITES + Msr.IA32_TIME_STAMP_COUNTER // 8] |= 1 << Msr.IA32_TIME_STAMP_COUNTER % 8
    return page


def bitmap_of_unknown(processor: Processor, others: Collection[int] = ()) -> bytes:
    """The same with every MSR that the processor does not have, and `others`."""
    page = own_bitmap()
    for first, offset in BITMAP_RANGES:
        for number in range(BITMAP_MSRS):
            if first + number in others or read_msr(processor, first + number) is None:
                page[offset + number // 8] |= 1 << number % 8
                page[offset + BITMAP_WRITES + number // 8] |= 1 << number % 8
    return bytes(page)


def in_bitmap(page: bytes, index: int, *, write: bool) -> bool:
    """Whether an MSR bitmap page makes an access exit; MSRs outside of its ranges always do (SDM 3C 25.6.9)."""
    for first, offset in BITMAP_RANGES:
        bit = index - first
        if 0 <= bit < BITMAP_MSRS:
            return bool(page[offset + BITMAP_WRITES * write + bit // 8] >> bit % 8 & 1)
    return True


@cache
def bitmap_of(msrs: frozenset[int]) -> bytes:
    """An MSR bitmap page that makes accesses to `msrs` exit, too, as do all that have no bits there."""
    page = own_bitmap()
    for first, offset in BITMAP_RANGES:
        for number in (msr - first for msr in msrs if first <= msr < first + BITMAP_MSRS):
            page[offset + number // 8] |= 1 << number % 8
            page[offset + BITMAP_WRITES + number // 8] |= 1 << number % 8
    return bytes(page)


def read_msr(processor: Processor, index: int) -> int | None:
    """An MSR's value; None if there is no such MSR."""
    field = IN_VMCS.get(index)
    if field is not None:
        return processor.vmread(field)
    return processor.rdmsr(index) if 0 <= index < 1 << 32 else None


def write_msr(processor: Processor, index: int, value: int) -> bool:
    """Write an MSR; False if the processor refuses the number or the value."""
    field = IN_VMCS.get(index)
    if field is None:
        return processor.wrmsr(index, value)
    if not _possible(index, value):
        return False
    processor.vmwrite(field, value)
    return True


def _possible(index: int, value: int) -> bool:
    if index in ADDRESSES:
        return (value - (1 << 64) if value >> 63 else value) in CANONICAL_57
    if index == Msr.IA32_EFER:
        return not value & ~EFER_BITS
    if index == Msr.IA32_PAT:
        return all(byte in PAT_TYPES for byte in value.to_bytes(8, "little"))
    return index != Msr.IA32_DEBUGCTL or not value & ~DEBUGCTL_BITS
