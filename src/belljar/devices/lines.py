"""Interrupt lines and where they lead: a device holds a `Line`, the `Router` brings its level to pins and messages.

A line belongs to a global system interrupt (GSI). Several sources may share a GSI: its level is the OR of theirs. A table
leads each GSI to a pin of the 8259 pair, to a pin of the IOAPIC, to a message (MSI), or to several of them, as the
entries of KVM_SET_GSI_ROUTING do (api.rst 4.52).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from belljar.devices.apic_message import delivery_name
from belljar.devices.interrupt_counts import InterruptCounts
from belljar.errors import ConfigurationError

PIC_PINS: Final = 16
IOAPIC_PINS: Final = 24
MAX_GSI: Final = 4095
"""KVM_MAX_IRQ_ROUTES is 4096."""

PIT_GSI: Final = 0
CASCADE_GSI: Final = 2
PIT_IOAPIC_PIN: Final = 2
"""A PC's 8254 is on the 8259's pin 0 and the IOAPIC's pin 2, for pin 2 of the 8259 is its cascade (MP Specification 1.4, 5.1)."""


class PicRoute(NamedTuple):
    """GSI to a pin of the 8259 pair, 0 to 15."""

    gsi: int
    pin: int


class IoapicRoute(NamedTuple):
    """GSI to a pin of the IOAPIC, 0 to 23."""

    gsi: int
    pin: int


class MsiRoute(NamedTuple):
    """GSI to a message, sent when its level rises."""

    gsi: int
    gpa: int
    data: int


Route = PicRoute | IoapicRoute | MsiRoute


def plain_routes(routes: Sequence[Route]) -> list[Route]:
    """The same with their numbers as exact integers: their makers may have given anything that stands for one."""
    plain: list[Route] = []
    for route in routes:
        given: Any = route  # by its type, compiled code would take nothing but integers out of it
        numbers = [operator.index(number) for number in given]
        if isinstance(route, MsiRoute):
            plain.append(MsiRoute(*numbers))
        elif isinstance(route, IoapicRoute):
            plain.append(IoapicRoute(*numbers))
        else:
            plain.append(PicRoute(*numbers))
    return plain


class PinState(NamedTuple):
    """What a chip would make of a pin now. `cpus` are the indices of those it would reach."""

    vector: int
    delivery: str
    trigger: str
    masked: bool
    cpus: tuple[int, ...]


class LineRoute(NamedTuple):
    """One row of `Router.explain`: from a GSI and its sources to a vector on CPUs. `message` is an MSI's address and data."""

    gsi: int
    sources: tuple[str, ...]
    level: bool
    chip: str
    pin: int
    state: PinState
    message: tuple[int, int] | None = None


class PinChip(Protocol):
    """An interrupt chip with numbered input pins."""

    def set_pin(self, pin: int, level: bool) -> int:
        """Drive a pin; above 0 if that became an interrupt, 0 if one was already waiting, below 0 if it is masked."""

    def name_pin(self, pin: int, source: str) -> None:
        """Who drives it, for reports."""

    def pin_state(self, pin: int) -> PinState:
        """What an interrupt there would become now."""


def pc_routes() -> list[Route]:
    """A PC's wiring: GSI 0 on the 8259's pin 0 and the IOAPIC's pin 2, GSI 2 nowhere (cascade), all others 1:1."""
    routes: list[Route] = [PicRoute(gsi, gsi) for gsi in range(PIC_PINS) if gsi != CASCADE_GSI]
    for gsi in range(IOAPIC_PINS):
        if gsi != CASCADE_GSI:
            routes.append(IoapicRoute(gsi, PIT_IOAPIC_PIN if gsi == PIT_GSI else gsi))
    return routes


def identity_routes() -> list[Route]:
    """What KVM sets up by itself: each GSI to the pin of the same number on both chips."""
    routes: list[Route] = [PicRoute(gsi, gsi) for gsi in range(PIC_PINS)]
    return routes + [IoapicRoute(gsi, gsi) for gsi in range(IOAPIC_PINS)]


