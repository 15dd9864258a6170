"""Events and VM exits on the bare processor: windows, NMI blocking, and what an exit tells of a delivery (SDM 3C 26 to 28)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_vmx import CODE, EXCEPTION, Bench

from belljar.soft.hypervisor.controls import Pin, Primary
from belljar.soft.hypervisor.events import BLOCKED_NMI, HAS_ERROR, VALID, Kind
from belljar.soft.hypervisor.reasons import Reason
from belljar.soft.processor.fields import Field

NMI_UNBLOCKED = 1 << 12
"""In VM-exit interruption information, and in the qualification of an EPT violation (SDM 3C tables 25-18, 28-7)."""

GDT, IDT, STACK, HANDLERS = 0x3000, 0x4000, 0x8000, 0x2000
NP, GP, PF = 11, 13, 14


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A guest with GDT and IDT; a HLT behind every vector, and an IRET behind that."""
    made = Bench()
    made.map[GDT + 8 : GDT + 16] = (0x00CF9B000000FFFF).to_bytes(8, "little")
    made.map[GDT + 16 : GDT + 24] = (0x00CF93000000FFFF).to_bytes(8, "little")
    for vector in range(64):
        handler = HANDLERS + 16 * vector
        made.map[handler : handler + 2] = b"\xf4\xcf"
        gate = handler | 8 << 16 | 0x8E00 << 32
        made.map[IDT + 8 * vector : IDT + 8 * vector + 8] = gate.to_bytes(8, "little")
    for field, value in (
        (Field.GUEST_GDTR_BASE, GDT),
        (Field.GUEST_GDTR_LIMIT, 0xFF),
        (Field.GUEST_IDTR_BASE, IDT),
        (Field.GUEST_IDTR_LIMIT, 0x1FF),
        (Field.GUEST_RFLAGS, 0x202),
    ):
        made.write(field, value)
    yield made
    made.processor.vmclear()


def inject(bench: Bench, vector: int, kind: Kind, error: int | None = None, length: int = 0) -> None:
    bench.write(Field.ENTRY_INTERRUPTION_INFO, VALID | kind << 8 | vector | (HAS_ERROR if error is not None else 0))
    bench.write(Field.ENTRY_EXCEPTION_ERROR, error or 0)
    bench.write(Field.ENTRY_INSTRUCTION_LENGTH, length)


def vector_at_halt(bench: Bench) -> int:
    """Which handler the guest halted in."""
    return (bench.read(Field.GUEST_RIP) - HANDLERS) // 16


def blocked(bench: Bench) -> bool:
    return bool(bench.read(Field.GUEST_INTERRUPTIBILITY) & BLOCKED_NMI)


def test_injected_nmi_blocks_nmis_until_iret(bench: Bench) -> None:
    bench.code("90 f4")
    inject(bench, 2, Kind.NMI)
    assert bench.enter() == Reason.HLT
    assert vector_at_halt(bench) == 2
    assert blocked(bench)
    bench.processor.skip_instruction()
    assert bench.enter() == Reason.HLT  # behind the IRET
    assert not blocked(bench)


def test_nmi_window_opens_when_nothing_blocks_nmis(bench: Bench) -> None:
    bench.change(Field.PRIMARY_CONTROLS, Primary.NMI_WINDOW)
    bench.code("90")
    bench.write(Field.GUEST_INTERRUPTIBILITY, BLOCKED_NMI)
    bench.change(Field.GUEST_RFLAGS, 0, 0x200)
    bench.map[CODE : CODE + 2] = b"\xeb\xfe"
    assert bench.enter(100) == Reason.PAUSE_BUDGET
    bench.write(Field.GUEST_INTERRUPTIBILITY, 0)
    assert bench.enter(100) == Reason.NMI_WINDOW


