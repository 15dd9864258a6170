"""The buses: who answers, who does not, and what becomes of wide accesses."""

from __future__ import annotations

from operator import index

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.devices.bus import Bus, LockedBus
from belljar.errors import ConfigurationError
from belljar.machine import End, Machine
from conformance.assembly import guest


class Latch:
    """Four byte-wide ports that remember, and the accesses that came."""

    port_width = 1

    def __init__(self, base: int = 0x100) -> None:
        self.ports = range(base, base + 4)
        self.values = dict.fromkeys(self.ports, 0)

    def port_read(self, port: int, size: int) -> int:
        assert size == 1
        return self.values[port]

    def port_write(self, port: int, size: int, value: int) -> None:
        assert size == 1
        self.values[port] = value


class Window:
    """A memory device that answers each address with its low byte, repeated."""

    def __init__(self, start: int, stop: int) -> None:
        self.mmio = range(start, stop)
        self.written: list[tuple[int, int, int]] = []

    def mmio_read(self, gpa: int, size: int) -> int:
        return int.from_bytes(bytes([gpa & 0xFF]) * size, "little")

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        self.written.append((gpa, size, value))


@pytest.mark.parametrize("kind", [Bus, LockedBus])
def test_wide_access_to_byte_device_is_split_into_adjacent_ports(kind: type[Bus]) -> None:
    bus = kind()
    bus.attach(latch := Latch())
    bus.port_write(0x100, 4, 0x44332211)
    assert [latch.values[port] for port in latch.ports] == [0x11, 0x22, 0x33, 0x44]
    assert bus.port_read(0x101, 2) == 0x3322


class Register:
    """What a device may keep its numbers in (numpy does)."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Odd:
    """A device whose answers are no plain integers, or have too many bits."""

    ports, mmio, port_width = range(0x200, 0x204), range(0xF000_0000, 0xF000_1000), 1

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def port_read(self, port: int, size: int) -> object:
        return self.answer

    def mmio_read(self, gpa: int, size: int) -> object:
        return self.answer

    def port_write(self, port: int, size: int, value: int) -> None:
        pass

    mmio_write = port_write


READ_ALL_WAYS = """
main:
    mov edx, 0x200
    in al, dx
    out 0xE9, al
    mov al, [0xF0000000]
    out 0xE9, al
    mov edi, 0x8000
    mov ecx, 3
    cld
    rep insb
    mov esi, 0xF0000000
    mov ecx, 3
    rep movsb
    mov esi, 0x8000
    mov ecx, 6
    mov edx, 0xE9
    rep outsb
    done
"""


@pytest.mark.parametrize("options", [{"engine": "soft"}, {"engine": "kvm"}, {"engine": "kvm", "irqchip": "user"}])
@pytest.mark.parametrize("answer", [0x5A, True, Register(0x5A), -1, 0x15A, 1 << 70])
def test_device_may_answer_with_whatever_is_an_integer(options: dict[str, str], answer: object) -> None:
    with Machine(guest(READ_ALL_WAYS), mode="long", **options) as machine:
        machine.bus.attach(Odd(answer))
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == bytes([index(answer) & 0xFF]) * 8  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_unclaimed_port_reads_all_ones_and_counts(size: int) -> None:
    bus = Bus()
    assert bus.port_read(0x500, size) == (1 << 8 * size) - 1
    bus.port_write(0x500, size, 0)
    assert bus.unclaimed == 2 * size


def test_access_over_the_end_of_the_port_space_wraps() -> None:
    bus = Bus()
    bus.attach(latch := Latch(0))
    bus.port_write(0xFFFF, 2, 0xAB00)
    assert latch.values[0] == 0xAB


def test_overlapping_devices_are_refused() -> None:
    bus = Bus()
    bus.attach(Latch())
    with pytest.raises(ConfigurationError, match="0x102 belongs to another device"):
        bus.attach(Latch(0x102))
    bus.attach(Window(0x1000, 0x2000))
    for start, stop in ((0x1FFF, 0x2001), (0x0, 0x1001), (0x1800, 0x1900), (0x0, 0x4000)):
        with pytest.raises(ConfigurationError):
            bus.attach(Window(start, stop))


class Deaf:
    """A port device of a user who did not think of writes."""

    ports = range(0x300, 0x301)
    port_width = 1

    def port_read(self, port: int, size: int) -> int:
        return 0


class Nowhere:
    """A device whose ports are no range."""

    ports = (0x300,)


@pytest.mark.parametrize(
    ("device", "said"), [(Deaf(), "Deaf has `ports`, but no `port_write`"), (Nowhere(), "Nowhere has no addresses")]
)
def test_a_device_that_lacks_something_is_refused_whole(device: object, said: str) -> None:
    bus = Bus()
    with pytest.raises(ConfigurationError, match=said):
        bus.attach(device)
    assert bus.port_read(0x300, 1) == 0xFF
    bus.attach(Latch(0x300))


@given(st.integers(0, 0x5000), st.sampled_from([1, 2, 4, 8]))
def test_memory_access_finds_exactly_the_claiming_device(gpa: int, size: int) -> None:
    bus = Bus()
    windows = [Window(0x1000, 0x2000), Window(0x2000, 0x2010), Window(0x4000, 0x4001)]
    for window in reversed(windows):
        bus.attach(window)
    claimed = [window for window in windows if gpa in window.mmio]
    expected = int.from_bytes(bytes([gpa & 0xFF]) * size, "little") if claimed else (1 << 8 * size) - 1
    assert bus.mmio_read(gpa, size) == expected
    bus.mmio_write(gpa, size, 5)
    assert [window.written for window in windows] == [[(gpa, size, 5)] if w in claimed else [] for w in windows]


@given(st.binary(max_size=64), st.sampled_from([1, 2, 4]))
def test_block_write_equals_single_writes(data: bytes, size: int) -> None:
    data = data[: len(data) - len(data) % size]
    one, many = Bus(), Bus()
    one.attach(a := Latch())
    many.attach(b := Latch())
    one.port_write_block(0x100, size, data)
    for i in range(0, len(data), size):
        many.port_write(0x100, size, int.from_bytes(data[i : i + size], "little"))
    assert a.values == b.values
