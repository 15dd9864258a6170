"""Where guest memory comes from: host memory from a memfd, or anonymous where the kernel wants it so, and its address."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from ctypes import addressof, c_char
from enum import Enum

from belljar.errors import ConfigurationError, FeatureUnsupported, GuestMemoryError

PAGE_SIZE = 4096
"""Bytes in the smallest page, the unit of a memory slot (SDM 3A 4.1.1; api.rst 4.35)."""

MAX_SLOT_PAGES = 2**31 - 1
"""Pages that one KVM memory slot can hold (KVM_MEM_MAX_NR_PAGES, include/linux/kvm_host.h)."""

OVERCOMMIT_LIMIT = 16
"""How many times the host's memory a region may be.

Guest memory itself costs nothing until it is touched, but a slot's bookkeeping does not wait: KVM keeps up to 8 bytes of
reverse map and 2 bits of dirty bitmap a page, so that 16 times the host's memory already costs 3% of it.
"""

_MFD_HUGE_SHIFT = 26
"""Where memfd_create(2) takes the logarithm of a huge page's size (MFD_HUGE_SHIFT, <linux/memfd.h>)."""

_ZERO_CHUNK = 2 << 20
"""Bytes of zeros held at a time while memory is cleared by hand."""

_THP_FOLDER = "/sys/kernel/mm/transparent_hugepage"

_MAP_NORESERVE = 0x4000
"""mmap(2), <asm-generic/mman-common.h>: do not count these pages before they are touched. Python 3.11 has no name for it."""


class HugePages(Enum):
    """Which pages of the host stand behind guest memory; the value is how options write it."""

    NONE = "none"
    """4 KiB pages."""
    TRANSPARENT = "transparent"
    """Huge pages where the kernel finds them (MADV_HUGEPAGE; kernel Documentation/admin-guide/mm/transhuge.rst)."""
    HUGETLB_2M = "2M"
    """Pages of 2 MiB from the pool that the administrator set aside (memfd_create(2), MFD_HUGETLB)."""
    HUGETLB_1G = "1G"
    """Pages of 1 GiB from that pool."""

    @property
    def pool_page_size(self) -> int:
        """The page size in bytes for the two that come out of a pool, else 0."""
        return {HugePages.HUGETLB_2M: 2 << 20, HugePages.HUGETLB_1G: 1 << 30}.get(self, 0)


class Backing:
    """Host memory for one region: `mapping`, `hva` (its first byte), `fd` (-1 for anonymous memory), `size` in bytes.

    `calls` says how it was obtained, for people. Owned by its region; `close` gives everything back once.
    """

    __slots__ = ("calls", "fd", "hva", "mapping", "size")

    def __init__(self, mapping: mmap.mmap, fd: int, size: int, calls: str) -> None:
        self.mapping = mapping
        self.fd = fd
        self.size = size
        self.calls = calls
        self.hva = addressof(c_char.from_buffer(mapping))

    def discard(self, offset: int, size: int) -> None:
        """Make whole pages zero by giving them back to the host. `offset` and `size` are multiples of 4096."""
        advice = mmap.MADV_DONTNEED if self.fd < 0 else mmap.MADV_REMOVE
        try:
            self.mapping.madvise(advice, offset, size)
        except OSError:  # huge pages from the pool go back as wholes only
            for start in range(offset, offset + size, _ZERO_CHUNK):
                chunk = min(_ZERO_CHUNK, offset + size - start)
                self.mapping[start : start + chunk] = bytes(chunk)

    def drop_page(self, offset: int) -> None:
        """Take a page out of this process's page tables, where the file behind it keeps its content; else do nothing."""
        if self.fd >= 0:
            try:  # noqa: SIM105  (as in `close`)
                self.mapping.madvise(mmap.MADV_DONTNEED, offset, PAGE_SIZE)
            except OSError:  # not a part of a huge page from the pool
                pass

    def close(self) -> None:
        """Unmap and close. Where somebody still holds a view, the mapping alone stays until the last view is gone."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        # BufferError is how mmap says that a view is still out. Unmapping under it would be a crash of Python, so the
        # mapping is left to the view, whose end unmaps it.
        try:  # noqa: SIM105  (contextlib.suppress costs more than the whole call)
            self.mapping.close()
        except BufferError:
            pass


def allocate(name: str, size: int, *, mergeable: bool, huge_pages: HugePages) -> Backing:
    """Zeroed memory of `size` bytes (already checked by `check_size`), none of it touched yet.

    A sealed memfd mapped MAP_SHARED; but private anonymous memory when `mergeable`, because KSM passes shared mappings
    over (mm/ksm.c, ksm_madvise). Raises ConfigurationError for options that exclude each other, FeatureUnsupported for
    what this host's kernel refuses, GuestMemoryError when it will not give so much.
    """
    if mergeable:
        if huge_pages.pool_page_size:
            raise ConfigurationError(
                f"memory {name}: KSM cannot merge {huge_pages.value} pages out of the huge page pool",
                hint="take mergeable memory or pool pages, not both; transparent huge pages go with merging",
            )
        return _allocate_anonymous(name, size, huge_pages)
    return _allocate_memfd(name, size, huge_pages)


def check_size(name: str, size: int, huge_pages: HugePages) -> None:
    """Refuse a size (bytes) that cannot be a region's, before anything is touched. Raises ConfigurationError."""
    if size <= 0:
        raise ConfigurationError(
            f"memory {name}: its size is {size} bytes", hint="a region has at least one 4096-byte page"
        )
    unit = huge_pages.pool_page_size or PAGE_SIZE
    if size % unit:
        raise ConfigurationError(
            f"memory {name}: its size of {size:#x} bytes is not a multiple of {unit} bytes",
            hint=f"the next size that is: {(size // unit + 1) * unit:#x}",
        )
    if size > MAX_SLOT_PAGES * PAGE_SIZE:
        raise ConfigurationError(
            f"memory {name}: {size:#x} bytes are more than a memory slot holds, {MAX_SLOT_PAGES * PAGE_SIZE:#x}",
            hint="give the guest less memory",
        )
    if size > _small_enough_for_any_host:
        limit = OVERCOMMIT_LIMIT * host_memory_size()
        if size > limit:
            raise ConfigurationError(
                f"memory {name}: {size:#x} bytes are more than {OVERCOMMIT_LIMIT} times this host's memory, {limit:#x}",
                hint="give the guest less memory",
            )


