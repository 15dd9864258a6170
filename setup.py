"""Compiles belljar's hot loops: ordinary Python sources that Cython turns into C (pure Python mode).

Everything else about the package stands in pyproject.toml.
"""

from __future__ import annotations

from Cython.Build import cythonize
from setuptools import Extension, setup

DIRECTIVES = {"language_level": "3", "cdivision": True, "boundscheck": False, "wraparound": False}


def extension(module: str, *flags: str) -> Extension:
    """An extension module made from `src/<module path>.py`, optimized as the hot path needs."""
    source = "src/" + module.replace(".", "/") + ".py"
    return Extension(module, [source], extra_compile_args=["-O2", "-g0", *flags])


setup(ext_modules=cythonize([extension("belljar.kvm._loop")], compiler_directives=DIRECTIVES))
