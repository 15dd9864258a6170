"""The file formats that belljar runs, told apart by their content."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from belljar.boot.image import Image
from belljar.boot.options import MAX_IMAGE_SIZE, LoadOptions
from belljar.boot.source import Source, open_file, printable
from belljar.errors import ConfigurationError, LoadError

if TYPE_CHECKING:
    from belljar.boot.acpi import AcpiHardware


class Loader(Protocol):
    """What the module of a format has."""

    NAME: str

    TAKES: frozenset[str]
    """Which of `command_line` and `modules` it hands to the guest."""

    def recognizes(self, source: Source) -> bool:
        """Whether these bytes, of which there is at least one, are of this format, be they damaged further on."""

    def load(self, source: Source, options: LoadOptions) -> Image:
        """Raises LoadError, with where and what to do, for anything that is not sound."""


FORMATS = ("multiboot2", "multiboot1", "elf", "raw")
"""The names of all formats and of their modules in `belljar.boot`, imported when a file is to be loaded.

In the order in which they are asked: a multiboot kernel may be an ELF file too, and `raw` takes everything.
"""

_OPTION_NAMES = {"command_line": "command line (--append)", "modules": "modules (--module)"}


def load(
    path: str | os.PathLike[str],
    *,
    load_gpa: int | None = None,
    entry_gva: int | None = None,
    memory_size: int | None = None,
    format: str | None = None,
    ram: Iterable[tuple[int, int]] | None = None,
    command_line: str = "",
    modules: Iterable[tuple[str | os.PathLike[str], str]] = (),
    program: str = "",
    acpi: Callable[[], AcpiHardware] | None = None,
) -> Image:
    """The guest in a file, in whichever of `FORMATS` its content is (or in `format`).

    `load_gpa` says where raw code or a position-independent ELF goes, `entry_gva` where execution starts, `memory_size` (bytes)
    refuses what could not fit before it is read. `ram` is the machine's memory as (gpa, size); one piece of `memory_size`
    from 0 if left out. `command_line` and `modules` (path, text) go to guests whose format hands them over, the command line
    behind the name `program` if there is one. With `acpi`, which tells of the hardware, kernels find ACPI tables.
    Raises LoadError in one line for every unusable file, ConfigurationError for options that a format does not take.
    """
    options = _options(load_gpa, entry_gva, memory_size, ram, command_line, modules, program, acpi)
    with open_file(path) as source:
        return _load(source, options, format)


def load_bytes(
    data: bytes,
    name: str = "guest",
    *,
    load_gpa: int | None = None,
    entry_gva: int | None = None,
    memory_size: int | None = None,
    format: str | None = None,
    ram: Iterable[tuple[int, int]] | None = None,
    command_line: str = "",
    modules: Iterable[tuple[str | os.PathLike[str], str]] = (),
    program: str = "",
    acpi: Callable[[], AcpiHardware] | None = None,
) -> Image:
    """The guest in `data`; otherwise as `load`."""
    options = _options(load_gpa, entry_gva, memory_size, ram, command_line, modules, program, acpi)
    with Source(printable(name), data=bytes(data)) as source:
        return _load(source, options, format)


def _options(
    load_gpa: int | None,
    entry_gva: int | None,
    memory_size: int | None,
    ram: Iterable[tuple[int, int]] | None,
    command_line: str,
    modules: Iterable[tuple[str | os.PathLike[str], str]],
    program: str,
    acpi: Callable[[], AcpiHardware] | None,
) -> LoadOptions:
    for option, value in (("load", load_gpa), ("entry", entry_gva)):
        if value is not None and not 0 <= value < 1 << 64:
            raise ConfigurationError(f"the {option} address {value:#x} is not a 64-bit address", hint="0 to 2^64 - 1")
    limit = MAX_IMAGE_SIZE if memory_size is None else min(memory_size, MAX_IMAGE_SIZE)
    if ram is None:
        ram = () if memory_size is None else ((0, memory_size),)
    return LoadOptions(load_gpa, entry_gva, limit, tuple(ram), command_line, program, tuple(modules), acpi)


def _load(source: Source, options: LoadOptions, format: str | None) -> Image:
    if source.size == 0:
        raise LoadError(f"{source.name}: it is empty", hint="a guest has at least one byte of code")
    loader = _choose(source, format)
    for option, words in _OPTION_NAMES.items():
        if getattr(options, option) and option not in loader.TAKES:
            raise ConfigurationError(
                f"{source.name}: a guest in format {loader.NAME} takes no {words}",
                hint="multiboot kernels do; `belljar run --help` lists the formats",
            )
    return loader.load(source, options)


def _module(name: str) -> Loader:
    module: Any = import_module(f"belljar.boot.{name}")
    loader: Loader = module
    return loader


def _choose(source: Source, format: str | None) -> Loader:
    if format is None:
        return next(loader for loader in map(_module, FORMATS) if loader.recognizes(source))
    if format not in FORMATS:
        raise ConfigurationError(f"there is no file format called {format!r}", hint=f"formats: {', '.join(FORMATS)}")
    return _module(format)
