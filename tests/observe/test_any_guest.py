"""Random bytes run as guests in every mode: explained, drawn, reported and walked without an exception, in bounded time."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from belljar import Machine
from belljar.engine import Engine
from belljar.errors import LoadError, ModeUnsupported
from belljar.observe.explain import explain
from belljar.observe.explain_html import explain_page
from belljar.observe.explain_text import explain_lines
from belljar.observe.report import run_report
from belljar.observe.trace import Trace
from belljar.observe.walk import walk_address
from belljar.observe.walk_text import walk_lines
from belljar.x86.modes import MODES

CODE = st.one_of(
    st.binary(min_size=1, max_size=64),
    # More often than chance would have it: port and memory accesses, jumps, loads of CR3, halts.
    st.lists(
        st.sampled_from(
            [
                b"\xe6\xe9",
                b"\xee",
                b"\xec",
                b"\x0f\x22\xd8",
                b"\xeb\xfe",
                b"\xf3\x6e",
                b"\xf4",
                b"\x89\x07",
                b"\xcd\x21",
                b"\x0f\x0b",
            ]
        ),
        min_size=1,
        max_size=16,
    ).map(b"".join),
)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(code=CODE, cpl=st.sampled_from([0, 3]))
def test_anything_can_be_explained(engine: Engine, mode: str, code: bytes, cpl: int) -> None:
    level = cpl if MODES[mode].privileged else 0
    try:
        found = explain(code, timeout=0.02, limit=20, engine=engine, mode=mode, cpl=level)
    except ModeUnsupported as error:
        pytest.skip(str(error))
    except LoadError:
        reject()  # it begins like a file format, and is none
    assert sum(group.switches for group in found.groups) == found.switch_count
    assert len(found.switches) <= 20
    assert explain_lines(found)
    assert explain_page(found).rstrip().endswith("</html>")
    json.dumps(found.as_dict())


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(code=CODE, gva=st.integers(0, (1 << 64) - 1))
def test_anything_can_be_traced_reported_and_walked(engine: Engine, mode: str, code: bytes, gva: int) -> None:
    lines: list[str] = []
    try:
        machine = Machine(code, engine=engine, mode=mode)
    except ModeUnsupported as error:
        pytest.skip(str(error))
    except LoadError:
        reject()  # it begins like a file format, and is none
    with machine:
        trace = Trace(machine, lines.append)
        result = machine.run(timeout=0.02, observer=trace)
        json.dumps(run_report(machine, result))
        assert len(lines) == trace.count
        assert all(line.endswith("\n") and line[:-1].isprintable() for line in lines)
        assert walk_lines(walk_address(machine, gva))


def test_time_limit_holds_for_a_guest_that_never_stops_talking(engine: Engine) -> None:
    code = bytes.fromhex("89 07 eb fc")  # again: mov [edi], eax; jmp again
    found = explain(code, timeout=0.1, limit=5, engine=engine, mode="protected", registers={"edi": 0xFEDF0000})
    assert found.end.end == "timeout"
    assert found.switch_count > 5
