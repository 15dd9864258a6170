"""C structures as Python classes over a buffer: what the kernel interface is spoken in.

A `Structure` is declared with one descriptor a field; offsets follow the System V ABI's natural alignment. An instance
is a view: reading a field unpacks it in place, so that the same class works on a fresh buffer handed to an ioctl and on
the run page that a vCPU shares with the kernel. Cheaper to import than ctypes, and a type checker understands it.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Generic as OfStructure
    from typing import Self, TypeVar

    S = TypeVar("S", bound="Structure")
else:

    class OfStructure:
        """At run time a kind of structure is no type parameter: making generic classes would cost every start a millisecond."""

        def __class_getitem__(cls, kind: object) -> type:
            return cls

    S = None

_INTEGERS = {code: Struct("<" + code) for code in "BHIQiq"}


class Field:
    """One field: `offset` in its structure, `size` and `alignment` in bytes; all set when the structure is declared."""

    offset: int
    size: int
    alignment: int

    def write(self, structure: Structure, value: Any) -> None:
        """Store a value."""
        raise TypeError(f"this field of {type(structure).__name__} cannot be assigned")


class Int(Field):
    """An integer of fixed width, in the host's (little-endian) byte order."""

    def __init__(self, code: str, width: int) -> None:
        self._struct = _INTEGERS[code]
        self.size = self.alignment = width

    @overload
    def __get__(self, structure: None, owner: type) -> Self: ...
    @overload
    def __get__(self, structure: Structure, owner: type) -> int: ...
    def __get__(self, structure: Structure | None, owner: type) -> Self | int:
        if structure is None:
            return self
        value: int = self._struct.unpack_from(structure.buffer, self.offset)[0]
        return value

    def __set__(self, structure: Structure, value: int) -> None:
        self._struct.pack_into(structure.buffer, self.offset, value)

    write = __set__


class Bytes(Field):
    """`count` bytes, read as `bytes`; a shorter value is filled up with zeros, a longer one refused."""

    alignment = 1

    def __init__(self, count: int) -> None:
        self.size = count

    @overload
    def __get__(self, structure: None, owner: type) -> Self: ...
    @overload
    def __get__(self, structure: Structure, owner: type) -> bytes: ...
    def __get__(self, structure: Structure | None, owner: type) -> Self | bytes:
        if structure is None:
            return self
        return bytes(structure.buffer[self.offset : self.offset + self.size])

    def __set__(self, structure: Structure, value: bytes) -> None:
        if len(value) > self.size:
            raise ValueError(f"this field of {type(structure).__name__} holds {self.size} bytes, not {len(value)}")
        structure.buffer[self.offset : self.offset + self.size] = bytes(value).ljust(self.size, b"\0")

    write = __set__


class Array(Field):
    """`count` integers, read and written as a tuple."""

    def __init__(self, code: str, count: int) -> None:
        self._struct = Struct(f"<{count}{code}")
        self.count = count
        self.size = self._struct.size
        self.alignment = self.size // count

    @overload
    def __get__(self, structure: None, owner: type) -> Self: ...
    @overload
    def __get__(self, structure: Structure, owner: type) -> tuple[int, ...]: ...
    def __get__(self, structure: Structure | None, owner: type) -> Self | tuple[int, ...]:
        if structure is None:
            return self
        return self._struct.unpack_from(structure.buffer, self.offset)

    def __set__(self, structure: Structure, value: Sequence[int]) -> None:
        if len(value) != self.count:
            raise ValueError(f"this field of {type(structure).__name__} holds {self.count} numbers, not {len(value)}")
        self._struct.pack_into(structure.buffer, self.offset, *value)

    write = __set__


class Nested(Field, OfStructure[S]):
    """A structure inside a structure; reading gives a view that writes through."""

    def __init__(self, kind: type[S]) -> None:
        self.kind = kind
        self.size = kind.size
        self.alignment = kind.alignment

    @overload
    def __get__(self, structure: None, owner: type) -> Self: ...
    @overload
    def __get__(self, structure: Structure, owner: type) -> S: ...
    def __get__(self, structure: Structure | None, owner: type) -> Self | S:
        if structure is None:
            return self
        return self.kind.at(structure.buffer, self.offset)

    def __set__(self, structure: Structure, value: S) -> None:
        structure.buffer[self.offset : self.offset + self.size] = value.buffer[: self.size]

    write = __set__


class Row(OfStructure[S]):
    """The elements of an array of structures: views that write through."""

    def __init__(self, kind: type[S], buffer: memoryview, offset: int, count: int) -> None:
        self._kind = kind
        self._buffer = buffer
        self._offset = offset
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> S:
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._kind.at(self._buffer, self._offset + index % self._count * self._kind.size)

    def __iter__(self) -> Iterator[S]:
        return (self[index] for index in range(self._count))

    def __repr__(self) -> str:
        return repr(list(self))


