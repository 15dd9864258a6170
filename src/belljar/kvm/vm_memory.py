"""A VM's guest-physical memory: slots, dirty pages, private memory (api.rst 4.8, 4.35, 4.117, 4.140 to 4.142)."""

from __future__ import annotations

import os

from belljar.errors import ConfigurationError
from belljar.kvm import _calls
from belljar.kvm._descriptor import Capable, Descriptor
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.flags import KVM_DIRTY_LOG_INITIALLY_SET, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
from belljar.kvm.abi.structs import (
    kvm_clear_dirty_log,
    kvm_create_guest_memfd,
    kvm_dirty_gfn,
    kvm_dirty_log,
    kvm_memory_attributes,
    kvm_userspace_memory_region,
    kvm_userspace_memory_region2,
)

PAGE_SIZE = 4096


class GuestMemfd(Descriptor):
    """Memory that belongs to a guest and that this process may not be able to map (api.rst 4.142)."""

    what = "this guest_memfd"

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        os.set_inheritable(fd, False)  # the one descriptor that KVM makes without O_CLOEXEC


class VmMemory(Capable):
    """The part of a VM that is about memory. Addresses and sizes are in bytes, multiples of 4096."""

    def set_memory_region(self, slot: int, gpa: int, size: int, hva: int, flags: int = 0) -> None:
        """Make `size` bytes at host-virtual `hva` guest-physical memory at `gpa`; size 0 deletes the slot (api.rst 4.35).

        `flags`: KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY. The high 16 bits of `slot` choose an address space.
        The caller keeps the memory mapped as long as the slot exists.
        """
        region = kvm_userspace_memory_region(
            slot=slot, flags=flags, guest_phys_addr=gpa, memory_size=size, userspace_addr=hva
        )
        self.call(ioctls.KVM_SET_USER_MEMORY_REGION, region, needs=caps.KVM_CAP_USER_MEMORY)

    def set_memory_region2(
        self,
        slot: int,
        gpa: int,
        size: int,
        hva: int,
        flags: int = 0,
        *,
        memfd: GuestMemfd | None = None,
        offset: int = 0,
    ) -> None:
        """The same with private memory behind it: `memfd` from `offset` on, with KVM_MEM_GUEST_MEMFD (api.rst 4.140)."""
        region = kvm_userspace_memory_region2(
            slot=slot,
            flags=flags,
            guest_phys_addr=gpa,
            memory_size=size,
            userspace_addr=hva,
            guest_memfd_offset=offset,
            guest_memfd=0 if memfd is None else memfd.fd,
        )
        self.call(ioctls.KVM_SET_USER_MEMORY_REGION2, region, needs=caps.KVM_CAP_USER_MEMORY2)

    def delete_memory_region(self, slot: int) -> None:
        """Take a slot away; its dirty log goes with it."""
        self.set_memory_region(slot, 0, 0, 0)

    def create_guest_memfd(self, size: int, flags: int = 0) -> GuestMemfd:
        """`size` bytes of guest-private memory (api.rst 4.142); GUEST_MEMFD_FLAG_* as KVM_CAP_GUEST_MEMFD_FLAGS allows."""
        request = kvm_create_guest_memfd(length=size, flags=flags)
        return GuestMemfd(self.call(ioctls.KVM_CREATE_GUEST_MEMFD, request, needs=caps.KVM_CAP_GUEST_MEMFD))

    def set_memory_attributes(self, gpa: int, size: int, attributes: int) -> None:
        """Make a range private or shared: KVM_MEMORY_ATTRIBUTE_PRIVATE or 0 (api.rst 4.141)."""
        request = kvm_memory_attributes(address=gpa, length=size, attributes=attributes)
        self.call(ioctls.KVM_SET_MEMORY_ATTRIBUTES, request, needs=caps.KVM_CAP_MEMORY_ATTRIBUTES)

    def get_mmu_pages(self) -> int:
        """How many pages KVM may use for shadow page tables; the call is gone since Linux 6.3."""
        return self.call(ioctls.KVM_GET_NR_MMU_PAGES, needs=caps.KVM_CAP_MMU_SHADOW_CACHE_CONTROL)

    def set_mmu_pages(self, count: int) -> None:
        """Limit the pages for shadow page tables; at least 64 (KVM_SET_NR_MMU_PAGES)."""
        self.call(ioctls.KVM_SET_NR_MMU_PAGES, count, needs=caps.KVM_CAP_MMU_SHADOW_CACHE_CONTROL)

    # -- dirty pages ---------------------------------------------------------------------------------------------

    def protect_dirty_log_manually(self, *, initially_set: bool = False) -> None:
        """From now on `get_dirty_log` leaves pages dirty until `clear_dirty_log` (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).

        `initially_set`: a log starts with every page dirty, so that write protection is paid for page by page.
        """
        flags = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | (KVM_DIRTY_LOG_INITIALLY_SET if initially_set else 0)
        self.enable(caps.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags)

    def get_dirty_log(self, slot: int, pages: int) -> bytes:
        """The pages of a slot written since the last call, one bit a page, lowest first (KVM_GET_DIRTY_LOG, api.rst 4.8).

        `pages` is the slot's size in pages; the answer is a multiple of 8 bytes.
        """
        bitmap = bytearray(-(-pages // 64) * 8)
        request = kvm_dirty_log(slot=slot, dirty_bitmap=_calls.address_of(bitmap))
        self.call(ioctls.KVM_GET_DIRTY_LOG, request)
        return bytes(bitmap)

    def clear_dirty_log(self, slot: int, first_page: int, pages: int, bitmap: bytes) -> None:
        """Mark pages clean whose bit is set (KVM_CLEAR_DIRTY_LOG, api.rst 4.117).

        `first_page` is a multiple of 64, and so is `pages` unless the range ends the slot; bit 0 is `first_page`.
        Raises ConfigurationError if `bitmap` is too short.
        """
        if len(bitmap) * 8 < pages:
            raise ConfigurationError(f"{pages} pages need {-(-pages // 64) * 8} bytes of bitmap, not {len(bitmap)}")
        padded = bytearray(bitmap.ljust(-(-pages // 64) * 8, b"\0"))
        request = kvm_clear_dirty_log(
            slot=slot, first_page=first_page, num_pages=pages, dirty_bitmap=_calls.address_of(padded)
        )
        self.call(ioctls.KVM_CLEAR_DIRTY_LOG, request, needs=caps.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)

    def enable_dirty_rings(self, entries: int) -> None:
        """Report dirty pages in a ring for each vCPU instead of bitmaps; before any vCPU is made (KVM_CAP_DIRTY_LOG_RING).

        `entries` is a power of two. With KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP the two may be used together.
        """
        capability = caps.KVM_CAP_DIRTY_LOG_RING_ACQ_REL
        if not self.check(capability):
            capability = caps.KVM_CAP_DIRTY_LOG_RING
        self.enable(capability, entries * kvm_dirty_gfn.size)

    def reset_dirty_rings(self) -> int:
        """Write-protect what was harvested from all rings again; how many pages that were (KVM_RESET_DIRTY_RINGS)."""
        return self.call(ioctls.KVM_RESET_DIRTY_RINGS, needs=caps.KVM_CAP_DIRTY_LOG_RING)
