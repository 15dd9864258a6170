"""Synthetic timers, four a vCPU: one-shot or periodic; they send a message, or in direct mode an interrupt (TLFS 12.2)."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any

from belljar.soft.hypervisor.hyperv.part import UNIT_NS, HypervPart
from belljar.soft.hypervisor.hyperv.reference_time import ReferenceTime
from belljar.soft.hypervisor.hyperv.synic import Message, SynIc
from belljar.soft.hypervisor.paravirt.part import Register
from belljar.x86.msr import Msr

if TYPE_CHECKING:
    from belljar.platform import Appointment
    from belljar.soft.hypervisor.vcpu import SoftVcpu

TIMERS = 4

ENABLE, PERIODIC, AUTO_ENABLE, DIRECT = 1 << 0, 1 << 1, 1 << 3, 1 << 12
VECTOR_SHIFT, VECTOR_MASK = 4, 0xFF
SINT_SHIFT, SINT_MASK = 16, 15
"""HV_X64_MSR_STIMER_CONFIG."""

TIMER_EXPIRED = 0x8000_0010
"""HvMessageTypeTimerExpired."""

PAYLOAD = Struct("<IIQQ")
"""HV_TIMER_MESSAGE_PAYLOAD: timer, reserved, expiration time, delivery time."""

MESSAGE_BASE_GPA, MESSAGE_DESTINATION_SHIFT = 0xFEE0_0000, 12
"""A message-signalled interrupt's address (SDM 3A 11.11.1)."""

LEAST_PERIOD = 100
"""Units of 100 ns: no periodic timer interrupts more often than other timers here do (`belljar.devices.clock.MIN_TICK_NS`)."""


def decode_payload(payload: bytes) -> dict[str, int]:
    """An HV_TIMER_MESSAGE_PAYLOAD by the names of its fields."""
    timer, _, expiration, delivery = PAYLOAD.unpack(payload)
    return {"timer_index": timer, "expiration_time": expiration, "delivery_time": delivery}


class SyntheticTimer:
    """One timer. `config` and `count` are its MSRs; `expiration` is in reference time, 0 while it does not run."""

    def __init__(self, index: int, owner: SyntheticTimers) -> None:
        self.index = index
        self._owner = owner
        self.config = self.count = self.expiration = 0
        self.waits = False
        """It has expired, and its message found the slot taken."""
        self._timer: Appointment | None = None

    @property
    def sint(self) -> int:
        """The source that its messages go to."""
        return self.config >> SINT_SHIFT & SINT_MASK

    def stop(self) -> None:
        """Forget what it was about to do."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.expiration = 0
        self.waits = False

    def write_config(self, value: int) -> bool:
        """WRMSR. A timer without a source that a guest could have cannot be enabled."""
        self.stop()
        if value & ENABLE and not value & DIRECT and not value >> SINT_SHIFT & SINT_MASK:
            value &= ~ENABLE
        self.config = value
        self._start()
        return True

    def write_count(self, value: int) -> bool:
        """WRMSR: 0 switches the timer off, anything else on if it is to be enabled by that."""
        self.stop()
        self.count = value
        if not value:
            self.config &= ~ENABLE
        elif self.config & AUTO_ENABLE:
            self.config |= ENABLE
        self._start()
        return True

    def _start(self) -> None:
        """Run from now, or from the last expiration on."""
        if not (self.config & ENABLE and self.count):
            return
        now = self._owner.now()
        if not self.config & PERIODIC:
            self.expiration = self.count
        else:
            period = self.count * -(-LEAST_PERIOD // self.count) if self.count < LEAST_PERIOD else self.count
            late = max(now - self.expiration, 0) % period if self.expiration else 0
            self.expiration = now + period - late
        self._arm(now)

    def _arm(self, now: int) -> None:
        left = max(self.expiration - now, 0)
        self._timer = self._owner.platform.call_at(self._owner.platform.now_ns() + left * UNIT_NS, self._run_out)

    def _run_out(self) -> None:
        self._timer = None
        if self._owner.now() < self.expiration:
            self._arm(self._owner.now())  # units are longer than the clock's
            return
        self.deliver()

    def deliver(self) -> None:
        """Send what an expired timer has to send; go on if it is periodic."""
        periodic = bool(self.config & PERIODIC)
        if self.config & DIRECT:
            lapic = self._owner.platform.local_apic(self._owner.vcpu.index)
            lapic.raise_interrupt(self.config >> VECTOR_SHIFT & VECTOR_MASK, f"stimer {self.index}")
            sent = True
        else:
            payload = PAYLOAD.pack(self.index, 0, self.expiration, self._owner.now())
            # Ticks of a periodic timer that find the slot taken are lost: messages shall not pile up.
            sent = self._owner.synic.deliver(self.sint, Message(TIMER_EXPIRED, payload), mark=not periodic) is True
        if periodic:
            self._start()
        elif sent:
            self.config &= ~ENABLE
            self.expiration = 0
            self.waits = False
        else:
            self.waits = True

    def awaited(self) -> list[tuple[int, int]]:
        """What it brings about when it runs out, as a message to the vCPU's local APIC (`belljar.machine.wakeups`)."""
        if self.config & DIRECT:
            vector: int | None = self.config >> VECTOR_SHIFT & VECTOR_MASK
        else:
            vector = self._owner.synic.vector_of_message(self.sint)
        index = self._owner.vcpu.index
        return [] if vector is None else [(MESSAGE_BASE_GPA | index << MESSAGE_DESTINATION_SHIFT, vector)]

    def freed(self, sint: int) -> None:
        """A slot may have become free."""
        if self.waits and self.config & ENABLE and sint == self.sint:
            self.deliver()

    def state(self) -> dict[str, int]:
        """The MSRs and what is under way."""
        return {
            "config": self.config,
            "count": self.count,
            "expiration": self.expiration,
            "waits": int(self.waits),
            "armed": int(self._timer is not None),
        }

    def restore(self, state: dict[str, int]) -> None:
        """Take it back."""
        self.stop()
        self.config, self.count, self.expiration = state["config"], state["count"], state["expiration"]
        self.waits = bool(state["waits"])
        if state["armed"]:
            self._arm(self._owner.now())


