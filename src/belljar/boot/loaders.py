"""The file formats that belljar runs, told apart by their content."""

from __future__ import annotations

import os
from typing import Protocol

from belljar.boot import elf, raw
from belljar.boot.image import Image
from belljar.boot.options import MAX_IMAGE_SIZE, LoadOptions
from belljar.boot.source import Source, open_file, printable
from belljar.errors import ConfigurationError, LoadError


class Loader(Protocol):
    """What the module of a format has."""

    NAME: str

    def recognizes(self, source: Source) -> bool:
        """Whether these bytes, of which there is at least one, are of this format, be they damaged further on."""

    def load(self, source: Source, options: LoadOptions) -> Image:
        """Raises LoadError, with where and what to do, for anything that is not sound."""


_LOADERS: tuple[Loader, ...] = (elf, raw)
"""In the order in which they are asked; `raw` takes everything and comes last."""

FORMATS = tuple(loader.NAME for loader in _LOADERS)
"""The names of all formats."""


def load(
    path: str | os.PathLike[str],
    *,
    load_gpa: int | None = None,
    entry_gva: int | None = None,
    memory_size: int | None = None,
    format: str | None = None,
) -> Image:
    """The guest in a file, in whichever of `FORMATS` its content is (or in `format`).

    `load_gpa` says where raw code or a position-independent ELF goes, `entry_gva` where execution starts, `memory_size` (bytes)
    refuses what could not fit before it is read. Raises LoadError in one line for every unusable file, ConfigurationError
    for options that a format does not take.
    """
    with open_file(path) as source:
        return _load(source, load_gpa, entry_gva, memory_size, format)


def load_bytes(
    data: bytes,
    name: str = "guest",
    *,
    load_gpa: int | None = None,
    entry_gva: int | None = None,
    memory_size: int | None = None,
    format: str | None = None,
) -> Image:
    """The guest in `data`; otherwise as `load`."""
    with Source(printable(name), data=bytes(data)) as source:
        return _load(source, load_gpa, entry_gva, memory_size, format)


def _load(
    source: Source, load_gpa: int | None, entry_gva: int | None, memory_size: int | None, format: str | None
) -> Image:
    for option, value in (("load", load_gpa), ("entry", entry_gva)):
        if value is not None and not 0 <= value < 1 << 64:
            raise ConfigurationError(f"the {option} address {value:#x} is not a 64-bit address", hint="0 to 2^64 - 1")
    if source.size == 0:
        raise LoadError(f"{source.name}: it is empty", hint="a guest has at least one byte of code")
    limit = MAX_IMAGE_SIZE if memory_size is None else min(memory_size, MAX_IMAGE_SIZE)
    return _choose(source, format).load(source, LoadOptions(load_gpa, entry_gva, limit))


def _choose(source: Source, format: str | None) -> Loader:
    if format is None:
        return next(loader for loader in _LOADERS if loader.recognizes(source))
    for loader in _LOADERS:
        if format == loader.NAME:
            return loader
    raise ConfigurationError(f"there is no file format called {format!r}", hint=f"formats: {', '.join(FORMATS)}")
