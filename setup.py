"""Compiles belljar's hot loops: ordinary Python sources that Cython turns into C (pure Python mode).

Everything else about the package stands in pyproject.toml.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DIRECTIVES = {"language_level": "3", "cdivision": True, "boundscheck": False, "wraparound": False}

PROCESSOR = Path("src/belljar/soft/processor")

PROCESSOR_FLAGS = (
    "-fno-strict-aliasing",  # registers are one array of bytes, read and written in four sizes
    "-foptimize-sibling-calls",  # a handler ends by jumping to the next one
    "-fno-semantic-interposition",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-DCYTHON_INLINE=inline __attribute__((always_inline))",
    "-Wno-unused-function",
)


def extension(module: str, *flags: str) -> Extension:
    """An extension module made from `src/<module path>.py`, optimized as the hot path needs."""
    source = "src/" + module.replace(".", "/") + ".py"
    return Extension(module, [source], extra_compile_args=["-O2", "-g0", *flags])


def assemble_processor() -> None:
    """Write the processor's one unit from its sources. Loaded by path: the package itself is not installed yet."""
    spec = importlib.util.spec_from_file_location("assemble", PROCESSOR / "assemble.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.assemble(PROCESSOR)


assemble_processor()
extensions = [
    extension("belljar.kvm._calls"),
    extension("belljar.kvm._loop"),
    extension("belljar.soft.processor._core", *PROCESSOR_FLAGS),
]
setup(
    ext_modules=cythonize(
        [each for each in extensions if Path(each.sources[0]).exists()],
        compiler_directives=DIRECTIVES,
    )
)