class SyntheticTimers(HypervPart):
    """HV_X64_MSR_STIMER0_CONFIG, _COUNT and so on."""

    name = "hyperv_stimers"

    def __init__(self, vcpu: SoftVcpu) -> None:
        super().__init__(vcpu)
        self.timers = tuple(SyntheticTimer(index, self) for index in range(TIMERS))

    @property
    def synic(self) -> SynIc:
        """Where messages go."""
        found = self.vcpu.interfaces.parts[SynIc.name]
        assert isinstance(found, SynIc)
        return found

    def now(self) -> int:
        """Reference time."""
        found = self.vcpu.interfaces.parts[ReferenceTime.name]
        assert isinstance(found, ReferenceTime)
        return found.now()

    def msrs(self) -> Mapping[int, Register]:
        """Two a timer."""
        self.synic.freed.append(self._freed)
        found: dict[int, Register] = {}
        for timer in self.timers:
            found[Msr.HV_STIMER0_CONFIG + 2 * timer.index] = _config_register(timer)
            found[Msr.HV_STIMER0_COUNT + 2 * timer.index] = _count_register(timer)
        return found

    def _freed(self, sint: int) -> None:
        for timer in self.timers:
            timer.freed(sint)

    def reset(self) -> None:
        """As after power-up."""
        for timer in self.timers:
            timer.stop()
            timer.config = timer.count = 0

    def decode(self) -> dict[str, Any]:
        """The timers that are on."""
        return {
            str(timer.index): {"config": timer.config, "count": timer.count, "expiration": timer.expiration}
            for timer in self.timers
            if timer.config & ENABLE
        }

    def state(self) -> dict[str, Any]:
        """All four."""
        return {"timers": [timer.state() for timer in self.timers]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        for timer, saved in zip(self.timers, state["timers"], strict=True):
            timer.restore(saved)


def _config_register(timer: SyntheticTimer) -> Register:
    return Register(lambda: timer.config, timer.write_config)


def _count_register(timer: SyntheticTimer) -> Register:
    return Register(lambda: timer.count, timer.write_count)
