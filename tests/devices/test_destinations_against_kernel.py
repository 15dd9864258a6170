"""Which of several local APICs a message reaches, and their x2APIC registers, in our chips and in the kernel's.

No guest runs: registers are set with KVM_SET_LAPIC, messages sent with KVM_SIGNAL_MSI, requests read with KVM_GET_LAPIC.
Left out: lowest priority, for which the kernel counts differently; some CPUs in xAPIC and others in x2APIC mode, where it
takes ids for logical ids.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from belljar.devices.clock import InstructionClock
from belljar.devices.interrupt_chips import InterruptChips
from belljar.devices.lapic_msrs import LapicMsrs
from belljar.errors import EngineUnavailable, KvmCallFailed
from belljar.kvm import Kvm, Vcpu, Vm
from belljar.x86.local_apic import Reg

CPUS = 4
BASE = 0xFEE00800
X2APIC = 1 << 10
BSP = 1 << 8
VECTOR = 0x61
IRR_OFFSET = 0x200 + 16 * (VECTOR // 32)

SETTINGS = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@pytest.fixture(scope="module")
def kernel() -> Iterator[tuple[Vm, list[Vcpu]]]:
    try:
        system = Kvm()
    except EngineUnavailable as error:
        pytest.skip(error.message)
    with system, system.create_vm() as vm:
        vm.create_irqchip()
        vcpus = [vm.create_vcpu(index) for index in range(CPUS)]
        for vcpu in vcpus:
            vcpu.set_cpuid(system.supported_cpuid())
        yield vm, vcpus
        for vcpu in vcpus:
            vcpu.close()


def set_registers(vcpu: Vcpu, x2apic: bool, values: dict[int, int]) -> None:
    """Mode and registers of one of the kernel's APICs; nothing requested."""
    sregs = vcpu.get_sregs()
    bsp = sregs.apic_base & BSP
    for base in (
        BASE & ~0x800,
        BASE,
        BASE | X2APIC if x2apic else BASE,
    ):  # through "off", for there is no way back else
        sregs.apic_base = base | bsp
        vcpu.set_sregs(sregs)
    state = vcpu.get_lapic()
    page = bytearray(state.regs)
    page[0x100:0x280] = bytes(0x180)
    for register, value in values.items():
        struct.pack_into("<I", page, 16 * register, value)
    state.regs = bytes(page)
    vcpu.set_lapic(state)


APIC = st.fixed_dictionaries(
    {
        "id": st.one_of(st.none(), st.integers(0, 254)),
        "ldr": st.sampled_from([0x01, 0x02, 0x04, 0x08, 0x11, 0x12, 0x21, 0x81, 0xFF, 0x00]),
        "dfr": st.sampled_from([0xFFFFFFFF, 0xFFFFFFFF, 0x0FFFFFFF]),
        "on": st.sampled_from([True, True, True, False]),
    }
)
MESSAGE = st.tuples(
    st.one_of(st.integers(0, 4), st.sampled_from([0xFF, 0x0F, 0x11, 0x13, 0x23, 0x81, 0x1F]), st.integers(0, 255)),
    st.booleans(),
)


