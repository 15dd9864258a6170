"""Memory slots, dirty pages and private memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from errno import ENOTTY

import pytest

from belljar.errors import CapabilityMissing, ClosedError, ConfigurationError, KvmCallFailed
from belljar.kvm import Kvm, Vm, _calls
from belljar.kvm.abi import caps, ioctls
from belljar.kvm.abi.flags import KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
from belljar.kvm.abi.run import KVM_EXIT_HLT, KVM_EXIT_MMIO
from kvm.guest import MEMORY_SIZE, Guest, need

PAGES = MEMORY_SIZE // 4096

# mov byte [0x5000], 1; mov byte [0x7fff], 2; hlt
DIRTY_TWO_PAGES = b"\xc6\x06\x00\x50\x01\xc6\x06\xff\x7f\x02\xf4"


def pages_of(bitmap: bytes) -> set[int]:
    return {page for page in range(len(bitmap) * 8) if bitmap[page // 8] >> page % 8 & 1}


def run_dirtying(guest: Guest) -> None:
    guest.load(DIRTY_TWO_PAGES)
    guest.run_to(KVM_EXIT_HLT)


def test_guest_and_host_see_the_same_memory(guest: Guest) -> None:
    guest.memory[0x5000:0x5002] = b"\x34\x12"
    guest.load(b"\xa1\x00\x50\x40\xa3\x02\x50\xf4")  # mov ax, [0x5000]; inc ax; mov [0x5002], ax; hlt
    guest.run_to(KVM_EXIT_HLT)
    assert guest.memory[0x5002:0x5004] == b"\x35\x12"


def test_slots_may_not_overlap(guest: Guest) -> None:
    with pytest.raises(KvmCallFailed) as caught:
        guest.vm.set_memory_region(1, 0x8000, MEMORY_SIZE, _calls.address_of(guest.memory))
    assert caught.value.errno == 17
    assert "already" in caught.value.hint


def test_deleted_slot_is_no_memory_any_more(guest: Guest) -> None:
    guest.vm.set_memory_region(5, 0x100000, 4096, _calls.address_of(guest.memory))
    guest.vm.delete_memory_region(5)
    guest.load(b"\xb8\xff\xff\x8e\xd8\xc6\x06\x10\x00\x01\xf4")  # mov ds, 0xffff; mov byte [0x10], 1: 0x100000
    guest.run_to(KVM_EXIT_MMIO)
    assert guest.vcpu.page.exit.mmio.phys_addr == 0x100000


def test_store_to_read_only_slot_leaves_with_an_exit(vm: Vm) -> None:
    need(vm, caps.KVM_CAP_READONLY_MEM)
    memory = mmap.mmap(-1, 4096)
    memory[0] = 7
    vm.set_memory_region(1, 0xF0000, 4096, _calls.address_of(memory), KVM_MEM_READONLY)
    with Guest(vm) as guest:
        # mov ax, 0xf000; mov ds, ax; mov al, [0]; mov [1], al; hlt
        guest.load(b"\xb8\x00\xf0\x8e\xd8\xa0\x00\x00\xa2\x01\x00\xf4")
        guest.run_to(KVM_EXIT_MMIO)
        mmio = guest.vcpu.page.exit.mmio
        assert (mmio.phys_addr, mmio.is_write, mmio.len, mmio.data[0]) == (0xF0001, 1, 1, 7)
        guest.run_to(KVM_EXIT_HLT)
    assert memory[1] == 0


def test_second_kind_of_memory_region(vm: Vm) -> None:
    need(vm, caps.KVM_CAP_USER_MEMORY2)
    memory = mmap.mmap(-1, 4096)
    vm.set_memory_region2(1, 0x40000, 4096, _calls.address_of(memory))
    with pytest.raises(KvmCallFailed):
        vm.set_memory_region2(2, 0x40000, 4096, _calls.address_of(memory))


def test_guest_memfd_behind_a_slot(vm: Vm) -> None:
    if not vm.check(caps.KVM_CAP_GUEST_MEMFD):
        with pytest.raises((CapabilityMissing, KvmCallFailed)):
            vm.create_guest_memfd(MEMORY_SIZE)
        pytest.skip("this host's KVM lacks KVM_CAP_GUEST_MEMFD for this kind of VM")
    memory = mmap.mmap(-1, MEMORY_SIZE)
    with vm.create_guest_memfd(MEMORY_SIZE) as memfd:
        vm.set_memory_region2(
            3, 0x200000, MEMORY_SIZE, _calls.address_of(memory), KVM_MEM_GUEST_MEMFD, memfd=memfd, offset=0
        )
        vm.delete_memory_region(3)
    with pytest.raises(ClosedError):
        vm.set_memory_region2(3, 0x200000, 4096, 0, KVM_MEM_GUEST_MEMFD, memfd=memfd)


def test_memory_attributes_are_set_or_lacking_by_name(vm: Vm) -> None:
    if not vm.check(caps.KVM_CAP_MEMORY_ATTRIBUTES):
        with pytest.raises(CapabilityMissing, match="KVM_CAP_MEMORY_ATTRIBUTES"):
            vm.set_memory_attributes(0, 4096, 0)
        pytest.skip("this host's KVM lacks KVM_CAP_MEMORY_ATTRIBUTES")
    vm.set_memory_attributes(0, 4096, 0)


def test_dirty_log_tells_which_pages_were_written(vm: Vm) -> None:
    with Guest(vm, flags=KVM_MEM_LOG_DIRTY_PAGES) as guest:
        run_dirtying(guest)
        assert {5, 7} <= pages_of(vm.get_dirty_log(0, PAGES))
        assert pages_of(vm.get_dirty_log(0, PAGES)) == set()  # reading cleared it
        run_dirtying(guest)
        assert {5, 7} <= pages_of(vm.get_dirty_log(0, PAGES))


def test_dirty_log_of_a_slot_without_one_is_an_error(guest: Guest) -> None:
    with pytest.raises(KvmCallFailed, match="KVM_GET_DIRTY_LOG"):
        guest.vm.get_dirty_log(0, PAGES)


def test_dirty_log_is_cleared_by_hand_where_asked(vm: Vm) -> None:
    need(vm, caps.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
    vm.protect_dirty_log_manually()
    with Guest(vm, flags=KVM_MEM_LOG_DIRTY_PAGES) as guest:
        run_dirtying(guest)
        log = vm.get_dirty_log(0, PAGES)
        assert vm.get_dirty_log(0, PAGES) == log  # reading did not clear it
        assert {5, 7} <= pages_of(log)
        vm.clear_dirty_log(0, 0, PAGES, bytes([1 << 5, 0]))
        assert 5 not in pages_of(vm.get_dirty_log(0, PAGES))
        assert 7 in pages_of(vm.get_dirty_log(0, PAGES))


def test_dirty_log_may_begin_full(vm: Vm) -> None:
    if not need(vm, caps.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & 2:
        pytest.skip("this host's KVM lacks KVM_DIRTY_LOG_INITIALLY_SET")
    vm.protect_dirty_log_manually(initially_set=True)
    with Guest(vm, flags=KVM_MEM_LOG_DIRTY_PAGES):
        assert pages_of(vm.get_dirty_log(0, PAGES)) == set(range(PAGES))


def test_clearing_more_than_the_bitmap_says_is_refused(vm: Vm) -> None:
    with pytest.raises(ConfigurationError, match="bitmap"):
        vm.clear_dirty_log(0, 0, 64, b"\1")


@pytest.fixture
def ring_guest(system: Kvm) -> Iterator[Guest]:
    """A guest whose dirty pages go into a ring of 1,024 entries."""
    need(system, caps.KVM_CAP_DIRTY_LOG_RING)
    with system.create_vm() as vm:
        vm.enable_dirty_rings(1024)
        with Guest(vm, flags=KVM_MEM_LOG_DIRTY_PAGES) as guest:
            yield guest


def test_dirty_ring_gives_pages_in_order(ring_guest: Guest) -> None:
    with ring_guest.vcpu.dirty_ring(1024) as ring:
        run_dirtying(ring_guest)
        harvested = ring.harvest()
        assert [page.page for page in harvested if page.page in (5, 7)] == [5, 7]
        assert {page.slot for page in harvested} == {0}
        assert ring.harvest() == []
        assert ring_guest.vm.reset_dirty_rings() == len(harvested)
        run_dirtying(ring_guest)
        assert {5, 7} <= {page.page for page in ring.harvest()}
    with pytest.raises(ClosedError):
        ring.harvest()


def test_unharvested_pages_are_not_reset(ring_guest: Guest) -> None:
    run_dirtying(ring_guest)
    assert ring_guest.vm.reset_dirty_rings() == 0


def test_dirty_rings_come_before_vcpus(guest: Guest) -> None:
    need(guest.vm, caps.KVM_CAP_DIRTY_LOG_RING)
    with pytest.raises(KvmCallFailed):
        guest.vm.enable_dirty_rings(1024)


def test_shadow_page_limit_is_kept_and_has_a_least(vm: Vm) -> None:
    need(vm, caps.KVM_CAP_MMU_SHADOW_CACHE_CONTROL)
    vm.set_mmu_pages(128)
    with pytest.raises(KvmCallFailed):
        vm.set_mmu_pages(1)
    if vm.attempt(ioctls.KVM_GET_NR_MMU_PAGES) == -ENOTTY:
        pytest.skip("this kernel has no KVM_GET_NR_MMU_PAGES any more (gone since Linux 6.3)")
    assert vm.get_mmu_pages() == 128


def test_pre_faulting_is_done_or_lacking_by_name(guest: Guest) -> None:
    if not guest.vcpu.check(caps.KVM_CAP_PRE_FAULT_MEMORY):
        with pytest.raises(CapabilityMissing, match="KVM_CAP_PRE_FAULT_MEMORY"):
            guest.vcpu.pre_fault_memory(0, 4096)
        pytest.skip("this host's KVM lacks KVM_CAP_PRE_FAULT_MEMORY")
    assert guest.vcpu.pre_fault_memory(0, MEMORY_SIZE) == 0
