"""What other threads want done while no vCPU executes: new memory slots, flushes, other exits (as KVM's vcpu->requests).

Whoever runs a vCPU does it, between two entries; while nobody does, the thread that wants it. Either way it is done when
`perform` returns, and every vCPU sees it before its next instruction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock, get_ident
from typing import TYPE_CHECKING

from belljar.wishes import Wish

if TYPE_CHECKING:
    from belljar.soft.hypervisor.vcpu import SoftVcpu

RECHECK_S = 0.02
"""How long to rely on a vCPU that was running to serve what waits; it may have stopped for good meanwhile."""


class Requests:
    """Those of one VM. `waiting` is empty most of the time."""

    def __init__(self, vcpus: Iterable[SoftVcpu]) -> None:
        self._vcpus = vcpus
        self.waiting: deque[Wish] = deque()
        self._serving = Lock()

    def perform(self, action: Callable[[], None]) -> None:
        """Have `action` done and wait for that; what it raises is raised here. From any thread, a device's in a run too."""
        running = self._running()
        if running is not None and running.runner == get_ident():
            action()
            return
        wish = Wish(action)
        self.waiting.append(wish)
        while True:
            for vcpu in self._vcpus:
                vcpu.request()
            # In this order: one that begins to run after this look finds the wish before it does anything.
            if self._running() is None:
                self.serve()
            if wish.wait(RECHECK_S):
                return

    def _running(self) -> SoftVcpu | None:
        return next((vcpu for vcpu in self._vcpus if vcpu.runs), None)

    def serve(self) -> None:
        """Do all that waits. By who runs a vCPU, between entries."""
        with self._serving:
            while self.waiting:
                self.waiting.popleft().grant()