def test_nmi_window_waits_for_the_shadow_of_mov_ss_but_not_of_sti(bench: Bench) -> None:
    bench.change(Field.PRIMARY_CONTROLS, Primary.NMI_WINDOW)
    bench.code("8e d1 90 90")  # mov ss, ecx; nop; nop
    bench.processor.set_gpr(1, 16)
    assert bench.enter() == Reason.NMI_WINDOW
    assert bench.read(Field.GUEST_RIP) == CODE
    bench.change(Field.PRIMARY_CONTROLS, 0, Primary.NMI_WINDOW)
    assert bench.enter(1) == Reason.PAUSE_BUDGET
    bench.change(Field.PRIMARY_CONTROLS, Primary.NMI_WINDOW)
    assert bench.enter() == Reason.NMI_WINDOW
    assert bench.read(Field.GUEST_RIP) == CODE + 3


def test_faulting_iret_unblocks_nmis_and_its_exit_says_so(bench: Bench) -> None:
    bench.write(Field.EXCEPTION_BITMAP, 1 << GP)
    bench.write(Field.GUEST_INTERRUPTIBILITY, BLOCKED_NMI)
    bench.code("6a 02 6a 00 6a 00 cf")  # EFLAGS 2, CS 0, EIP 0; iret: a null CS is #GP
    assert bench.enter() == EXCEPTION
    info = bench.read(Field.EXIT_INTERRUPTION_INFO)
    assert info == VALID | HAS_ERROR | NMI_UNBLOCKED | Kind.HARDWARE_EXCEPTION << 8 | GP
    assert not blocked(bench)


def test_fault_of_another_instruction_says_nothing_of_nmis(bench: Bench) -> None:
    bench.write(Field.EXCEPTION_BITMAP, 1 << GP)
    bench.write(Field.GUEST_INTERRUPTIBILITY, BLOCKED_NMI)
    bench.processor.set_gpr(0, 0x100)  # beyond the GDT's limit
    bench.code("8e d8")  # mov ds, eax
    assert bench.enter() == EXCEPTION
    assert not bench.read(Field.EXIT_INTERRUPTION_INFO) & NMI_UNBLOCKED
    assert blocked(bench)


def test_iret_whose_stack_is_not_mapped_says_that_it_unblocked_nmis(bench: Bench) -> None:
    bench.tables.map(0x7000, 0, level=1, rights=0)
    bench.processor.invept()
    bench.write(Field.GUEST_RSP, 0x7800)
    bench.write(Field.GUEST_INTERRUPTIBILITY, BLOCKED_NMI)
    bench.code("cf")
    assert bench.enter() == Reason.EPT_VIOLATION
    assert bench.read(Field.EXIT_QUALIFICATION) & NMI_UNBLOCKED
    assert not bench.read(Field.IDT_VECTORING_INFO) & VALID
    assert not blocked(bench)


def test_iret_leaves_nmi_blocking_alone_where_nmis_exit_and_are_not_virtual(bench: Bench) -> None:
    bench.change(Field.PIN_CONTROLS, 0, Pin.VIRTUAL_NMIS)
    bench.write(Field.GUEST_INTERRUPTIBILITY, BLOCKED_NMI)
    bench.code("68 02 00 00 00 6a 08 68 0d 10 00 00 cf f4")  # iret to the hlt behind it
    assert bench.enter() == Reason.HLT
    assert bench.read(Field.GUEST_RIP) == CODE + 13
    assert blocked(bench)


@pytest.mark.parametrize(
    ("vector", "kind", "error", "length"),
    [
        (0x20, Kind.EXTERNAL_INTERRUPT, None, 0),
        (2, Kind.NMI, None, 0),
        (6, Kind.HARDWARE_EXCEPTION, None, 0),
        (GP, Kind.HARDWARE_EXCEPTION, 0x50, 0),
        (PF, Kind.HARDWARE_EXCEPTION, 2, 0),
        (0x21, Kind.SOFTWARE_INTERRUPT, None, 2),
        (1, Kind.PRIVILEGED_SOFTWARE_EXCEPTION, None, 1),
        (3, Kind.SOFTWARE_EXCEPTION, None, 1),
    ],
    ids=["interrupt", "nmi", "ud", "gp", "pf", "int", "int1", "int3"],
)
def test_exit_in_the_middle_of_a_delivery_tells_all_that_delivers_it_again(
    bench: Bench, vector: int, kind: Kind, error: int | None, length: int
) -> None:
    bench.tables.map(0x7000, 0, level=1, rights=0)
    bench.processor.invept()
    bench.code("90")
    inject(bench, vector, kind, error, length)
    assert bench.enter() == Reason.EPT_VIOLATION
    info = VALID | kind << 8 | vector | (HAS_ERROR if error is not None else 0)
    assert bench.read(Field.IDT_VECTORING_INFO) == info
    assert bench.read(Field.IDT_VECTORING_ERROR) == (error or 0)
    if length:
        assert bench.read(Field.EXIT_INSTRUCTION_LENGTH) == length
    assert not bench.read(Field.ENTRY_INTERRUPTION_INFO) & VALID
    assert bench.read(Field.GUEST_RIP) == CODE
    assert bench.read(Field.GUEST_RSP) == STACK


