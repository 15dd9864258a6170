"""What a user's word for a guest stands for: a sample, a file or bytes; its code, its mode, where it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from belljar import samples
from belljar.boot import Image, load, load_bytes
from belljar.errors import ConfigurationError, LoadError
from belljar.machine.config import MachineConfig
from belljar.memory import GuestMemory
from belljar.records import dataclass, field
from belljar.x86.modes import Placement

if TYPE_CHECKING:
    from belljar.boot.acpi import AcpiHardware


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest ready to be put into a machine. `per_vcpu_registers[i]` are the start registers of vCPU i, by name."""

    name: str
    image: Image
    mode: str
    page_size: int | None
    cpl: int
    cpus: int
    per_vcpu_registers: Sequence[Mapping[str, int]] = ()
    idt_handlers: Mapping[int, int] = field(default_factory=dict)
    needs_chips: bool = False
    """Whether it counts on interrupt chips; it then starts on one vCPU and brings up the others by itself."""

    @property
    def entry_gva(self) -> int:
        """Where execution starts."""
        return self.image.entry_gva

    def registers_of(self, index: int) -> Mapping[str, int]:
        """The start registers of one vCPU that the guest itself suggests."""
        return self.per_vcpu_registers[index] if index < len(self.per_vcpu_registers) else {}

    def place(self, memory: GuestMemory, structures: Sequence[Placement]) -> None:
        """Copy the guest into memory. LoadError if it does not fit, or overlaps what its mode needs there."""
        for segment in self.image.segments:
            for placed in structures:
                if segment.gpa < placed.gpa + placed.size and placed.gpa < segment.gpa + segment.memory_size:
                    raise LoadError(
                        f"{self.name}: its bytes at guest-physical {segment.gpa:#x} would overwrite the {placed.name} "
                        f"at {placed.gpa:#x}",
                        hint="give the machine more --memory; page tables, GDT and stacks lie at the end of it",
                    )
        self.image.place(memory)


def resolve(config: MachineConfig) -> Guest:
    """The guest that a configuration names. Raises ConfigurationError (no such sample or file), LoadError (a bad one)."""
    if isinstance(config.guest, str) and config.guest in samples.NAMES:
        return _from_sample(config, samples.get(config.guest))
    image = _load(config)
    if image.strict:
        _check_strict(config, image)
    return Guest(
        name=image.name,
        image=image,
        mode=config.mode or image.mode or "real",
        page_size=config.page_size,
        cpl=config.cpl or 0,
        cpus=config.cpus or 1,
        per_vcpu_registers=(image.registers,),
        needs_chips=image.strict,
    )


def _load(config: MachineConfig) -> Image:
    options: dict[str, Any] = {
        "load_gpa": config.load_gpa,
        "entry_gva": config.entry_gva,
        "memory_size": config.memory_size,
        "format": config.format,
        "ram": config.memory_layout(),
        "command_line": config.command_line,
        "program": _program(config),
        "modules": config.modules,
        "acpi": lambda: _acpi_hardware(config),
    }
    if isinstance(config.guest, (bytes, bytearray, memoryview)):
        return load_bytes(bytes(config.guest), "guest", **options)
    # os.path.exists, not Path's, which raises for names that are too long.
    if isinstance(config.guest, str) and "/" not in config.guest and not os.path.exists(config.guest):
        raise samples.unknown(config.guest)
    return load(config.guest, **options)


def _acpi_hardware(config: MachineConfig) -> AcpiHardware:
    from belljar.machine.firmware import acpi_hardware  # only some formats have ACPI tables

    return acpi_hardware(config.cpus or 1)


def _program(config: MachineConfig) -> str:
    """What stands before a kernel's command line: the guest's name where there is the test device, as with QEMU."""
    if not config.test_device:
        return ""
    return "guest" if isinstance(config.guest, (bytes, bytearray, memoryview)) else os.fspath(config.guest)


def command_line(config: MachineConfig) -> str:
    """What a kernel is handed."""
    return f"{_program(config)} {config.command_line}".strip() if config.test_device else config.command_line


def _check_strict(config: MachineConfig, image: Image) -> None:
    """Refuse options that would start a guest in another way than its format promises."""
    for option, value, only in (("mode", config.mode, image.mode), ("cpl", config.cpl, 0)):
        if value not in (None, only):
            raise ConfigurationError(
                f"{image.name}: a guest in format {image.format} is entered with --{option} {only}, not {value}",
                hint=f"leave --{option} away, or choose another --format",
            )


def _from_sample(config: MachineConfig, sample: samples.Sample) -> Guest:
    """A sample runs where and how its listing says; options that would make it another program are refused."""
    for option, given in (("format", config.format), ("append", config.command_line), ("module", config.modules)):
        if given:
            raise ConfigurationError(
                f"sample {sample.name} is no file that could be handed anything", hint=f"leave --{option} away"
            )
    for option, value in (("load", config.load_gpa), ("entry", config.entry_gva)):
        if value is not None:
            raise ConfigurationError(
                f"sample {sample.name} lies and starts at {sample.load_gpa:#x}", hint=f"leave --{option} away"
            )
    if config.mode is not None and config.mode != sample.mode:
        raise ConfigurationError(
            f"sample {sample.name} is written for mode {sample.mode}", hint=f"leave --mode {config.mode} away"
        )
    return Guest(
        name=sample.name,
        image=sample.image(),
        mode=sample.mode,
        page_size=config.page_size or sample.page_size,
        cpl=sample.cpl if config.cpl is None else config.cpl,
        cpus=config.cpus or sample.cpus,
        per_vcpu_registers=sample.registers,
        needs_chips=sample.needs_chips,
        idt_handlers=sample.idt_handlers,
    )
