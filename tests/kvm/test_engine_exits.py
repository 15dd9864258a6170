"""What reaches the bus, and what an exit says of it."""

from __future__ import annotations

import contextlib

import pytest

from belljar.engine_data import DebugControl
from belljar.errors import ClosedError, EngineError, FeatureUnsupported
from belljar.exits import Debug, Exit, ExitReason, Hlt, InternalError, Mmio, PortIo, ReadMsr, Shutdown, WriteMsr
from belljar.kvm.abi.run import KVM_MSR_EXIT_REASON_UNKNOWN
from belljar.kvm.engine import KvmEngine
from belljar.x86 import modes
from belljar.x86.state import Registers
from kvm.guest import CODE_GPA, HLT, deadline
from kvm.machines import MEMORY_SIZE, RecordingBus, Small

PIO_PAGE = 4096


def run(small: Small, **options: object) -> ExitReason:
    return small.vcpu.run(small.bus, deadline_ns=deadline(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "size", "value"),
    [(b"\xe6\xe9\xf4", 1, 0xBE), (b"\xe7\xe9\xf4", 2, 0xCABE), (b"\x66\xe7\xe9\xf4", 4, 0x1234_CABE)],
)
def test_out_of_each_size(kvm: KvmEngine, code: bytes, size: int, value: int) -> None:
    with Small(kvm, code, rax=0x1234_CABE) as small:
        assert run(small) is ExitReason.HLT
        assert small.bus.calls == [("out", 0xE9, size, value)]
        assert small.vcpu.exit_counts() == {ExitReason.IO: 1, ExitReason.HLT: 1}


@pytest.mark.parametrize(
    ("code", "size", "rax"),
    [
        (b"\xe4\x60\xf4", 1, 0xFFFF_FFFF_FFFF_FF5A),
        (b"\xe5\x60\xf4", 2, 0xFFFF_FFFF_FFFF_005A),
        (b"\x66\xe5\x60\xf4", 4, 0x0000_005A),
    ],
)
def test_in_of_each_size(kvm: KvmEngine, code: bytes, size: int, rax: int) -> None:
    with Small(kvm, code, rax=2**64 - 1) as small:
        assert run(small) is ExitReason.HLT
        assert small.bus.calls == [("in", 0x60, size)]
        assert small.vcpu.get_registers().rax & (2**64 - 1 if size < 4 else 2**32 - 1) == rax


