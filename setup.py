"""Compiles belljar's hot loops. Sources stay ordinary Python.

Cython (pure Python mode) makes C of what works on bytes without the interpreter: the soft processor and KVM's run loop.
mypyc makes C of modules as they stand, by the types that mypy checks: what an interrupt passes on its way to a vCPU.
Everything else about the package stands in pyproject.toml.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from Cython.Build import cythonize
from mypyc.build import mypycify
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


INTERRUPTS = {
    "belljar.devices": (
        "apic_bus apic_message clock cpu_signals i8254 i8259 interrupt_book interrupt_chips interrupt_counts ioapic lapic "
        "lapic_icr lapic_lvt lapic_msrs lapic_timer lapic_vectors lapic_window latency lines pit_counter"
    ),
    "belljar.machine": (
        "host_turns own_interrupts seat split_interrupts split_seat timer_thread turn turn_clock turn_interrupts turn_lock"
    ),
    "belljar.soft.hypervisor": "answers device_page events exit_log requests vcpu vcpu_events vcpu_exits vcpu_state window",
    "belljar.soft.hypervisor.handlers": "ends memory ports privileged",
    "belljar.x86": "local_apic",
}
"""From a timer's deadline to the vCPU's entry, and back from the end of interrupt. They are one unit, in which calls are C's."""

MYPY = ["--ignore-missing-imports"]
"""Libraries may not be there yet. Whether types are right in the strict sense is asked by `make lint`."""


DIRECT = ("-fno-plt",)
"""Calls into Python's library need no stub each: stubs are as many cache lines, which are cold whenever a guest has idled."""


def source(module: str) -> str:
    """The file of a module."""
    return "src/" + module.replace(".", "/") + ".py"


def extension(module: str, *flags: str) -> Extension:
    """An extension module made from `src/<module path>.py`, optimized as the hot path needs."""
    return Extension(module, [source(module)], extra_compile_args=["-O2", "-g0", *DIRECT, *flags])


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
    extension("belljar.kvm._batcher"),
    extension("belljar.kvm._calls"),
    extension("belljar.kvm._loop"),
    extension("belljar.machine._monitor"),
    extension("belljar.soft.processor._core", *PROCESSOR_FLAGS),
]
# Where only the package's metadata is asked for, there is nothing to compile.
building = not {"egg_info", "dist_info"}.intersection(sys.argv)
typed = [source(f"{room}.{module}") for room, modules in INTERRUPTS.items() for module in modules.split()]


def interrupts() -> list[Extension]:
    """The unit of `INTERRUPTS`, and a module for each part of it that leads to it."""
    compiled: list[Extension] = mypycify(
        [*MYPY, *typed], opt_level="2", debug_level="0", group_name="belljar._interrupts"
    )
    for each in compiled:
        # A change of a comment changes no C; the unit is not to be older than its sources all the same.
        if each.name.endswith("__mypyc"):
            each.depends = typed
            each.extra_compile_args = [*each.extra_compile_args, *DIRECT]
    return compiled


setup(ext_modules=[*cythonize(extensions, compiler_directives=DIRECTIVES), *interrupts()] if building else [])
