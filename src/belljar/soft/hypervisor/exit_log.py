"""What a vCPU's exits were: counted always, kept as cheap tuples, made into exit objects only when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from belljar.exits import Exit, ExitReason, Interrupted, Mmio, PortIo

REASONS: Final = tuple(ExitReason)
IO: Final = int(ExitReason.IO)
MMIO: Final = int(ExitReason.MMIO)


class ExitLog:
    """Counts exits by reason; `last` builds the last one when it is wanted, unless `made` holds it already."""

    def __init__(self, vcpu: int) -> None:
        self.vcpu = vcpu
        self.counts = [0] * len(REASONS)
        self.made: Exit | None = None
        self._make: Callable[..., Exit] = _interrupted
        self._arguments: tuple[object, ...] = ()

    def port(self, port: int, size: int, write: bool, data: bytes, count: int) -> None:
        """A port access."""
        self.counts[IO] += 1
        self.made = None
        self._make = _port_io
        self._arguments = (port, size, write, data, count)

    def port_value(self, port: int, size: int, write: bool, value: int) -> None:
        """A port access of one item, by its value; the processor has counted it (`Processor.port_accesses`)."""
        self.made = None
        self._make = _port_value
        self._arguments = (port, size, write, value)

    def mmio(self, gpa: int, write: bool, size: int, value: int) -> None:
        """A memory-mapped access."""
        self.made = None
        self._make = _mmio
        self._arguments = (gpa, write, size, value)

    def end(self, exit: Exit) -> None:
        """An exit that ends a run."""
        self.counts[exit.reason] += 1
        self.made = exit

    def ended(self, reason: int, exit: Exit) -> None:
        """The same, for a caller who knows the reason's number."""
        self.counts[reason] += 1
        self.made = exit

    def show(self, exit: Exit) -> None:
        """An exit that was counted already is the last one again."""
        self.made = exit

    def last(self) -> Exit:
        """The last exit, whole."""
        if self.made is None:
            self.made = self._make(self.vcpu, *self._arguments)
        return self.made

    def by_reason(self, port_accesses: int) -> dict[ExitReason, int]:
        """How often, by reason, with the `port_accesses` that the processor has counted; zeros left out."""
        counts = self.counts.copy()
        counts[IO] += port_accesses
        return {reason: count for reason, count in zip(REASONS, counts, strict=True) if count}


def _interrupted(vcpu: int) -> Exit:
    return Interrupted(vcpu)


def _port_io(vcpu: int, port: int, size: int, write: bool, data: bytes, count: int) -> Exit:
    return PortIo(vcpu, port, size, write, data, count)


def _port_value(vcpu: int, port: int, size: int, write: bool, value: int) -> Exit:
    return PortIo(vcpu, port, size, write, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))


def _mmio(vcpu: int, gpa: int, write: bool, size: int, value: int) -> Exit:
    return Mmio(vcpu, gpa, write, value.to_bytes(size, "little"))
