"""The local APIC of one CPU (SDM 3A chapter 11), as registers in memory (xAPIC) or as MSRs (x2APIC, 11.12).

It takes interrupts from the APIC bus, from its own timer, from the pins LINT0 and LINT1 and from error conditions, orders
them by priority, and holds them until the vCPU takes them:

    lapic.signals            NMI, SMI, INIT and start-up IPIs that wait
    lapic.has_interrupt()    whether there is a maskable interrupt for the vCPU now
    lapic.take()             take it: its vector
    lapic.cr8                the task priority, as MOV CR8 sees it

`wake` is called whenever one of them may have become true. Memory accesses come through `lapic_window.LapicWindow`, MSRs
through `lapic_msrs.LapicMsrs`. What it sends is `lapic_icr`'s part, its pins and own events are `lapic_lvt`'s, and what it
has counted is `interrupt_book`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from belljar.devices import apic_message as modes
from belljar.devices.apic_bus import ApicBus
from belljar.devices.apic_message import FIRST_VECTOR, ApicMessage
from belljar.devices.clock import Clock, Tsc
from belljar.devices.cpu_signals import CpuSignals
from belljar.devices.interrupt_book import InterruptBook
from belljar.devices.interrupt_counts import InterruptCounts
from belljar.devices.lapic_icr import CommandRegister
from belljar.devices.lapic_lvt import LocalVectors
from belljar.devices.lapic_timer import BUS_PERIOD_NS, ApicTimer
from belljar.devices.lapic_vectors import CLASS_MASK, VectorState
from belljar.x86 import local_apic as regs
from belljar.x86.local_apic import LVT_MASKED, LVT_NAMES, LVT_WRITABLE, VECTOR_MASK, Esr, Reg

_LVT_TIMER: Final = int(Reg.LVT_TIMER)
_EOI: Final = int(Reg.EOI)

NOWHERE: Final = -1
"""No guest-physical address."""


def _ignore(value: int) -> None:
    pass


class Acknowledger(Protocol):
    """The 8259 pair: asked for a vector when an interrupt of mode ExtINT is taken."""

    def acknowledge(self, cpu: int) -> int:
        """The INTA cycles of a vCPU: a vector."""


class Lapic:
    """One local APIC. `apic_id` has 8 bits in xAPIC mode, 32 in x2APIC mode."""

    def __init__(
        self,
        apic_id: int,
        bus: ApicBus,
        clock: Clock,
        *,
        tsc: Tsc | None = None,
        bsp: bool = False,
        wake: Callable[[], None] = lambda: None,
        pic: Acknowledger | None = None,
        counts: InterruptCounts | None = None,
        eoi_suppression: bool = False,
        virtual_wire: bool = True,
        cmci: bool = True,
        bus_period_ns: int = BUS_PERIOD_NS,
    ) -> None:
        self.apic_id = apic_id
        self._bus = bus
        self._clock = clock
        self._bsp = bsp
        self._wake = wake
        self._pic = pic
        self._book = InterruptBook(apic_id, clock, counts) if counts is not None else None
        self._virtual_wire = virtual_wire and bsp
        entries = tuple(register for register in LVT_WRITABLE if cmci or register != Reg.LVT_CMCI)
        self._version = regs.VERSION | len(entries) - 1 << 16 | (regs.VERSION_EOI_SUPPRESSION if eoi_suppression else 0)
        self._svr_writable = regs.SVR_WRITABLE | (regs.SVR_SUPPRESS_EOI if eoi_suppression else 0)
        self.signals = CpuSignals(wake)
        self.vectors = VectorState()
        self.timer = ApicTimer(clock, self._timer_expired, tsc=tsc, bus_period_ns=bus_period_ns)
        self.icr = CommandRegister(apic_id, self, bus, self._illegal_ipi)
        self.local = LocalVectors(
            entries, accept=self.accept, receive=self.receive, raise_nmi=self.signals.raise_nmi, wake=wake
        )
        self.lvt, self._lint_levels = self.local.entries, self.local.levels
        self.extint = False
        """An ExtINT message came over the APIC bus and was not taken yet."""
        self.window_gpa = NOWHERE
        """Where its page lies in guest-physical memory, or NOWHERE."""
        self.settle: Callable[[], None] | None = None
        """Called before anybody looks at the registers, while it is not known whether the guest has ended an interrupt."""
        self.ended: Callable[[int], None] | None = None
        """Called with the vector when an interrupt's service ends."""
        self.task_priority_written: Callable[[int], None] = _ignore
        """Called when the guest writes TPR, but not for MOV CR8."""
        self._place(regs.LAPIC_GPA | regs.BASE_ENABLED | (regs.BASE_BSP if bsp else 0))
        self._writers: dict[int, Callable[[int], None]] = {
            Reg.ID: self._write_id,
            Reg.TPR: self._write_tpr,
            Reg.LDR: self._write_ldr,
            Reg.DFR: self._write_dfr,
            Reg.SVR: self._write_svr,
            Reg.ESR: self._write_esr,
            Reg.ICR: self.icr.write_low,
            Reg.ICR_HIGH: self.icr.write_high,
            Reg.INITIAL_COUNT: self.timer.write_initial,
            Reg.DIVIDE: self.timer.write_divide,
            **{int(register): self._lvt_writer(register) for register in entries},
        }
        self.reset()

    # -- life ----------------------------------------------------------------------------------------------------

    def reset(self, *, init: bool = False) -> None:
        """As after power-up, or with `init` as after INIT, which leaves the id and the mode alone (SDM 3A 11.4.7).

        On the bootstrap processor LINT0 lets the 8259's interrupts through, as a PC's firmware leaves it and as KVM has
        it (KVM_X86_QUIRK_LINT0_REENABLED), unless `virtual_wire` is off.
        """
        if not init:
            self.xapic_id = self.apic_id & VECTOR_MASK
        self.vectors.clear()
        self.timer.reset()
        if self._book is not None:
            self._book.lose()
        self.ldr = 0
        self.dfr = regs.DFR_FLAT
        self.svr = 0xFF
        self.esr = self._errors = 0
        self.icr.value = 0
        self.extint = False
        self.arbitrated = 0
        self.local.reset(virtual_wire=self._virtual_wire)
        self._update_timer()

    def accept_init(self) -> bool:
        """If INIT waits, take it and reset; whether it did. What becomes of the vCPU is the vCPU's part."""
        if not self.signals.take_init():
            return False
        self.reset(init=True)
        return True

    @property
    def present(self) -> bool:
        """Whether IA32_APIC_BASE has it switched on; if not, LINT0 and LINT1 are INTR and NMI pins (SDM 3A 11.4.3)."""
        return bool(self.base & regs.BASE_ENABLED)

    @property
    def x2apic(self) -> bool:
        """Whether it is in x2APIC mode."""
        return bool(self.base & regs.BASE_X2APIC)

    @property
    def enabled(self) -> bool:
        """Whether it takes fixed interrupts: switched on in IA32_APIC_BASE and in the spurious vector register."""
        return bool(self.svr & regs.SVR_ENABLED and self.base & regs.BASE_ENABLED)

    @property
    def id(self) -> int:
        """Its id in the mode that it is in."""
        return self.apic_id if self.base & regs.BASE_X2APIC else self.xapic_id

    @property
    def logical_id(self) -> int:
        """LDR: as written, or in x2APIC mode derived from the id (SDM 3A 11.12.10.2)."""
        if self.base & regs.BASE_X2APIC:
            return (self.apic_id >> 4) << 16 | 1 << (self.apic_id & 0xF)
        return self.ldr

    # -- what the vCPU takes ---------------------------------------------------------------------------------------

    def has_interrupt(self) -> bool:
        """Whether there is a maskable interrupt for the vCPU now."""
        if self.vectors.deliverable() >= 0 and self.base & regs.BASE_ENABLED:
            return True
        return self.has_extint()

    def has_extint(self) -> bool:
        """Whether the 8259 is to be asked: LINT0 is up and passes it on, or a message said so."""
        return self.extint or (self._lint_levels[0] and self.local.accepts_extint)

    def take(self) -> int:
        """Take the most urgent interrupt: its vector; -1 if there is none.

        Nothing comes between the question and the answer: the spurious vector (SDM 3A 11.9) is never wanted.
        """
        if self.has_extint() and self._pic is not None:
            self.extint = False
            return self._pic.acknowledge(self.apic_id)
        vector = self.vectors.take() if self.base & regs.BASE_ENABLED else -1
        if vector >= 0 and self._book is not None:
            self._book.taken(vector)
        return vector

    @property
    def cr8(self) -> int:
        """The task priority class (SDM 3A 11.8.6)."""
        return self.vectors.tpr >> 4

    @cr8.setter
    def cr8(self, value: int) -> None:
        """As MOV to CR8 sets it."""
        self.set_tpr((value & 0xF) << 4)

    def set_tpr(self, value: int) -> None:
        """The task priority register."""
        self.vectors.set_tpr(value & VECTOR_MASK)
        self._offer()

    def _write_tpr(self, value: int) -> None:
        self.set_tpr(value)
        self.task_priority_written(self.vectors.tpr)

    def _offer(self) -> None:
        if self.vectors.deliverable() >= 0:
            self._wake()

    # -- what comes from the bus -----------------------------------------------------------------------------------

    def matches(self, message: ApicMessage) -> bool:
        """Whether a message's destination means this APIC (SDM 3A 11.6.2; 11.12.9)."""
        if not self.base & regs.BASE_ENABLED:
            return False
        if not message.logical:
            return message.destination == self.id or message.broadcast
        if message.broadcast:
            return True
        if self.base & regs.BASE_X2APIC:
            return message.names_x2apic(self.logical_id)
        if self.dfr not in (regs.DFR_FLAT, regs.DFR_CLUSTER):
            return False
        return message.names_xapic(self.ldr >> regs.XAPIC_ID_SHIFT, flat=self.dfr == regs.DFR_FLAT)

    def arbitration(self) -> tuple[int, int]:
        """Lowest priority first; among equals the one that was chosen least often."""
        return self.vectors.ppr & CLASS_MASK, self.arbitrated

    def receive(self, message: ApicMessage) -> bool:
        """Take a message; False if it is refused."""
        delivery = message.delivery
        if delivery <= modes.LOWEST_PRIORITY:
            if message.lowest_priority:
                self.arbitrated += 1
            return self.accept(message.vector, message.level_triggered, message.source)
        if self._book is not None:
            self._book.signal(message)
        if delivery == modes.NMI:
            self._raise_nmi(message.source)
        elif delivery == modes.INIT:
            if message.asserted:  # de-assert only synchronizes arbitration ids, which there are none of any more
                self.signals.raise_init()
        elif delivery == modes.STARTUP:
            self.signals.raise_sipi(message.vector)
        elif delivery == modes.SMI:
            self.signals.raise_smi()
        elif delivery == modes.EXTINT:
            self.extint = True
            self._wake()
        else:
            return False
        return True

    def _raise_nmi(self, source: str) -> None:
        before = self.signals.nmis
        self.signals.raise_nmi()
        if self._book is not None:
            self._book.nmi_raised(source, self.signals.nmis > before)

    def nmi_taken(self) -> None:
        """The vCPU has taken one of `signals`' NMIs."""
        if self._book is not None:
            self._book.nmi_taken()

    def accept(self, vector: int, level_triggered: bool, source: str) -> bool:
        """A fixed interrupt; False if the APIC is off or the vector illegal."""
        if vector < FIRST_VECTOR or not self.enabled:
            if self._book is not None:
                self._book.refused(vector, source)
            if self.enabled:
                self._error(Esr.RECEIVE_ILLEGAL_VECTOR)
            return False
        fresh = self.vectors.request(vector, level_triggered)
        if self._book is not None:
            self._book.accepted(vector, source, fresh)
        if fresh and (vector & CLASS_MASK > self.vectors.ppr & CLASS_MASK or self.settle is not None):
            self._wake()
        return True

    def _timer_expired(self) -> None:
        self.accept(self.lvt[_LVT_TIMER] & VECTOR_MASK, False, "lapic timer")  # it runs out only while not masked

    def _error(self, error: Esr) -> None:
        self._errors |= error
        entry = self.lvt[Reg.LVT_ERROR]
        if not entry & LVT_MASKED and entry & VECTOR_MASK >= FIRST_VECTOR:
            self.accept(entry & VECTOR_MASK, False, LVT_NAMES[Reg.LVT_ERROR])
        elif not entry & LVT_MASKED:
            self._errors |= Esr.RECEIVE_ILLEGAL_VECTOR

    # -- registers -------------------------------------------------------------------------------------------------

    def read(self, index: int) -> int | None:
        """A register's value (32 bits; ICR's lower half); None where there is none to be read."""
        if self.settle is not None:
            self.settle()
        if index in self.local.registers:
            return self.lvt[index]
        if Reg.ISR <= index < Reg.ESR:
            which, word = divmod(index - Reg.ISR, 8)
            return self.vectors.word(which, word)
        if index not in regs.READABLE and (self.x2apic or index not in regs.XAPIC_ONLY):
            return None
        values: dict[int, int] = {
            Reg.ID: self.apic_id if self.x2apic else self.xapic_id << regs.XAPIC_ID_SHIFT,
            Reg.VERSION: self._version,
            Reg.TPR: self.vectors.tpr,
            Reg.PPR: self.vectors.ppr,
            Reg.LDR: self.logical_id,
            Reg.DFR: self.dfr,
            Reg.SVR: self.svr,
            Reg.ESR: self.esr,
            Reg.ICR: self.icr.value & 0xFFFF_FFFF,
            Reg.ICR_HIGH: self.icr.value >> 32,
            Reg.INITIAL_COUNT: self.timer.initial,
            Reg.DIVIDE: self.timer.configuration,
        }
        return self.timer.current() if index == Reg.CURRENT_COUNT else values.get(index, 0)

    def write(self, index: int, value: int) -> bool:
        """Set a register (32 bits); False if there is none to be written."""
        if self.settle is not None:
            self.settle()
        if index == _EOI:  # once an interrupt
            self._write_eoi(value)
            return True
        writer = self._writers.get(index)
        if writer is None:
            return False
        writer(value)
        return True

    def _illegal_ipi(self) -> None:
        self._error(Esr.SEND_ILLEGAL_VECTOR)

    def illegal_register(self) -> None:
        """A memory access named a register that is none (SDM 3A 11.5.3)."""
        self._error(Esr.ILLEGAL_REGISTER)

    def _write_id(self, value: int) -> None:
        self.xapic_id = value >> regs.XAPIC_ID_SHIFT

    def _write_ldr(self, value: int) -> None:
        self.ldr = value & VECTOR_MASK << regs.XAPIC_ID_SHIFT

    def _write_dfr(self, value: int) -> None:
        self.dfr = value & regs.DFR_WRITABLE | regs.DFR_CLUSTER

    def _write_esr(self, value: int) -> None:
        self.esr, self._errors = self._errors, 0  # a write shows what happened since the last (SDM 3A 11.5.3)

    def _write_svr(self, value: int) -> None:
        self.svr = value & self._svr_writable
        if not self.svr & regs.SVR_ENABLED:
            self.local.mask_all()
            self._update_timer()

    def _write_eoi(self, value: int) -> None:
        vector = self.vectors.end()
        if vector < 0:
            return
        if self._book is not None:
            self._book.ended(vector)
        if self.vectors.tmr and self.vectors.tmr >> vector & 1:
            self.local.end(vector)
            if not self.svr & regs.SVR_SUPPRESS_EOI:
                self._bus.end_of_interrupt(vector)
        if self.ended is not None:
            self.ended(vector)
        self._offer()

    def _lvt_writer(self, register: Reg) -> Callable[[int], None]:
        def write(value: int) -> None:
            """Set the entry."""
            self.local.write(register, value, masked=not self.svr & regs.SVR_ENABLED)
            if register == Reg.LVT_TIMER:
                self._update_timer()

        return write

    def _update_timer(self) -> None:
        entry = self.lvt[Reg.LVT_TIMER]
        self.timer.set_mode(entry >> regs.LVT_TIMER_MODE_SHIFT & 3, not entry & LVT_MASKED and self.present)

    # -- out and back ----------------------------------------------------------------------------------------------

    def set_base(self, value: int) -> None:
        """IA32_APIC_BASE, checked by the caller. Switching off loses the state (SDM 3A 11.4.3)."""
        changed = self.base ^ value
        self._place(value)
        if changed & regs.BASE_ENABLED:
            self.reset()
        elif changed & regs.BASE_X2APIC:
            self.icr.value = 0

    def _place(self, base: int) -> None:
        self.base = base
        self.local.present = self.present
        memory_mapped = base & (regs.BASE_ENABLED | regs.BASE_X2APIC) == regs.BASE_ENABLED
        self.window_gpa = base & -regs.LAPIC_SIZE if memory_mapped else NOWHERE

    def state(self) -> dict[str, Any]:
        """Everything but what waits on the APIC bus, where nothing waits."""
        return {
            "base": self.base,
            "xapic_id": self.xapic_id,
            "ldr": self.ldr,
            "dfr": self.dfr,
            "svr": self.svr,
            "esr": self.esr,
            "errors": int(self._errors),
            "icr": self.icr.value,
            "extint": int(self.extint),
            "arbitrated": self.arbitrated,
            **self.local.state(),
            "vectors": self.vectors.state(),
            "timer": self.timer.state(),
            "signals": self.signals.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back; nobody is woken."""
        self._place(state["base"])
        self.xapic_id, self.ldr, self.dfr = state["xapic_id"], state["ldr"], state["dfr"]
        self.svr, self.esr, self._errors, self.icr.value = state["svr"], state["esr"], state["errors"], state["icr"]
        self.extint, self.arbitrated = bool(state["extint"]), state["arbitrated"]
        self.local.restore(state["lint"], state["lvt"])
        if self._book is not None:
            self._book.forget()
        self.vectors.restore(state["vectors"])
        self.timer.restore(state["timer"])
        self.signals.restore(state["signals"])
