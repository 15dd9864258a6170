"""The package's face: every public name is there, is what type checkers think it is, and costs nothing until used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import belljar


@pytest.mark.parametrize("name", belljar.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(belljar, name) is not None
    assert name in dir(belljar)


def test_type_checkers_see_the_same_objects() -> None:
    tree = ast.parse(Path(belljar.__file__).read_text())
    seen = {
        alias.name: import_module(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("belljar.")
        for alias in node.names
    }
    assert {*seen, "__version__"} == set(belljar.__all__)
    for name, module in seen.items():
        assert getattr(belljar, name) is getattr(module, name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = belljar.Nonsense  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    code = "import sys, belljar; print([m for m in sys.modules if m.startswith('belljar.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
