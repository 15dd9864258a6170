"""Where interrupt lines (GSIs) lead, and what the pins of an engine's own chips are programmed to."""

from __future__ import annotations

from typing import NamedTuple


class PinRoute(NamedTuple):
    """An interrupt line (GSI) to a pin of one of the engine's own chips: `pic` (the 8259 pair, pins 0 to 15) or `ioapic`."""

    gsi: int
    chip: str
    pin: int


class MessageRoute(NamedTuple):
    """An interrupt line (GSI) to a message: where it is written, and the 32-bit data (SDM 3A 11.11)."""

    gsi: int
    gpa: int
    data: int


class PinTarget(NamedTuple):
    """What a pin of an engine's chip is programmed to: vector, delivery mode, trigger and the destination as it stands there.

    `cpus` are the indices of the vCPUs that it would reach now.
    """

    vector: int
    delivery: str
    level_triggered: bool
    masked: bool
    destination: int
    logical: bool
    cpus: tuple[int, ...] = ()
