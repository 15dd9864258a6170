"""MSR accesses and hypercalls that the machine's owner answers, on every engine."""

from __future__ import annotations

import pytest

from belljar.engine import Engine
from belljar.errors import ConfigurationError, EngineError, FeatureUnsupported
from belljar.exits import Exit, ExitReason, Hypercall, ReadMsr, WriteMsr
from belljar.machine import End, Machine

NO_SUCH_MSR = 0x1234_5678
"""In neither range of MSRs that any processor has (SDM 4)."""

READ = bytes.fromhex("b978563412 0f32 f4")  # mov ecx, NO_SUCH_MSR; rdmsr; hlt
WRITE = bytes.fromhex("b978563412 b801000000 ba02000000 0f30 f4")  # ... mov eax, 1; mov edx, 2; wrmsr; hlt
UNKNOWN = 2  # KVM_MSR_EXIT_REASON_UNKNOWN


def test_answer_is_what_rdmsr_reads(engine: Engine) -> None:
    asked: list[Exit] = []

    def handler(exit: ReadMsr | WriteMsr) -> int:
        asked.append(exit)
        return 0x1122_3344_5566_7788

    with Machine(READ, engine=engine, mode="long", msr_handler=handler) as machine:
        result = machine.run(timeout=10)
        assert result.end is End.HALT
        assert (machine.cpu.rax, machine.cpu.rdx) == (0x5566_7788, 0x1122_3344)
        assert machine.cpu.vcpu.exit_counts()[ExitReason.RDMSR] == 1
    assert asked == [ReadMsr(0, NO_SUCH_MSR, UNKNOWN)]


class Number:
    """An integer of somebody else's making (numpy has such)."""

    def __index__(self) -> int:
        return 0x1122_3344_5566_7788


def test_answer_may_be_whatever_is_an_integer(engine: Engine) -> None:
    with Machine(READ, engine=engine, mode="long", msr_handler=lambda exit: Number()) as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert (machine.cpu.rax, machine.cpu.rdx) == (0x5566_7788, 0x1122_3344)


def test_write_reaches_the_handler_with_its_value(engine: Engine) -> None:
    asked: list[Exit] = []

    def handler(exit: ReadMsr | WriteMsr) -> int:
        asked.append(exit)
        return 0

    with Machine(WRITE, engine=engine, mode="long", msr_handler=handler) as machine:
        assert machine.run(timeout=10).end is End.HALT
    assert asked == [WriteMsr(0, NO_SUCH_MSR, 2 << 32 | 1, UNKNOWN)]


@pytest.mark.parametrize("code", [READ, WRITE], ids=["read", "write"])
def test_refused_access_is_a_general_protection_fault(engine: Engine, code: bytes) -> None:
    with Machine(code, engine=engine, mode="protected", msr_handler=lambda exit: None) as machine:
        assert machine.run(timeout=10).end is End.CRASH  # #GP without an IDT: triple fault
        assert machine.cpu.rip == 0x1000 + code.index(b"\x0f")


@pytest.mark.parametrize("code", [READ, WRITE], ids=["read", "write"])
def test_without_a_handler_nothing_leaves(engine: Engine, code: bytes) -> None:
    seen: list[Exit] = []
    with Machine(code, engine=engine, mode="protected") as machine:
        assert machine.run(timeout=10, observer=seen.append).end is End.CRASH
    assert [exit.reason for exit in seen] == [ExitReason.SHUTDOWN]


def test_iteration_and_observer_see_the_access_when_it_was_answered(engine: Engine) -> None:
    with Machine(READ, engine=engine, mode="long", msr_handler=lambda exit: 7) as machine:
        iterated = []
        for exit in machine.exits(timeout=10):
            iterated.append((exit.reason, machine.cpu.rax))
    seen: list[tuple[ExitReason, int]] = []
    with Machine(READ, engine=engine, mode="long", msr_handler=lambda exit: 7) as machine:
        machine.run(timeout=10, observer=lambda exit: seen.append((exit.reason, machine.cpu.rax)))
    assert iterated == seen == [(ExitReason.RDMSR, 7), (ExitReason.HLT, 7)]


