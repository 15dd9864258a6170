"""Timers in a trace: when a device's timer is armed and for when, and when it runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from belljar.devices.clock import Timer
from belljar.devices.lapic_registers import Reg
from belljar.devices.lapic_timer import ApicTimer
from belljar.machine.own_interrupts import OwnInterrupts
from belljar.observe.trace_lines import NO_CPU, TraceLines, seconds, spoken

KIND = "timer"

_MODES = ("one-shot", "periodic", "TSC deadline", "reserved")


def trace_timers(interrupts: OwnInterrupts, lines: TraceLines) -> None:
    """From now on, a line for every timer that a device of the machine arms on its clock, and for every one that runs out."""
    clock: Any = interrupts.clock
    call_at = clock.call_at
    lapics = interrupts.chips.lapics

    def name(callback: Callable[[], None]) -> tuple[int, str]:
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, ApicTimer):
            cpu = next((cpu for cpu, lapic in lapics.items() if lapic.timer is owner), NO_CPU)
            vector = lapics[cpu].lvt[Reg.LVT_TIMER] & 0xFF if cpu != NO_CPU else 0
            return cpu, f"lapic timer ({_MODES[owner.mode]}, vector {vector:#04x})"
        return NO_CPU, spoken(callback.__qualname__.partition(".")[0])

    def traced_call_at(deadline_ns: int, callback: Callable[[], None]) -> Timer:
        cpu, who = name(callback)
        lines(cpu, KIND, f"{who} armed for {seconds(deadline_ns)}, in {deadline_ns - clock.now_ns()} ns")

        def expire() -> None:
            late_ns = clock.now_ns() - deadline_ns
            lines(cpu, KIND, f"{who} expired" + (f", {late_ns} ns late" if late_ns else ""))
            callback()

        timer: Timer = call_at(deadline_ns, expire)
        return timer

    clock.call_at = traced_call_at
