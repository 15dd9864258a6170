"""A trace by kinds shows the same guest in the same words on every engine, or says what it cannot show."""

from __future__ import annotations

import re

import pytest

from belljar.errors import FeatureUnsupported
from belljar.machine import End, Machine
from belljar.observe.report import run_report
from belljar.observe.trace_kinds import KINDS, KindTrace
from belljar.soft.hypervisor.charges import EXIT_NS
from common import open_or_skip
from conformance.assembly import guest
from conformance.interrupt_guests import PIT_THROUGH_PIC, PRIORITIES

CHIPS = [("kvm", "kernel"), ("kvm", "split"), ("kvm", "user"), ("soft", "user")]
LINE = re.compile(r" *(\d+) \[(\d+\.\d{9})\] (vcpu\d+|-) +(\w+) +(.*)\n")

MSRS_AND_CPUID = """
main:
    gate 13, refused
    mov eax, 7
    xor ecx, ecx
    cpuid
    mov ecx, 0x174              # IA32_SYSENTER_CS
    mov eax, 0x1234
    mov edx, 0
    wrmsr
    rdmsr
    mov ecx, 0x12345            # no MSR has this number
    rdmsr
    say 'n'                     # not reached
    done
refused:
    say 'r'
    done
"""

LEVEL_AND_BACK = """
main:
    gate 0x41, handler
    redirect 4, 0x8041          # COM1's line: level-triggered
    mov dx, 0x3F9
    mov al, 2                   # the transmitter may interrupt
    out dx, al
    sti
    chance
    cli
    done
handler:
    say 'h'
    mov dx, 0x3F9
    xor eax, eax
    out dx, al                  # not any more
    end_of_interrupt
    iretq
"""