_small_enough_for_any_host = 1 << 30
"""Below this many bytes, asking for the host's memory size would cost more than it could save."""


def host_memory_size() -> int:
    """Bytes of memory that this host has (sysconf(3), _SC_PHYS_PAGES)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _allocate_memfd(name: str, size: int, huge_pages: HugePages) -> Backing:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    calls = "memfd_create + ftruncate + mmap(MAP_SHARED)"
    if pool_page := huge_pages.pool_page_size:
        flags |= os.MFD_HUGETLB | (pool_page.bit_length() - 1) << _MFD_HUGE_SHIFT
        calls = f"memfd_create(MFD_HUGETLB, {huge_pages.value}) + ftruncate + mmap(MAP_SHARED)"
    elif huge_pages is HugePages.TRANSPARENT:
        _require_transparent("shmem_enabled", allowed=("always", "within_size", "advise", "force"))
    try:
        fd = os.memfd_create(f"belljar:{name}", flags)
    except OSError as error:
        raise _refused("memfd_create", name, size, huge_pages, error) from None
    try:
        os.ftruncate(fd, size)
        # A memfd that somebody shrank under us would turn every later access into SIGBUS.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        if huge_pages is HugePages.TRANSPARENT:
            mapping.madvise(mmap.MADV_HUGEPAGE)
            calls += " + madvise(MADV_HUGEPAGE)"
    except (OSError, ValueError, OverflowError) as error:
        os.close(fd)
        raise _refused("mmap", name, size, huge_pages, error) from None
    except BaseException:
        os.close(fd)
        raise
    return Backing(mapping, fd, size, calls)


def _allocate_anonymous(name: str, size: int, huge_pages: HugePages) -> Backing:
    calls = "mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE) + madvise(MADV_MERGEABLE)"
    if huge_pages is HugePages.TRANSPARENT:
        _require_transparent("enabled", allowed=("always", "madvise"))
        calls += " + madvise(MADV_HUGEPAGE)"
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    try:
        mapping = mmap.mmap(-1, size, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError, OverflowError) as error:
        raise _refused("mmap", name, size, huge_pages, error) from None
    try:
        mapping.madvise(mmap.MADV_MERGEABLE)
    except OSError as error:
        mapping.close()
        raise FeatureUnsupported(
            f"this kernel does not merge memory: madvise(MADV_MERGEABLE) says {os.strerror(error.errno or 0)}",
            hint="it was built without CONFIG_KSM; leave `mergeable` out",
        ) from None
    if huge_pages is HugePages.TRANSPARENT:
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return Backing(mapping, -1, size, calls)


def _require_transparent(setting: str, allowed: tuple[str, ...]) -> None:
    # madvise(MADV_HUGEPAGE) succeeds and does nothing when the setting forbids huge pages, so it has to be looked at.
    path = f"{_THP_FOLDER}/{setting}"
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError:
        raise FeatureUnsupported(
            "this kernel has no transparent huge pages for guest memory",
            hint=f"there is no {path}; leave `huge_pages` out",
        ) from None
    chosen = text.partition("[")[2].partition("]")[0]
    if chosen not in allowed:
        raise FeatureUnsupported(
            f"this host gives no transparent huge pages to guest memory: {path} is {chosen!r}",
            hint=f"as root: echo {allowed[-1] if setting == 'enabled' else 'advise'} > {path}, or take pages from the 2M pool",
        )


def _refused(call: str, name: str, size: int, huge_pages: HugePages, error: Exception) -> Exception:
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    if pool_page := huge_pages.pool_page_size:
        need = size // pool_page
        folder = f"/sys/kernel/mm/hugepages/hugepages-{pool_page >> 10}kB"
        return FeatureUnsupported(
            f"memory {name}: {call} gives no {need} huge pages of {huge_pages.value}: {why}",
            hint=f"as root: echo {need} > {folder}/nr_hugepages",
        )
    hint = "give the guest less memory"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "too many files are open; close machines that are done, or raise `ulimit -n`"
    return GuestMemoryError(0, size, f"cannot be had from the host for memory {name}: {call}: {why}", hint=hint)
