"""Structures over buffers."""

from __future__ import annotations

from struct import error as StructError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.kvm.abi.layout import Array, Bytes, Nested, Structs, Structure, u8, u16, u32, u64
from belljar.kvm.abi.structs import kvm_msr_entry, kvm_msrs, kvm_regs


class Inner(Structure):
    a = u8()
    b = u32()


class Outer(Structure):
    first = u16()
    inner = Nested(Inner)
    three = Structs(Inner, 3)
    numbers = Array("H", 3)
    text = Bytes(5)
    last = u64()


class Either(Structure, union=True):
    small = u8()
    big = u64()


class Long(Structure):
    count = u32()
    items = Structs(Inner)


def test_fields_are_aligned_as_a_compiler_aligns_them() -> None:
    assert (Inner.size, Inner.alignment, Inner.fields["b"].offset) == (8, 4, 4)
    assert [field.offset for field in Outer.fields.values()] == [0, 4, 12, 36, 42, 48]
    assert (Outer.size, Outer.alignment) == (56, 8)
    assert (Either.size, Either.fields["big"].offset) == (8, 0)


@given(
    first=st.integers(0, 0xFFFF),
    b=st.integers(0, 0xFFFFFFFF),
    last=st.integers(0, 2**64 - 1),
    text=st.binary(max_size=5),
)
def test_what_is_written_is_read_back(first: int, b: int, last: int, text: bytes) -> None:
    structure = Outer(first=first, inner=Inner(b=b), last=last, text=text, numbers=(1, 2, 3))
    structure.three[2].b = b
    assert structure.first == first
    assert structure.inner.b == structure.three[-1].b == b
    assert structure.numbers == (1, 2, 3)
    assert structure.text == text.ljust(5, b"\0")
    assert structure.last == last
    assert Outer.from_bytes(bytes(structure)) == structure


def test_structure_in_place_writes_through() -> None:
    memory = bytearray(64)
    Inner.at(memory, 16).b = 0x04030201
    assert memory[20:24] == b"\x01\x02\x03\x04"


def test_flexible_array_ends_with_the_buffer() -> None:
    table = Long.with_tail(20, count=2)
    assert len(table.items) == 2  # the odd four bytes are no item
    table.items[1].a = 7
    assert bytes(table.tail)[8] == 7
    assert kvm_msrs.with_tail(3 * kvm_msr_entry.size).entries[2].index == 0


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("first", 1 << 16, StructError),
        ("first", -1, StructError),
        ("numbers", (1, 2), ValueError),
        ("text", b"123456", ValueError),
        ("nothing", 1, TypeError),
    ],
)
def test_value_that_does_not_fit_is_refused(field: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        Outer(**{field: value})


def test_buffer_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="144"):
        kvm_regs.at(bytearray(100))
    with pytest.raises(ValueError, match="144"):
        kvm_regs.from_bytes(bytes(100))
    with pytest.raises(IndexError):
        Outer().three[3]


def test_array_of_structures_is_not_assigned_as_a_whole() -> None:
    with pytest.raises(TypeError):
        Outer(three=[])


def test_copy_stands_alone() -> None:
    original = Inner(a=1)
    copy = original.copy()
    copy.a = 2
    assert original.a == 1
    assert original != copy
    assert original != "Inner"


def test_repr_shows_every_field() -> None:
    assert repr(Inner(a=1, b=255)) == "Inner(a=0x1, b=0xff)"
    assert "text=b'" in repr(Outer())
