"""Dirty bitmaps become addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.errors import ConfigurationError
from belljar.memory import DirtyBitmap
from belljar.memory.dirty import bitmap_size

PAGE = 4096


@given(st.integers(1, 300).flatmap(lambda pages: st.tuples(st.just(pages), st.sets(st.integers(0, pages - 1)))))
def test_each_bit_is_a_page(case):
    pages, dirty = case
    bits = bytearray(bitmap_size(pages * PAGE))
    for page in dirty:
        bits[page // 8] |= 1 << page % 8
    bitmap = DirtyBitmap(0x10_0000, pages * PAGE, bits)
    expected = [0x10_0000 + page * PAGE for page in sorted(dirty)]
    assert list(bitmap) == expected
    assert bitmap.pages() == set(expected)
    assert len(bitmap) == len(dirty)
    covered = [gpa + i for gpa, size in bitmap.ranges() for i in range(0, size, PAGE)]
    assert covered == expected
    starts = [gpa for gpa, _ in bitmap.ranges()]
    ends = [gpa + size for gpa, size in bitmap.ranges()]
    assert not set(starts) & set(ends), "adjacent ranges were not joined"
    assert all((0x10_0000 + page * PAGE + 5 in bitmap) == (page in dirty) for page in range(pages))


def test_padding_past_the_last_page_does_not_count():
    bitmap = DirtyBitmap(0, 3 * PAGE, b"\xff" * 8)
    assert list(bitmap) == [0, PAGE, 2 * PAGE]
    assert len(bitmap) == 3
    assert 3 * PAGE not in bitmap
    assert -1 not in bitmap


def test_bitmap_too_short_is_refused():
    with pytest.raises(ConfigurationError, match=r"too short.*8 bytes"):
        DirtyBitmap(0, 9 * PAGE, b"\xff")


@pytest.mark.parametrize(("size", "expected"), [(PAGE, 8), (64 * PAGE, 8), (65 * PAGE, 16), (1 << 30, 32768)])
def test_bitmap_size_is_whole_64_bit_words(size, expected):
    assert bitmap_size(size) == expected
