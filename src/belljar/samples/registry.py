"""Every sample by name; only the one asked for is imported."""

from __future__ import annotations

from importlib import import_module

from belljar.errors import ConfigurationError
from belljar.samples.sample import Sample

NAMES = (
    "hello-real",
    "hello-protected",
    "hello-paged",
    "hello-pae",
    "hello-compat",
    "hello-long",
    "hello-la57",
    "add",
    "mmio",
    "fault",
    "triple-fault",
    "spin",
    "ping-pong",
    "tick",
)
"""All samples, in the order in which a newcomer would read them. Each lies in the module of its name, `SAMPLE`."""


def get(name: str) -> Sample:
    """The sample called `name`. Raises ConfigurationError, with names that look like it, for an unknown one."""
    if name not in NAMES:
        raise unknown(name)
    sample: Sample = import_module(f"belljar.samples.{name.replace('-', '_')}").SAMPLE
    return sample


def unknown(name: str) -> ConfigurationError:
    """The error for a guest that is neither a sample nor a file."""
    from difflib import get_close_matches  # 7 ms that only a wrong name should cost

    close = get_close_matches(name, NAMES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "`belljar samples` lists them; a file's path works too"
    return ConfigurationError(f"there is no sample and no file called {name!r}", hint=hint)
