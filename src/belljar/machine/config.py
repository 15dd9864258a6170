"""What a user may ask of a machine, checked before anything is created."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from belljar.devices.console import Input, Output
from belljar.errors import ConfigurationError
from belljar.exits import Hypercall, ReadMsr, WriteMsr
from belljar.records import dataclass, field

if TYPE_CHECKING:
    from pathlib import Path

    from belljar.engine import Engine

DEFAULT_MEMORY = 16 << 20
"""Bytes of guest memory unless asked otherwise; pages that the guest never touches cost nothing."""

TEST_DEVICE_MEMORY = 128 << 20
"""The same where the test device is asked for: what QEMU gives, and the images that want the device count on."""

MIN_MEMORY = 64 << 10
MAX_MEMORY = 1 << 40
"""Bytes; the upper limit keeps page tables and slots sane, not the host."""

MAX_CPUS = 64
"""vCPUs of one machine."""

LOW_MEMORY_LIMIT = 0xC000_0000
"""Guest-physical addresses from here to 4 GiB belong to devices, as on a PC; memory beyond continues at 4 GiB."""

CLOCKS = ("host", "instructions")
"""What time in the guest follows: the host's clock, or the number of instructions executed (soft only, its default)."""

IRQCHIPS = ("kernel", "split", "user")
"""Whose interrupt chips: the kernel's (8259 pair, IOAPIC, 8254, local APICs; KVM only), belljar's own, or of the kernel's
only the local APICs."""

PAGE_SIZES = {"4K": 4 << 10, "2M": 2 << 20, "4M": 4 << 20, "1G": 1 << 30}