class LineOwner(Protocol):
    """Whoever brings a line's level to the chips."""

    def drive(self, line: Line, level: bool) -> int:
        """Set one source's level on its GSI; the answer is `Line`'s."""


class Line:
    """One source's hold on a GSI. Calling it sets the source's level."""

    __slots__ = ("_router", "bit", "gsi", "level", "raised", "source")

    def __init__(self, router: LineOwner, gsi: int, source: str, bit: int) -> None:
        self._router = router
        self.gsi = gsi
        self.source = source
        self.level = False
        self.bit = bit
        self.raised = 0
        """How often its source raised it."""

    def __call__(self, level: object) -> int:
        """Raise or lower it; what became of it as `PinChip.set_pin` says, the best of all routes, 0 if nothing changed.

        Any truth value will do: devices make it of their registers' bits.
        """
        up = bool(level)
        if up == self.level:
            return 0
        self.level = up
        self.raised += up
        return self._router.drive(self, up)

    def pulse(self) -> int:
        """Up and down again: one edge."""
        self(False)
        answer = self(True)
        self(False)
        return answer


class _Gsi:
    """A GSI: the levels of its sources, and where it leads."""

    __slots__ = ("levels", "lines", "messages", "pins")

    def __init__(self) -> None:
        self.levels = 0
        self.lines: list[Line] = []
        self.pins: list[tuple[PinChip, int]] = []
        self.messages: list[MsiRoute] = []


class Router:
    """The routing table and the levels of all lines."""

    def __init__(
        self,
        *,
        pic: PinChip | None = None,
        ioapic: PinChip | None = None,
        send_msi: Callable[[int, int, str], int] | None = None,
        counts: InterruptCounts | None = None,
    ) -> None:
        self._pic = pic
        self._ioapic = ioapic
        self._send_msi = send_msi
        self._counts = counts
        self._gsis: dict[int, _Gsi] = {}
        self._routes: tuple[Route, ...] = ()

    @property
    def routes(self) -> tuple[Route, ...]:
        """The table, as it was last set."""
        return self._routes

    @property
    def lines(self) -> tuple[Line, ...]:
        """Every source, by GSI and then in the order in which they came."""
        return tuple(line for _, entry in sorted(self._gsis.items()) for line in entry.lines)

    def line(self, gsi: int, source: str, owner: LineOwner | None = None) -> Line:
        """A new source, called `source` in reports, on a GSI. `owner` passes its levels on to `drive`, if not this router."""
        check_gsi(gsi, source)
        entry = self._gsi(gsi)
        line = Line(owner or self, gsi, source, 1 << len(entry.lines))
        entry.lines.append(line)
        self._name_pins(entry)
        return line

    def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the table. Lines that are up let go of their old pins and drive the new ones.

        Raises ConfigurationError for a pin that does not exist, a pin with two GSIs, or a GSI twice on one chip.
        """
        check_routes(routes)
        for entry in self._gsis.values():
            if entry.levels:
                for chip, pin in entry.pins:
                    chip.set_pin(pin, False)
            entry.pins, entry.messages = [], []
        self._routes = tuple(routes)
        for route in routes:
            entry = self._gsi(route.gsi)
            if isinstance(route, MsiRoute):
                entry.messages.append(route)
            else:
                target = self._pic if isinstance(route, PicRoute) else self._ioapic
                if target is not None:
                    entry.pins.append((target, route.pin))
        for entry in self._gsis.values():
            self._name_pins(entry)
            if entry.levels:
                for chip, pin in entry.pins:
                    chip.set_pin(pin, True)

    def drive(self, line: Line, level: bool) -> int:
        """Set one source's level on its GSI; called by `Line`."""
        entry = self._gsis[line.gsi]
        before = entry.levels
        entry.levels = before | line.bit if level else before & ~line.bit
        if bool(before) == bool(entry.levels):
            return 0
        watch = None if self._counts is None else self._counts.watch
        if watch is not None:
            watch.line(line.gsi, line.source, level)
        answer = -1
        shared = level and len(entry.lines) > 1
        for chip, pin in entry.pins:
            if shared:
                chip.name_pin(pin, line.source)
            answer = max(answer, chip.set_pin(pin, level))
        if level and self._send_msi is not None:
            for message in entry.messages:
                answer = max(answer, self._send_msi(message.gpa, message.data, line.source))
        if watch is not None and level and answer < 0:
            watch.held(line.gsi, line.source)
        return answer

    def level(self, gsi: int) -> bool:
        """Whether any source holds the GSI up."""
        entry = self._gsis.get(gsi)
        return entry is not None and entry.levels != 0

    def explain(self) -> list[LineRoute]:
        """Which line reaches which vector on which CPU, as the chips are programmed now, by GSI."""
        rows = []
        for gsi, entry in sorted(self._gsis.items()):
            sources, level = tuple(line.source for line in entry.lines), bool(entry.levels)
            for chip, pin in entry.pins:
                name = "pic" if chip is self._pic else "ioapic"
                rows.append(LineRoute(gsi, sources, level, name, pin, chip.pin_state(pin)))
            for message in entry.messages:
                state = message_state(message)
                rows.append(LineRoute(gsi, sources, level, "msi", 0, state, (message.gpa, message.data)))
        return rows

    def state(self) -> dict[str, object]:
        """Levels by GSI (a bit a source) and the table as lists of numbers."""
        kinds = {PicRoute: 0, IoapicRoute: 1, MsiRoute: 2}
        return {
            "levels": {gsi: entry.levels for gsi, entry in sorted(self._gsis.items()) if entry.lines},
            "routes": [[kinds[type(route)], *route] for route in self._routes],
        }

    def restore(self, state: dict[str, object]) -> None:
        """Take levels and table back without driving the chips, whose own state knows the pins already.

        Lines are those that were made with `line`, in the same order as in the machine that was saved.
        """
        classes = (PicRoute, IoapicRoute, MsiRoute)
        routes = state["routes"]
        levels = state["levels"]
        assert isinstance(routes, list)
        assert isinstance(levels, dict)
        for entry in self._gsis.values():
            entry.levels = 0
        self.set_routes([classes[kind](*numbers) for kind, *numbers in routes])
        for gsi, bits in levels.items():
            self._gsi(gsi).levels = bits
        for entry in self._gsis.values():
            for line in entry.lines:
                line.level = bool(entry.levels & line.bit)

    def _gsi(self, gsi: int) -> _Gsi:
        entry = self._gsis.get(gsi)
        if entry is None:
            entry = self._gsis[gsi] = _Gsi()
        return entry

    def _name_pins(self, entry: _Gsi) -> None:
        for chip, pin in entry.pins if entry.lines else ():
            chip.name_pin(pin, entry.lines[0].source)


