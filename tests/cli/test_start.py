"""Starting quickly: what a plain run must not import. (How long it takes is for `make bench`.)"""

from __future__ import annotations

import subprocess
import sys

from .conftest import SOURCE

HEAVY = {
    "click", "rich", "jinja2", "iced_x86", "elftools", "inspect", "dataclasses", "json", "pathlib", "ctypes.util",
    "belljar.cli.with_click", "belljar.observe.explain",
}  # fmt: skip


def imported(*arguments: str) -> set[str]:
    """The modules that a command line leaves imported."""
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
sys.argv = ["belljar", *{list(arguments)!r}]
from belljar.cli.main import main
status = main()
print(*(name for name, module in sys.modules.items() if type(module).__name__ != "_Later"), file=sys.stderr)
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.split())


def test_a_plain_run_imports_nothing_heavy(kvm: object) -> None:
    assert not imported("run", "hello-long") & HEAVY


def test_a_lazy_module_is_the_real_one_once_used() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from belljar.cli import lazy_imports
lazy_imports.install()
import inspect
before = type(sys.modules["inspect"]).__name__
assert inspect.cleandoc("  x") == "x"
import inspect as again
assert inspect.signature is again.signature
print(before, type(sys.modules["inspect"]).__name__)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["_Later", "module"]
