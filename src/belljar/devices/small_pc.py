"""A PC besides processors, memory, interrupt chips and 8254: clocks, keyboard controller, resets, an empty PCI bus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from belljar.devices.bus import Bus
from belljar.devices.clock import Clock
from belljar.devices.hpet import Hpet
from belljar.devices.i8042 import KeyboardController
from belljar.devices.pci import PciHost
from belljar.devices.pm1 import Pm1
from belljar.devices.pm_timer import PmTimer
from belljar.devices.port92 import Port92
from belljar.devices.reset import ResetControl
from belljar.devices.rtc import DEFAULT_START, Rtc, memory_size_bytes

KEYBOARD_GSI, RTC_GSI = 1, 8
"""A PC's interrupt lines (IBM PC/AT Technical Reference, "System interrupts")."""

SCI_GSI = 9
"""ACPI's own, where virtual machines after the 82371AB have it."""

FOUR_GIB = 1 << 32


class SmallPc:
    """The devices. `line(gsi, source)` gives a hold on an interrupt line, `send_msi(gpa, data)` sends a message.

    `reset` is called with the name of what asked for a reset, `power_off` when the guest enters ACPI's S5; with `firmware` to
    come back through, it may enter S3, too. `connect_pit` is told whether the 8254 drives its line, which the HPET may take
    over. `ram` is where memory lies, (gpa, size) each; `start` what the RTC shows at the clock's 0, in seconds since 1970 UTC.
    """

    def __init__(
        self,
        clock: Clock,
        line: Callable[[int, str], Callable[[bool], object]],
        *,
        reset: Callable[[str], None],
        power_off: Callable[[], None] = lambda: None,
        firmware: bool = False,
        send_msi: Callable[[int, int], object] | None = None,
        connect_pit: Callable[[bool], None] = lambda connected: None,
        ram: Sequence[tuple[int, int]] = (),
        start: int = DEFAULT_START,
    ) -> None:
        low = sum(size for gpa, size in ram if gpa < FOUR_GIB)
        high = sum(size for gpa, size in ram if gpa >= FOUR_GIB)
        self._connect_pit = connect_pit
        self.pm_timer = PmTimer(clock)
        self.pm1 = Pm1(clock, self.pm_timer, line(SCI_GSI, "acpi"), power_off, send_msi if firmware else None)
        self.rtc = Rtc(
            clock,
            line(RTC_GSI, "rtc"),
            start=start,
            memory=memory_size_bytes(low, high),
            alarm=self.pm1.alarm,
            wakes=self.pm1.wakes_by_alarm,
        )
        self.hpet = Hpet(
            clock,
            lambda gsi: line(gsi, "hpet"),
            send_msi=None if send_msi is None else lambda gpa, data, source: send_msi(gpa, data),
            legacy=self._replace_timers,
        )
        self.keyboard = KeyboardController(
            lambda: reset("the keyboard controller"), line=line(KEYBOARD_GSI, "keyboard")
        )
        self.port92 = Port92(lambda: reset("port 0x92"))
        self.reset_control = ResetControl(lambda hard: reset("port 0xcf9"))
        self.pci = PciHost()

    def _replace_timers(self, replaced: bool) -> None:
        self._connect_pit(not replaced)
        self.rtc.connect(not replaced)

    def attach(self, bus: Bus) -> None:
        """Put all of them on a bus, where they give way to devices of the user's choice."""
        devices = (
            self.rtc, self.hpet, self.pm_timer, self.pm1, *self.keyboard.devices(), self.port92, self.reset_control,
            *self.pci.devices(),
        )  # fmt: skip
        for device in devices:
            bus.attach(device, gives_way=True)

    def _parts(self) -> dict[str, Any]:
        return {
            "rtc": self.rtc, "hpet": self.hpet, "pm_timer": self.pm_timer, "pm1": self.pm1, "keyboard": self.keyboard,
            "port92": self.port92, "reset_control": self.reset_control, "pci": self.pci,
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Every device's state, by name."""
        return {name: part.state() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back, after the clock's."""
        for name, part in self._parts().items():
            part.restore(state[name])