def message_state(route: MsiRoute) -> PinState:
    """What its message means, but for whom it reaches (SDM 3A 11.11.2)."""
    return PinState(
        route.data & 0xFF, delivery_name(route.data >> 8 & 7), "level" if route.data >> 15 & 1 else "edge", False, ()
    )


def check_gsi(gsi: int, source: str) -> None:
    """Raise ConfigurationError if there is no such line."""
    if not 0 <= gsi <= MAX_GSI:
        raise ConfigurationError(f"{source}: there is no interrupt line {gsi}", hint=f"lines are 0 to {MAX_GSI}")


def check_routes(routes: Sequence[Route]) -> None:
    """Raise ConfigurationError for a pin that does not exist, a pin with two GSIs, or a GSI twice on one chip."""
    pins = set()
    for route in routes:
        check_gsi(route.gsi, "route")
        if isinstance(route, MsiRoute):
            continue
        count = PIC_PINS if isinstance(route, PicRoute) else IOAPIC_PINS
        if not 0 <= route.pin < count:
            raise ConfigurationError(f"interrupt line {route.gsi} leads to pin {route.pin} of a chip that has {count}")
        for key in ((type(route), "pin", route.pin), (type(route), "gsi", route.gsi)):
            if key in pins:
                raise ConfigurationError(
                    f"interrupt line {route.gsi}, pin {route.pin}: {key[1]} is used twice on a chip"
                )
            pins.add(key)
