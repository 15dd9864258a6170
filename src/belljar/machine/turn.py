"""A vCPU's turn: until when it runs, and who looks on."""

from __future__ import annotations

import time
from collections.abc import Callable

from belljar.exits import Exit


class Turn:
    """What a machine with chips of its own is asked for each time that it is to run a vCPU; made once a run, and then changed."""

    def __init__(
        self,
        over: Callable[[], bool],
        observer: Callable[[Exit], None] | None = None,
        *,
        single_exit: bool = False,
        patient: bool = True,
    ) -> None:
        self.over = over
        """Whether the whole run is to end. Whoever makes it so wakes everybody."""
        self.observer = observer
        self.single_exit = single_exit
        """Come back after each exit."""
        self.patient = patient
        """Wait while the vCPU has nothing to do, instead of giving the turn back."""
        self.deadline_ns: int | None = None
        """The end, as a time of time.monotonic_ns()."""
        self.instructions: int | None = None
        """How many at most."""
        self.span_ns: int | None = None
        """How far the clock may go on at most, on an engine that counts instructions."""
        self.gave = 0
        """Whether the vCPU gave its turn away, as `Vcpu.gave_turn` tells it."""

    def late_at(self, now_ns: int) -> bool:
        """Whether it is over at this time of time.monotonic_ns()."""
        return self.deadline_ns is not None and now_ns >= self.deadline_ns

    def late(self) -> bool:
        """Whether it is over now."""
        return self.deadline_ns is not None and time.monotonic_ns() >= self.deadline_ns
