"""A virtual CPU: its life, its run page, and running it. Its state is a room of its own."""

from __future__ import annotations

from errno import EINTR

from belljar.kvm._batcher import WriteBatcher
from belljar.kvm._descriptor import Capable
from belljar.kvm._loop import RunLoop
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.run import KVM_COALESCED_MMIO_PAGE_OFFSET, KVM_EXIT_INTR, KVM_EXIT_MEMORY_FAULT, kvm_run
from belljar.kvm.abi.structs import kvm_coalesced_mmio, kvm_coalesced_mmio_ring
from belljar.kvm.dirty_ring import DirtyRing
from belljar.kvm.stats import Statistics
from belljar.kvm.vcpu_events import VcpuEvents
from belljar.kvm.vcpu_state import VcpuState

PAGE_SIZE = 4096


class Vcpu(VcpuState, VcpuEvents):
    """One virtual CPU of KVM. Made by `Vm.create_vcpu`; one thread runs it at a time, and calls from others wait for it."""

    what = "this vCPU"

    def __init__(self, vm: Capable, index: int, fd: int, mmap_size: int, batcher: WriteBatcher | None = None) -> None:
        super().__init__(fd)
        self.vm = vm
        self.index = index
        self._page: kvm_run | None = None
        try:
            self.loop = RunLoop(index, fd, mmap_size, batcher)
        except BaseException:
            super().close()
            raise

    def check(self, capability: int) -> int:
        """What KVM_CHECK_EXTENSION answers for its VM."""
        return self.vm.check(capability)

    @property
    def page(self) -> kvm_run:
        """The page shared with the kernel, in place (api.rst section 5). Raises ClosedError."""
        if self._page is None:
            self._page = kvm_run.at(memoryview(self.loop))
        return self._page

    @property
    def mapping(self) -> memoryview:
        """The whole shared mapping: run page, port data, the ring of collected writes. Raises ClosedError."""
        return memoryview(self.loop)

    def run(self) -> int:
        """Enter the guest once (KVM_RUN, api.rst 4.10), the GIL released; the exit's KVM_EXIT_* number.

        KVM_EXIT_INTR stands for a signal or `immediate_exit`. What the exit says is in `page.exit`. Python's signal
        handlers run when this returns, not during it. Raises KvmCallFailed.
        """
        page = self.page
        page.exit_reason = 0
        answer = self.attempt(ioctls.KVM_RUN)
        if answer == -EINTR:
            return KVM_EXIT_INTR
        if answer < 0 and page.exit_reason != KVM_EXIT_MEMORY_FAULT:
            raise self.failure(ioctls.KVM_RUN, -answer)
        return page.exit_reason

    def statistics(self) -> Statistics:
        """The vCPU's binary statistics (KVM_GET_STATS_FD, api.rst 4.133)."""
        return Statistics(self.call(ioctls.KVM_GET_STATS_FD, needs=caps.KVM_CAP_BINARY_STATS_FD))

    def coalesced_writes(self) -> list[kvm_coalesced_mmio]:
        """Take the collected writes of all vCPUs of the VM out of the ring, in order (api.rst 4.116)."""
        ring = kvm_coalesced_mmio_ring.at(self.mapping, KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE)
        entries = memoryview(self.mapping)[KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE :][:PAGE_SIZE]
        capacity = (PAGE_SIZE - kvm_coalesced_mmio_ring.size) // kvm_coalesced_mmio.size
        taken = []
        while ring.first != ring.last:
            offset = kvm_coalesced_mmio_ring.size + ring.first % capacity * kvm_coalesced_mmio.size
            taken.append(kvm_coalesced_mmio.at(entries, offset).copy())
            ring.first = (ring.first + 1) % capacity
        return taken

    def dirty_ring(self, entries: int) -> DirtyRing:
        """This vCPU's dirty ring, of as many entries as were given to `Vm.enable_dirty_rings` (KVM_CAP_DIRTY_LOG_RING)."""
        return DirtyRing(self.fd, entries)

    def close(self) -> None:
        """Give the vCPU back. If another thread runs it, that run is ended first and the vCPU closed by it."""
        self._page = None
        loop = getattr(self, "loop", None)
        if loop is None:
            super().close()
        else:
            loop.close(super().close)

    @property
    def closed(self) -> bool:
        """Whether it was closed, or belongs to the parent of this process."""
        return self._fd < 0 or self.loop.closing

    def after_fork(self) -> None:
        """In the child: let go of what is the parent's."""
        self._page = None
        self.loop.forget()
        self._forked = True
        super().close()