def traced(
    kinds: set[str], code: object, engine: str, irqchip: str | None
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(vCPU, kind, text) of each line, and the notes."""
    with open_or_skip(engine) as opened:  # type: ignore[attr-defined]
        machine = Machine(code, engine=opened, irqchip=irqchip, mode="long")
        with machine:
            written: list[str] = []
            trace = KindTrace(machine, frozenset(kinds), written.append)
            result = machine.run(timeout=20, observer=trace.observe)
            trace.finish()
            assert result.end is End.HALT, result.message
    found = [LINE.fullmatch(line) for line in written]
    assert all(found), written
    lines = [match.groups() for match in found if match]
    assert [int(line[0]) for line in lines] == list(range(1, len(lines) + 1))
    times = [float(line[1]) for line in lines]
    assert times == sorted(times), "time does not go back"
    return [(vcpu, kind, text) for _, _, vcpu, kind, text in lines], trace.notes


@pytest.mark.parametrize(("engine", "irqchip"), CHIPS, ids="-".join)
def test_accesses_show_device_size_and_value(engine: str, irqchip: str) -> None:
    lines, notes = traced({"io", "mmio"}, "tick", engine, irqchip)
    texts = [text for _, _, text in lines]
    assert notes == []
    assert texts.count("write port=0xe9 size=1 value=0x74 't' (debug console)") == 3
    if irqchip != "kernel":
        assert texts[0] == "write port=0x21 size=1 value=0xff (pic pair)"
        assert "write gpa=0xfec00010 size=4 value=0x40 (io apic)" in texts
    if irqchip == "user":
        assert texts.count("write gpa=0xfee000b0 size=4 value=0x0 (lapic EOI)") == 3


@pytest.mark.parametrize("engine", ["kvm", "soft"])
def test_only_the_kinds_asked_for_are_shown(engine: str) -> None:
    lines, _ = traced({"io"}, "tick", engine, "user")
    assert {kind for _, kind, _ in lines} == {"io"}
    lines, _ = traced({"mmio"}, "mmio", engine, None)
    assert {kind for _, kind, _ in lines} == {"mmio"}
    assert lines[0][2] == "write gpa=0xfedf0000 size=1 value=0x11 (no device)"


@pytest.mark.parametrize("engine", ["kvm", "soft"])
def test_interrupt_is_followed_from_the_timer_to_its_end(engine: str) -> None:
    lines, notes = traced({"irq", "timer"}, "tick", engine, "user")
    assert notes == []
    texts = [(vcpu, re.sub(r"\d+ ns( late)?|\d\.\d{9}", "N", text)) for vcpu, _, text in lines]
    start = texts.index(("-", "gsi 0 up (pit)"))
    follows = iter(texts[start:])  # on a busy host the next tick may come before the end of this one
    for line in [
        ("-", "gsi 0 up (pit)"),
        ("-", "ioapic pin 2: sends vector 0x40 fixed edge to apic 0x0 (pit)"),
        ("vcpu0", "lapic: vector 0x40 requested (pit)"),
        ("vcpu0", "lapic: vector 0x40 delivered after N (pit)"),
        ("vcpu0", "lapic: vector 0x40 ended"),
    ]:
        assert line in follows, line
    assert sum("delivered" in text for _, text in texts) == 3
    assert sum(text.startswith("pit expired") for _, text in texts) >= 3


@pytest.mark.parametrize("engine", ["kvm", "soft"])
def test_8259_shows_its_part(engine: str) -> None:
    lines, _ = traced({"irq"}, guest(PIT_THROUGH_PIC), engine, "user")
    texts = [text for _, _, text in lines]
    assert "pic pin 0: vector 0x20 requested (pit)" in texts
    taken = [text.partition(" after")[0] for text in texts if text.startswith("pic: ")]
    assert taken[:4] == ["pic: vector 0x20 delivered", "pic: vector 0x20 ended"] * 2


@pytest.mark.parametrize("engine", ["kvm", "soft"])
def test_level_triggered_line_goes_up_and_down(engine: str) -> None:
    lines, _ = traced({"irq"}, guest(LEVEL_AND_BACK), engine, "user")
    texts = [text for _, _, text in lines if "pit" not in text]
    order = [
        texts.index("gsi 4 up (serial)"),
        texts.index("gsi 4 down (serial)"),
        texts.index("lapic: vector 0x41 ended"),
    ]
    assert order == sorted(order)
    assert any(text.startswith("ioapic pin 4: sends vector 0x41 fixed level") for text in texts)


def test_interprocessor_interrupts_name_their_sender() -> None:
    text = """
main:
    gate 0x50, handler
    lapic 0x300, 0x44050        # to itself
    sti
    chance
    cli
    done
handler:
    end_of_interrupt
    iretq
"""
    lines, _ = traced({"irq"}, guest(text), "soft", "user")
    assert ("vcpu0", "irq", "lapic: vector 0x50 requested (ipi from cpu 0)") in lines


def test_time_is_told_right_in_the_middle_of_an_instruction() -> None:
    lines, _ = traced({"irq"}, guest(PRIORITIES), "soft", "user")
    taken = [text for _, _, text in lines if "delivered" in text]
    waited_ns = [int(text.partition("after ")[2].partition(" ")[0]) for text in taken]
    assert [ns // EXIT_NS for ns in waited_ns] == [2, 5, 8], "exits in between"
    assert all(ns % EXIT_NS < 100 for ns in waited_ns)


def test_nmi_is_shown_from_its_request_to_its_delivery() -> None:
    text = """
main:
    gate 2, handler
    lapic 0x310, 0
    lapic 0x300, 0x4400         # NMI to APIC 0
    chance
    done
handler:
    say 'n'
    iretq
"""
    lines, _ = traced({"irq"}, guest(text), "soft", "user")
    texts = [text for _, _, text in lines]
    assert texts[0] == "sends nmi edge to apic 0x0 (ipi from cpu 0)"
    assert texts[1] == "lapic: nmi requested (ipi from cpu 0)"
    assert texts[2].startswith("lapic: vector 0x02 delivered after ")


def test_soft_shows_msrs_and_cpuid_with_names_and_answers() -> None:
    lines, notes = traced({"msr", "cpuid"}, guest(MSRS_AND_CPUID), "soft", "user")
    assert notes == []
    assert [text for _, kind, text in lines if kind == "msr"] == [
        "write IA32_SYSENTER_CS (0x174) value=0x1234",
        "read IA32_SYSENTER_CS (0x174) value=0x1234",
        "read unknown (0x12345) refused: #GP(0)",
    ]
    (cpuid,) = [text for _, kind, text in lines if kind == "cpuid"]
    assert re.fullmatch(r"leaf=0x7 subleaf=0x0 eax=0x\w+ ebx=0x\w+ ecx=0x\w+ edx=0x\w+", cpuid)


@pytest.mark.parametrize("irqchip", [None, "kernel", "split", "user"])
def test_kvm_shows_msrs_and_says_which_it_keeps_to_itself(irqchip: str | None) -> None:
    lines, notes = traced({"msr"}, guest(MSRS_AND_CPUID), "kvm", irqchip)
    assert [text for _, _, text in lines] == [
        "write IA32_SYSENTER_CS (0x174) value=0x1234",
        "read IA32_SYSENTER_CS (0x174) value=0x1234",
        "read unknown (0x12345) refused: #GP(0)",
    ]
    (note,) = notes
    assert note.startswith("msr: not seen is what KVM does by itself: x2APIC registers, ")


def test_exits_have_the_engines_own_names() -> None:
    lines, _ = traced({"exit"}, "tick", "soft", "user")
    texts = [text for _, _, text in lines]
    assert "IO rip=0x1002 qualification=0x210040 out port=0x21 size=1" in texts
    assert any(re.match(r"EPT_VIOLATION rip=0x\w+ qualification=0x\w+ gpa=0xfee000f0 write", text) for text in texts)
    assert "HLT rip=0x1048" in texts
    lines, _ = traced({"exit"}, "tick", "kvm", "user")
    texts = [text for _, _, text in lines]
    assert any(re.match(r"KVM_EXIT_IO rip=0x\w+ io write port=0x21 size=1 value=0xff", text) for text in texts)
    assert any(text.startswith("KVM_EXIT_HLT ") for text in texts)


@pytest.mark.parametrize(
    ("engine", "irqchip", "kind", "why"),
    [
        ("kvm", "user", "cpuid", "kvm answers it without telling anybody"),
        ("kvm", None, "irq", "this machine has no interrupt chips"),
        ("kvm", None, "timer", "this machine has no interrupt chips"),
    ],
)
def test_what_cannot_be_shown_is_refused_alone_and_noted_among_others(
    engine: str, irqchip: str | None, kind: str, why: str
) -> None:
    with pytest.raises(FeatureUnsupported) as caught:
        traced({kind}, "hello-long", engine, irqchip)
    assert why in caught.value.message
    assert "\n" not in str(caught.value)
    _, notes = traced({kind, "io"}, "hello-long", engine, irqchip)
    assert len(notes) == 1
    assert notes[0].startswith(f"{kind}: {why}")


def test_kernels_chips_keep_their_timers_to_themselves() -> None:
    lines, notes = traced({"timer"}, "tick", "kvm", "kernel")
    assert lines == []
    assert notes == [
        "timer: the chips are the kernel's, and so are the 8254 and the local APICs' timers; they are not seen"
    ]


def test_kernels_chips_show_what_belljars_devices_raise() -> None:
    lines, notes = traced({"irq"}, guest(LEVEL_AND_BACK), "kvm", "kernel")
    assert [text for _, _, text in lines] == ["gsi 4 up (serial)", "gsi 4 down (serial)"]
    assert "what belljar's devices raise" in notes[0]


@pytest.mark.parametrize(
    "code", ["tick", "ping-pong", "mmio", MSRS_AND_CPUID], ids=["tick", "ping-pong", "mmio", "msrs"]
)
def test_trace_of_everything_changes_nothing_and_is_the_same_twice(code: str) -> None:
    def run(kinds: frozenset[str]) -> tuple[object, bytes, list[str]]:
        what = guest(code) if "\n" in code else code
        irqchip = None if code in ("ping-pong", "mmio") else "user"
        with Machine(what, engine="soft", irqchip=irqchip, mode="long") as machine:
            written: list[str] = []
            trace = KindTrace(machine, kinds, written.append) if kinds else None
            result = machine.run(timeout=20, observer=trace.observe if trace else None)
            if trace:
                trace.finish()
            report = run_report(machine, result)
            cpus = [(cpu.as_dict(), cpu.special, cpu.vcpu.instructions_retired()) for cpu in machine.cpus]
            return (cpus, report["interrupts"]), machine.console, written

    left_out = {
        "mmio": {"irq", "timer"},
        "ping-pong": {"irq", "timer", "insn"},
    }  # 80,000 instructions take seconds to show
    wanted = frozenset(KINDS) - left_out.get(code, set())
    bare, console, _ = run(frozenset())
    once = run(wanted)
    again = run(wanted)
    assert (once[0], once[1]) == (bare, console)
    assert once == again
    assert len(once[2]) > 10
