"""Registers as plain data, start states that are refused, debugging, and what the engine says of the host."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from belljar.engine_data import DebugControl, Watchpoint
from belljar.errors import (
    ClosedError,
    ConfigurationError,
    EngineError,
    FeatureUnsupported,
    KvmIncompatible,
    KvmMissing,
    ModeUnsupported,
)
from belljar.exits import Debug, ExitReason
from belljar.kvm import start_state, state_codec
from belljar.kvm.abi.structs import kvm_regs, kvm_sregs
from belljar.kvm.debugging import debug_registers
from belljar.kvm.engine import KvmEngine
from belljar.kvm.engine_vcpu import KvmVcpu
from belljar.kvm.probe import ProbeBus
from belljar.memory import GuestMemory
from belljar.x86 import modes
from belljar.x86.state import CpuState, Registers, SpecialRegisters
from kvm.guest import CODE_GPA, HLT, SPIN, deadline
from kvm.machines import MEMORY_SIZE, Small, real_mode

IA32_STAR, NO_SUCH_MSR = 0xC000_0081, 0x1234_5678
REGISTER_NAMES = tuple(field.name for field in dataclasses.fields(Registers))
U64 = st.integers(0, 2**64 - 1)


def test_codec_agrees_with_the_structures() -> None:
    registers = Registers(**{name: number + 1 for number, name in enumerate(REGISTER_NAMES)})
    structure = kvm_regs.from_bytes(state_codec.pack_registers(registers))
    assert all(getattr(structure, name) == getattr(registers, name) for name in REGISTER_NAMES)
    assert state_codec.unpack_registers(bytes(structure)) == registers
    special = SpecialRegisters(cr2=7, cr8=3)
    special.fs.base, special.tr.limit, special.idt.limit = 1 << 40, 0x67, 0x123
    packed = kvm_sregs.from_bytes(state_codec.pack_special(special))
    assert kvm_sregs.size == state_codec.SREGS_SIZE
    assert (packed.cr2, packed.cr8, packed.fs.base, packed.tr.limit, packed.idt.limit) == (7, 3, 1 << 40, 0x67, 0x123)
    assert packed.cs.type == special.cs.type
    assert state_codec.unpack_special(bytes(packed)) == special


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(values=st.fixed_dictionaries({name: U64 for name in REGISTER_NAMES if name != "rflags"}))
def test_registers_are_kept(kvm: KvmEngine, values: dict[str, int]) -> None:
    with Small(kvm, HLT) as small:
        wanted = Registers(rflags=0x202, **values)
        small.vcpu.set_registers(wanted)
        assert small.vcpu.get_registers() == wanted


@pytest.mark.parametrize("value", [-1, 1 << 64, "five"])
def test_register_value_that_does_not_fit_names_the_register(kvm: KvmEngine, value: object) -> None:
    with Small(kvm, HLT) as small, pytest.raises(ConfigurationError, match="r11"):
        small.vcpu.set_registers(Registers(r11=value))  # type: ignore[arg-type]


def test_special_value_that_does_not_fit_is_refused(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        special = small.vcpu.get_special()
        special.cs.selector = 1 << 16
        with pytest.raises(ConfigurationError):
            small.vcpu.set_special(special)
        special = small.vcpu.get_special()
        special.cr8 = 16
        with pytest.raises(ConfigurationError, match="CR8"):
            small.vcpu.set_special(special)


def test_special_registers_that_kvm_refuses_are_an_engine_error(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        special = small.vcpu.get_special()
        special.cr4 |= 1 << 17  # PCIDE outside long mode
        special.cr0 |= 1
        special.efer |= 0x400
        with pytest.raises(EngineError, match="KVM refuses"):
            small.vcpu.set_special(special)


def test_task_priority_is_kept_across_a_run(kvm: KvmEngine) -> None:
    """Without a kernel APIC, KVM_RUN takes CR8 from the run page."""
    with Small(kvm, HLT) as small:
        special = small.vcpu.get_special()
        special.cr8 = 5
        small.vcpu.set_special(special)
        assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.HLT
        assert small.vcpu.get_special().cr8 == 5


def test_bootstrap_flag_is_the_vcpus_own(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        second = small.add_vcpu(1)
        assert small.vcpu.get_special().apic_base >> 8 & 1 == 1
        assert second.get_special().apic_base >> 8 & 1 == 0


def test_msrs_are_kept_left_out_or_refused_by_name(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        small.vcpu.set_msrs({IA32_STAR: 5})
        assert small.vcpu.get_msrs([IA32_STAR, NO_SUCH_MSR]) == {IA32_STAR: 5}
        with pytest.raises(FeatureUnsupported, match="0x12345678"):
            small.vcpu.set_msrs({IA32_STAR: 6, NO_SUCH_MSR: 1})
        for values in ({-1: 0}, {IA32_STAR: 1 << 64}, {1 << 32: 0}):
            with pytest.raises(ConfigurationError):
                small.vcpu.set_msrs(values)


def test_each_vcpu_has_an_apic_id_of_its_own(kvm: KvmEngine) -> None:
    with Small(kvm, b"\x66\xb8\x01\x00\x00\x00\x0f\xa2\xf4") as small:  # mov eax, 1; cpuid; hlt
        for index in (0, 3):
            vcpu = small.vcpu if index == 0 else small.add_vcpu(index)
            assert vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.HLT
            assert vcpu.get_registers().rbx >> 24 & 0xFF == index


# -- modes --------------------------------------------------------------------------------------------------------------

PAGE_SIZES = [(mode.name, size) for mode in modes.MODES.values() for size in mode.page_sizes or (None,)]


def refusal_of(vcpu: KvmVcpu, state: CpuState, mode: str) -> ModeUnsupported | None:
    try:
        vcpu.set_state(state, mode)
    except ModeUnsupported as refusal:
        return refusal
    return None


@pytest.mark.parametrize(("mode", "page_size"), PAGE_SIZES)
def test_mode_runs_or_is_refused_with_a_reason(kvm: KvmEngine, mode: str, page_size: int | None) -> None:
    """Never a shutdown that nobody can explain."""
    size = 0x40_0000
    with kvm.create_vm() as vm:
        memory = GuestMemory()
        vm.map(memory.add(0, size, name="ram"))
        setup = modes.build(
            mode, write=memory.write, memory_size=size, top_gpa=size, entry_gva=CODE_GPA, page_size=page_size
        )
        memory.write(CODE_GPA, HLT)
        vcpu = vm.create_vcpu(0)
        refusal = refusal_of(vcpu, setup.states[0], mode)
        if refusal is not None:
            assert refusal.mode == mode
            assert any(word in refusal.reason for word in ("without PG", "LA57", "1 GiB"))
            assert refusal.hint
        else:
            assert vcpu.run(ProbeBus(), deadline_ns=deadline()) is ExitReason.HLT
            assert vcpu.translate(CODE_GPA).gpa == CODE_GPA
        vm.close()
        memory.close()


def test_state_that_reads_back_differently_is_explained() -> None:
    wanted, got = SpecialRegisters(), SpecialRegisters()
    assert start_state.difference(wanted, got) == ""
    for change, words in (
        ({"cr0": 0x8000_0011}, "without PE, PG"),
        ({"efer": 0x500}, "EFER reads back 0x0, without LME, LMA"),
        ({"cr4": 1 << 12 | 1 << 5}, "CR4 reads back 0x0, without PAE, LA57"),
        ({"cr3": 0x1000}, "CR3 was set to 0x1000 and reads back 0x0"),
    ):
        assert words in start_state.difference(dataclasses.replace(wanted, **change), got)
        assert start_state.difference(got, dataclasses.replace(wanted, **change))
    wanted.cs.l = 1
    assert "cs.l was set to 0x1" in start_state.difference(wanted, got)
    unusable = SpecialRegisters()
    unusable.fs.unusable = got.fs.unusable = 1
    unusable.fs.base = 5
    assert start_state.difference(unusable, got) == ""


def test_pcid_is_named_when_it_is_refused(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        state = modes.build(
            "long", write=small.memory.write, memory_size=MEMORY_SIZE, top_gpa=MEMORY_SIZE, entry_gva=CODE_GPA
        ).states[0]
        state.special.cr4 |= 1 << 17
        refusal = refusal_of(small.vcpu, state, "long")
        if refusal is not None:
            assert "PCIDE" in refusal.reason
        else:
            assert small.vcpu.get_special().cr4 >> 17 & 1


# -- debugging --------------------------------------------------------------------------------------------------------------


def test_breakpoints_stop_before_their_instruction(kvm: KvmEngine) -> None:
    with Small(kvm, b"\x40\x40\x40\xf4") as small:  # inc ax, three times; hlt
        points = (CODE_GPA + 1, CODE_GPA + 2)
        small.vcpu.set_debug(DebugControl(breakpoints_gva=points))
        assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.DEBUG
        stopped = small.vcpu.last_exit()
        assert isinstance(stopped, Debug)
        assert stopped.pc_gva == CODE_GPA + 1
        assert small.vcpu.get_registers().rax == 1
        small.vcpu.set_debug(DebugControl())
        assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.HLT


def test_watchpoints_stop_or_are_refused(kvm: KvmEngine) -> None:
    control = DebugControl(watchpoints=(Watchpoint(0x3000, 1),))
    with Small(kvm, b"\xa2\x00\x30\xf4") as small:  # mov [0x3000], al
        if not kvm.watchpoints_work:
            with pytest.raises(FeatureUnsupported, match="watchpoints"):
                small.vcpu.set_debug(control)
            return
        small.vcpu.set_debug(control)
        assert small.vcpu.run(small.bus, deadline_ns=deadline()) is ExitReason.DEBUG


def test_fifth_breakpoint_is_refused(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small, pytest.raises(FeatureUnsupported, match="4 debug registers"):
        small.vcpu.set_debug(DebugControl(breakpoints_gva=(1, 2, 3, 4, 5)))


@pytest.mark.parametrize("point", [Watchpoint(0x1000, 3), Watchpoint(0x1001, 2)])
def test_impossible_watchpoint_is_refused(point: Watchpoint) -> None:
    with pytest.raises(ConfigurationError):
        debug_registers(DebugControl(watchpoints=(point,)))


def test_debug_registers_are_as_the_manual_has_them() -> None:
    """SDM 3B 18.2.4: enable bits L0 to L3, then R/W and LEN from bit 16 on."""
    points = DebugControl(
        breakpoints_gva=(0x1000,), watchpoints=(Watchpoint(0x2000, 4), Watchpoint(0x3000, 8, on_read=True))
    )
    flags, registers = debug_registers(points)
    assert registers[:4] == (0x1000, 0x2000, 0x3000, 0)
    assert registers[7] == 1 << 10 | 0b010101 | 0b1101 << 20 | 0b1011 << 24
    assert flags == 1 | 1 << 17
    assert debug_registers(DebugControl(single_step=True))[0] == 3
    assert debug_registers(DebugControl())[0] == 0


# -- the engine ---------------------------------------------------------------------------------------------------------------


def test_engine_without_a_device_is_unavailable() -> None:
    with pytest.raises(KvmMissing):
        KvmEngine("/dev/no-kvm")
    with pytest.raises(KvmIncompatible):
        KvmEngine("/dev/null")


def test_closed_engine_makes_no_more_vms() -> None:
    try:
        engine = KvmEngine()
    except KvmMissing as error:
        pytest.skip(error.message)
    with engine.create_vm() as vm:
        engine.close()
        engine.close()
        vm.raw.check(0)  # a VM outlives its engine
    with pytest.raises(ClosedError):
        engine.create_vm()


def test_engine_tells_what_the_kernel_says_of_its_kvm(kvm: KvmEngine) -> None:
    facts = kvm.describe()
    assert facts.api_version == 12
    assert facts.device == "/dev/kvm"
    assert facts.max_vcpus >= facts.recommended_vcpus >= 1
    assert facts.memory_slots > 0
    assert facts.run_page_size == kvm.kvm.vcpu_mmap_size
    assert facts.capabilities["KVM_CAP_USER_MEMORY"] == 1


def test_regions_come_and_go(kvm: KvmEngine) -> None:
    with Small(kvm, SPIN) as small:
        high = small.memory.add(0x100000, 4096, name="high")
        small.vm.map(high)
        assert small.vm.regions == small.memory.regions
        small.memory.write(0x100000, b"abc")
        assert small.vm.read(0x100000, 3) == b"abc"
        small.vm.unmap(high)
        small.vm.unmap(high)
        assert small.vm.read(0x100000, 3) == b""
        with pytest.raises(EngineError, match="memory region"):
            small.vm.map(Overlapping())


class Overlapping:
    slot, gpa, size, hva, readonly, log_dirty = 9, 0, 4096, 1 << 20, False, False


def test_same_vcpu_twice_is_refused(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small, pytest.raises(EngineError, match="vCPU 0"):
        small.vm.create_vcpu(0)


def test_start_state_is_the_one_that_was_given(kvm: KvmEngine) -> None:
    with Small(kvm, HLT) as small:
        state: CpuState = real_mode(rax=1, rdi=2)
        small.vcpu.set_state(state, "real")
        assert small.vcpu.get_registers() == state.registers
        assert start_state.difference(state.special, small.vcpu.get_special()) == ""
