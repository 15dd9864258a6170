"""The walker against KVM's own (KVM_TRANSLATE), on tables made of noise that likes to lead somewhere; and our modes on KVM."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from belljar.devices.bus import Bus
from belljar.errors import ModeUnsupported
from belljar.exits import ExitReason
from belljar.memory import GuestMemory
from belljar.x86 import cpuid
from belljar.x86.control import Cr4
from belljar.x86.modes import MODES, build
from belljar.x86.walker import walk

PAGE = 4096
TABLE_PAGES = 16
MEMORY = 2 << 20
TIME_LIMIT_NS = 5_000_000_000


def paging_features(kvm) -> dict[str, int | bool]:
    """What the CPUID that guests are given says about paging."""
    model = kvm.cpu_model
    return {
        "physical_bits": cpuid.address_bits(model.leaf(cpuid.Leaf.ADDRESS_SIZES)[0])[0],
        "gigabyte_pages": model.has_1g_pages,
        "amd": cpuid.vendor(model.leaf(cpuid.Leaf.VENDOR)) in ("AuthenticAMD", "HygonGenuine"),
    }


@pytest.fixture
def machine(kvm):
    """A VM with 2 MiB and a vCPU in long mode, and its memory."""
    vm, memory = kvm.create_vm(), GuestMemory()
    vm.map(memory.add(0, MEMORY, name="ram"))
    setup = build("long", write=memory.write, memory_size=MEMORY, top_gpa=MEMORY, entry_gva=0x1000)
    vcpu = vm.create_vcpu(0)
    vcpu.set_state(setup.states[0], "long")
    yield vcpu, memory
    vcpu.close()
    vm.close()
    memory.close()


FLAGS = st.sampled_from([1, 3, 5, 7, 0x27, 0x67, 0x83, 0x87, 0xE7, 0x187, 1 << 63 | 7, 0])
NOISE = st.integers(0, (1 << 64) - 1)
ENTRY = st.builds(lambda page, flags: page << 12 | flags, st.integers(0, TABLE_PAGES - 1), FLAGS)
LARGE = st.builds(lambda page, flags: page << 21 | flags | 0x81, st.integers(0, 1 << 20), FLAGS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    words=st.lists(ENTRY | ENTRY | ENTRY | ENTRY | ENTRY | ENTRY | LARGE | LARGE | NOISE, min_size=3, max_size=61),
    gvas=st.lists(st.integers(0, (1 << 47) - 1) | NOISE, min_size=8, max_size=16),
    root=st.integers(0, TABLE_PAGES - 1),
    pge=st.booleans(),
)
def test_walker_agrees_with_kvm(kvm, machine, words, gvas, root, pge):
    vcpu, memory = machine  # and canonical addresses, since KVM_TRANSLATE does not look at bits 63:48
    features = paging_features(kvm)
    pattern = b"".join(word.to_bytes(8, "little") for word in words)
    memory.write(0, (pattern * (TABLE_PAGES * PAGE // len(pattern) + 1))[: TABLE_PAGES * PAGE])
    special = vcpu.get_special()
    special.cr3 = root << 12
    special.cr4 = special.cr4 | Cr4.PGE if pge else special.cr4 & ~int(Cr4.PGE)
    vcpu.set_special(special)
    for wide in gvas:
        gva = wide if wide < 1 << 47 else wide | 0xFFFF << 48 if wide >> 47 & 1 else wide & (1 << 47) - 1
        ours = walk(special, gva, memory.read, **features)
        theirs = vcpu.translate(gva)
        assert ours.gpa == (theirs.gpa if theirs.valid else None), (hex(gva), ours.why, ours.steps)


CASES = [
    pytest.param(mode.name, size, cpl, id=f"{mode.name}-{size >> 10}K-cpl{cpl}")
    for mode in MODES.values()
    for size in mode.page_sizes or (0,)
    for cpl in ((0, 3) if mode.privileged else (0,))
]


class Recorder(Bus):
    """A bus without devices that remembers port writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[int, int]] = []

    def port_write(self, port: int, size: int, value: int) -> None:
        self.writes.append((port, value))

    def port_write_block(self, port: int, size: int, data: bytes) -> None:
        self.writes += [(port, value) for value in data]


@pytest.mark.parametrize(("mode", "page_size", "cpl"), CASES)
def test_every_mode_starts_and_its_handlers_are_reached(engine, mode, page_size, cpl):
    memory = GuestMemory()
    vm = engine.create_vm()
    vm.map(memory.add(0, MEMORY, name="ram"))
    memory.write(0x1000, bytes.fromhex("b0 31  e6 e9  f4"))  # mov al, '1'; out 0xe9, al; hlt
    memory.write(0x2000, bytes.fromhex("b0 32  e6 f4  f4"))  # mov al, '2'; out 0xf4, al; hlt
    handlers = {13: 0x2000} if cpl else {}  # HLT at CPL3 is a #GP
    try:
        setup = build(
            mode, write=memory.write, memory_size=MEMORY, top_gpa=MEMORY, entry_gva=0x1000,
            page_size=page_size or None, cpl=cpl, idt_handlers=handlers,
        )  # fmt: skip
        vcpu = vm.create_vcpu(0)
        try:
            vcpu.set_state(setup.states[0], mode)
        except ModeUnsupported as error:
            pytest.skip(error.message)
        bus = Recorder()
        reason = vcpu.run(bus, deadline_ns=time.monotonic_ns() + TIME_LIMIT_NS)
        assert reason is ExitReason.HLT, vcpu.last_exit()
        assert bus.writes == [(0xE9, 0x31), (0xF4, 0x32)] if cpl else [(0xE9, 0x31)]
        if MODES[mode].page_sizes:
            check_translations(vcpu, setup, memory)
    finally:
        vm.close()
        memory.close()


def check_translations(vcpu, setup, memory) -> None:
    """The engine finds RAM and the structures where our walker finds them."""
    special = vcpu.get_special()
    for gva in (0x1234, MEMORY - 1, *(item.gva for item in setup.placements), 1 << 46, 1 << 31):
        found = walk(special, gva, memory.read, gigabyte_pages=setup.page_size == 1 << 30)
        theirs = vcpu.translate(gva)
        if gva < MEMORY or not found.ok:
            assert found.gpa == (theirs.gpa if theirs.valid else None), hex(gva)