@SETTINGS
@given(
    st.sampled_from([False, False, True]), st.lists(APIC, min_size=CPUS, max_size=CPUS), st.lists(MESSAGE, max_size=6)
)
def test_messages_reach_the_same_apics(
    kernel: tuple[Vm, list[Vcpu]], x2apic: bool, apics: list[dict], messages: list[tuple[int, bool]]
) -> None:
    vm, vcpus = kernel
    chips = InterruptChips(InstructionClock(), cpus=CPUS)
    for cpu, apic in enumerate(apics):
        lapic = chips.lapics[cpu]
        values = {Reg.SVR: 0x1FF if apic["on"] else 0xFF}
        if x2apic:
            lapic.set_base(lapic.base | X2APIC)
        else:
            values |= {Reg.LDR: apic["ldr"] << 24, Reg.DFR: apic["dfr"]}
            if apic["id"] is not None:
                values[Reg.ID] = apic["id"] << 24
        set_registers(vcpus[cpu], x2apic, values)
        for register, value in values.items():
            lapic.write(register, value)
    for destination, logical in messages:
        address = 0xFEE00000 | destination << 12 | logical << 2
        with suppress(KvmCallFailed):  # EPERM: nobody took it
            vm.signal_msi(address, VECTOR)
        chips.signal_msi(address, VECTOR)
        theirs = []
        for vcpu in vcpus:
            state = vcpu.get_lapic()
            theirs.append(bool(state.regs[IRR_OFFSET + VECTOR % 32 // 8] >> VECTOR % 8 & 1))
            page = bytearray(state.regs)
            page[0x200:0x280] = bytes(0x80)
            state.regs = bytes(page)
            vcpu.set_lapic(state)
        ours = []
        for lapic in chips.lapics.values():
            ours.append(bool(lapic.vectors.irr >> VECTOR & 1))
            lapic.vectors.restore({**lapic.vectors.state(), "irr": bytes(32)})
        assert ours == theirs, (hex(destination), logical)


IRR_MSRS = range(0x820, 0x828)
READ_ONLY = [0x802, 0x803, 0x80A, 0x80D, *range(0x810, 0x828), 0x839]
X2APIC_WRITE = st.one_of(
    st.tuples(st.just(0x808), st.integers(0, 255)),
    st.tuples(st.just(0x80F), st.sampled_from([0xFF, 0x1FF, 0x3AB])),
    st.tuples(st.sampled_from([0x832, 0x837]), st.integers(16, 255).map(lambda vector: vector | 1 << 16)),
    st.tuples(st.sampled_from([0x833, 0x834, 0x835, 0x836]), st.integers(16, 255).map(lambda vector: vector | 0x10400)),
    st.tuples(st.just(0x83E), st.sampled_from([0, 1, 2, 3, 8, 9, 10, 11])),
    st.tuples(st.just(0x838), st.just(0)),
    st.tuples(st.just(0x828), st.integers(0, 1)),
    st.tuples(st.just(0x83F), st.one_of(st.integers(16, 255), st.just(0x1FF))),
    st.tuples(st.just(0x830), st.tuples(st.integers(16, 255), st.sampled_from([0, 1, 2, 0xFFFFFFFF])).map(
        lambda pair: pair[1] << 32 | 1 << 14 | pair[0])),
    st.tuples(st.just(0x830), st.sampled_from([1 << 13, 1 << 16, 1 << 20, 1 << 31]).map(lambda bit: bit | 0x4055)),
    st.tuples(st.sampled_from(READ_ONLY), st.integers(0, 255)),
    st.tuples(st.sampled_from([0x808, 0x80F, 0x838]), st.just(1 << 32)),
)  # fmt: skip


@SETTINGS
@given(st.lists(X2APIC_WRITE, max_size=20))
def test_x2apic_registers_are_read_written_and_refused_alike(
    kernel: tuple[Vm, list[Vcpu]], writes: list[tuple[int, int]]
) -> None:
    _, vcpus = kernel
    chips = InterruptChips(InstructionClock(), cpus=CPUS, cmci=False, virtual_wire=False)
    faces = [LapicMsrs(lapic) for lapic in chips.lapics.values()]
    for face, vcpu in zip(faces, vcpus, strict=True):
        masked = dict.fromkeys((0x32, 0x33, 0x34, 0x35, 0x36, 0x37), 1 << 16)
        set_registers(vcpu, True, {**masked, 0x08: 0, 0x0F: 0x1FF, 0x30: 0, 0x31: 0, 0x3E: 0, 0x38: 0})
        face.lapic.set_base(face.lapic.base | X2APIC)
        face.write_msr(0x80F, 0x1FF)
    for msr, value in writes:
        accepted = vcpus[0].set_msrs({msr: value}) is None
        assert faces[0].write_msr(msr, value) == accepted, (hex(msr), hex(value))
    for face, vcpu in zip(faces, vcpus, strict=True):
        for msr in range(0x800, 0x900) if face is faces[0] else IRR_MSRS:
            assert face.read_msr(msr) == vcpu.get_msrs([msr]).get(msr), hex(msr)
