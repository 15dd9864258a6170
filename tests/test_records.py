"""`belljar.records` against the standard library's dataclasses: the same class definitions, the same behaviour."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar import records


def _family(module: Any) -> tuple[type, type, type]:
    """A base, a subclass with defaults, and a mutable class, defined with one or the other decorator."""

    @module.dataclass(frozen=True, slots=True)
    class Base:
        kind: ClassVar[int] = 1
        first: int

    @module.dataclass(frozen=True, slots=True)
    class Derived(Base):
        kind: ClassVar[int] = 2
        second: str
        third: tuple[int, ...] = ()
        fourth: dict[str, int] | None = None

        @property
        def double(self) -> int:
            return self.first * 2

    @module.dataclass(slots=True)
    class Mutable:
        name: str = "x"
        items: list[int] = module.field(default_factory=list)

    return Base, Derived, Mutable


OURS, THEIRS = _family(records), _family(dataclasses)


@records.dataclass(frozen=True, slots=True)
class Pickled:
    """At module level, so that pickle finds it."""

    a: int
    b: str = "b"


def outcome(call: Any) -> Any:
    """What a call gives, comparably: its repr, or the kind of error."""
    try:
        return repr(call())
    except TypeError:
        return TypeError


VALUES = st.one_of(st.integers(), st.text(max_size=3), st.none(), st.tuples(st.integers()))
NAMES = st.sampled_from(["first", "second", "third", "fourth", "fifth"])


@given(st.lists(VALUES, max_size=6), st.dictionaries(NAMES, VALUES, max_size=4))
def test_construction_agrees_with_dataclasses(positional: list[Any], named: dict[str, Any]) -> None:
    ours, theirs = (outcome(lambda cls=family[1]: cls(*positional, **named)) for family in (OURS, THEIRS))
    assert ours == theirs


@given(st.tuples(st.integers(0, 1), st.sampled_from("ab")), st.tuples(st.integers(0, 1), st.sampled_from("ab")))
def test_equality_and_hash_follow_the_fields(one: tuple[int, str], other: tuple[int, str]) -> None:
    left, right = OURS[1](*one), OURS[1](*other)
    assert (left == right) is (one == other)
    assert one != other or hash(left) == hash(right)


def test_equality_asks_for_the_same_class() -> None:
    assert OURS[0](1) != THEIRS[0](1)
    assert OURS[0](1) != OURS[1](1, "")


def test_frozen_records_refuse_assignment() -> None:
    record = OURS[1](1, "s")
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del record.first
    assert record.double == 2


def test_mutable_records_have_their_own_defaults_and_no_hash() -> None:
    one, other = OURS[2](), OURS[2]()
    one.items.append(1)
    one.name = "y"
    assert (other.items, other.name) == ([], "x")
    with pytest.raises(TypeError):
        hash(one)
    with pytest.raises(AttributeError):
        one.unknown = 1


def test_the_functions_of_dataclasses_work() -> None:
    for cls, theirs in zip(OURS, THEIRS, strict=True):
        assert [f.name for f in dataclasses.fields(cls)] == [f.name for f in dataclasses.fields(theirs)]
    assert dataclasses.asdict(OURS[1](1, "s")) == dataclasses.asdict(THEIRS[1](1, "s"))
    assert repr(dataclasses.replace(OURS[1](1, "s"), second="t")) == repr(
        dataclasses.replace(THEIRS[1](1, "s"), second="t")
    )
    assert dataclasses.is_dataclass(OURS[0])


def test_a_standard_dataclass_can_inherit_from_a_record() -> None:
    @dataclasses.dataclass(frozen=True)
    class Child(OURS[1]):  # type: ignore[name-defined, misc]
        more: int = 5

    assert Child(1, "s").more == 5
    assert Child(1, "s").first == 1


@pytest.mark.parametrize("module", [records, dataclasses])
def test_fields_may_be_left_to_post_init(module: Any) -> None:
    @module.dataclass(frozen=True, slots=True)
    class Derived:
        shift: int
        size: int = module.field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "size", 1 << self.shift)

    made = Derived(4)
    assert repr(made).endswith("Derived(shift=4, size=16)")
    assert dataclasses.asdict(made) == {"shift": 4, "size": 16}
    assert dataclasses.replace(made, shift=1).size == 2
    with pytest.raises(TypeError):
        Derived(4, 16)


def test_class_variables_are_no_fields() -> None:
    assert OURS[1].kind == 2  # type: ignore[attr-defined]
    assert OURS[1].__match_args__ == ("first", "second", "third", "fourth")  # type: ignore[attr-defined]


def test_slots_leave_no_dict() -> None:
    assert not hasattr(OURS[1](1, "s"), "__dict__")


@given(st.integers(), st.text())
def test_pickles_and_copies(a: int, b: str) -> None:
    record = Pickled(a, b)
    assert pickle.loads(pickle.dumps(record)) == record
    assert copy.deepcopy(record) == record == copy.copy(record)


def test_definitions_that_dataclasses_refuse_are_refused() -> None:
    with pytest.raises(TypeError):

        @records.dataclass(slots=True)
        class Order:
            a: int = 1
            b: int  # type: ignore[misc]

    with pytest.raises(ValueError, match="mutable default"):

        @records.dataclass(slots=True)
        class Shared:
            a: list[int] = []  # noqa: RUF012
