"""Explanations, checked against what can be found out by other means while the machine is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from belljar import Machine
from belljar.exits import PortIo
from belljar.observe import explain as explain_module
from belljar.observe.explain import explain
from belljar.observe.explain_model import Explanation
from belljar.observe.explain_text import explain_lines

GREETING = b"Hello, world!\n"
SAMPLES = ["hello-real", "hello-protected", "hello-compat", "hello-long", "mmio", "fault", "triple-fault", "ping-pong"]


def mappings() -> list[tuple[int, int, str]]:
    """(first, end, what) of every mapping of this process, as the kernel tells it."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(.*)", line)
        assert match is not None
        found.append((int(match[1], 16), int(match[2], 16), match[3]))
    return found


@pytest.fixture
def explained(
    request: pytest.FixtureRequest, kvm: object, monkeypatch: pytest.MonkeyPatch
) -> tuple[Explanation, list[Any]]:
    """A guest's explanation, and the kernel's mappings at the moment when it was written."""
    seen: list[Any] = []
    real = explain_module._end
    monkeypatch.setattr(explain_module, "_end", lambda *args: (seen.extend(mappings()), real(*args))[1])
    return explain(request.param), seen


@pytest.mark.parametrize("explained", ["hello-long"], indirect=True)
def test_host_addresses_are_those_of_the_kernel(explained: tuple[Explanation, list[Any]]) -> None:
    found, maps = explained
    (region,) = found.memory.regions
    inside = [entry for entry in maps if entry[0] <= region.hva and region.hva_last < entry[1]]
    assert len(inside) == 1
    assert "memfd:" in inside[0][2]
    assert "memfd_create" in region.obtained
    assert (region.gpa, region.gpa_last, region.size) == (0, (16 << 20) - 1, 16 << 20)
    (vcpu,) = found.vcpus
    pages = [entry for entry in maps if "kvm-vcpu" in entry[2]]
    assert [(first, end - first) for first, end, _ in pages] == [(vcpu.run_page_hva, vcpu.run_page_size)]


@pytest.mark.parametrize("name", ["hello-real", "hello-protected", "hello-compat", "hello-long"])
def test_greeting_takes_an_exit_a_byte(kvm: object, name: str) -> None:
    found = explain(name)
    assert found.console.text == GREETING.decode()
    assert (found.console.bytes, found.console.exits, found.console.batched_writes) == (14, 14, 0)
    assert found.switch_count == 15
    with Machine(name) as machine:
        exits = list(machine.exits(timeout=5))
    assert len(exits) == found.switch_count
    for exit, switch in zip(exits, found.switches, strict=True):
        assert switch.reason == exit.reason.label
        if isinstance(exit, PortIo):
            assert (switch.port, switch.size, switch.value, switch.write) == (
                exit.port,
                exit.size,
                exit.value,
                exit.write,
            )
            assert switch.data_offset == exit.data_offset


def test_data_lay_where_the_explanation_says(kvm: object) -> None:
    found = explain("hello-long")
    (vcpu,) = found.vcpus
    for switch in found.switches[:14]:
        assert switch.data_offset is not None
        assert switch.data_hva == vcpu.run_page_hva + switch.data_offset
        assert 0 < switch.data_offset < vcpu.run_page_size
    with Machine("hello-long") as machine:
        for number, exit in enumerate(machine.exits(timeout=5)):
            if isinstance(exit, PortIo):
                assert exit.data == GREETING[number : number + 1]


def test_the_end_holds_the_answer(kvm: object) -> None:
    found = explain("hello-long")
    assert found.end.end == "halt"
    assert found.end.result_gpa == 0x400
    assert found.end.result == 42
    assert found.vcpus[0].end.registers.rax == 42


def test_start_and_the_writes_that_set_it(kvm: object) -> None:
    (vcpu,) = explain("hello-long").vcpus
    special, general = vcpu.register_writes
    assert (special.call, general.call) == ("KVM_SET_SREGS", "KVM_SET_REGS")
    assert special.values["cs.base"] + general.values["rip"] == vcpu.start.pc_gva == 0x1000
    assert special.values["efer"] & 0x400


@pytest.mark.parametrize("name", SAMPLES)
def test_all_addresses_agree_with_the_engine_and_memory(kvm: object, name: str) -> None:
    found = explain(name)
    (region,) = found.memory.regions
    assert {place.kind for place in found.places} >= {"code", "stack"}
    for place in found.places:
        assert place.hva == region.hva + place.gpa - region.gpa
    with Machine(name) as machine:
        for place in found.places:
            if place.gva is not None:
                answer = machine.cpu.translate(place.gva)
                assert (answer.valid, answer.gpa) == (True, place.gpa)


def test_page_tables_are_counted_and_mapped(kvm: object) -> None:
    found = explain("hello-long", page_size=4096)
    (paging,) = found.paging
    assert [level.level for level in paging.levels] == ["PML4", "PDPT", "PD", "PT"]
    assert paging.table_pages == sum(len(level.gpas) for level in paging.levels)
    placed = sum(place.size for place in found.places if place.kind == "page-table")
    assert placed == paging.table_pages * 4096
    assert paging.runs[0].gva == paging.runs[0].gpa == 0
    assert sum(run.pages * 4096 for run in paging.runs) >= found.memory.size
    for level, above in zip(paging.levels[1:], paging.levels, strict=False):
        assert all(entry - entry % 4096 in above.gpas for entry in level.entry_gpas)


def test_cpl3_guest_has_user_pages_and_keeps_its_structures(kvm: object) -> None:
    found = explain("fault")
    (paging,) = found.paging
    assert found.vcpus[0].start.cpl == 3
    rights = {place.name: [r.rights for r in paging.runs if r.gva <= place.gva <= r.gva_last] for place in found.places}  # type: ignore[operator]
    assert rights["code"][0].endswith("user")
    assert rights["gdt"][0].endswith("supervisor")


