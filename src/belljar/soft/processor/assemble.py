"""Puts the processor's sources together into the one unit that is compiled, and instantiates its templates.

A template is a function in `core/` above which a comment stands:

    # each alu_rr: OP=add,or,adc SIZE=1,2,4,8

The function is written once for each combination, its upper-case parameters replaced wherever they stand as a word
between underscores or other punctuation, and a table `alu_rr_table` of function pointers is made, in the order
of the comment, the last parameter varying fastest. That is what the decoder picks handlers from.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

ORDER = (
    "head",
    "host",
    "features",
    "flags",
    "memory",
    "operands",
    "alu",
    "moves",
    "shifts",
    "muldiv",
    "bits",
    "bmi",
    "stack",
    "branches",
    "strings",
    "misc",
    "exceptions",
    "descriptors",
    "frames",
    "delivery",
    "segments",
    "lookups",
    "far",
    "returns",
    "tasks",
    "control",
    "eflags",
    "coprocessor",
    "ports",
    "syscalls",
    "system",
    "mtrr",
    "msrs",
    "cpuid",
    "debug",
    "ept",
    "walk",
    "tlb",
    "window",
    "vmcs",
    "vmx_check",
    "vmx_guest_check",
    "intercepts",
    "vmx",
    "vmx_entry",
    "operations",
    "opcodes",
    "opcodes_system",
    "decoder",
    "mode",
    "blocks",
    "block_decoding",
    "waiting",
    "run",
    "watch",
    "lifetime",
    "memory_face",
    "bare_face",
    "face",
)
"""The files of `core/`, without `.py`, in the order in which they are put together."""

TEMPLATE = re.compile(r"^# each (\w+): (.+)\n((?:@.+\n)+def (?:.|\n)+?)(?=\n\n\n|\Z)", re.MULTILINE)


def instantiate(match: re.Match[str], tables: dict[str, list[str]]) -> str:
    """One template written out for every combination of its parameters; its functions' names are added to `tables`."""
    table, parameters, body = match.groups()
    pairs = [parameter.split("=") for parameter in parameters.split()]
    names = [name for name, _ in pairs]
    values = [text.split(",") for _, text in pairs]
    function = re.search(r"^def (\w+)", body, re.MULTILINE)
    assert function is not None
    written = []
    for combination in itertools.product(*values):
        replaced = body
        label = function[1]
        for name, value in zip(names, combination, strict=True):
            word = re.compile(rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])")
            replaced, label = word.sub(value, replaced), word.sub(value, label)
        tables.setdefault(table, []).append(label)
        written.append(replaced)
    return "\n\n\n".join(written)


def assemble(folder: Path) -> Path:
    """Write `_core.py` in `folder` from `folder/core/*.py` if its contents change; returns its path."""
    tables: dict[str, list[str]] = {}
    parts = []
    for name in ORDER:
        text = (folder / "core" / f"{name}.py").read_text()
        parts.append(TEMPLATE.sub(lambda match: instantiate(match, tables), text))
    declared = [f"{name}_table = cython.declare(Handler[{len(members)}])" for name, members in tables.items()]
    filled = ["    pass"]
    filled += [
        f"    {name}_table[{i}] = {member}" for name, members in tables.items() for i, member in enumerate(members)
    ]
    parts.insert(1, "\n".join(declared) + "\n")
    parts.append(
        "@cython.cfunc\n@cython.nogil\n@cython.exceptval(check=False)\n"
        "def fill_handler_tables() -> cython.void:\n"
        + "\n".join(filled)
        + "\n\n\nfill_handler_tables()\nfill_opcodes()\ncheck_tables()\n"
    )
    target = folder / "_core.py"
    unit = "\n\n".join(parts)
    if not target.exists() or target.read_text() != unit:
        target.write_text(unit)
    return target
