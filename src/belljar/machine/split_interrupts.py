"""A machine with a split irqchip: local APICs of the engine's, 8259 pair, IOAPIC and 8254 of its own."""

from __future__ import annotations

from collections.abc import Sequence

from belljar.devices.apic_message import ApicMessage
from belljar.devices.bus import Bus
from belljar.devices.interrupt_chips import InterruptChips
from belljar.devices.ioapic import MASKED
from belljar.devices.lines import IoapicRoute, LineRoute, MsiRoute, Route, check_gsi
from belljar.engine import Vm
from belljar.exits import ExitReason
from belljar.machine.cpu import Cpu
from belljar.machine.own_interrupts import OwnInterrupts
from belljar.machine.split_seat import SplitSeat
from belljar.routes import MessageRoute


class SplitInterrupts(OwnInterrupts):
    """As `OwnInterrupts`. What the IOAPIC's open pins send is kept in the engine's table, too.

    By it the engine knows of which ends of interrupt to tell, and where an eventfd leads.
    """

    passing = (ExitReason.INTERRUPTED, ExitReason.IRQ_WINDOW_OPEN, ExitReason.IOAPIC_EOI)

    def __init__(self, vm: Vm, cpus: Sequence[Cpu], bus: Bus) -> None:
        self._vm = vm
        self._table: list[MessageRoute] = []
        super().__init__(cpus, bus)

    def _make_chips(self, cpus: int) -> InterruptChips:
        return InterruptChips(
            self.clock,
            cpus=cpus,
            wake=self._wake,
            send=self._send,
            pic_output=self._pic_output,
            redirected=lambda pin: self._tell_engine(),
        )

    def _pic_output(self, level: bool) -> None:
        """LINT0 of all local APICs is on it; that of vCPU 0 may have to be told that there is nothing more, too."""
        if not level:
            self._wake(0)
            return
        for seat in self.seats:
            if isinstance(seat, SplitSeat):
                seat.lint0_rose = True
            self._wake(seat.cpu.index)

    def _add_lapic(self, index: int) -> None:
        """The engine has it."""

    def _make_seat(self, cpu: Cpu, bus: Bus) -> SplitSeat:
        return SplitSeat(cpu, self.chips, bus, self._vm)

    def _send(self, message: ApicMessage) -> int:
        return self._vm.signal_message(*message.to_msi())

    def set_routes(self, routes: Sequence[Route]) -> None:
        """As `OwnInterrupts.set_routes`."""
        super().set_routes(routes)
        with self.lock:
            self._tell_engine()

    def _tell_engine(self) -> None:
        ioapic = self.chips.ioapic
        table = [
            MessageRoute(route.gsi, *ioapic.message(route.pin).to_msi())
            for route in self.routes
            if isinstance(route, IoapicRoute) and not ioapic.redirection[route.pin] & MASKED
        ]
        taken = {route.gsi for route in table}  # the engine's table has one message a GSI
        table += [
            MessageRoute(*route) for route in self.routes if isinstance(route, MsiRoute) and route.gsi not in taken
        ]
        if table != self._table:
            self._vm.set_routes(table)
            self._table = table

    def explain(self) -> list[LineRoute]:
        """As `OwnInterrupts.explain`; which vCPUs are reached is asked of the engine. Not during a run."""
        rows = []
        for row in super().explain():
            if row.chip == "pic":
                cpus = self._vm.pic_cpus()
            elif row.message is not None:
                cpus = self._vm.message_cpus(*row.message)
            else:
                cpus = self._vm.message_cpus(*self.chips.ioapic.message(row.pin).to_msi())
            rows.append(row._replace(state=row.state._replace(cpus=cpus)))
        return rows

    def _connect_eventfd(self, eventfd: int, gsi: int) -> None:
        """One message, as the IOAPIC's pin would send it, whenever a host eventfd is signalled; past the IOAPIC."""
        check_gsi(gsi, "eventfd")
        self._vm.connect_eventfd(eventfd, gsi)