@pytest.mark.parametrize("code", [READ, WRITE], ids=["read", "write"])
def test_a_handler_may_look_at_its_vcpu(engine: Engine, code: bytes) -> None:
    seen: list[tuple[int, bool, int]] = []

    def handler(exit: ReadMsr | WriteMsr) -> int:
        cpu = machine.cpu
        seen.append((cpu.rip, cpu.translate(cpu.rip).valid, cpu.special.cs.selector))
        return 7

    with Machine(code, engine=engine, mode="long", msr_handler=handler) as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert seen == [(0x1000 + code.index(b"\x0f"), True, machine.cpu.special.cs.selector)]
        if code is READ:
            assert machine.cpu.rax == 7


def test_every_vcpu_thread_may_ask(engine: Engine) -> None:
    with Machine(READ, engine=engine, mode="long", cpus=3, msr_handler=lambda exit: exit.vcpu) as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert [cpu.rax for cpu in machine.cpus] == [0, 1, 2]


def test_what_a_handler_raises_reaches_the_caller(engine: Engine) -> None:
    def handler(exit: ReadMsr | WriteMsr) -> int:
        raise LookupError("no idea")

    with Machine(READ, engine=engine, mode="protected", msr_handler=handler) as machine:
        with pytest.raises(LookupError, match="no idea"):
            machine.run(timeout=10)
        assert machine.run(timeout=10).end is End.CRASH  # nobody answered: refused


def test_answer_that_is_no_register_is_refused(engine: Engine) -> None:
    with (
        Machine(READ, engine=engine, mode="long", msr_handler=lambda exit: 1 << 64) as machine,
        pytest.raises(ConfigurationError, match="64 bits"),
    ):
        machine.run(timeout=10)


def test_answer_without_a_question_is_refused(engine: Engine) -> None:
    with Machine(READ, engine=engine, mode="long", msr_handler=lambda exit: 0) as machine:
        with pytest.raises(EngineError, match="no answer"):
            machine.cpu.vcpu.answer(0)
        machine.run(timeout=10)
        with pytest.raises(EngineError, match="no answer"):
            machine.cpu.vcpu.answer(0)


def test_msr_value_that_kvm_does_not_take_is_asked_about(kvm: Engine) -> None:
    # mov ecx, IA32_APIC_BASE; mov eax, -1; mov edx, -1; wrmsr; hlt: reserved bits (SDM 3A 11.4.4)
    code = bytes.fromhex("b91b000000 b8ffffffff baffffffff 0f30 f4")
    asked: list[ReadMsr | WriteMsr] = []

    def handler(exit: ReadMsr | WriteMsr) -> int:
        asked.append(exit)
        return 0

    with Machine(code, engine=kvm, mode="long", msr_handler=handler) as machine:
        assert machine.run(timeout=10).end is End.HALT
    assert [(exit.reason, exit.msr, exit.why) for exit in asked] == [(ExitReason.WRMSR, 0x1B, 1)]


# mov eax, 12; mov ebx, 0x2000; mov ecx, 1; xor edx, edx; vmcall; hlt
MAP_GPA_RANGE = bytes.fromhex("b80c000000 bb00200000 b901000000 31d2 0f01c1 f4")


@pytest.mark.parametrize(("answer", "rax"), [(5, 5), (None, 2**64 - 1000), (-1, 2**64 - 1)])
def test_hypercall_gets_the_handlers_answer(engine: Engine, answer: int | None, rax: int) -> None:
    asked: list[Hypercall] = []

    def handler(exit: Hypercall) -> int | None:
        asked.append(exit)
        return answer

    try:
        machine = Machine(MAP_GPA_RANGE, engine=engine, mode="long", hypercall_handler=handler)
    except FeatureUnsupported as error:
        pytest.skip(error.message)
    with machine:
        result = machine.run(timeout=1)
        if not asked and result.end is End.TIMEOUT:
            pytest.skip("VMCALL at CPL0 never leaves KVM_RUN on this host")
        assert result.end is End.HALT
        assert machine.cpu.rax == rax
    assert [(exit.number, exit.arguments[:3], exit.long_mode) for exit in asked] == [(12, (0x2000, 1, 0), True)]


def test_hypercall_nobody_knows_says_so_on_soft() -> None:
    code = bytes.fromhex("b863000000 0f01c1 f4")  # mov eax, 99; vmcall; hlt
    with Machine(code, engine="soft", mode="long") as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert machine.cpu.rax == 2**64 - 1000