def test_crash_is_explained(kvm: object) -> None:
    found = explain("triple-fault")
    assert (found.end.end, found.end.status) == ("crash", 134)
    assert found.switches[-1].reason == "shutdown"


def test_endless_guest_is_explained(kvm: object) -> None:
    found = explain("spin", timeout=0.05)
    assert (found.end.end, found.end.status) == ("timeout", 124)
    assert found.switch_count == 0
    assert found.vcpus[0].end.registers.rip


def test_two_vcpus_are_explained_apart(kvm: object) -> None:
    found = explain("ping-pong")
    assert [vcpu.index for vcpu in found.vcpus] == [0, 1]
    assert found.vcpus[0].run_page_hva != found.vcpus[1].run_page_hva
    assert {switch.vcpu for switch in found.switches} == {0, 1}
    assert found.console.bytes == found.console.exits == 50
    for vcpu in found.vcpus:
        assert {reason: count for reason, count in vcpu.exits.items() if reason != "interrupted"} == {
            "io": 25,
            "hlt": 1,
        }


def test_long_output_is_summarized_and_counted(kvm: object) -> None:
    # mov ecx, 20000; mov al, 'x'; again: out 0xe9, al; dec ecx; jnz again; hlt
    code = bytes.fromhex("b9 20 4e 00 00 b0 78 e6 e9 ff c9 75 fa f4")
    found = explain(code, mode="protected", limit=10, timeout=60)
    assert found.switch_count == 20_001
    assert len(found.switches) == 10
    assert [(group.switches, group.first, group.last) for group in found.groups] == [
        (20_000, 1, 20_000),
        (1, 20_001, 20_001),
    ]
    assert (found.console.bytes, found.console.exits) == (20_000, 20_000)
    assert any("19991 more" in line for line in explain_lines(found))


def test_any_number_of_ports_is_bounded(kvm: object) -> None:
    # mov edx, 0x1000; again: out dx, al; inc edx; cmp edx, 0x1400; jne again; hlt
    code = bytes.fromhex("ba 00 10 00 00 ee 42 81 fa 00 14 00 00 75 f6 f4")
    found = explain(code, mode="protected", limit=0)
    assert len(found.groups) <= 260
    assert sum(group.switches for group in found.groups) == found.switch_count == 0x401
    assert found.end.unclaimed_accesses > 0


def test_guest_that_changes_its_mode_and_tables_is_explained_as_it_ended(kvm: object) -> None:
    # In real mode: lgdt [0x1100]; mov eax, cr0; or al, 1; mov cr0, eax; jmp 8:0x1020 ... 0x1020: hlt in 32-bit code
    code = bytearray(0x200)
    start = bytes.fromhex("0f 01 16 00 11 0f 20 c0 0c 01 0f 22 c0 ea 20 10 08 00")
    code[: len(start)] = start
    code[0x20] = 0xF4
    code[0x100:0x106] = bytes.fromhex("0f 00 10 11 00 00")  # the GDT's limit, and its address 0x1110
    code[0x118:0x120] = bytes.fromhex("ff ff 00 00 00 9a cf 00")  # descriptor 8: flat 32-bit code
    found = explain(bytes(code))
    (vcpu,) = found.vcpus
    assert (vcpu.start.bits, vcpu.end.bits) == (16, 32)
    assert vcpu.end.gdt.base_gva == 0x1110
    assert found.end.end == "halt"
    assert any("32-bit code" in line for line in explain_lines(found))


def test_guest_that_loads_other_page_tables_shows_both(kvm: object) -> None:
    # mov rax, cr3; mov rsi, [rax] (its first entry); mov [0x8000], rsi; mov eax, 0x8000; mov cr3, rax; hlt
    code = bytes.fromhex("0f 20 d8 48 8b 30 48 89 34 25 00 80 00 00 b8 00 80 00 00 0f 22 d8 f4")
    found = explain(code, mode="long")
    assert [paging.when for paging in found.paging] == ["start", "end"]
    assert found.paging[1].root_gpa == 0x8000
    assert any("the guest changed it" in line for line in explain_lines(found))


def test_tables_that_point_at_themselves_are_cut_short_honestly(kvm: object) -> None:
    # mov edi, 0x8000; mov eax, 0x8007; mov ecx, 512; again: mov [rdi], rax; add edi, 8; loop; mov eax, 0x8000; mov cr3, rax
    code = bytes.fromhex(
        "bf 00 80 00 00 b8 07 80 00 00 b9 00 02 00 00 48 89 07 83 c7 08 e2 f8 b8 00 80 00 00 0f 22 d8 f4"
    )
    found = explain(code, mode="long", timeout=2)
    last = found.paging[-1]
    if last.root_gpa != 0x8000:
        pytest.skip("this engine did not take the tables")
    assert last.cut
    assert any("and more: belljar stopped" in line for line in explain_lines(found))


@pytest.mark.parametrize("name", SAMPLES)
def test_json_holds_all_of_it(kvm: object, name: str) -> None:
    found = explain(name)
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["switch_count"] == found.switch_count
    assert len(plain["switches"]) == len(found.switches)
    assert plain["memory"]["regions"][0]["hva"] == found.memory.regions[0].hva
    assert plain["vcpus"][0]["end"]["registers"]["rip"] == found.vcpus[0].end.registers.rip
    assert bytes.fromhex(plain["end"]["result_bytes"]) == found.end.result_bytes


def test_explaining_leaves_nothing_behind(kvm: object, leaves_nothing: None) -> None:
    for name in ("hello-long", "triple-fault", "ping-pong"):
        explain(name)
