"""The pair of 8259A interrupt controllers of a PC (Intel 8259A data sheet, 231468-003), with ELCR ports 0x4D0 and 0x4D1.

As in a chipset (Intel 82371AB 8.4): the slave hangs on the master's pin 2, whatever ICW3 says; which pins are
level-triggered is said by ELCR, not by ICW1; vectors are always given in the 8086 way. The edge of a request is kept until
it is acknowledged, as chipsets and KVM do; with `latch_edges` off a request must stay up until then, as the data sheet has
it, else the processor is given the default, pin 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from belljar.devices.clock import Clock
from belljar.devices.interrupt_counts import InterruptCounts
from belljar.devices.interrupt_watch import Outcome
from belljar.devices.lines import PinState

MASTER_PORT: Final = 0x20
SLAVE_PORT: Final = 0xA0
ELCR_PORT: Final = 0x4D0
CASCADE_PIN: Final = 2
SPURIOUS_PIN: Final = 7

ELCR_MASKS: Final = (0xF8, 0xDE)
"""Pins 0, 1, 2, 8 and 13 are always edge-triggered (82371AB 4.2.3.3)."""

ICW1_SELECT: Final = 0x10
ICW1_SINGLE: Final = 0x02
ICW1_NEEDS_ICW4: Final = 0x01
ICW2_BASE: Final = 0xF8
ICW4_SPECIAL_FULLY_NESTED: Final = 0x10
ICW4_AUTO_EOI: Final = 0x02
OCW3_SELECT: Final = 0x08
OCW3_POLL: Final = 0x04
OCW3_READ: Final = 0x02
OCW3_READ_ISR: Final = 0x01
OCW3_SET_MASK_MODE: Final = 0x40
OCW3_SPECIAL_MASK: Final = 0x20
POLL_INTERRUPT: Final = 0x80
POLLED: Final = -1
"""The CPU of an interrupt that was taken by the poll command, for counts: which one it was is not known."""

OCW2_ROTATE_AUTO_OFF: Final = 0
OCW2_EOI: Final = 1
OCW2_NOTHING: Final = 2
OCW2_SPECIFIC_EOI: Final = 3
OCW2_ROTATE_AUTO_ON: Final = 4
OCW2_ROTATE_EOI: Final = 5
OCW2_SET_PRIORITY: Final = 6
OCW2_ROTATE_SPECIFIC_EOI: Final = 7
"""R, SL and EOI, the top bits of OCW2 (data sheet, figure 8)."""

READY: Final = 0
WANTS_ICW2: Final = 1
WANTS_ICW3: Final = 2
WANTS_ICW4: Final = 3

_NONE: Final = 8
"""The rank of nothing: below every pin's."""

_STATE: Final = (
    "irr", "isr", "imr", "pins", "base", "lowest", "elcr", "expects", "needs_icw4", "single", "icw3", "read_isr", "poll",
    "special_mask", "special_fully_nested", "auto_eoi", "rotate_auto_eoi",
)  # fmt: skip


