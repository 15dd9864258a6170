"""A 16550A UART (PC16550D data sheet, National Semiconductor 1995), by default COM1 at port 0x3F8.

The line is infinitely fast: what is transmitted is out at once, so the transmitter is always empty; what the host has
for the guest is taken when the guest looks. Interrupts are levels on `line`, for a machine that has interrupt chips:
`input_wanted` is told whether the guest waits for one that only input can bring, and `poll` then looks for some.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntFlag

from belljar.devices.console import Input, NoInput, Output

COM1_PORT = 0x3F8
"""The first serial port's base on a PC."""

RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)
"""The registers' offsets (data sheet, table II)."""

FIFO_SIZE = 16
"""Bytes in the receive FIFO."""

IIR_NONE, IIR_THR_EMPTY, IIR_DATA, IIR_LINE_STATUS, IIR_TIMEOUT = 0x01, 0x02, 0x04, 0x06, 0x0C
"""Interrupt identification, without the FIFO bits."""

IIR_FIFO_ENABLED = 0xC0

FCR_ENABLE, FCR_CLEAR_RECEIVE = 0x01, 0x02

LCR_DLAB = 0x80

MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOPBACK = 0x01, 0x02, 0x04, 0x08, 0x10

MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
MSR_DELTA_CTS, MSR_DELTA_DSR, MSR_TRAILING_RI, MSR_DELTA_DCD = 0x01, 0x02, 0x04, 0x08


def _ignore(wanted: bool) -> None:
    pass


class Ier(IntFlag):
    """Interrupt enable register."""

    DATA = 1
    THR_EMPTY = 2
    LINE_STATUS = 4
    MODEM_STATUS = 8


class Lsr(IntFlag):
    """Line status register."""

    DATA_READY = 0x01
    OVERRUN = 0x02
    THR_EMPTY = 0x20
    TRANSMITTER_EMPTY = 0x40


