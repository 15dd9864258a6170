"""A PC's interrupt chips wired together: 8259 pair, IOAPIC, a local APIC for each CPU, and the router in front of them.

All of it belongs to one owner, who makes one call at a time (with vCPU threads: under the bus's lock).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from belljar.devices.apic_bus import ApicBus
from belljar.devices.apic_message import ApicMessage, DeliveryMode, from_msi
from belljar.devices.clock import Clock, Tsc
from belljar.devices.i8259 import PicPair
from belljar.devices.interrupt_counts import InterruptCounts
from belljar.devices.ioapic import VERSION_82093AA, VERSION_WITH_EOI, IoApic
from belljar.devices.lapic import Lapic
from belljar.devices.lines import LineRoute, Router, pc_routes

PIC_IOAPIC_PIN: Final = 0
"""Where the 8259's INT also leads, for guests that take ExtINT through the IOAPIC (MP Specification 1.4, 3.6.2.3)."""


class InterruptChips:
    """Everything between interrupt lines and vCPUs.

    `wake(cpu)` is called whenever something may have become ready for a vCPU. With `send`, the local APICs are elsewhere
    (a split irqchip): messages go there, `pic_output` is told the 8259's INT level, `redirected` each IOAPIC pin whose entry
    was written, ends of interrupt come back through `ioapic.end_of_interrupt`, and `lapics` stays empty.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        cpus: int = 1,
        tsc: Tsc | None = None,
        wake: Callable[[int], None] = lambda cpu: None,
        send: Callable[[ApicMessage], int] | None = None,
        pic_output: Callable[[bool], None] | None = None,
        redirected: Callable[[int], None] | None = None,
        eoi_suppression: bool = False,
        virtual_wire: bool = True,
        latch_edges: bool = True,
        cmci: bool = True,
    ) -> None:
        self._clock = clock
        self._tsc = tsc
        self._wake = wake
        self._send = send
        self._pic_output = pic_output
        self._eoi_suppression = eoi_suppression
        self._virtual_wire = virtual_wire
        self._cmci = cmci
        self.counts = InterruptCounts()
        self.bus = ApicBus(self.counts)
        self.lapics: dict[int, Lapic] = {}
        """Local APICs by CPU index, which is also the APIC id."""
        version = VERSION_WITH_EOI if eoi_suppression else VERSION_82093AA
        self.ioapic = IoApic(
            self.deliver, version=version, cpus_of=self._cpus_of, changed=redirected, counts=self.counts
        )
        self.bus.add_ioapic(self.ioapic)
        self.pic = PicPair(self._pic_level, clock=clock, counts=self.counts, latch_edges=latch_edges)
        self.router = Router(pic=self.pic, ioapic=self.ioapic, send_msi=self.signal_msi, counts=self.counts)
        self.router.set_routes(pc_routes())
        if send is None:
            for cpu in range(cpus):
                self.add_cpu(cpu)

    def add_cpu(self, cpu: int) -> Lapic:
        """A local APIC for a vCPU, also while others run. CPU 0 is the bootstrap processor."""
        lapic = Lapic(
            cpu,
            self.bus,
            self._clock,
            tsc=self._tsc,
            bsp=cpu == 0,
            wake=partial(self._wake, cpu),
            pic=self.pic,
            counts=self.counts,
            eoi_suppression=self._eoi_suppression,
            virtual_wire=self._virtual_wire,
            cmci=self._cmci,
        )
        lapic.local.set_lint(0, self.pic.output_level)
        self.lapics[cpu] = lapic
        self.bus.add_lapic(lapic)
        return lapic

    def remove_cpu(self, cpu: int) -> None:
        """The vCPU is gone."""
        lapic = self.lapics.pop(cpu)
        self.bus.remove_lapic(lapic)
        lapic.timer.reset()

    def deliver(self, message: ApicMessage) -> int:
        """Bring a message to the local APICs that it is for; how many took it."""
        return self.bus.deliver(message) if self._send is None else self._send_away(message)

    def _send_away(self, message: ApicMessage) -> int:
        """To local APICs that are elsewhere: what becomes of it there is not known here."""
        if self.counts.watch is not None:
            self.counts.watch.message(message)
        assert self._send is not None
        taken = self._send(message)
        if taken:
            self.counts.entry(message.source, message.vector).raised += 1
        else:
            self.counts.lose(message)
        return taken

    def signal_msi(self, gpa: int, data: int, source: str = "msi") -> int:
        """A device's message; how many local APICs took it."""
        message = from_msi(gpa, data, source)
        return self.deliver(message) if message is not None else 0

    def nmi(self, cpu: int) -> None:
        """Press a vCPU's NMI button: LINT1 goes up and down (api.rst 4.64)."""
        lapic = self.lapics[cpu]
        lapic.local.set_lint(1, True)
        lapic.local.set_lint(1, False)

    def _pic_level(self, level: bool) -> None:
        for lapic in self.lapics.values():
            lapic.local.set_lint(0, level)
        self.ioapic.set_pin(PIC_IOAPIC_PIN, level)
        if self._pic_output is not None:
            self._pic_output(level)

    def _cpus_of(self, message: ApicMessage) -> tuple[int, ...]:
        fixed = message.delivery <= DeliveryMode.LOWEST_PRIORITY
        return tuple(
            cpu for cpu, lapic in self.lapics.items() if lapic.matches(message) and (lapic.enabled or not fixed)
        )

    def explain(self) -> list[LineRoute]:
        """Which line reaches which vector on which CPU now, by GSI."""
        through_pic = tuple(cpu for cpu, lapic in self.lapics.items() if lapic.local.accepts_extint)
        rows = []
        for row in self.router.explain():
            state = row.state
            if row.chip == "pic":
                state = state._replace(cpus=through_pic)
            elif row.message is not None:
                message = from_msi(*row.message)
                state = state._replace(cpus=self._cpus_of(message) if message is not None else ())
            rows.append(row._replace(state=state))
        return rows

    def devices(self) -> tuple[object, ...]:
        """What to attach to the machine's bus; each CPU's own page comes with `lapic_window.LapicWindow`."""
        return *self.pic.devices(), self.ioapic

    def state(self) -> dict[str, Any]:
        """Every chip and the router."""
        return {
            "pic": self.pic.state(),
            "ioapic": self.ioapic.state(),
            "router": self.router.state(),
            "lapics": {cpu: lapic.state() for cpu, lapic in self.lapics.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back. The same CPUs must be there as in the machine that was saved."""
        self.router.restore(state["router"])
        self.pic.restore(state["pic"])
        self.ioapic.restore(state["ioapic"])
        for cpu, lapic in self.lapics.items():
            lapic.restore(state["lapics"][cpu])
