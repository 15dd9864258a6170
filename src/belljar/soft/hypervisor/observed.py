"""A processor that tells somebody of every VM exit, CPUID and MSR access; it stands in a vCPU's place for the bare one.

A vCPU that nobody watches has its processor itself, so that watching costs nothing until it is asked for.
"""

from __future__ import annotations

from typing import Any, Protocol

from belljar.engine_data import FOREVER
from belljar.soft.hypervisor.answers import RAX, RBX, RCX, RDX
from belljar.soft.hypervisor.exit_words import exit_words
from belljar.soft.hypervisor.msrs import in_bitmap
from belljar.soft.hypervisor.reasons import Reason
from belljar.soft.processor._core import HostMemory, Processor
from belljar.soft.processor.fields import Field
from belljar.watching import ExitWatch

LOW32 = 0xFFFF_FFFF
FIRST_PAUSE = int(Reason.PAUSE_BUDGET)
PAUSE_BUDGET, PAUSE_LIMIT = int(Reason.PAUSE_BUDGET), int(Reason.PAUSE_LIMIT)
MSR_ACCESSES = (int(Reason.RDMSR), int(Reason.WRMSR))


class Owner(Protocol):
    """The vCPU, as far as this module knows it."""

    index: int
    shows_deliveries: bool


class ObservedProcessor:
    """Everything a `Processor` is, and a word to `watch` each time its guest exits.

    With `bitmap_hpa`, a page of ones, RDMSR and WRMSR of MSRs that are the guest's own are seen too: they exit, and are
    then carried out by the processor with the vCPU's own bitmap. What CPUID and MSR accesses answered is told when the guest
    goes on, or when the run ends.
    """

    def __init__(
        self, inner: Processor, vcpu: Owner, memory: HostMemory, watch: ExitWatch, bitmap_hpa: int | None
    ) -> None:
        own = self.__dict__
        own["inner"] = inner
        own["owner"] = vcpu
        own["vcpu"] = vcpu.index
        own["memory"] = memory
        own["watch"] = watch
        own["bitmap_hpa"] = bitmap_hpa
        own["own_bitmap_hpa"] = inner.vmread(Field.MSR_BITMAP)
        own["pending"] = None
        own["faulted"] = False
        if bitmap_hpa is not None:
            inner.vmwrite(Field.MSR_BITMAP, bitmap_hpa)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.inner, name, value)

    def enter(self, budget: int) -> int:
        """As `Processor.enter`."""
        self.settle()
        end = self.inner.spent + budget
        return self._seen(self.inner.enter(budget), end, FOREVER)

    def enter_exactly(self, budget: int, until_ns: int = FOREVER, *devices: object) -> int:
        """As `Processor.enter_exactly`, but with every exit: no access to `devices` is carried out here."""
        self.settle()
        reason: int = self.inner.enter_exactly(budget, until_ns)
        end = self.inner.spent_before + budget
        reason = self._seen(reason, end, until_ns)
        return PAUSE_LIMIT if reason == PAUSE_BUDGET and self.inner.left(end, until_ns) <= 0 else reason

    def emulate(self, *arguments: Any) -> int:
        """As `Processor.emulate`."""
        self.settle()
        return self._seen(self.inner.emulate(*arguments), self.inner.spent, FOREVER)

    def _seen(self, reason: int, end: int, until_ns: int) -> int:
        """Tell of an exit; MSR accesses that exited only for the watch's sake go on."""
        inner = self.inner
        while reason in MSR_ACCESSES and self._is_the_guests_own(inner.get_gpr(RCX) & LOW32, reason):
            reason = self._carry_out(reason)
            if reason != PAUSE_BUDGET:
                break
            left = inner.left(end, until_ns)
            if left <= 0 or (self.owner.shows_deliveries and self.faulted):
                return PAUSE_BUDGET
            reason = inner.enter(left)
        if reason < FIRST_PAUSE:
            self._tell(reason)
        return reason

    def _is_the_guests_own(self, msr: int, reason: int) -> bool:
        if self.bitmap_hpa is None:
            return False
        page = self.memory.read(self.own_bitmap_hpa, 4096)
        return not in_bitmap(page, msr, write=reason == Reason.WRMSR)

    def _carry_out(self, reason: int) -> int:
        inner: Processor = self.inner
        msr, write = inner.get_gpr(RCX) & LOW32, reason == Reason.WRMSR
        written = self._written()
        before = inner.retired
        inner.vmwrite(Field.MSR_BITMAP, self.own_bitmap_hpa)
        inner.stop_on_delivery(True)
        reason = inner.enter(1)
        inner.stop_on_delivery(self.owner.shows_deliveries)
        inner.vmwrite(Field.MSR_BITMAP, self.bitmap_hpa)
        if reason == PAUSE_BUDGET:  # else something else came before it, and it will come again
            self.__dict__["faulted"] = inner.retired == before
            self.watch.msr(self.vcpu, msr, write, written if write else self._written(), not self.faulted)
        return reason

    def _written(self) -> int:
        inner: Processor = self.inner
        return (inner.get_gpr(RDX) & LOW32) << 32 | inner.get_gpr(RAX) & LOW32

    def _tell(self, reason: int) -> None:
        inner = self.inner
        rip = inner.vmread(Field.GUEST_RIP)
        self.watch.vm_exit(self.vcpu, rip, *exit_words(inner, reason))
        if reason == Reason.CPUID or reason in MSR_ACCESSES:
            self.__dict__["pending"] = (
                reason,
                rip,
                inner.get_gpr(RAX) & LOW32,
                inner.get_gpr(RCX) & LOW32,
                self._written(),
            )

    def settle(self) -> None:
        """Tell what the last CPUID or MSR access was answered, if that is still to be told."""
        if self.pending is None:
            return
        reason, rip, leaf, index, written = self.pending
        self.__dict__["pending"] = None
        inner = self.inner
        if reason == Reason.CPUID:
            answer = tuple(inner.get_gpr(register) & LOW32 for register in (RAX, RBX, RCX, RDX))
            self.watch.cpuid(self.vcpu, leaf, index, answer)
            return
        done = inner.vmread(Field.GUEST_RIP) != rip
        write = reason == Reason.WRMSR
        self.watch.msr(self.vcpu, index, write, written if write else self._written(), done)