class Serial:
    """The UART. `output` takes what the guest sends, `source` gives what it receives, `line` follows its interrupt pin."""

    port_width = 1

    def __init__(
        self,
        output: Output,
        source: Input | None = None,
        *,
        base: int = COM1_PORT,
        line: Callable[[bool], object] | None = None,
    ) -> None:
        self.ports = range(base, base + 8)
        self.batched_ports = (base,)
        self._base = base
        self._write = output.write
        self._source = source or NoInput()
        self._line = line
        self._level = False
        self.input_wanted: Callable[[bool], None] = _ignore
        self._waits = False
        self._received: deque[int] = deque()
        self._divisor = 1
        self._ier = 0
        self._fifo_enabled = False
        self._lcr = 0
        self._mcr = 0
        self._overrun = False
        self._modem_delta = 0
        self._scratch = 0
        self._thr_interrupt = False
        self._readers = (
            self._read_rbr, self._read_ier, self._read_iir, self._read_lcr,
            self._read_mcr, self._read_lsr, self._read_msr, self._read_scr,
        )  # fmt: skip
        self._writers = (
            self._write_thr, self._write_ier, self._write_fcr, self._write_lcr,
            self._write_mcr, self._ignore, self._ignore, self._write_scr,
        )  # fmt: skip

    def port_read(self, port: int, size: int) -> int:
        """A register's value."""
        value = self._readers[port - self._base]()
        if port == self._base and self._ier & Ier.DATA and not self._received:
            self._take_input()
        self._update_line()
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        """Set a register."""
        self._writers[port - self._base](value)
        if self._line is not None:
            self._update_line()

    def port_write_bytes(self, port: int, data: bytes) -> None:
        """Several writes to one port; to the transmitter in one piece."""
        if port == self._base and not self._lcr & LCR_DLAB and not self._mcr & MCR_LOOPBACK:
            self._write(data)
            self._thr_interrupt = True
            self._update_line()
            return
        for value in data:
            self.port_write(port, 1, value)

    def poll(self) -> None:
        """Look whether the host has input, and set the interrupt pin accordingly; for whoever waits on the guest's behalf."""
        self._take_input()
        self._update_line()

    def awaited(self) -> list[int]:
        """The line that input may raise, if the guest has asked for that and there may be some."""
        gsi = getattr(self._line, "gsi", None)
        return [gsi] if gsi is not None and self._waits_for_input() else []

    def _waits_for_input(self) -> bool:
        if not self._ier & Ier.DATA or self._received or self._mcr & MCR_LOOPBACK:
            return False
        return not isinstance(self._source, NoInput) and not getattr(self._source, "ended", False)

    def _take_input(self) -> None:
        room = (FIFO_SIZE if self._fifo_enabled else 1) - len(self._received)
        if room > 0 and not self._mcr & MCR_LOOPBACK:
            self._received.extend(self._source.read(room))

    def _receive(self, value: int) -> None:
        if len(self._received) >= (FIFO_SIZE if self._fifo_enabled else 1):
            self._overrun = True
            if self._fifo_enabled:
                return  # the FIFO keeps what it has; the shift register is lost (data sheet 8.4, bit 1)
            self._received.clear()
        self._received.append(value)

    def _pending(self) -> int:
        if self._ier & Ier.LINE_STATUS and self._overrun:
            return IIR_LINE_STATUS
        if self._ier & Ier.DATA and self._received:
            return IIR_DATA
        if self._ier & Ier.THR_EMPTY and self._thr_interrupt:
            return IIR_THR_EMPTY
        if self._ier & Ier.MODEM_STATUS and self._modem_delta:
            return 0
        return IIR_NONE

    def _update_line(self) -> None:
        level = self._pending() != IIR_NONE
        if level != self._level:
            self._level = level
            if self._line is not None:
                self._line(level)
        if self._ier & Ier.DATA or self._waits:
            waits = self._waits_for_input()
            if waits != self._waits:
                self._waits = waits
                self.input_wanted(waits)

    def _read_rbr(self) -> int:
        if self._lcr & LCR_DLAB:
            return self._divisor & 0xFF
        self._take_input()
        return self._received.popleft() if self._received else 0

    def _read_ier(self) -> int:
        return self._divisor >> 8 if self._lcr & LCR_DLAB else self._ier

    def _read_iir(self) -> int:
        self._take_input()
        pending = self._pending()
        if pending == IIR_THR_EMPTY:
            self._thr_interrupt = False  # reading IIR acknowledges this source (data sheet, table V)
        return pending | (IIR_FIFO_ENABLED if self._fifo_enabled else 0)

    def _read_lcr(self) -> int:
        return self._lcr

    def _read_mcr(self) -> int:
        return self._mcr

    def _read_lsr(self) -> int:
        self._take_input()
        status = Lsr.THR_EMPTY | Lsr.TRANSMITTER_EMPTY
        if self._received:
            status |= Lsr.DATA_READY
        if self._overrun:
            status |= Lsr.OVERRUN
            self._overrun = False
        return int(status)

    def _modem_lines(self) -> int:
        if not self._mcr & MCR_LOOPBACK:
            return MSR_CTS | MSR_DSR | MSR_DCD  # a terminal is there and ready
        lines = MSR_CTS if self._mcr & MCR_RTS else 0
        lines |= MSR_DSR if self._mcr & MCR_DTR else 0
        lines |= MSR_RI if self._mcr & MCR_OUT1 else 0
        return lines | (MSR_DCD if self._mcr & MCR_OUT2 else 0)

    def _read_msr(self) -> int:
        value = self._modem_lines() | self._modem_delta
        self._modem_delta = 0
        return value

    def _read_scr(self) -> int:
        return self._scratch

    def _write_thr(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._divisor = (self._divisor & 0xFF00) | value
            return
        if self._mcr & MCR_LOOPBACK:
            self._receive(value)
        else:
            self._write(bytes((value,)))
        self._thr_interrupt = True

    def _write_ier(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._divisor = (self._divisor & 0x00FF) | value << 8
            return
        if value & ~self._ier & Ier.THR_EMPTY:
            self._thr_interrupt = True  # enabling it while the register is empty raises it at once
        self._ier = value & 0x0F
        if self._ier & Ier.DATA:
            self._take_input()

    def _write_fcr(self, value: int) -> None:
        enable = bool(value & FCR_ENABLE)
        if enable != self._fifo_enabled or value & FCR_CLEAR_RECEIVE:
            self._received.clear()
        self._fifo_enabled = enable

    def _write_lcr(self, value: int) -> None:
        self._lcr = value

    def _write_mcr(self, value: int) -> None:
        before = self._modem_lines()
        self._mcr = value & 0x1F
        changed = before ^ self._modem_lines()
        if changed & MSR_RI and not before & MSR_RI:
            changed &= ~MSR_RI  # RI counts only at its trailing edge
        self._modem_delta |= changed >> 4

    def _write_scr(self, value: int) -> None:
        self._scratch = value

    def _ignore(self, value: int) -> None:
        """LSR and MSR are read-only for a guest in its right mind; the data sheet warns against writing them."""