def test_answer_that_is_too_wide_or_negative_is_cut_to_size(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe4\x60\xf4") as small:
        for answer in (-1, 0x1FF):
            small.bus.answer = answer
            small.restart(b"\xe4\x60\xf4")
            assert run(small) is ExitReason.HLT
            assert small.vcpu.get_registers().rax == 0xFF


def test_string_output_arrives_in_order(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xf3\x6e\xf4", rcx=5, rsi=0x3000, rdx=0xE9) as small:  # rep outsb; hlt
        small.memory.write(0x3000, b"hello")
        assert run(small) is ExitReason.HLT
        assert bytes(small.bus.output) == b"hello"


def test_string_input_fills_memory(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xf3\x6d\xf4", rcx=3, rdi=0x3000, rdx=0x60) as small:  # rep insw; hlt
        assert run(small) is ExitReason.HLT
        assert all(call[:3] == ("ins", 0x60, 2) or call[:3] == ("in", 0x60, 2) for call in small.bus.calls)
        if small.bus.calls == [("ins", 0x60, 2, 3)]:
            assert small.memory.read(0x3000, 6) == bytes([1, 2, 3, 4, 5, 6])


def test_string_answer_of_the_wrong_length_is_the_buss_fault(kvm: KvmEngine) -> None:
    class ShortBus(RecordingBus):
        def port_read_block(self, port: int, size: int, count: int) -> bytes:
            return b"x"

    with Small(kvm, b"\xf3\x6d\xf4", rcx=3, rdi=0x3000, rdx=0x60) as small:
        small.bus = ShortBus()
        with contextlib.suppress(ValueError):  # a kernel that splits the instruction asks for single items
            assert run(small) is ExitReason.HLT
            return
        assert run(small) is ExitReason.HLT
        assert small.memory.read(0x3000, 6) == b"\xff" * 6


@pytest.mark.parametrize(("load", "store", "size"), [(b"\xa0", b"\xa2", 1), (b"\xa1", b"\xa3", 2)])
def test_memory_without_a_slot_is_the_buss(kvm: KvmEngine, load: bytes, store: bytes, size: int) -> None:
    # mov ax, 0xb800; mov ds, ax; mov a, [2]; mov [4], a; hlt
    code = b"\xb8\x00\xb8\x8e\xd8" + load + b"\x02\x00" + store + b"\x04\x00\xf4"
    with Small(kvm, code) as small:
        seen: list[Exit] = []
        assert run(small, observer=seen.append) is ExitReason.HLT
        value = 0x5A
        assert small.bus.calls == [("load", 0xB8002, size), ("store", 0xB8004, size, value)]
        assert seen == [
            Mmio(0, 0xB8002, False, value.to_bytes(size, "little")),
            Mmio(0, 0xB8004, True, value.to_bytes(size, "little")),
            Hlt(0),
        ]
        assert small.vcpu.exit_counts() == {ExitReason.MMIO: 2, ExitReason.HLT: 1}


def test_observer_sees_every_exit_served(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe4\x60\xe6\xe9\xf4") as small:  # in al, 0x60; out 0xe9, al; hlt
        seen: list[Exit] = []
        run(small, observer=seen.append)
        assert seen == [
            PortIo(0, 0x60, 1, False, b"\x5a", 1, PIO_PAGE),
            PortIo(0, 0xE9, 1, True, b"\x5a", 1, PIO_PAGE),
            Hlt(0),
        ]
        assert small.vcpu.last_exit() == Hlt(0)


def test_single_exits_are_served_and_whole(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe4\x60\xe6\xe9\xf4") as small:
        assert run(small, single_exit=True) is ExitReason.IO
        assert small.vcpu.last_exit() == PortIo(0, 0x60, 1, False, b"\x5a", 1, PIO_PAGE)
        assert run(small, single_exit=True) is ExitReason.IO
        assert small.bus.calls == [("in", 0x60, 1), ("out", 0xE9, 1, 0x5A)]
        assert run(small, single_exit=True) is ExitReason.HLT


def test_registers_between_exits_are_those_after_the_instruction(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe4\x60\xe6\xe9\x90\xf4") as small:
        run(small, single_exit=True)
        registers = small.vcpu.get_registers()
        assert (registers.rip, registers.rax & 0xFF) == (CODE_GPA + 2, 0x5A)
        assert small.vcpu.last_exit() == PortIo(0, 0x60, 1, False, b"\x5a", 1, PIO_PAGE)  # looking changed nothing
        run(small, single_exit=True)
        assert small.vcpu.get_special().cs.base == 0
        assert small.vcpu.get_registers().rip == CODE_GPA + 4
        assert run(small) is ExitReason.HLT


def test_registers_set_between_exits_are_kept(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe4\x60\xe6\xe9\xf4") as small:
        run(small, single_exit=True)
        registers = small.vcpu.get_registers()
        registers.rax = 0x77
        small.vcpu.set_registers(registers)
        run(small)
        assert small.bus.calls[-1] == ("out", 0xE9, 1, 0x77)


def test_observer_may_look_at_registers(kvm: KvmEngine) -> None:
    with Small(kvm, b"\xe4\x60\xe6\xe9\xf4") as small:
        seen: list[int] = []
        assert run(small, observer=lambda _: seen.append(small.vcpu.get_registers().rip)) is ExitReason.HLT
        assert seen == [CODE_GPA + 2, CODE_GPA + 4, CODE_GPA + 5]


def test_access_across_two_pages_is_finished_however_it_is_stepped(kvm: KvmEngine) -> None:
    """A load that straddles pages leaves twice; registers looked at in between wait for the second half."""
    code = b"\xb8\x00\xb8\x8e\xd8\x66\xa1\xfe\x0f\xf4"  # mov ds, 0xb800; mov eax, [0xffe]; hlt
    with Small(kvm, code) as small:
        reasons = []
        while not reasons or reasons[-1] is not ExitReason.HLT:
            reasons.append(run(small, single_exit=True))
            small.vcpu.get_registers()
        assert reasons == [ExitReason.MMIO, ExitReason.MMIO, ExitReason.HLT]
        assert small.vcpu.get_registers().rax & 0xFFFF_FFFF == 0x005A_005A


def test_registers_set_between_the_halves_of_an_access_are_those_that_count(kvm: KvmEngine) -> None:
    code = b"\xb8\x00\xb8\x8e\xd8\x66\xa1\xfe\x0f\xf4"  # mov ds, 0xb800; mov eax, [0xffe]; hlt
    with Small(kvm, code) as small:
        assert run(small, single_exit=True) is ExitReason.MMIO
        small.restart(b"\x40\xf4", rax=6)  # inc ax; hlt
        assert [call[0] for call in small.bus.calls] == ["load", "load"]
        assert run(small) is ExitReason.HLT
        assert small.vcpu.get_registers().rax == 7


def test_exception_of_the_bus_propagates_and_the_access_counts_as_done(kvm: KvmEngine) -> None:
    class Broken(RecordingBus):
        def port_read(self, port: int, size: int) -> int:
            raise RuntimeError("out of order")

    with Small(kvm, b"\xe4\x60\xf4") as small:
        with pytest.raises(RuntimeError, match="out of order"):
            small.vcpu.run(Broken(), deadline_ns=deadline())
        assert small.vcpu.get_registers().rip == CODE_GPA + 2
        assert run(small) is ExitReason.HLT
        assert small.vcpu.get_registers().rax & 0xFF == 0xFF


def test_exception_of_the_observer_propagates(kvm: KvmEngine) -> None:
    def refuse(exit: Exit) -> None:
        raise LookupError(str(exit))

    with Small(kvm, b"\xe6\xe9\xf4") as small:
        with pytest.raises(LookupError, match="PortIo"):
            run(small, observer=refuse)
        assert run(small) is ExitReason.HLT


def test_triple_fault_is_a_shutdown(kvm: KvmEngine) -> None:
    with Small(kvm, b"\x48\xa1" + (1 << 46).to_bytes(8, "little")) as small:  # mov rax, [1 << 46]: not mapped
        setup = modes.build(
            "long", write=small.memory.write, memory_size=MEMORY_SIZE, top_gpa=MEMORY_SIZE, entry_gva=CODE_GPA
        )
        state = setup.states[0]
        state.special.idt.limit = 0
        small.vcpu.set_state(state, "long")
        assert run(small) is ExitReason.SHUTDOWN
        assert small.vcpu.last_exit() == Shutdown(0)


def test_instruction_that_kvm_cannot_emulate_is_named_by_its_bytes(kvm: KvmEngine) -> None:
    with Small(kvm, b"\x0f\x01\xd0\xf4") as small:  # xgetbv
        if run(small) is not ExitReason.INTERNAL_ERROR:
            pytest.skip("CPL0 runs natively here: nothing is emulated that could fail")
        error = small.vcpu.last_exit()
        assert isinstance(error, InternalError)
        assert error.suberror == 1
        assert error.instruction.startswith(b"\x0f\x01\xd0")


def test_unknown_msrs_end_runs_until_answered(kvm: KvmEngine) -> None:
    index = (0x1234_5678).to_bytes(4, "little")
    # mov ecx, 0x12345678; rdmsr; wrmsr; hlt
    with Small(kvm, b"\x66\xb9" + index + b"\x0f\x32\x0f\x30\xf4") as small:
        small.vm.raw.exit_on_msr(KVM_MSR_EXIT_REASON_UNKNOWN)
        assert run(small) is ExitReason.RDMSR
        assert small.vcpu.last_exit() == ReadMsr(0, 0x1234_5678, KVM_MSR_EXIT_REASON_UNKNOWN)
        small.vcpu.answer(0x55)
        assert run(small) is ExitReason.WRMSR
        assert small.vcpu.last_exit() == WriteMsr(0, 0x1234_5678, 0x55, KVM_MSR_EXIT_REASON_UNKNOWN)
        small.vcpu.answer(0)
        assert small.vcpu.get_registers().rip == CODE_GPA + 10  # finished
        assert run(small) is ExitReason.HLT


def test_debug_exit_has_address_and_status(kvm: KvmEngine) -> None:
    with Small(kvm, b"\x90\x90\xf4") as small:
        small.vcpu.set_debug(DebugControl(single_step=True))
        assert run(small) is ExitReason.DEBUG
        stopped = small.vcpu.last_exit()
        assert isinstance(stopped, Debug)
        assert (stopped.pc_gva, stopped.exception, stopped.dr6 >> 14 & 1) == (CODE_GPA + 1, 1, 1)


def test_counting_instructions_is_not_kvms(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        for use in (lambda: run(small, instructions=5), small.vcpu.instructions_retired):
            with pytest.raises(FeatureUnsupported) as caught:
                use()
            assert "soft" in caught.value.hint


def test_run_page_is_where_the_kernel_put_it(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        page = small.vcpu.run_page
        assert page.hva % 4096 == 0
        assert page.size == kvm.kvm.vcpu_mmap_size
        assert "kvm_run" in page.what


def test_closed_machine_refuses_runs_and_state(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        small.vm.close()
        small.vm.close()
        small.vcpu.close()
        for use in (
            lambda: run(small),
            small.vcpu.get_registers,
            lambda: small.vcpu.set_registers(Registers()),
            lambda: small.vcpu.run_page,
        ):
            with pytest.raises(ClosedError):
                use()
        small.vcpu.kick()


def test_unmapped_host_memory_under_the_guest_is_an_engine_error(kvm: KvmEngine) -> None:
    """A slot whose host memory has gone makes KVM_RUN fail; that is no exit."""
    with Small(kvm, b"\xe9\xfd\x6f") as small:  # jmp 0x8000
        small.vm.raw.delete_memory_region(0)
        small.vm.raw.set_memory_region(0, 0, 0x8000, small.memory.regions[0].hva)
        small.vm.raw.set_memory_region(1, 0x8000, 0x1000, 1 << 46)  # nothing is mapped there
        try:
            reason = run(small)
        except EngineError as error:
            message = error.message
        else:
            message = "KVM_RUN" if reason in (ExitReason.MEMORY_FAULT, ExitReason.INTERNAL_ERROR) else reason.label
        assert "KVM_RUN" in message
