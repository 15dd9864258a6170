"""The one compiled unit: put together from every fragment, templates written out, nothing left over."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import belljar.soft.processor
from belljar.soft.processor.assemble import ORDER, TEMPLATE, assemble, instantiate

FOLDER = Path(belljar.soft.processor.__file__).parent
LINES = 700

TWICE = """
# each twin: OP=add,sub SIZE=1,2
@decorated
def OP_to_SIZE(cpu):
    return call(ALU_OP, SIZE, OPERAND)


@decorated
def after(cpu):
    pass
"""


def test_every_fragment_is_in_the_order_once():
    fragments = {path.stem for path in (FOLDER / "core").glob("*.py")}
    assert fragments == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("name", ORDER)
def test_fragment_is_a_small_room_of_valid_python(name):
    text = (FOLDER / "core" / f"{name}.py").read_text()
    ast.parse(text)
    assert text.count("\n") < LINES


def test_template_is_written_once_for_each_combination():
    tables: dict[str, list[str]] = {}
    text = TEMPLATE.sub(lambda match: instantiate(match, tables), TWICE)
    functions = [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert functions == ["add_to_1", "add_to_2", "sub_to_1", "sub_to_2", "after"]
    assert tables == {"twin": functions[:4]}
    assert "call(ALU_sub, 2, OPERAND)" in text


def test_assembling_defines_each_function_once_and_fills_each_table(tmp_path):
    core = tmp_path / "core"
    core.mkdir()
    for name in ORDER:
        (core / f"{name}.py").write_text((FOLDER / "core" / f"{name}.py").read_text())
    text = assemble(tmp_path).read_text()
    names = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    assert len(names) == len(set(names))
    assert "# each " not in text
    assert "alu_rr_table[31] = cmp_rr_8" in text


def test_assembling_again_leaves_an_unchanged_unit_alone(tmp_path):
    core = tmp_path / "core"
    core.mkdir()
    for name in ORDER:
        (core / f"{name}.py").write_text('"""A fragment."""\n')
    first = assemble(tmp_path).stat().st_mtime_ns
    assert assemble(tmp_path).stat().st_mtime_ns == first
