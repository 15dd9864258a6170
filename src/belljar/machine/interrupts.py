"""A machine's interrupt lines when the chips are the engine's: who drives them, and where they lead."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from threading import Lock
from typing import SupportsIndex

from belljar.devices.apic_message import from_msi
from belljar.devices.interrupt_watch import InterruptWatch
from belljar.devices.lines import (
    IoapicRoute,
    Line,
    LineRoute,
    MsiRoute,
    PicRoute,
    PinState,
    Route,
    check_gsi,
    check_routes,
    message_state,
    pc_routes,
    plain_routes,
)
from belljar.engine import Vm
from belljar.errors import ConfigurationError
from belljar.routes import MessageRoute, PinRoute


class EngineInterrupts:
    """Lines, messages and routes of the engine's chips, wired as a PC's. Its calls may come from any thread."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._lock = Lock()
        self._lines: dict[int, list[Line]] = {}
        self._levels: dict[int, int] = {}
        self._routes: tuple[Route, ...] = ()
        self.watch: InterruptWatch | None = None
        """Told of lines and messages; of what becomes of them only the engine's chips know."""
        self.messages = 0
        """How many messages were sent with `signal_msi`."""
        self.set_routes(pc_routes())

    @property
    def routes(self) -> tuple[Route, ...]:
        """The table, as it was last set."""
        return self._routes

    def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the table. Raises ConfigurationError for a line or pin that does not exist, or what the engine refuses."""
        routes = plain_routes(routes)
        check_routes(routes)
        self._vm.set_routes([_for_engine(route) for route in routes])
        self._routes = tuple(routes)

    @property
    def lines(self) -> tuple[Line, ...]:
        """Every source of interrupts on a line, by GSI."""
        return tuple(line for _, lines in sorted(self._lines.items()) for line in lines)

    def line(self, gsi: SupportsIndex, source: str) -> Line:
        """A new source, called `source` in reports, on a line (GSI). The line is up while any of its sources holds it up."""
        gsi = operator.index(gsi)
        check_gsi(gsi, source)
        lines = self._lines.setdefault(gsi, [])
        line = Line(self, gsi, source, 1 << len(lines))
        lines.append(line)
        return line

    def expect(self, gsi: SupportsIndex) -> None:
        """Somebody outside may raise this line; the engine's chips are always waited for."""

    def expect_messages(self) -> None:
        """The same for messages."""

    def drive(self, line: Line, level: bool) -> int:
        """Set one source's level; called by `Line`. 1 if the line went up by that."""
        with self._lock:
            before = self._levels.get(line.gsi, 0)
            after = before | line.bit if level else before & ~line.bit
            self._levels[line.gsi] = after
            if bool(before) == bool(after):
                return 0
            if self.watch is not None:
                self.watch.line(line.gsi, line.source, level)
            self._vm.set_line(line.gsi, level)
            return int(level)

    def signal_msi(self, gpa: SupportsIndex, data: SupportsIndex, source: str = "msi") -> int:
        """Send a message-signalled interrupt (SDM 3A 11.11); above 0 if a local APIC took it."""
        gpa, data = operator.index(gpa), operator.index(data)
        if not 0 <= gpa < 1 << 64 or not 0 <= data < 1 << 32:
            raise ConfigurationError(f"a message is a 64-bit address and 32-bit data, not {gpa:#x}, {data:#x}")
        self.messages += 1
        if self.watch is not None and (message := from_msi(gpa, data, source)) is not None:
            self.watch.message(message)
        return self._vm.signal_message(gpa, data)

    def connect_eventfd(self, eventfd: SupportsIndex, gsi: SupportsIndex) -> None:
        """One edge on a line whenever a host eventfd is signalled, without this process's help."""
        eventfd, gsi = operator.index(eventfd), operator.index(gsi)
        check_gsi(gsi, "eventfd")
        self._vm.connect_eventfd(eventfd, gsi)

    def explain(self) -> list[LineRoute]:
        """Which line reaches which vector on which vCPU, as the chips are programmed now, by GSI. Not during a run."""
        rows = []
        for route in sorted(self._routes, key=lambda route: route.gsi):
            gsi = route.gsi
            sources = tuple(line.source for line in self._lines.get(gsi, ()))
            level = bool(self._levels.get(gsi, 0))
            if isinstance(route, MsiRoute):
                state = message_state(route)._replace(cpus=self._vm.message_cpus(route.gpa, route.data))
                rows.append(LineRoute(gsi, sources, level, "msi", 0, state, (route.gpa, route.data)))
                continue
            chip = "pic" if isinstance(route, PicRoute) else "ioapic"
            found = self._vm.pin_target(chip, route.pin)
            trigger = "level" if found.level_triggered else "edge"
            state = PinState(found.vector, found.delivery, trigger, found.masked, found.cpus)
            rows.append(LineRoute(gsi, sources, level, chip, route.pin, state))
        return rows


def _for_engine(route: Route) -> PinRoute | MessageRoute:
    if isinstance(route, MsiRoute):
        return MessageRoute(*route)
    return PinRoute(route.gsi, "ioapic" if isinstance(route, IoapicRoute) else "pic", route.pin)
