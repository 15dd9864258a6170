"""Which accesses of guests to MSRs KVM hands over though it knows these MSRs: filtered ones (api.rst 4.97).

Some are the machine's to answer (`hand_over`), others only to be seen (`watch`). What is only seen is carried
out through KVM_GET_MSRS and KVM_SET_MSRS. To KVM these are the host's doing, which may do more than the guest: so only such
MSRs are watched with which both are the same, or whose rules for guests are known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from belljar.exits import Exit, ExitReason
from belljar.kvm.abi.run import (
    KVM_MSR_EXIT_REASON_FILTER,
    KVM_MSR_EXIT_REASON_INVAL,
    KVM_MSR_EXIT_REASON_UNKNOWN,
)
from belljar.kvm.msrs import MsrFilter, MsrRange
from belljar.x86.msr import APIC_BASE_ENABLED, APIC_BASE_X2APIC, Msr

if TYPE_CHECKING:
    from collections.abc import Callable

    from belljar.kvm.cpu_model import CpuModel
    from belljar.kvm.engine import KvmVm
    from belljar.kvm.engine_vcpu import KvmVcpu
    from belljar.watching import ExitWatch

ALL_REASONS = KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER

MCG_CTL_P = 1 << 8
"""IA32_MCG_CAP: there is IA32_MCG_CTL (SDM 3B 16.3.1.1)."""

_BANK_REGISTERS = 4
_STATUS = 1

UNSEEN = (
    "not seen is what KVM does by itself: x2APIC registers, writes to IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST, "
    "IA32_MISC_ENABLE and IA32_MCi_STATUS, debugging and performance monitoring, speculation controls, VMX and SVM, Hyper-V"
)
"""x2APIC registers cannot be filtered (api.rst 4.97); with the others, KVM tells guests and hosts apart."""

ONLY_REFUSED = "kvm answers those that it knows without telling anybody; only the others are seen"
"""Without a filter (KVM_CAP_X86_MSR_FILTER, Linux 5.10)."""

UNSEEN_DEADLINE = "; on this host also writes to IA32_TSC_DEADLINE"
"""With VMX, KVM may take these before it looks at its filter (`handle_fastpath_set_msr_irqoff`, arch/x86/kvm/x86.c)."""

_PLAIN = (
    Msr.IA32_SYSENTER_CS, Msr.IA32_SYSENTER_ESP, Msr.IA32_SYSENTER_EIP, Msr.IA32_MCG_STATUS, Msr.IA32_MTRR_DEF_TYPE,
    Msr.IA32_PAT, Msr.IA32_TSC_DEADLINE, Msr.IA32_APIC_BASE, Msr.IA32_MTRR_FIX64K_00000, Msr.IA32_MTRR_FIX16K_80000,
    Msr.IA32_MTRR_FIX16K_A0000, *range(Msr.IA32_MTRR_FIX4K_C0000, Msr.IA32_MTRR_FIX4K_F8000 + 1),
    *range(Msr.IA32_MTRR_PHYSBASE0, Msr.IA32_MTRR_PHYSMASK7 + 1),
    *range(Msr.KVM_WALL_CLOCK_NEW, Msr.KVM_ASYNC_PF_ACK + 1),
    Msr.IA32_EFER, Msr.IA32_STAR, Msr.IA32_LSTAR, Msr.IA32_CSTAR, Msr.IA32_FMASK,
    Msr.IA32_FS_BASE, Msr.IA32_GS_BASE, Msr.IA32_KERNEL_GS_BASE,
)  # fmt: skip
"""Read and written."""

_READ_ONLY = (
    Msr.IA32_TIME_STAMP_COUNTER, Msr.IA32_TSC_ADJUST, Msr.IA32_BIOS_SIGN_ID, Msr.IA32_MTRRCAP, Msr.IA32_MCG_CAP,
    Msr.IA32_MISC_ENABLE,
)  # fmt: skip
"""Of these only reads."""

_BLOCKS = (range(0x300), range(0x400, 0x480), range(0x6E0, 0x6E1), range(0x4B56_4D00, 0x4B56_4D10),
           range(0xC000_0080, 0xC000_0088), range(0xC000_0100, 0xC000_0108))  # fmt: skip
"""A filter is about at most 16 stretches of MSRs, and each direction here takes one."""

EFER_LME, EFER_LMA = 1 << 8, 1 << 10
CR0_PG = 1 << 31

_EFER_NEEDS = (
    (EFER_LME | EFER_LMA, 0x8000_0001, 3, 29),
    (1 << 11, 0x8000_0001, 3, 20),
    (1 << 12, 0x8000_0001, 2, 2),
    (1 << 14, 0x8000_0001, 3, 25),
    (1 << 21, 0x8000_0021, 0, 8),
)
"""Bits of IA32_EFER, and leaf, register (EAX to EDX) and bit of CPUID without which a guest may not set them: LME and LMA,
NXE, SVME, FFXSR, AIBRSE (AMD APM 2 3.1.7; SDM 2A CPUID)."""


class MsrTraffic:
    """The MSR filter of one VM. Raises CapabilityMissing or KvmCallFailed where the host's KVM has none."""

    def __init__(self, vm: KvmVm) -> None:
        self._vm = vm
        self._handed_over: frozenset[int] = frozenset()
        self._watched_reads: frozenset[int] = frozenset()
        self._watched_writes: frozenset[int] = frozenset()
        self._watch: ExitWatch | None = None

    def hand_over(self, *msrs: Msr) -> None:
        """Accesses to these MSRs end runs, for whoever runs the vCPUs to answer."""
        self._handed_over = frozenset(map(int, msrs))
        self._filter()

    def watch(self, watch: ExitWatch) -> None:
        """Tell `watch` of accesses to all that can be carried out for the guest."""
        model = self._vm.cpu_model_with_hyperv or self._vm.engine.cpu_model
        self._watched_writes = frozenset(int(msr) for msr in watched(model, self._vm.engine.mcg_cap))
        self._watched_reads = self._watched_writes | frozenset(map(int, _READ_ONLY)) | self._statuses()
        self._watch = watch
        self._filter()

    def _statuses(self) -> frozenset[int]:
        banks = self._vm.engine.mcg_cap & 0xFF
        return frozenset(Msr.IA32_MC0_CTL + _BANK_REGISTERS * bank + _STATUS for bank in range(banks))

    def _filter(self) -> None:
        ranges = []
        for reads, wanted in ((True, self._watched_reads), (False, self._watched_writes)):
            exits = wanted | self._handed_over
            for block in _BLOCKS:
                allowed = [msr for msr in block if msr not in exits]
                if len(allowed) < len(block):
                    ranges.append(MsrRange(block.start, len(block), allowed, reads=reads, writes=not reads))
        self._vm.raw.exit_on_msr(ALL_REASONS)
        self._vm.raw.set_msr_filter(MsrFilter(ranges))

    def serve(self, vcpu: KvmVcpu, reason: ExitReason, observer: Callable[[Exit], None] | None) -> bool:
        """After an exit of RDMSR or WRMSR: carry out what is only watched; False if others have to answer it."""
        told = vcpu.raw.page.exit.msr
        msr, write = told.index, reason is ExitReason.WRMSR
        watch = self._watch
        if watch is None or told.reason != KVM_MSR_EXIT_REASON_FILTER or msr in self._handed_over:
            return False
        value = told.data if write else vcpu.raw.get_msrs([msr]).get(msr)
        if value is None or (write and not self._write(vcpu, msr, value)):
            told.reason = KVM_MSR_EXIT_REASON_INVAL  # as it would be without a filter
            return False
        exit = None if observer is None else vcpu.last_exit()
        vcpu.answer(value)
        watch.msr(vcpu.index, msr, write, value, True)
        if observer is not None and exit is not None:
            observer(exit)
        return True

    def _write(self, vcpu: KvmVcpu, msr: int, value: int) -> bool:
        """KVM_SET_MSRS, if KVM would take it from the guest, too."""
        raw = vcpu.raw
        if msr == Msr.IA32_APIC_BASE and not may_move_apic(raw.get_msrs([msr])[msr], value):
            return False
        if msr == Msr.IA32_EFER:
            model = self._vm.cpu_model_with_hyperv or self._vm.engine.cpu_model
            sregs = raw.get_sregs()
            if not may_set_efer(model, sregs.efer, value, paging=bool(sregs.cr0 & CR0_PG)):
                return False
        return raw.set_msrs({msr: value}) is None


