"""Dirty logs as an engine gives them (KVM_GET_DIRTY_LOG, api.rst 4.8): one bit a page, made into addresses."""

from __future__ import annotations

from collections.abc import Iterator

from belljar.errors import ConfigurationError
from belljar.memory.backing import PAGE_SIZE


def bitmap_size(size: int) -> int:
    """Bytes of the bitmap for a slot of `size` bytes: a bit a page, in whole 64-bit words as the kernel writes them."""
    pages = -(-size // PAGE_SIZE)
    return -(-pages // 64) * 8


class DirtyBitmap:
    """Which pages of a slot were written: bit i of byte i/8 stands for the page at `gpa + i * 4096`.

    `bits` is what the engine wrote, taken as it is and not copied; `gpa` and `size` (bytes) are the slot's. Bits past the
    slot's last page are the kernel's padding and do not count. Raises ConfigurationError if `bits` is too short.
    """

    __slots__ = ("bits", "gpa", "size")

    def __init__(self, gpa: int, size: int, bits: bytes | bytearray | memoryview) -> None:
        if len(bits) * 8 < -(-size // PAGE_SIZE):
            raise ConfigurationError(
                f"a dirty bitmap of {len(bits)} bytes is too short for {size:#x} bytes of memory",
                hint=f"it takes {bitmap_size(size)} bytes",
            )
        self.gpa = gpa
        self.size = size
        self.bits = bits

    def __iter__(self) -> Iterator[int]:
        """The guest-physical addresses of the pages written, in order."""
        number = self._number()
        gpa = self.gpa
        # A word at a time: shifting one large number by each bit would cost its whole length every time.
        for position in range((number.bit_length() + 63) // 64):
            word = int.from_bytes(self.bits[position * 8 : position * 8 + 8], "little")
            if (position + 1) * 64 > self.page_count:
                word &= (1 << (self.page_count - position * 64)) - 1
            while word:
                lowest = word & -word
                yield gpa + (position * 64 + lowest.bit_length() - 1) * PAGE_SIZE
                word ^= lowest

    def __len__(self) -> int:
        """How many pages were written."""
        return self._number().bit_count()

    def __contains__(self, gpa: int) -> bool:
        """Whether the page that holds `gpa` was written."""
        if not self.gpa <= gpa < self.gpa + self.size:
            return False
        page = (gpa - self.gpa) // PAGE_SIZE
        return bool(self.bits[page // 8] >> (page % 8) & 1)

    @property
    def page_count(self) -> int:
        """Pages in the slot, written or not."""
        return -(-self.size // PAGE_SIZE)

    def pages(self) -> set[int]:
        """The guest-physical addresses of the pages written."""
        return set(self)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(gpa, size in bytes) of each run of adjacent pages written, in order."""
        start = end = -1
        for gpa in self:
            if gpa == end:
                end += PAGE_SIZE
                continue
            if start >= 0:
                yield start, end - start
            start, end = gpa, gpa + PAGE_SIZE
        if start >= 0:
            yield start, end - start

    def _number(self) -> int:
        return int.from_bytes(self.bits, "little") & (1 << self.page_count) - 1
