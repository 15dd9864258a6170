"""What Python sees of host-physical memory."""

import cython
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize


@cython.cclass
class HostMemory:
    """A host-physical address space: pieces of this process's memory, and the code decoded from them.

    Pieces are either its own (`allocate`) or somebody else's (`attach`), who must keep them until `detach` or `close`.
    Shared by the processors made on it. Not for two threads at a time.
    """

    host: cython.pointer(Host)
    closed: cython.bint

    def __cinit__(self):
        self.host = new_host()
        if self.host == cython.NULL:
            raise MemoryError

    def allocate(self, size: cython.ulonglong, align: cython.ulonglong = 4096) -> int:
        """`size` zeroed bytes, a multiple of 4096: their host-physical address. Raises MemoryError."""
        self.check_open()
        place: cython.pointer(u8) = cython.cast(cython.pointer(u8), page_alloc(size))
        if place == cython.NULL:
            raise MemoryError
        hpa: u64 = host_attach(self.host, place, size, align, 1)
        if hpa == ALL_ONES:
            page_free(place, size)
            raise MemoryError
        return hpa

    def attach(self, hva: cython.ulonglong, size: cython.ulonglong, align: cython.ulonglong = 4096) -> int:
        """Give memory of this process a host-physical address, a multiple of `align` (a power of two). Raises MemoryError."""
        self.check_open()
        hpa: u64 = host_attach(self.host, cython.cast(cython.pointer(u8), hva), size, align, 0)
        if hpa == ALL_ONES:
            raise MemoryError
        return hpa

    def add(self, hva: cython.ulonglong, size: cython.ulonglong) -> int:
        """`attach` at a multiple of 4096. Raises ValueError for what is not whole pages."""
        if size % PAGE_SIZE or hva % PAGE_SIZE or size == 0:
            raise ValueError("host memory comes in whole pages")
        return self.attach(hva, size, PAGE_SIZE)

    def written(self, hpa: cython.ulonglong, size: cython.ulonglong) -> None:
        """Tell that `size` bytes at `hpa` were written by something else than the processors."""
        code_written(self.host, hpa, size)

    def detach(self, hpa: cython.ulonglong) -> None:
        """Take a piece away again, by its first address; own memory is freed. Translations to it are forgotten."""
        if self.closed:
            return
        if not host_detach(self.host, hpa):
            raise KeyError(hpa)

    def read(self, hpa: cython.ulonglong, size: cython.ulonglong) -> bytes:
        """A copy of bytes that lie in one piece. Raises IndexError."""
        return PyBytes_FromStringAndSize(cython.cast(cython.p_char, self.place(hpa, size)), size)

    def write(self, hpa: cython.ulonglong, data: bytes) -> None:
        """Copy bytes into one piece; code decoded from there is forgotten. Raises IndexError."""
        size: u64 = len(data)
        place: cython.pointer(u8) = cython.cast(cython.pointer(u8), self.place(hpa, size))
        memcpy(place, cython.cast(cython.p_char, data), size)
        code_written(self.host, hpa, size)

    def read_u64(self, hpa: cython.ulonglong) -> int:
        """The aligned 8-byte number at `hpa`. Raises IndexError."""
        return cython.cast(cython.pointer(u64), self.place(hpa, 8))[0]

    def write_u64(self, hpa: cython.ulonglong, value: cython.ulonglong) -> None:
        """Store an aligned 8-byte number, whole. Raises IndexError."""
        cython.cast(cython.pointer(u64), self.place(hpa, 8))[0] = value

    def host_changed(self) -> None:
        """Say that memory may have been written from outside: decoded code is compared with memory before it runs again."""
        host_wrote(self.host)

    @property
    def code_bytes(self) -> int:
        """How much memory decoded code takes."""
        return self.host.arena_total

    @cython.cfunc
    @cython.exceptval(0)
    def place(self, hpa: u64, size: u64) -> u64:
        """The hva of `size` bytes at `hpa`. Raises IndexError unless they lie in one piece, ValueError if it is closed."""
        found: cython.pointer(u8)
        self.check_open()
        found = host_pointer(self.host, hpa)
        if found == cython.NULL or (size and host_pointer(self.host, hpa + size - 1) != found + size - 1):
            raise IndexError(f"no host memory at {hpa:#x}")
        return cython.cast(u64, found)

    @cython.cfunc
    def check_open(self):
        """Raises ValueError if it is closed."""
        if self.closed:
            raise ValueError("this host memory is closed")

    def close(self) -> None:
        """Forget everything attached and free everything owned; the processors on it must not run again."""
        if not self.closed:
            self.closed = True
            free_extents(self.host)
            if self.host.cpus == cython.NULL:
                free_code(self.host)

    def __dealloc__(self):
        if self.host != cython.NULL:
            free_extents(self.host)
            free_host(self.host)
