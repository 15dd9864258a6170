"""The log of switches between host and guest that an explanation keeps: the first ones whole, all of them counted."""

from __future__ import annotations

from belljar.exits import Exit, Mmio, PortIo
from belljar.machine import Machine
from belljar.observe.explain_model import Switch, SwitchGroup
from belljar.observe.trace import cpu_of, details
from belljar.records import dataclass

SHOWN_DATA = 64
"""Bytes of one exit's data that are kept."""

MAX_GROUPS = 256
"""Kinds of switches that are counted apart; a guest can touch any number of ports and pages."""

CONSOLE_LIMIT = 1 << 16
"""Bytes of console output that are kept."""

PAGE_SIZE = 4096


class ConsoleCounter:
    """A console output that keeps the first bytes and counts them all."""

    def __init__(self, limit: int = CONSOLE_LIMIT) -> None:
        self._data = bytearray()
        self._limit = limit
        self.total = 0

    def write(self, data: bytes) -> None:
        """Take all of `data`, keep what fits."""
        self.total += len(data)
        self._data += data[: self._limit - len(self._data)]

    @property
    def kept(self) -> int:
        """How many bytes `text` stands for."""
        return len(self._data)

    def text(self) -> str:
        """What was kept, as text; bytes that are no UTF-8 are escaped."""
        return self._data.decode("utf-8", "backslashreplace")


@dataclass(slots=True)
class _Tally:
    switches: int
    first: int
    last: int


class SwitchLog:
    """Takes exits one at a time while the machine stands still. `limit` of them are kept whole in `switches`."""

    def __init__(self, machine: Machine, console: ConsoleCounter, limit: int) -> None:
        self._machine = machine
        self._console = console
        self._limit = limit
        self._rips = {cpu.index: cpu.registers.rip for cpu in machine.cpus}
        self._printed = 0
        self._tallies: dict[tuple[int, str, bool | None, int | None, int | None, int | None], _Tally] = {}
        self.switches: list[Switch] = []
        self.count = 0
        self.console_exits = 0

    def add(self, exit: Exit) -> None:
        """Note one exit that was just served."""
        self.count += 1
        printed = self._console.total > self._printed
        self._printed = self._console.total
        self.console_exits += printed
        self._tally(exit)
        if len(self.switches) < self._limit:
            self.switches.append(self._whole(exit, printed))

    def _tally(self, exit: Exit) -> None:
        port = gpa_page = size = None
        write = None
        if isinstance(exit, PortIo):
            port, size, write = exit.port, exit.size, exit.write
        elif isinstance(exit, Mmio):
            gpa_page, size, write = exit.gpa - exit.gpa % PAGE_SIZE, exit.size, exit.write
        key = (exit.vcpu, exit.reason.label, write, port, gpa_page, size)
        if key not in self._tallies and len(self._tallies) >= MAX_GROUPS:
            key = (exit.vcpu, exit.reason.label, None, None, None, None)  # further ports and pages, told together
        tally = self._tallies.get(key)
        if tally is None:
            self._tallies[key] = _Tally(1, self.count, self.count)
        else:
            tally.switches += 1
            tally.last = self.count

    def groups(self) -> list[SwitchGroup]:
        """All switches by kind, in the order in which each kind first came."""
        return [SwitchGroup(*key, tally.switches, tally.first, tally.last) for key, tally in self._tallies.items()]

    def _whole(self, exit: Exit, printed: bool) -> Switch:
        cpu = cpu_of(self._machine, exit)
        enter_rip, exit_rip = self._rips.get(exit.vcpu, 0), cpu.registers.rip
        self._rips[exit.vcpu] = exit_rip
        common = (self.count, exit.vcpu, enter_rip, exit_rip, exit.reason.label)
        if isinstance(exit, PortIo):
            offset = exit.data_offset
            return Switch(
                *common,
                write=exit.write,
                port=exit.port,
                size=exit.size,
                count=exit.count,
                value=exit.value,
                data=exit.data[:SHOWN_DATA],
                data_offset=offset,
                data_hva=None if offset is None else cpu.run_page.hva + offset,
                console=printed,
            )
        if isinstance(exit, Mmio):
            return Switch(
                *common,
                write=exit.write,
                gpa=exit.gpa,
                size=exit.size,
                count=1,
                value=exit.value,
                data=exit.data,
                console=printed,
            )
        detail = " ".join(f"{name}={value}" for name, value in details(exit).items())
        return Switch(*common, detail=detail)
