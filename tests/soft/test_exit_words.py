"""VM exits in words: every reason has a name, and no qualification is too strange to be told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.soft.hypervisor.exit_words import exit_words
from belljar.soft.hypervisor.reasons import Reason
from belljar.soft.processor.fields import Field


class Fields:
    """The VM-exit information of a processor."""

    def __init__(self, values: dict[int, int]) -> None:
        self._values = values

    def vmread(self, field: int) -> int:
        """A field, 0 where none was given."""
        return self._values.get(field, 0)


def words(reason: int, qualification: int, **more: int) -> tuple[str, str]:
    """What is said of an exit."""
    values = {Field.EXIT_QUALIFICATION: qualification, **{Field[name]: value for name, value in more.items()}}
    fields: Any = Fields(values)  # type: ignore[arg-type]
    return exit_words(fields, reason)


@pytest.mark.parametrize(
    ("reason", "qualification", "more", "name", "details"),
    [
        (Reason.HLT, 0, {}, "HLT", ""),
        (Reason.IO, 0xE9_0040, {}, "IO", "qualification=0xe90040 out port=0xe9 size=1"),
        (Reason.IO, 0x3F8_0039, {}, "IO", "qualification=0x3f80039 rep ins port=0x3f8 size=2"),
        (Reason.EPT_VIOLATION, 0x182, {"GUEST_PHYSICAL_ADDRESS": 0xFEE00000}, "EPT_VIOLATION",
         "qualification=0x182 gpa=0xfee00000 write"),
        (Reason.CR_ACCESS, 0x308, {}, "CR_ACCESS", "qualification=0x308 mov to cr8 rbx"),
        (Reason.CR_ACCESS, 0x20, {}, "CR_ACCESS", "qualification=0x20 clts cr0"),
        (Reason.TASK_SWITCH, 0x8000_0028, {}, "TASK_SWITCH", "qualification=0x80000028 by jmp"),
        (Reason.EXCEPTION_OR_NMI, 0, {"EXIT_INTERRUPTION_INFO": 0x8000030E}, "EXCEPTION_OR_NMI",
         "qualification=0x0 vector=0xe"),
        (Reason.EPT_VIOLATION, 4, {"IDT_VECTORING_INFO": 0x80000020}, "EPT_VIOLATION",
         "qualification=0x4 gpa=0x0 fetch while-delivering=0x20"),
    ],
)  # fmt: skip
def test_exits_are_told_as_the_manual_has_them(
    reason: int, qualification: int, more: dict[str, int], name: str, details: str
) -> None:
    assert words(reason, qualification, **more) == (name, details)


@given(
    st.one_of(st.sampled_from(list(Reason)), st.integers(0, 100)),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 1 << 32),
)
def test_nothing_is_too_strange(reason: int, qualification: int, vectoring: int) -> None:
    name, details = words(reason, qualification, IDT_VECTORING_INFO=vectoring, EXIT_INTERRUPTION_INFO=vectoring)
    assert name
    assert "\n" not in details
    assert details == details.strip()