def test_exception_while_an_interrupt_is_delivered_comes_instead(bench: Bench) -> None:
    """Not present: #NP with EXT and the IDT bit, whose own exit tells of the interrupt (SDM 3C 28.2.4)."""
    bench.map[IDT + 8 * 0x20 + 5] = 0x0E
    bench.write(Field.EXCEPTION_BITMAP, 1 << NP)
    bench.code("90")
    inject(bench, 0x20, Kind.EXTERNAL_INTERRUPT)
    assert bench.enter() == EXCEPTION
    assert bench.read(Field.EXIT_INTERRUPTION_INFO) & 0xFF == NP
    assert bench.read(Field.EXIT_INTERRUPTION_ERROR) == 0x20 << 3 | 3
    assert bench.read(Field.IDT_VECTORING_INFO) == VALID | 0x20


def test_event_through_a_task_gate_exits_and_tells_which(bench: Bench) -> None:
    tss = 0x5000
    bench.map[GDT + 24 : GDT + 32] = (0x67 | tss << 16 | 0x89 << 40).to_bytes(8, "little")
    bench.map[IDT + 8 * GP : IDT + 8 * GP + 8] = (0x18 << 16 | 0x8500 << 32).to_bytes(8, "little")
    bench.code("90")
    inject(bench, GP, Kind.HARDWARE_EXCEPTION, 0x50)
    assert bench.enter() == Reason.TASK_SWITCH
    assert bench.read(Field.EXIT_QUALIFICATION) == 0x18 | 3 << 30
    assert bench.read(Field.IDT_VECTORING_INFO) == VALID | HAS_ERROR | Kind.HARDWARE_EXCEPTION << 8 | GP
    assert bench.read(Field.IDT_VECTORING_ERROR) == 0x50


def test_interrupt_window_does_not_open_in_the_shadow_of_mov_ss(bench: Bench) -> None:
    bench.processor.set_gpr(1, 16)
    bench.code("8e d1 90 90")
    assert bench.enter(1) == Reason.PAUSE_BUDGET
    bench.change(Field.PRIMARY_CONTROLS, Primary.INTERRUPT_WINDOW)
    assert bench.enter() == Reason.INTERRUPT_WINDOW
    assert bench.read(Field.GUEST_RIP) == CODE + 3


def test_what_waits_behind_an_instruction_comes_by_the_manuals_priorities(bench: Bench) -> None:
    """The trap of the instruction before, NMIs, the host's interrupt, the guest's interrupts (SDM 3A table 6-2)."""
    bench.change(Field.GUEST_RFLAGS, 0x100)  # TF
    bench.code("f4 90 90")
    assert bench.enter() == Reason.HLT
    assert bench.processor.skip_instruction()  # the single-step trap waits
    bench.change(Field.PRIMARY_CONTROLS, Primary.NMI_WINDOW | Primary.INTERRUPT_WINDOW)
    bench.processor.kick()
    assert bench.enter() == Reason.NMI_WINDOW
    assert vector_at_halt(bench) == 1
    assert bench.read(Field.GUEST_RIP) == HANDLERS + 16
    bench.change(Field.PRIMARY_CONTROLS, 0, Primary.NMI_WINDOW)
    assert bench.enter() == Reason.EXTERNAL_INTERRUPT
    assert bench.enter() == Reason.HLT  # an interrupt gate has cleared IF
    bench.processor.skip_instruction()
    assert bench.enter() == Reason.INTERRUPT_WINDOW
    assert bench.read(Field.GUEST_RIP) == CODE + 1
