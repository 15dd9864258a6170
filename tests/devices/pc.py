"""A PC of nothing but chips, for tests: every device of interrupts and time on a bus, two CPUs that are only APICs."""

from __future__ import annotations

from collections import Counter

from belljar.devices.bus import Bus
from belljar.devices.clock import InstructionClock, Tsc
from belljar.devices.fw_cfg import FwCfg
from belljar.devices.hpet import Hpet
from belljar.devices.i8042 import KeyboardController
from belljar.devices.i8254 import Pit
from belljar.devices.interrupt_chips import InterruptChips
from belljar.devices.lapic_msrs import LapicMsrs
from belljar.devices.lapic_window import LapicWindow
from belljar.devices.pci import PciHost
from belljar.devices.pm1 import Pm1
from belljar.devices.pm_timer import PmTimer
from belljar.devices.port61 import SystemControlB
from belljar.devices.port92 import Port92
from belljar.devices.reset import ResetControl
from belljar.devices.rtc import Rtc, memory_size_bytes
from belljar.devices.testdev import TestDevice


class Pc:
    """The machine without processors. `woken` counts by CPU how often its chips called for it."""

    def __init__(self, cpus: int = 2, *, eoi_suppression: bool = False) -> None:
        self.clock = InstructionClock()
        self.tsc = Tsc(self.clock, 2_000_000_000)
        self.woken: Counter[int] = Counter()
        self.resets: list[object] = []
        self.flushed: list[int] = []
        self.chips = InterruptChips(
            self.clock, cpus=cpus, tsc=self.tsc, wake=self._wake, eoi_suppression=eoi_suppression
        )
        self.bus = Bus()
        router = self.chips.router
        self.pit_line = router.line(0, "pit")
        self.rtc_line = router.line(8, "rtc")
        self.pit = Pit(self.clock, self.pit_line)
        self.pm_timer = PmTimer(self.clock)
        self.pm1 = Pm1(
            self.clock, self.pm_timer, router.line(9, "acpi"), lambda: self.resets.append("off"), self.chips.signal_msi
        )
        self.rtc = Rtc(
            self.clock,
            self.rtc_line,
            memory=memory_size_bytes(64 << 20),
            alarm=self.pm1.alarm,
            wakes=self.pm1.wakes_by_alarm,
        )
        self.hpet = Hpet(
            self.clock, lambda gsi: router.line(gsi, "hpet"), send_msi=self.chips.signal_msi, legacy=self._legacy
        )
        self.port61 = SystemControlB(self.clock, self.pit)
        self.keyboard = KeyboardController(lambda: self.resets.append("8042"), line=router.line(1, "keyboard"))
        self.port92 = Port92(lambda: self.resets.append("92"))
        self.reset = ResetControl(self.resets.append)
        self.pci = PciHost()
        self.fw_cfg = FwCfg(cpus=cpus, ram_size=64 << 20, command_line=b"hello", files={"etc/x": b"data"})
        self.test = TestDevice(lambda gsi: router.line(gsi, "test"), self.flushed.append)
        parts = (
            *self.chips.devices(), self.pit, self.rtc, self.hpet, self.pm_timer, self.pm1, self.port61, *self.keyboard.devices(),
            self.port92, self.reset, *self.pci.devices(), self.fw_cfg, *self.test.devices,
        )  # fmt: skip
        for device in parts:
            self.bus.attach(device)
        self.lapics = [self.chips.lapics[cpu] for cpu in range(cpus)]
        self.msrs = [LapicMsrs(lapic) for lapic in self.lapics]
        self.windows = [LapicWindow(lapic, self.bus) for lapic in self.lapics]
        self._saved = {
            "clock": self.clock, "chips": self.chips, "pit": self.pit, "rtc": self.rtc, "hpet": self.hpet,
            "pm_timer": self.pm_timer, "port61": self.port61, "keyboard": self.keyboard, "port92": self.port92,
            "reset": self.reset, "pci": self.pci, "fw_cfg": self.fw_cfg, "test": self.test,
        }  # fmt: skip

    def _wake(self, cpu: int) -> None:
        self.woken[cpu] += 1

    def _legacy(self, taken: bool) -> None:
        self.pit.connect(not taken)
        self.rtc.connect(not taken)

    def out(self, port: int, *values: int) -> None:
        """Byte writes to a port."""
        for value in values:
            self.bus.port_write(port, 1, value)

    def inb(self, port: int) -> int:
        """A byte read."""
        return self.bus.port_read(port, 1)

    def state(self) -> dict[str, object]:
        """Everything."""
        return {name: part.state() for name, part in self._saved.items()}

    def restore(self, state: dict[str, object]) -> None:
        """Take it back, the clock first."""
        for name, part in self._saved.items():
            part.restore(state[name])