@dataclass(slots=True)
class MachineConfig:
    """The options of `Machine`, with their defaults. None means: what the guest suggests, else the default.

    `guest` is a sample's name, the path of a file (one of `belljar.boot.FORMATS`), or a file's content as bytes. `mode` is one
    of `belljar.x86.modes.MODES`; `page_size` in bytes; `cpl` 0 or 3; `memory` in bytes; `load_gpa` and `entry_gva` place
    raw code; `format` is the file's format if it is not to be told by its content; `command_line` and `modules` (path and
    text of each) are handed to a multiboot kernel. `registers` set registers of every vCPU by name. `output` and `input` are
    the console's ends.

    `irqchip` says whose the interrupt chips are, one of `IRQCHIPS`. With them, only vCPU 0 starts, and INIT and start-up IPIs
    bring up the others. None: multiboot kernels get those of the engine, or else belljar's own; for other guests all vCPUs
    start together, and there are no chips on KVM and belljar's own on soft, where HLT still ends a vCPU that no timer of
    the machine could wake. Where there are chips there is the rest of a small PC (`belljar.devices.small_pc`).

    `clock` is one of `CLOCKS`. In instruction time, idle time is skipped and two runs are the same.

    `test_device` adds what the images of the KVM unit tests expect (`belljar.devices.testdev`) in the place of the debug
    console at port 0xE9, puts the guest's name before its command line, and makes `memory` 128 MiB unless it is given.

    `msr_handler` is asked for what the engine itself would refuse with #GP (unknown MSRs; on KVM also bad values), and
    `hypercall_handler` for the hypercalls that the engine hands over: what it does not answer itself. Each gets the exit, on
    the vCPU's thread, and returns the answer, 64 bits: what is read or returned, any number for a write; None refuses, as
    the engine would have.

    `tsc_khz` is the frequency of the guest's time-stamp counter; None: the host's on KVM, 1 GHz on soft. Guests are offered
    KVM's paravirtual interface on either engine, and with `hyperv` Hyper-V's too, in front of it. Once a guest has said that
    it knows Hyper-V, all its hypercalls are Hyper-V's, and none is handed over.

    `without` names CPU features that the guest shall not have, as /proc/cpuinfo does (`Engine.cpu_features`). On soft, using
    one raises the exception that it raises on a CPU without it; KVM hides it from CPUID and refuses its control bits and MSRs,
    but instructions that the host's processor executes by itself go on to work.

    `pin` binds vCPUs, from the first on, to host CPUs by number (`Machine.pin`).

    `count_instructions` makes `auto` take an engine that can limit a run to a number of instructions.
    """

    guest: str | Path | bytes
    engine: str | Engine = "auto"
    mode: str | None = None
    page_size: int | None = None
    cpl: int | None = None
    memory: int | None = None
    cpus: int | None = None
    load_gpa: int | None = None
    entry_gva: int | None = None
    format: str | None = None
    command_line: str = ""
    modules: Sequence[tuple[str | Path, str]] = ()
    registers: Mapping[str, int] = field(default_factory=dict)
    output: Output | None = None
    input: Input | None = None
    irqchip: str | None = None
    clock: str | None = None
    test_device: bool = False
    msr_handler: Callable[[ReadMsr | WriteMsr], int | None] | None = None
    hypercall_handler: Callable[[Hypercall], int | None] | None = None
    tsc_khz: int | None = None
    hyperv: bool = False
    count_instructions: bool = False
    mergeable: bool = False
    huge_pages: bool = False
    without: Sequence[str] = ()
    pin: Sequence[int] = ()

    @property
    def memory_size(self) -> int:
        """Bytes of guest memory."""
        if self.memory is not None:
            return self.memory
        return TEST_DEVICE_MEMORY if self.test_device else DEFAULT_MEMORY

    def check(self) -> None:
        """Raise ConfigurationError for values that no machine can have. Whatever stands for an integer becomes one."""
        for name in ("memory", "cpus", "page_size", "cpl", "load_gpa", "entry_gva", "tsc_khz"):
            given = getattr(self, name)
            try:
                setattr(self, name, given if given is None else operator.index(given))
            except TypeError:
                raise ConfigurationError(f"{name} is an integer, not {given!r}") from None
        self.pin = tuple(map(operator.index, self.pin))
        if not MIN_MEMORY <= self.memory_size <= MAX_MEMORY or self.memory_size % 4096:
            raise ConfigurationError(
                f"{self.memory_size:#x} bytes of memory will not do",
                hint=f"a multiple of 4K from {MIN_MEMORY >> 10}K to {MAX_MEMORY >> 40}T",
            )
        if self.cpus is not None and not 1 <= self.cpus <= MAX_CPUS:
            raise ConfigurationError(f"{self.cpus} vCPUs will not do", hint=f"from 1 to {MAX_CPUS}")
        if self.page_size is not None and self.page_size not in PAGE_SIZES.values():
            raise ConfigurationError(f"there are no pages of {self.page_size} bytes", hint=", ".join(PAGE_SIZES))
        if self.irqchip is not None and self.irqchip not in IRQCHIPS:
            raise ConfigurationError(
                f"there are no interrupt chips called {self.irqchip!r}", hint=f"interrupt chips: {', '.join(IRQCHIPS)}"
            )
        if self.without:
            from belljar.machine.features import check_features  # a table of hundreds of names that few runs need

            check_features(self.without, self.engine)
        if self.test_device and self.mergeable:
            raise ConfigurationError(
                "the test device flushes pages, which mergeable memory cannot do", hint="leave one of them away"
            )
        if self.clock is not None and self.clock not in CLOCKS:
            raise ConfigurationError(f"there is no clock called {self.clock!r}", hint=f"clocks: {', '.join(CLOCKS)}")
        if self.cpl not in (None, 0, 3):
            raise ConfigurationError(f"a guest starts at CPL 0 or 3, not {self.cpl}")
        for name, value in (("load", self.load_gpa), ("entry", self.entry_gva)):
            if value is not None and not 0 <= value < 1 << 64:
                raise ConfigurationError(f"the {name} address {value:#x} is not a 64-bit address")

    def memory_layout(self) -> list[tuple[int, int]]:
        """(gpa, size) of each piece of RAM: one, or two around the device hole below 4 GiB."""
        if self.memory_size <= LOW_MEMORY_LIMIT:
            return [(0, self.memory_size)]
        return [(0, LOW_MEMORY_LIMIT), (1 << 32, self.memory_size - LOW_MEMORY_LIMIT)]
