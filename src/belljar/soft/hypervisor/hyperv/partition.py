"""What of Hyper-V's interface belongs to the whole VM, a partition in Hyper-V's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from belljar.soft.hypervisor.hyperv.synic import Message
    from belljar.soft.hypervisor.shared import Shared

CONNECTIONS = 1 << 24
"""Connection ids have so many values (TLFS, HV_CONNECTION_ID)."""

MessageSink = Callable[["Message"], int]
"""Takes a message that was posted to a connection; an HV_STATUS."""

EventSink = Callable[[], int]
"""Takes a signal; an HV_STATUS."""


class Partition:
    """The VM's MSRs, and what connections lead to."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.guest_os_id = 0
        self.hypercall = 0
        self.reference_tsc = 0
        self.tsc_sequence = 0
        self.tsc_scale = self.tsc_offset = 0
        """The reference TSC page as it was last written; a scale of 0: there is none that would do."""
        self.message_ports: dict[int, MessageSink] = {}
        self.event_ports: dict[int, EventSink] = {}

    @property
    def takes_hypercalls(self) -> bool:
        """Whether VMCALL means Hyper-V's: the guest has said what it is (TLFS 3.13)."""
        return self.guest_os_id != 0

    def state(self) -> dict[str, Any]:
        """The MSRs; ports belong to those who made them."""
        return {
            "guest_os_id": self.guest_os_id,
            "hypercall": self.hypercall,
            "reference_tsc": self.reference_tsc,
            "tsc_page": [self.tsc_sequence, self.tsc_scale, self.tsc_offset],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.guest_os_id, self.hypercall = state["guest_os_id"], state["hypercall"]
        self.reference_tsc = state["reference_tsc"]
        self.tsc_sequence, self.tsc_scale, self.tsc_offset = state["tsc_page"]