class Pic:
    """One 8259A. Pins are bits; `lowest` is the pin of lowest priority (7 unless rotated)."""

    def __init__(self, *, master: bool, latch_edges: bool = True) -> None:
        self.master = master
        self._latch_edges = latch_edges
        self.irr = self.isr = self.imr = self.pins = 0
        self.base = 0
        self.lowest = 7
        self.elcr = 0
        self.expects = READY
        self.needs_icw4 = self.single = False
        self.icw3 = 0
        self.read_isr = self.poll = False
        self.special_mask = self.special_fully_nested = False
        self.auto_eoi = self.rotate_auto_eoi = False

    def set_pin(self, pin: int, level: bool) -> int:
        """Drive a pin; 1 if that made a request, 0 if one was there already, -1 if the pin is masked."""
        bit = 1 << pin
        fresh = 0
        if level:
            if self.elcr & bit or not self.pins & bit:
                fresh = int(not self.irr & bit)
                self.irr |= bit
            self.pins |= bit
        else:
            self.pins &= ~bit
            if self.elcr & bit or not self._latch_edges:
                self.irr &= ~bit
        return -1 if self.imr & bit else fresh

    def _rank(self, bits: int) -> int:
        """How urgent the most urgent of some pins is: 0 the most, `_NONE` if there is none."""
        if not bits:
            return _NONE
        first = (self.lowest + 1) & 7
        turned = (bits >> first | bits << 8 - first) & 0xFF
        return (turned & -turned).bit_length() - 1

    def _pin(self, rank: int) -> int:
        return (rank + self.lowest + 1) & 7

    def request(self) -> int:
        """The pin that INT is raised for, or -1."""
        wanted = self.irr & ~self.imr
        if not wanted:
            return -1
        rank = self._rank(wanted)
        serving = self.isr
        if self.special_mask:
            serving &= ~self.imr  # data sheet, "Special Mask Mode"
        if self.special_fully_nested and self.master:
            serving &= ~(1 << CASCADE_PIN)
        return self._pin(rank) if rank < self._rank(serving) else -1

    def would_request(self, pin: int) -> bool:
        """Whether INT would be raised if this pin had a request."""
        before = self.irr
        self.irr |= 1 << pin
        try:
            return self.request() >= 0
        finally:
            self.irr = before

    def acknowledge(self, pin: int) -> None:
        """An INTA cycle for a pin: in service from now on, unless the end of interrupt is automatic."""
        bit = 1 << pin
        if not self.elcr & bit:
            self.irr &= ~bit
        if not self.auto_eoi:
            self.isr |= bit
        elif self.rotate_auto_eoi:
            self.lowest = pin

    def read_command(self) -> int:
        """IRR or ISR, whichever OCW3 chose."""
        return self.isr if self.read_isr else self.irr

    def write_command(self, value: int) -> None:
        """ICW1, OCW2 or OCW3."""
        if value & ICW1_SELECT:
            self._initialize(value)
        elif value & OCW3_SELECT:
            if value & OCW3_POLL:
                self.poll = True
            if value & OCW3_READ:
                self.read_isr = bool(value & OCW3_READ_ISR)
            if value & OCW3_SET_MASK_MODE:
                self.special_mask = bool(value & OCW3_SPECIAL_MASK)
        else:
            self._operate(value >> 5, value & 7)

    def _initialize(self, value: int) -> None:
        # data sheet, "Initialization Command Words": edge sense circuit and mask are reset; what is in service is not named
        self.irr &= self.elcr
        self.imr = 0
        self.lowest = 7
        self.read_isr = self.special_mask = False
        self.needs_icw4 = bool(value & ICW1_NEEDS_ICW4)
        self.single = bool(value & ICW1_SINGLE)
        if not self.needs_icw4:
            self.special_fully_nested = self.auto_eoi = False
        self.expects = WANTS_ICW2

    def _operate(self, command: int, pin: int) -> None:
        if command in (OCW2_ROTATE_AUTO_OFF, OCW2_ROTATE_AUTO_ON):
            self.rotate_auto_eoi = command == OCW2_ROTATE_AUTO_ON
        elif command in (OCW2_EOI, OCW2_ROTATE_EOI):
            rank = self._rank(self.isr & ~self.imr if self.special_mask else self.isr)
            if rank != _NONE:
                pin = self._pin(rank)
                self.isr &= ~(1 << pin)
                if command == OCW2_ROTATE_EOI:
                    self.lowest = pin
        elif command != OCW2_NOTHING:
            if command in (OCW2_SPECIFIC_EOI, OCW2_ROTATE_SPECIFIC_EOI):
                self.isr &= ~(1 << pin)
            if command in (OCW2_SET_PRIORITY, OCW2_ROTATE_SPECIFIC_EOI):
                self.lowest = pin

    def write_data(self, value: int) -> None:
        """The mask (OCW1), or the next initialization word."""
        if self.expects == WANTS_ICW2:
            self.base = value & ICW2_BASE
            self.expects = self._after_icw3() if self.single else WANTS_ICW3
        elif self.expects == WANTS_ICW3:
            self.icw3 = value
            self.expects = self._after_icw3()
        elif self.expects == WANTS_ICW4:
            self.special_fully_nested = bool(value & ICW4_SPECIAL_FULLY_NESTED)
            self.auto_eoi = bool(value & ICW4_AUTO_EOI)
            self.expects = READY
        else:
            self.imr = value

    def _after_icw3(self) -> int:
        return WANTS_ICW4 if self.needs_icw4 else READY

    def write_elcr(self, value: int, writable: int) -> None:
        """Which pins are level-triggered; the request of one that becomes so follows its pin."""
        changed = (self.elcr ^ value) & value & writable
        self.elcr = value & writable
        self.irr = self.irr & ~changed | self.pins & changed

    def state(self) -> dict[str, Any]:
        """Everything, as numbers."""
        return {name: int(getattr(self, name)) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        for name in _STATE:
            setattr(self, name, type(getattr(self, name))(state[name]))


class PicPair:
    """Master and slave. `output` is told the level of the master's INT pin whenever it changes."""

    port_width = 1

    def __init__(
        self,
        output: Callable[[bool], None],
        *,
        clock: Clock | None = None,
        counts: InterruptCounts | None = None,
        latch_edges: bool = True,
    ) -> None:
        self.chips = (Pic(master=True, latch_edges=latch_edges), Pic(master=False, latch_edges=latch_edges))
        self.ports = range(MASTER_PORT, MASTER_PORT + 2)
        self._output = output
        self._clock = clock
        self._counts = counts
        self._names = [f"pic pin {pin}" for pin in range(16)]
        self._since_ns = [0] * 16
        self._uncounted = 0xFFFF  # pins whose request came while they were masked, or because their level stayed up
        self.output_level = False
        self.slave_ports = _PortWindow(self, range(SLAVE_PORT, SLAVE_PORT + 2))
        self.elcr_ports = _PortWindow(self, range(ELCR_PORT, ELCR_PORT + 2))

    def port_read(self, port: int, size: int) -> int:
        """A register of either chip."""
        if port >= ELCR_PORT:
            return self.chips[port - ELCR_PORT].elcr
        chip = self.chips[port >= SLAVE_PORT]
        if chip.poll:
            chip.poll = False
            return self._poll(chip)
        return chip.imr if port & 1 else chip.read_command()

    def port_write(self, port: int, size: int, value: int) -> None:
        """A command, mask or initialization word to either chip."""
        if port >= ELCR_PORT:
            which = port - ELCR_PORT
            self.chips[which].write_elcr(value, ELCR_MASKS[which])
        else:
            chip = self.chips[port >= SLAVE_PORT]
            before = chip.isr
            if port & 1:
                chip.write_data(value)
            else:
                chip.write_command(value)
            if chip.isr != before and self._counts is not None and self._counts.watch is not None:
                ended = before & ~chip.isr
                self._counts.watch.ended(-1, "pic", chip.base + ended.bit_length() - 1)
        self._update()

    def set_pin(self, pin: int, level: bool) -> int:
        """Drive one of 16 pins; above 0 if that made a request, 0 if one was there already, below 0 if masked."""
        chip = self.chips[pin >> 3]
        before = chip.irr
        answer = chip.set_pin(pin & 7, level)
        if chip.irr & ~before and self._clock is not None:
            self._since_ns[pin] = self._clock.now_ns()
        if level and answer >= 0 and self._counts is not None:
            self._count_request(pin, bool(answer), chip)
        if chip.irr != before:
            self._update()
        return answer

    def would_interrupt(self, pin: int) -> bool:
        """Whether INT would rise if a pin did now: neither it nor the cascade masked, nothing as urgent in service."""
        master, slave = self.chips
        if pin < 8:
            return master.would_request(pin)
        return slave.would_request(pin & 7) and master.would_request(CASCADE_PIN)

    def name_pin(self, pin: int, source: str) -> None:
        """Who drives a pin, for reports."""
        self._names[pin] = source

    def _count_request(self, pin: int, fresh: bool, chip: Pic) -> None:
        counts = self._counts
        assert counts is not None
        vector = chip.base + (pin & 7)
        entry = counts.entry(self._names[pin], vector)
        entry.raised += 1
        if not fresh:
            entry.merged += 1
            entry.raised += self._uncounted >> pin & 1
        self._uncounted &= ~(1 << pin)
        if counts.watch is not None:
            outcome = Outcome.ACCEPTED if fresh else Outcome.MERGED
            counts.watch.pin("pic", pin, self._names[pin], vector, outcome)

    def acknowledge(self, cpu: int = 0) -> int:
        """A vCPU's INTA cycles: the vector. Without a request left it is that of pin 7, and nothing is in service."""
        master, slave = self.chips
        pin = master.request()
        if pin < 0:
            vector = master.base + SPURIOUS_PIN
            self._count_spurious(cpu, vector)
        else:
            master.acknowledge(pin)
            vector = master.base + pin
            if pin == CASCADE_PIN and not master.single:
                inner = slave.request()
                if inner < 0:
                    pin, vector = -1, slave.base + SPURIOUS_PIN
                    self._count_spurious(cpu, vector)
                else:
                    self._acknowledge_slave(inner)
                    pin, vector = inner + 8, slave.base + inner
            if pin >= 0 and self._counts is not None:
                self._count_taken(cpu, pin, vector)
        if self.output_level:
            self.output_level = False
            self._output(False)  # INT falls with INTA, so that the next request is an edge again
        self._update()
        return vector

    def _acknowledge_slave(self, pin: int) -> None:
        """INTA for the slave: its INT falls, so that the next request is an edge for the master."""
        self.chips[1].acknowledge(pin)
        self.chips[0].set_pin(CASCADE_PIN, False)

    def _count_taken(self, cpu: int, pin: int, vector: int) -> None:
        counts = self._counts
        assert counts is not None
        entry = counts.entry(self._names[pin], vector)
        entry.raised += self._uncounted >> pin & 1
        self._uncounted |= 1 << pin
        now_ns = self._clock.now_ns() if self._clock is not None else 0
        latency_ns = max(0, now_ns - self._since_ns[pin])
        self._since_ns[pin] = now_ns
        entry.taken(cpu, latency_ns)
        if counts.watch is not None:
            counts.watch.taken(cpu, "pic", vector, entry.source, latency_ns)

    def _count_spurious(self, cpu: int, vector: int) -> None:
        if self._counts is not None:
            self._counts.entry("pic", vector).spurious += 1
            if self._counts.watch is not None:
                self._counts.watch.spurious(cpu, "pic", vector)

    def _poll(self, chip: Pic) -> int:
        """A read after OCW3's poll command takes the request, as INTA would (data sheet, "Poll Command")."""
        pin = chip.request()
        if pin < 0:
            return SPURIOUS_PIN
        if chip.master:
            chip.acknowledge(pin)
        else:
            self._acknowledge_slave(pin)
        if self._counts is not None:
            self._count_taken(POLLED, pin if chip.master else pin + 8, chip.base + pin)
        self._update()
        return POLL_INTERRUPT | pin

    def _update(self) -> None:
        master, slave = self.chips
        cascaded = slave.request() >= 0
        if cascaded != bool(master.pins & 1 << CASCADE_PIN):
            master.set_pin(CASCADE_PIN, cascaded)
        level = master.request() >= 0
        if level != self.output_level:
            self.output_level = level
            self._output(level)

    def pin_state(self, pin: int) -> PinState:
        """What a request on a pin would become now. INT reaches the CPUs whose LINT0 takes it; that is not known here."""
        chip = self.chips[pin >> 3]
        masked = bool(chip.imr & 1 << (pin & 7)) or (pin >= 8 and bool(self.chips[0].imr & 1 << CASCADE_PIN))
        trigger = "level" if chip.elcr & 1 << (pin & 7) else "edge"
        return PinState(chip.base + (pin & 7), "extint", trigger, masked, ())

    def devices(self) -> tuple[object, ...]:
        """Everything to attach to a bus: ports 0x20, 0xA0 and 0x4D0, two each."""
        return self, self.slave_ports, self.elcr_ports

    def state(self) -> dict[str, Any]:
        """Both chips."""
        return {"master": self.chips[0].state(), "slave": self.chips[1].state(), "output": int(self.output_level)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back. INT is as it was; nobody is told."""
        self.chips[0].restore(state["master"])
        self.chips[1].restore(state["slave"])
        self.output_level = bool(state["output"])


class _PortWindow:
    """More ports of the pair, for a bus that gives each device one range."""

    port_width = 1

    def __init__(self, pair: PicPair, ports: range) -> None:
        self.ports = ports
        self.port_read = pair.port_read
        self.port_write = pair.port_write