class Structs(Field, OfStructure[S]):
    """`count` structures one after the other; with count 0, as many as the buffer holds (a flexible array member)."""

    def __init__(self, kind: type[S], count: int = 0) -> None:
        self.kind = kind
        self.count = count
        self.size = kind.size * count
        self.alignment = kind.alignment

    @overload
    def __get__(self, structure: None, owner: type) -> Self: ...
    @overload
    def __get__(self, structure: Structure, owner: type) -> Row[S]: ...
    def __get__(self, structure: Structure | None, owner: type) -> Self | Row[S]:
        if structure is None:
            return self
        count = self.count or (len(structure.buffer) - self.offset) // self.kind.size
        return Row(self.kind, structure.buffer, self.offset, count)


class Structure:
    """A view of one C structure. `size` and `alignment` are in bytes; `buffer` is the memory itself, writable.

    `union=True` in the class statement lays every field at offset 0.
    """

    __slots__ = ("buffer",)
    size = 0
    alignment = 1
    fields: dict[str, Field] = {}  # noqa: RUF012  (replaced, never changed, by each subclass)
    buffer: memoryview

    def __init_subclass__(cls, *, union: bool = False) -> None:
        end = size = 0
        alignment = 1
        fields = {}
        for name, field in cls.__dict__.items():
            if not isinstance(field, Field):
                continue
            fields[name] = field
            field.offset = 0 if union else -(-end // field.alignment) * field.alignment
            end = field.offset + field.size
            if end > size:
                size = end
            if field.alignment > alignment:
                alignment = field.alignment
        cls.fields = fields
        cls.alignment = alignment
        cls.size = -(-size // alignment) * alignment

    def __init__(self, **values: Any) -> None:
        """A structure of zeros, but for the fields given."""
        self.buffer = memoryview(bytearray(self.size))
        for name, value in values.items():
            self._write(name, value)

    def _write(self, name: str, value: Any) -> None:
        if name not in self.fields:
            raise TypeError(f"{type(self).__name__} has no field {name}")
        self.fields[name].write(self, value)

    @classmethod
    def at(cls, buffer: memoryview | bytearray, offset: int = 0) -> Self:
        """A view of the structure at `offset` of a writable buffer. Raises ValueError if it does not fit."""
        view = memoryview(buffer)[offset : offset + cls.size]
        if len(view) < cls.size:
            raise ValueError(f"{cls.__name__} needs {cls.size} bytes at {offset}, the buffer has {len(view)}")
        structure = cls.__new__(cls)
        structure.buffer = view
        return structure

    @classmethod
    def with_tail(cls, tail: bytes | int, **values: Any) -> Self:
        """A structure of zeros, but for the fields given, and its flexible array member: bytes, or how many zeros."""
        structure = cls.__new__(cls)
        structure.buffer = memoryview(bytearray(cls.size) + (bytearray(tail) if isinstance(tail, int) else tail))
        for name, value in values.items():
            structure._write(name, value)
        return structure

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """A copy of `data` as this structure; longer data keeps its tail. Raises ValueError if `data` is too short."""
        if len(data) < cls.size:
            raise ValueError(f"{cls.__name__} is {cls.size} bytes, not {len(data)}")
        structure = cls.__new__(cls)
        structure.buffer = memoryview(bytearray(data))
        return structure

    @property
    def tail(self) -> memoryview:
        """What follows the fixed part: the flexible array member's bytes."""
        return self.buffer[self.size :]

    def copy(self) -> Self:
        """The same contents in a buffer of its own."""
        return self.from_bytes(bytes(self.buffer))

    def __bytes__(self) -> bytes:
        return bytes(self.buffer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and bytes(self.buffer) == bytes(other.buffer)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        parts = []
        for name in self.fields:
            value = getattr(self, name)
            parts.append(f"{name}={value:#x}" if isinstance(value, int) else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


def u8() -> Int:
    """An unsigned 8-bit field."""
    return Int("B", 1)


def u16() -> Int:
    """An unsigned 16-bit field."""
    return Int("H", 2)


def u32() -> Int:
    """An unsigned 32-bit field."""
    return Int("I", 4)


def u64() -> Int:
    """An unsigned 64-bit field."""
    return Int("Q", 8)


def s32() -> Int:
    """A signed 32-bit field."""
    return Int("i", 4)


def s64() -> Int:
    """A signed 64-bit field."""
    return Int("q", 8)
