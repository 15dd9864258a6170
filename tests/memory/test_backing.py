"""Where guest memory comes from, and that all of it goes back: options, closing, fork, exhausted hosts."""

from __future__ import annotations

import fcntl
import gc
import os
import resource

import pytest

from belljar.errors import BelljarError, ClosedError, ConfigurationError, FeatureUnsupported, GuestMemoryError
from belljar.memory import GuestMemory, HugePages, backing

PAGE = 4096


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapping_of(hva: int) -> str:
    """The line of /proc/self/maps that holds an address, empty if none does."""
    with open("/proc/self/maps") as file:
        for line in file:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= hva < end:
                return line
    return ""


def vm_flags(hva: int) -> list[str]:
    """The VmFlags of the mapping at an address (proc(5), smaps)."""
    inside = False
    with open("/proc/self/smaps") as file:
        for line in file:
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                start, end = (int(part, 16) for part in first.split("-"))
                inside = start <= hva < end
            elif inside and first == "VmFlags:":
                return line.split()[1:]
    return []


def test_memory_is_a_shared_sealed_memfd():
    with GuestMemory() as memory:
        region = memory.add(0, 4 * PAGE, name="ram")
        line = mapping_of(region.hva)
        assert "rw-s" in line
        assert "memfd:belljar:ram" in line
        assert "MAP_SHARED" in region.obtained
        assert os.pread(region.fd, 4, 0) == bytes(4)
        memory.write(8, b"shared")
        assert os.pread(region.fd, 6, 8) == b"shared"
        for size in (0, PAGE, 8 * PAGE):
            with pytest.raises(PermissionError):
                os.ftruncate(region.fd, size)
        assert fcntl.fcntl(region.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_close_gives_back_descriptors_and_mappings():
    before = open_fds()
    memory = GuestMemory()
    regions = [memory.add(i * 16 * PAGE, 8 * PAGE) for i in range(20)]
    addresses = [region.hva for region in regions]
    memory.close()
    assert open_fds() == before
    assert not any("memfd:belljar" in mapping_of(hva) for hva in addresses)


def test_memory_that_is_forgotten_gives_everything_back():
    before = open_fds()
    GuestMemory().add(0, PAGE)
    gc.collect()
    assert open_fds() == before


def test_view_that_outlives_close_keeps_its_bytes_and_nothing_else():
    before = open_fds()
    memory = GuestMemory()
    region = memory.add(0, 4 * PAGE)
    hva = region.hva
    memory.write(PAGE, b"still here")
    view = memory.view(PAGE, 10)
    numbers = memory.typed_view(0, "Q", 4)
    memory.close()
    with pytest.raises(ClosedError):
        memory.read(PAGE, 1)
    assert bytes(view) == b"still here"
    view[0:1] = b"S"
    assert numbers[0] == 0
    assert "memfd:belljar" in mapping_of(hva)
    del view, numbers
    assert "memfd:belljar" not in mapping_of(hva)
    assert open_fds() == before


def test_array_of_another_library_over_a_view_outlives_close():
    from ctypes import c_ubyte

    memory = GuestMemory()
    region = memory.add(0, PAGE)
    array = (c_ubyte * 16).from_buffer(region.view)
    memory.close()
    array[3] = 7
    assert array[3] == 7


def test_child_of_fork_cannot_reach_the_parents_guest():
    with GuestMemory() as memory:
        region = memory.add(0, PAGE)
        memory.write(0, b"parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                memory.write(0, b"child!")
            except ClosedError:
                status = 0 if region.closed and not mapping_of_belljar() else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert memory.read(0, 6) == b"parent"
        memory.write(0, b"works on")


def mapping_of_belljar() -> bool:
    with open("/proc/self/maps") as file:
        return "memfd:belljar" in file.read()


def test_mergeable_memory_is_marked_for_ksm():
    with GuestMemory() as memory:
        try:
            region = memory.add(0, 16 * PAGE, mergeable=True)
        except FeatureUnsupported as error:
            pytest.skip(str(error))
        assert "mg" in vm_flags(region.hva), "the kernel ignored MADV_MERGEABLE"
        assert "MADV_MERGEABLE" in region.obtained
        assert region.fd == -1
        assert region.allocated is None
        memory.write(0, b"x" * 16 * PAGE)
        assert memory.read(16 * PAGE - 1, 1) == b"x"


def test_kernel_without_ksm_is_told(monkeypatch):
    class Refusing(backing.mmap.mmap):
        def madvise(self, *arguments):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(backing.mmap, "mmap", Refusing)
    with GuestMemory() as memory, pytest.raises(FeatureUnsupported, match=r"MADV_MERGEABLE.*CONFIG_KSM"):
        memory.add(0, PAGE, mergeable=True)


def test_mergeable_pool_pages_exclude_each_other():
    with GuestMemory() as memory, pytest.raises(ConfigurationError, match="KSM cannot merge 2M"):
        memory.add(0, 2 << 20, mergeable=True, huge_pages=HugePages.HUGETLB_2M)


@pytest.mark.parametrize("kind", [True, HugePages.TRANSPARENT, HugePages.HUGETLB_2M, HugePages.HUGETLB_1G])
def test_huge_pages_are_there_or_clearly_refused(kind):
    before = open_fds()
    with GuestMemory() as memory:
        try:
            region = memory.add(0, 1 << 30, huge_pages=kind)
        except FeatureUnsupported as refusal:
            refused = refusal
        else:
            refused = None
            assert "ht" in vm_flags(region.hva) or "hg" in vm_flags(region.hva)
            memory.write(5, b"works")
            memory.zero(0, 3 << 20)
            assert memory.read(0, 16) == bytes(16)
    assert refused is None or (refused.hint and "\n" not in str(refused))
    assert open_fds() == before


@pytest.mark.parametrize(("setting", "mergeable"), [("shmem_enabled", False), ("enabled", True)])
def test_host_setting_decides_over_transparent_huge_pages(tmp_path, monkeypatch, setting, mergeable):
    monkeypatch.setattr(backing, "_THP_FOLDER", str(tmp_path))
    with GuestMemory() as memory:
        with pytest.raises(FeatureUnsupported, match="no transparent huge pages"):
            memory.add(0, 2 << 20, mergeable=mergeable, huge_pages=True)
        (tmp_path / setting).write_text("always [never]\n")
        with pytest.raises(FeatureUnsupported, match=rf"{setting} is 'never'.*echo"):
            memory.add(0, 2 << 20, mergeable=mergeable, huge_pages=True)
        (tmp_path / setting).write_text("[always] never\n")
        region = memory.add(0, 2 << 20, mergeable=mergeable, huge_pages=True)
        assert "hg" in vm_flags(region.hva)


def test_pool_pages_want_whole_pages():
    with GuestMemory() as memory, pytest.raises(ConfigurationError, match="not a multiple of 2097152"):
        memory.add(0, 3 << 20, huge_pages=HugePages.HUGETLB_2M)


def test_too_many_open_files_is_a_clear_error():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with GuestMemory() as memory:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_fds() + 1, hard))
        try:
            with pytest.raises(GuestMemoryError, match="Too many open files"):  # noqa: PT012  (how many fit is not the point)
                for i in range(8):
                    memory.add(i * PAGE, PAGE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert memory.add(1 << 30, PAGE).hva


def test_host_that_has_no_address_space_left_is_a_clear_error():
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
            before = open_fds()
            for options in ({}, {"mergeable": True}):
                try:
                    GuestMemory().add(0, 8 << 30, **options)
                except GuestMemoryError as error:
                    status = 0 if "Cannot allocate memory" in str(error) and open_fds() == before else 2
                except BelljarError:
                    status = 3
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_thousands_of_machines_one_after_the_other_leak_nothing():
    before = open_fds()
    for _ in range(2000):
        with GuestMemory() as memory:
            memory.add(0, 1 << 20)
            memory.write_u8(0x400, 42)
    assert open_fds() == before
