"""The guest says what it is, and gets a page with the instructions that call the hypervisor (TLFS 2.6, 3.13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from belljar.soft.hypervisor.hyperv.part import PAGE_MASK, HypervPart
from belljar.soft.hypervisor.paravirt import memory
from belljar.soft.hypervisor.paravirt.part import ENABLED, Register
from belljar.x86.msr import Msr

CALL = bytes.fromhex("0f01c1 c3")
"""vmcall; ret."""


class HypercallPage(HypervPart):
    """HV_X64_MSR_GUEST_OS_ID and HV_X64_MSR_HYPERCALL, which are the partition's.

    As in KVM, the page is the guest's own memory, into which the instructions are written, not one laid over it.
    """

    name = "hyperv_hypercall_page"

    def msrs(self) -> Mapping[int, Register]:
        """Two."""
        return {
            Msr.HV_GUEST_OS_ID: Register(lambda: self.partition.guest_os_id, self._write_os),
            Msr.HV_HYPERCALL: Register(lambda: self.partition.hypercall, self._write_page),
        }

    def _write_os(self, value: int) -> bool:
        self.partition.guest_os_id = value
        if not value:
            self.partition.hypercall &= ~ENABLED
        return True

    def _write_page(self, value: int) -> bool:
        if not self.partition.takes_hypercalls:
            return True  # ignored until the guest has said what it is (TLFS 3.13)
        if value & ENABLED and not memory.write(self.vcpu.mmu, value & PAGE_MASK, CALL):
            return False
        self.partition.hypercall = value
        return True

    def decode(self) -> dict[str, Any]:
        """Who the guest is, and where the page lies."""
        if not self.partition.guest_os_id:
            return {}
        page = self.partition.hypercall
        return {
            "guest_os_id": self.partition.guest_os_id,
            "gpa": page & PAGE_MASK if page & ENABLED else None,
        }

    def state(self) -> dict[str, Any]:
        """The partition's."""
        return self.partition.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.partition.restore(state)
