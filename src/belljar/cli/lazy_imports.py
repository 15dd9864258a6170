"""Keeps the start of the command line quick: a module that others import on the chance of needing it waits until they do.

click and dataclasses import `inspect` for rarely used corners of theirs, and with it the tokenizer and the disassembler
of Python; together that would be a fifth of the time of `belljar run hello-long`. Only the console script does this,
never the library.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

LAZY = ("inspect",)
"""Standard modules that are imported when something in them is first used."""


class _Later(ModuleType):
    """Stands in `sys.modules` for a module until somebody asks it for anything."""

    def __getattr__(self, name: str) -> Any:
        # importlib's LazyLoader would do, but before Python 3.12 the import statement itself makes it load.
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = import_module(self.__name__)
        self.__dict__.update(vars(module))
        return getattr(module, name)


def install() -> None:
    """Put stand-ins for the modules of `LAZY` that nobody has imported yet into `sys.modules`."""
    for name in LAZY:
        if name not in sys.modules:
            sys.modules[name] = _Later(name)
