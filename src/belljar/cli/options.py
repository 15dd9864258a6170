"""GUEST, and the options that say what machine it runs on; shared by several commands."""

from __future__ import annotations

from typing import Any

from belljar.boot import FORMATS
from belljar.cli import values
from belljar.cli.spec import Argument, Option
from belljar.engines import ENGINES
from belljar.machine.config import CLOCKS, IRQCHIPS, PAGE_SIZES
from belljar.x86.modes import MODES

GUEST = Argument("guest", completes_guests=True)

GUEST_OPTIONS = (
    Option(
        "--engine", "engine", "What runs the guest. Default: auto, the first that can.",
        choices=("auto", *ENGINES), default="auto",
    ),
    Option(
        "--mode", "mode", "CPU mode the guest starts in. Default: what the sample or ELF file is made for, else real.",
        choices=tuple(MODES),
    ),
    Option("--page-size", "page_size", "Size of the pages that the start mode maps.", choices=tuple(PAGE_SIZES)),
    Option("--cpl", "cpl", "Privilege level that the guest starts at.", choices=("0", "3")),
    Option("--memory", "memory", "Guest memory, as 64K or 1G. Default: 16M, with --test-device 128M.", "SIZE", values.size),
    Option("--cpus", "cpus", "Number of vCPUs. Default: what the sample asks for, else 1.", "N", values.count),
    Option(
        "--irqchip", "irqchip",
        "Whose interrupt chips the machine has, of which all vCPUs but the first wait for INIT and start-up IPI. "
        "Default: a multiboot kernel has them, with other guests all vCPUs start together and HLT ends one.",
        choices=IRQCHIPS,
    ),
    Option(
        "--clock", "clock",
        "What the guest's time follows: the host's clock, or on soft the instructions executed, which is its default: idle "
        "time is skipped, and two runs are the same.",
        choices=CLOCKS,
    ),
    Option(
        "--without", "without",
        "CPU features that the guest shall not have, named as in /proc/cpuinfo (`belljar doctor` lists them); may be repeated. "
        "On soft their use is an exception; KVM hides them, and what the host's processor executes by itself still works.",
        "FEATURE[,FEATURE]", values.names, multiple=True,
    ),
    Option(
        "--test-device", "test_device",
        "Add what images of the KVM unit tests expect: fw_cfg, latch, page flush, interrupt lines, I/O memory, 128M; the "
        "guest's name goes before its command line, and the console is port 0x3F8 alone.",
        switch=True,
    ),
    Option(
        "--tsc-khz", "tsc_khz", "Frequency of the guest's time-stamp counter. Default: the host's on kvm, 1000000 on soft.",
        "KHZ", values.count,
    ),
    Option(
        "--hyperv", "hyperv", "Offer the guest Hyper-V's interface too: reference time, synthetic interrupts and timers.",
        switch=True,
    ),
    Option("--load", "load_gpa", "Guest-physical address to put raw code at.", "ADDR", values.address),
    Option("--entry", "entry_gva", "Guest-virtual address to start at.", "ADDR", values.address),
    Option(
        "--format", "format", "The file's format. Default: what its content says; a file's name never matters.",
        choices=FORMATS,
    ),
    Option("--append", "command_line", "Command line for a multiboot kernel, passed on as it stands.", "TEXT", default=""),
    Option(
        "--module", "modules", "Hand a multiboot kernel a file, and TEXT with it; may be repeated.", "FILE[=TEXT]",
        values.module, multiple=True,
    ),
    Option(
        "--reg", "registers",
        "Set a register of every vCPU before the start; may be repeated. Example: --reg rax=2 --reg bl=0xff",
        "NAME=VALUE", values.register, multiple=True,
    ),
)  # fmt: skip

_PASSED_ON = (
    "engine", "mode", "cpus", "irqchip", "clock", "tsc_khz", "hyperv", "load_gpa", "entry_gva", "format", "command_line",
    "modules", "test_device",
)  # fmt: skip


def machine_options(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `belljar.Machine` from the values of `GUEST_OPTIONS`."""
    options = {name: given[name] for name in _PASSED_ON}
    options["page_size"] = None if given["page_size"] is None else PAGE_SIZES[given["page_size"]]
    options["cpl"] = None if given["cpl"] is None else int(given["cpl"])
    options["registers"] = dict(given["registers"])
    if given["without"]:
        options["without"] = [name for names in given["without"] for name in names]
    if given["memory"] is not None:
        options["memory"] = given["memory"]
    return options
