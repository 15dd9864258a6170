"""The table builder and the walker, two readings of the same chapter, must agree; a dictionary of pages is the judge."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.errors import ConfigurationError
from belljar.x86.address_space import address_space
from belljar.x86.control import Cr4
from belljar.x86.paging import (
    FORMATS,
    NO_PAGING,
    PAGING_4LEVEL,
    PAGING_32BIT,
    PAGING_PAE,
    SIZE_1G,
    SIZE_2M,
    SIZE_4K,
    SIZE_4M,
    PagingFormat,
)
from belljar.x86.tables import PageTableBuilder
from belljar.x86.walker import walk

from .ram import Pages
from .specials import paged

PAGED = [item for item in FORMATS.values() if item is not NO_PAGING]


def allocator():
    pages = count(0x10)
    return lambda: next(pages) << 12


@dataclass(frozen=True)
class Request:
    """One call of `map`, or of `unmap` where `rights` is None. Addresses count in pages of `page_size`."""

    page_size: int
    page: int
    target: int
    pages: int
    rights: tuple[bool, bool, bool, bool] | None


@st.composite
def requests(draw, paging: PagingFormat):
    page_size = draw(st.sampled_from(paging.page_sizes))
    half = 1 << (paging.gva_bits - 1)
    low = st.integers(0, half // page_size - 8)
    # Few distinct neighbourhoods, so that calls meet each other's pages.
    near = st.integers(0, 6).map(lambda page: page * SIZE_4M // page_size + page)
    page = draw(near | low)
    if paging.gva_bits > 32 and draw(st.booleans()):
        page += ((1 << 64) - half) // page_size
    top = 1 << 32 if paging.entry_size == 4 and page_size == SIZE_4K else 1 << 40
    target = draw(st.integers(0, top // page_size - 8))
    rights = draw(st.none() | st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()))
    if rights is not None and paging.entry_size == 4:
        rights = (rights[0], rights[1], True, rights[3])
    return Request(page_size, page, target, draw(st.integers(1, 5)), rights)


def apply(builder: PageTableBuilder, request: Request) -> None:
    gva, size = request.page * request.page_size, request.pages * request.page_size
    if request.rights is None:
        builder.unmap(gva, size, request.page_size)
        return
    write, user, execute, global_page = request.rights
    builder.map(
        gva, request.target * request.page_size, size, request.page_size,
        write=write, user=user, execute=execute, global_page=global_page,
    )  # fmt: skip


def accepted(builder: PageTableBuilder, request: Request) -> bool:
    """Apply a request; False if it was refused for one of the two reasons that well-formed requests have."""
    try:
        apply(builder, request)
    except ConfigurationError as error:
        if "would replace a table" in error.message or "cannot be split" in error.message:
            return False
        raise
    return True


def expected(done: list[Request], gva: int):
    """What the newest call that covers `gva` made of it: (gpa, rights), or None."""
    for request in reversed(done):
        offset = gva - request.page * request.page_size
        if covers(request, gva):
            if request.rights is None:
                return None
            return request.target * request.page_size + offset, request.rights
    return None


@pytest.mark.parametrize("paging", PAGED, ids=lambda item: item.name)
@given(data=st.data())
def test_walker_finds_what_builder_mapped(paging, data):
    builder = PageTableBuilder(paging, allocator())
    done: list[Request] = []
    refused = None
    for request in data.draw(st.lists(requests(paging), min_size=1, max_size=6)):
        if not accepted(builder, request):
            refused = request
            break
        done.append(request)
    memory = Pages()
    builder.write_to(memory.write)
    special = paged(paging, builder.root_gpa, cr4=Cr4.PGE)
    for request in done:
        for page in (request.page, request.page + request.pages - 1):
            gva = page * request.page_size + data.draw(st.integers(0, request.page_size - 1))
            if refused is None or not covers(refused, gva):  # what was refused may be half done
                check(walk(special, gva, memory.read), expected(done, gva))


def covers(request: Request, gva: int) -> bool:
    return 0 <= gva - request.page * request.page_size < request.pages * request.page_size


def overlaps(one: Request, other: Request) -> bool:
    start, end = one.page * one.page_size, (one.page + one.pages) * one.page_size
    return start < (other.page + other.pages) * other.page_size and other.page * other.page_size < end


def check(found, wanted) -> None:
    if wanted is None:
        assert not found.ok
        return
    assert found.ok, found.why
    rights = found.rights
    assert (found.gpa, (rights.write, rights.user, rights.execute, rights.global_page)) == wanted


@pytest.mark.parametrize("paging", PAGED, ids=lambda item: item.name)
@given(data=st.data())
def test_address_space_lists_what_the_walker_finds(paging, data):
    builder = PageTableBuilder(paging, allocator())
    done: list[Request] = []
    for request in data.draw(st.lists(requests(paging), min_size=1, max_size=5)):
        if not any(overlaps(item, request) for item in done):
            accepted(builder, request)
            done.append(request)
    memory = Pages()
    builder.write_to(memory.write)
    special = paged(paging, builder.root_gpa, cr4=Cr4.PGE)
    space = address_space(special, memory.read)
    assert space.complete
    assert not space.bad_entries
    assert sum(space.tables.values()) == len(builder.tables)
    assert [item.gva for item in space.mappings] == sorted(item.gva for item in space.mappings)
    for item in space.mappings:
        for offset in (0, item.size - 1):
            found = walk(special, item.gva + offset, memory.read)
            assert (found.gpa, found.rights, found.page_size) == (item.gpa + offset, item.rights, item.page_size)
    mapped = sum(item.size for item in space.mappings)
    assert mapped == sum(item.pages * item.page_size for item in done if mapped_by(item, special, memory))


def mapped_by(request: Request, special, memory: Pages) -> bool:
    found = walk(special, request.page * request.page_size, memory.read)
    return request.rights is not None and found.gpa == request.target * request.page_size


def test_large_page_is_split_where_a_small_one_is_mapped_into_it():
    memory = Pages()
    builder = PageTableBuilder(PAGING_4LEVEL, allocator())
    builder.map(0, 0, SIZE_1G, SIZE_1G, user=True)
    builder.map(0x5000, 0x9000, SIZE_4K, SIZE_4K, write=False)
    builder.write_to(memory.write)
    special = paged(PAGING_4LEVEL, builder.root_gpa)
    sizes = [walk(special, gva, memory.read).page_size for gva in (0x4000, 0x5000, SIZE_2M, SIZE_1G - 1)]
    assert sizes == [SIZE_4K, SIZE_4K, SIZE_2M, SIZE_2M]
    inside = walk(special, 0x5123, memory.read)
    assert (inside.gpa, inside.rights.write, inside.rights.user) == (0x9123, False, False)


def test_equal_neighbours_become_one_range():
    memory = Pages()
    builder = PageTableBuilder(PAGING_4LEVEL, allocator())
    builder.map(0, 0, 1 << 32, SIZE_2M)
    builder.write_to(memory.write)
    space = address_space(paged(PAGING_4LEVEL, builder.root_gpa), memory.read)
    (only,) = space.mappings
    assert (only.gva, only.gpa, only.size, only.pages) == (0, 0, 1 << 32, 2048)
    assert space.tables == {"PML4": 1, "PDPT": 1, "PD": 4, "PT": 0}


def test_pse36_page_above_4_gib_is_found():
    memory = Pages()
    builder = PageTableBuilder(PAGING_32BIT, allocator())
    builder.map(0x400000, 0xAB_CD400000 & -SIZE_4M, SIZE_4M, SIZE_4M)
    builder.write_to(memory.write)
    found = walk(paged(PAGING_32BIT, builder.root_gpa), 0x400123, memory.read)
    assert found.gpa == 0xAB_CD400123


@pytest.mark.parametrize(
    ("paging", "arguments", "words"),
    [
        (PAGING_32BIT, (0, 0, SIZE_2M, SIZE_2M), "no pages of 2M"),
        (PAGING_PAE, (0, 0, SIZE_1G, SIZE_1G), "no pages of 1G"),
        (PAGING_PAE, (1 << 32, 0, SIZE_4K, SIZE_4K), "do not all exist"),
        (PAGING_4LEVEL, (1 << 47, 0, SIZE_4K, SIZE_4K), "do not all exist"),
        (PAGING_4LEVEL, ((1 << 47) - SIZE_4K, 0, 2 * SIZE_4K, SIZE_4K), "do not all exist"),
        (PAGING_4LEVEL, (0x1000, 0, SIZE_2M, SIZE_2M), "not aligned"),
        (PAGING_4LEVEL, (-SIZE_4K, 0, SIZE_4K, SIZE_4K), "not aligned"),
        (PAGING_4LEVEL, (0, 1 << 52, SIZE_4K, SIZE_4K), "beyond"),
        (PAGING_32BIT, (0, 1 << 32, SIZE_4K, SIZE_4K), "beyond"),
    ],
)
def test_impossible_mapping_is_refused(paging, arguments, words):
    builder = PageTableBuilder(paging, allocator())
    with pytest.raises(ConfigurationError, match=words):
        builder.map(*arguments)


def test_execute_disable_needs_wide_entries():
    with pytest.raises(ConfigurationError, match="execute-disable"):
        PageTableBuilder(PAGING_32BIT, allocator()).map(0, 0, SIZE_4K, SIZE_4K, execute=False)


def test_no_paging_has_no_tables():
    with pytest.raises(ConfigurationError):
        PageTableBuilder(NO_PAGING, allocator())
