"""GuestMemory: every access checked, regions and holes, numbers, views."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.errors import ClosedError, ConfigurationError, GuestMemoryError
from belljar.memory import GuestMemory

PAGE = 4096


@pytest.fixture
def memory():
    with GuestMemory() as memory:
        memory.add(0, 4 * PAGE, name="low")
        memory.add(4 * PAGE, 2 * PAGE, name="next")  # touches low
        memory.add(16 * PAGE, PAGE, name="far")  # behind a hole
        yield memory


def test_new_memory_is_zero_and_sparse():
    with GuestMemory() as memory:
        region = memory.add(0, 1 << 30)
        assert region.allocated == 0
        assert memory.read((1 << 30) - 16, 16) == bytes(16)
        memory.write_u8(0, 1)
        assert 0 < region.allocated < 1 << 22


def test_what_was_written_is_read_across_touching_regions(memory):
    data = bytes(range(256)) * 8
    memory.write(4 * PAGE - 1000, data)
    assert memory.read(4 * PAGE - 1000, len(data)) == data
    assert bytes(memory.view(4 * PAGE, 24)) == data[1000:1024]


@pytest.mark.parametrize(
    ("gpa", "size"),
    [
        (6 * PAGE - 1, 2),  # runs into the hole
        (6 * PAGE, 1),
        (16 * PAGE - 1, 1),
        (17 * PAGE - 1, 2),  # past the end
        (1 << 40, 8),
        ((1 << 64) - 1, 1),
        ((1 << 64) - 1, 2),  # wraps
        (1 << 64, 1),
        (-1, 2),
        (0, -1),
        (0, 1 << 64),
    ],
)
def test_access_outside_of_memory_is_refused(memory, gpa, size):
    before = memory.read(0, 6 * PAGE)
    for access in (memory.read, memory.view, memory.hva, memory.zero):
        with pytest.raises(GuestMemoryError):
            access(gpa, size)
    if 0 < size < PAGE:
        with pytest.raises(GuestMemoryError):
            memory.write(gpa, b"\xff" * size)
    assert memory.read(0, 6 * PAGE) == before, "a refused write left something behind"
    assert not memory.contains(gpa, size)


def test_error_names_the_range_and_what_there_is(memory):
    with pytest.raises(GuestMemoryError, match=r"0x5ffc\.\.0x6003 leaves guest memory at 0x6000.*0x10000\.\.0x10fff"):
        memory.read(6 * PAGE - 4, 8)
    with pytest.raises(GuestMemoryError, match="wraps"):
        memory.read((1 << 64) - 4, 8)


@pytest.mark.parametrize("gpa", [0, 6 * PAGE, 1 << 50, (1 << 64) - 1])
def test_access_of_no_bytes_is_fine_anywhere(memory, gpa):
    assert memory.read(gpa, 0) == b""
    memory.write(gpa, b"")
    memory.zero(gpa, 0)
    assert memory.view(gpa, 0).nbytes == 0
    assert memory.contains(gpa, 0)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_numbers_are_little_endian_and_bounded(memory, size):
    read = getattr(memory, f"read_u{size * 8}")
    write = getattr(memory, f"write_u{size * 8}")
    value = int.from_bytes(bytes(range(1, size + 1)), "little")
    for gpa in (0x10, 0x11, 4 * PAGE - 1):  # aligned, not aligned, across two regions
        write(gpa, value)
        assert read(gpa) == value
        assert memory.read(gpa, size) == bytes(range(1, size + 1))
    write(0, (1 << size * 8) - 1)
    assert read(0) == (1 << size * 8) - 1
    for bad in (-1, 1 << size * 8):
        with pytest.raises(GuestMemoryError, match="cannot hold"):
            write(0, bad)


def test_view_shares_the_bytes(memory):
    view = memory.view(0x100, 16)
    view[0:4] = b"abcd"
    assert memory.read(0x100, 4) == b"abcd"
    memory.write(0x104, b"efgh")
    assert bytes(view[4:8]) == b"efgh"


def test_view_lies_within_one_region(memory):
    with pytest.raises(GuestMemoryError, match="several regions"):
        memory.view(4 * PAGE - 1, 2)


def test_typed_view_is_an_array_in_guest_memory(memory):
    table = memory.typed_view(PAGE, "Q", 512)
    table[511] = 0x8000_0000_0000_0063
    assert memory.read_u64(2 * PAGE - 8) == 0x8000_0000_0000_0063
    assert len(table) == 512
    assert memory.typed_view(3, "I", 2).nbytes == 8, "no alignment needed"
    for bad in ("", "QQ", "n", "<Q", "x"):
        with pytest.raises(ConfigurationError, match="format"):
            memory.typed_view(0, bad, 1)
    with pytest.raises(GuestMemoryError):
        memory.typed_view(0, "Q", -1)


def test_items_wider_than_a_byte_and_strided_ones_are_written_as_bytes(memory):
    memory.write(0, memoryview(b"\1\2\3\4\5\6\7\x08").cast("Q"))
    assert memory.read(0, 8) == b"\1\2\3\4\5\6\7\x08"
    memory.write(0, memoryview(b"a.b.c.")[::2])
    assert memory.read(0, 3) == b"abc"


def test_readonly_region_takes_only_forced_writes():
    with GuestMemory() as memory:
        rom = memory.add(0xF0000, 16 * PAGE, name="bios", readonly=True)
        for attempt in (lambda: memory.write(0xF0000, b"x"), lambda: memory.zero(0xF0000, 1)):
            with pytest.raises(GuestMemoryError, match="read-only memory bios"):
                attempt()
        memory.write(0xF0000, b"BIOS", force=True)
        assert memory.read(0xF0000, 4) == b"BIOS"
        assert memory.view(0xF0000, 4).readonly
        rom.view[0:1] = b"b"
        assert memory.read_u8(0xF0000) == ord("b")


@pytest.mark.parametrize(("gpa", "size"), [(0, 6 * PAGE), (1, 3), (PAGE - 1, PAGE + 2), (100, 5 * PAGE), (PAGE, PAGE)])
@pytest.mark.parametrize("mergeable", [False, True])
def test_zero_clears_exactly_its_range(gpa, size, mergeable):
    with GuestMemory() as memory:
        memory.add(0, 4 * PAGE, mergeable=mergeable)
        memory.add(4 * PAGE, 2 * PAGE, mergeable=mergeable)
        memory.write(0, b"\xff" * 6 * PAGE)
        memory.zero(gpa, size)
        expected = b"\xff" * gpa + bytes(size) + b"\xff" * (6 * PAGE - gpa - size)
        assert memory.read(0, 6 * PAGE) == expected


def test_zeroing_gives_whole_pages_back_to_the_host():
    with GuestMemory() as memory:
        region = memory.add(0, 1 << 22)
        memory.write(0, b"\xff" * (1 << 22))
        assert region.allocated == 1 << 22
        memory.zero(1, (1 << 22) - 2)
        assert region.allocated == 2 * PAGE


def test_regions_are_found_by_any_address_in_them(memory):
    assert memory.find(0).name == "low"
    assert memory.find(6 * PAGE - 1).name == "next"
    assert memory.find(6 * PAGE) is None
    assert memory.find(-1) is None
    assert [region.name for region in memory.regions] == ["low", "next", "far"]
    assert memory.size == 7 * PAGE
    assert memory.contains(PAGE, 5 * PAGE)
    assert not memory.contains(PAGE, 6 * PAGE)


def test_hva_is_where_the_bytes_are(memory):
    from ctypes import string_at

    memory.write(16 * PAGE + 5, b"here")
    assert string_at(memory.hva(16 * PAGE + 5, 4), 4) == b"here"
    with pytest.raises(GuestMemoryError):
        memory.hva(4 * PAGE - 1, 2)


def test_slots_are_unique_and_used_again(memory):
    slots = [region.slot for region in memory.regions]
    assert sorted(slots) == [0, 1, 2]
    middle = memory.regions[1]
    memory.remove(middle)
    assert middle.closed
    assert memory.find(4 * PAGE) is None
    with pytest.raises(GuestMemoryError):
        memory.read(4 * PAGE, 1)
    with pytest.raises(ConfigurationError, match="not a region"):
        memory.remove(middle)
    assert memory.add(8 * PAGE, PAGE).slot == middle.slot


@pytest.mark.parametrize(
    ("gpa", "size", "message"),
    [
        (0, 0, "size is 0"),
        (0, -PAGE, "size is -4096"),
        (0, 100, "not a multiple of 4096.*0x1000"),
        (0, PAGE + 1, "not a multiple"),
        (1, PAGE, "0x1 cannot be where"),
        (-PAGE, PAGE, "cannot be where"),
        (1 << 52, PAGE, "cannot be where"),
        (1 << 64, PAGE, "cannot be where"),
        ((1 << 52) - PAGE, 2 * PAGE, r"past 2\^52"),
        (0, 1 << 43, "more than a memory slot holds"),
        (0, 1 << 64, "more than a memory slot holds"),
        (0, 1 << 200, "more than a memory slot holds"),
        (0, (1 << 43) - PAGE, "times this host's memory"),
    ],
)
def test_impossible_regions_are_refused_before_anything_is_touched(gpa, size, message):
    with GuestMemory() as memory:
        with pytest.raises(ConfigurationError, match=message):
            memory.add(gpa, size)
        assert memory.regions == ()


@pytest.mark.parametrize(
    ("gpa", "size"), [(0, PAGE), (3 * PAGE, PAGE), (5 * PAGE, 2 * PAGE), (15 * PAGE, 2 * PAGE), (0, 32 * PAGE)]
)
def test_overlapping_regions_are_refused(memory, gpa, size):
    with pytest.raises(ConfigurationError, match=r"overlaps (low|next|far) at"):
        memory.add(gpa, size)
    assert len(memory.regions) == 3


def test_everything_raises_closed_error_after_close(memory):
    region = memory.regions[0]
    memory.close()
    memory.close()
    assert memory.closed
    calls = [
        lambda: memory.read(0, 1),
        lambda: memory.read(0, 0),
        lambda: memory.write(0, b"x"),
        lambda: memory.zero(0, 1),
        lambda: memory.view(0, 1),
        lambda: memory.hva(0),
        lambda: memory.read_u64(0),
        lambda: memory.write_u64(0, 1),
        lambda: memory.typed_view(0, "Q", 1),
        lambda: memory.add(0, PAGE),
        lambda: memory.remove(region),
        lambda: memory.__enter__(),
        lambda: region.view,
        lambda: region.hva,
        lambda: region.fd,
        lambda: region.allocated,
        lambda: region.obtained,
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    assert "closed" in repr(memory)
    assert "closed" in repr(region)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_memory_behaves_like_a_sparse_bytearray(data):
    pages = data.draw(st.sets(st.integers(0, 7), min_size=1))
    model: dict[int, int] = {page * PAGE + i: 0 for page in pages for i in range(PAGE)}
    with GuestMemory() as memory:
        for page in sorted(pages, key=lambda page: (page * 5) % 8):
            memory.add(page * PAGE, PAGE)
        for _ in range(data.draw(st.integers(1, 8))):
            gpa = data.draw(st.integers(-2, 8 * PAGE + 2) | st.sampled_from([page * PAGE - 1 for page in range(9)]))
            content = data.draw(st.binary(max_size=24))
            inside = all(gpa + i in model for i in range(len(content)))
            if not content:
                continue
            assert memory.contains(gpa, len(content)) == inside
            if inside:
                memory.write(gpa, content)
                model.update({gpa + i: byte for i, byte in enumerate(content)})
                assert memory.read(gpa, len(content)) == content
            else:
                with pytest.raises(GuestMemoryError):
                    memory.write(gpa, content)
        for page in pages:
            assert memory.read(page * PAGE, PAGE) == bytes(model[page * PAGE + i] for i in range(PAGE))
