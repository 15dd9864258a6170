"""Guest memory for tests of the architecture: a bytearray with the bounds that `read` and `write` promise."""

from __future__ import annotations

from belljar.errors import GuestMemoryError


class Ram:
    """`size` bytes from guest-physical 0."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, gpa: int, size: int) -> bytes:
        if gpa < 0 or gpa + size > len(self.data):
            raise GuestMemoryError(gpa, size)
        return bytes(self.data[gpa : gpa + size])

    def write(self, gpa: int, data: bytes | bytearray) -> None:
        if gpa < 0 or gpa + len(data) > len(self.data):
            raise GuestMemoryError(gpa, len(data))
        self.data[gpa : gpa + len(data)] = data


class Pages:
    """Sparse memory that takes any address: 4-KiB pages in a dictionary; pages never written are not memory."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def read(self, gpa: int, size: int) -> bytes:
        page = self.pages.get(gpa >> 12)
        if page is None or (gpa & 0xFFF) + size > 4096:
            raise GuestMemoryError(gpa, size)
        return bytes(page[gpa & 0xFFF : (gpa & 0xFFF) + size])

    def write(self, gpa: int, data: bytes | bytearray) -> None:
        page = self.pages.setdefault(gpa >> 12, bytearray(4096))
        page[gpa & 0xFFF : (gpa & 0xFFF) + len(data)] = data