def watched(model: CpuModel, mcg_cap: int) -> list[int]:
    """What is watched in both directions with a processor of this model and these machine checks."""
    found = [int(msr) for msr in _PLAIN]
    if mcg_cap & MCG_CTL_P:
        found.append(Msr.IA32_MCG_CTL)
    for bank in range(mcg_cap & 0xFF):
        first = Msr.IA32_MC0_CTL + _BANK_REGISTERS * bank
        found += [first + register for register in range(_BANK_REGISTERS) if register != _STATUS]
    if model.leaf(0x8000_0001)[3] >> 27 & 1 or model.leaf(7)[2] >> 22 & 1:  # RDTSCP, RDPID
        found.append(Msr.IA32_TSC_AUX)
    return found


def may_move_apic(before: int, after: int) -> bool:
    """Which changes of a local APIC's mode a guest may make, of those that KVM takes from a host (SDM 3A figure 11-27)."""
    if before & APIC_BASE_X2APIC:
        return bool(after & APIC_BASE_X2APIC) or not after & APIC_BASE_ENABLED
    return bool(before & APIC_BASE_ENABLED) or not after & APIC_BASE_X2APIC


def may_set_efer(model: CpuModel, before: int, after: int, *, paging: bool) -> bool:
    """Whether a guest may write this to IA32_EFER: bits that its CPUID has, and LME not while paging is on (SDM 3A 4.1.2)."""
    if paging and (before ^ after) & EFER_LME:
        return False
    return not any(
        after & bits and not model.leaf(leaf)[register] >> bit & 1 for bits, leaf, register, bit in _EFER_NEEDS
    )
