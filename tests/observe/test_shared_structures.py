"""What `explain` says of the structures that a guest shares with its hypervisor."""

from __future__ import annotations

from typing import Any

import pytest

from belljar.observe.explain import explain
from belljar.observe.explain_html import explain_page
from belljar.observe.explain_text import explain_lines

# mov ecx, KVM_SYSTEM_TIME_NEW; mov eax, 0x9001; xor edx, edx; wrmsr; wall clock at 0x9100; steal time at 0x9200; hlt
KVM = bytes.fromhex("b9014d564b b801900000 31d2 0f30 b9004d564b b800910000 0f30 b9034d564b b801920000 0f30 f4")
HYPERV = bytes.fromhex(
    "31d2 b900000040 b801000000 0f30 b901000040 b801900000 0f30 b921000040 b801a00000 0f30 b983000040 b801b00000 0f30 f4"
)
"""Guest OS id 1; hypercall page 0x9000, reference TSC page 0xA000, message page 0xB000; hlt."""


def test_kvm_structures_are_told_on_every_engine(engine: Any) -> None:
    found = explain(KVM, engine=engine, mode="long", irqchip="kernel" if engine.name == "kvm" else "user")
    shared = {each.name: each for each in found.vcpus[0].shared}
    assert {"kvmclock", "wall clock", "steal time"} <= set(shared)
    assert shared["kvmclock"].gpa == 0x9000
    assert shared["kvmclock"].fields["version"] % 2 == 0
    assert shared["steal time"].gpa == 0x9200
    text = "\n".join(explain_lines(found))
    assert "shares with its hypervisor: kvmclock at gpa 0x9000" in text
    assert "tsc_to_system_mul" in text
    assert "tsc_to_system_mul" in explain_page(found)
    assert found.as_dict()["vcpus"][0]["shared"]


def test_structure_that_is_nowhere_is_said_to_be() -> None:
    code = bytes.fromhex("b9014d564b b8010000f0 31d2 0f30 f4")  # kvmclock at 0xF0000000
    found = explain(code, engine="soft", mode="long")
    assert "kvmclock at gpa 0xf0000000, which is not memory" in "\n".join(explain_lines(found))
    assert "not memory" in explain_page(found)


def test_hyperv_pages_are_told() -> None:
    found = explain(HYPERV, engine="soft", mode="long", hyperv=True)
    shared = {each.name: each for each in found.vcpus[0].shared}
    assert shared["Hyper-V hypercall page"].gpa == 0x9000
    assert shared["Hyper-V reference TSC page"].fields["sequence"] == 1
    assert shared["Hyper-V messages (SIMP)"].gpa == 0xB000


@pytest.mark.parametrize("name", ["hello-long", "add"])
def test_guest_that_shares_nothing_is_not_said_to(name: str) -> None:
    assert "shares with" not in "\n".join(explain_lines(explain(name, engine="soft")))
