"""What a guest is offered beside a processor: KVM's paravirtual interface, the kernel's own and belljar's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from struct import unpack

import pytest

from belljar.devices.rtc import DEFAULT_START
from belljar.engine import Engine
from belljar.errors import FeatureUnsupported
from belljar.machine import End, Machine
from belljar.soft.hypervisor.paravirt.clock import decode_time_info, decode_wall_clock, to_ns
from belljar.soft.hypervisor.paravirt.cpuid import Feature
from common import open_or_skip
from conformance.assembly import guest

CHIPS = [("kvm", "kernel", None), ("soft", "user", None), ("soft", "user", "host")]
PAGE = 0x9000
U64 = 1 << 64


@pytest.fixture(params=CHIPS, ids=lambda param: "-".join(filter(None, param)))
def chips(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """The options for a machine on each engine with the chips that it has itself; on soft also in the host's time."""
    name, irqchip, clock = request.param
    with open_or_skip(name) as engine:  # type: ignore[attr-defined]
        yield {"engine": engine, "irqchip": irqchip, "mode": "long", "clock": clock}


def ran(text: str, options: dict[str, object], **more: object) -> Machine:
    """A machine whose guest has run until all its vCPUs sleep for good; the caller closes it."""
    machine = Machine(guest(text), **{**options, **more})
    result = machine.run(timeout=20)
    assert (result.end, result.status) == (End.HALT, 0), (result.message, machine.console)
    return machine


MACROS = """
.macro wrmsr64 number, low, high=0
    mov ecx, \\number
    mov eax, \\low
    mov edx, \\high
    wrmsr
.endm
.macro rdtsc64 into
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov \\into, rax
.endm
.macro cpuid_to leaf, address
    mov eax, \\leaf
    xor ecx, ecx
    push rbx
    cpuid
    mov r8d, ebx
    pop rbx
    mov [\\address], eax
    mov [\\address + 4], r8d
    mov [\\address + 8], ecx
    mov [\\address + 12], edx
.endm
"""

SIGNATURE = (
    MACROS
    + """
main:
    cpuid_to 1, 0x9000
    cpuid_to 0x40000000, 0x9010
    cpuid_to 0x40000001, 0x9020
    done
"""
)


def test_cpuid_tells_of_kvms_interface(chips: dict[str, object]) -> None:
    with ran(SIGNATURE, chips) as machine:
        features = unpack("<4I", machine.memory.read(PAGE, 16))
        signature = machine.memory.read(PAGE + 0x10, 16)
        offered = Feature(unpack("<4I", machine.memory.read(PAGE + 0x20, 16))[0] & 0x0100_387B)
    assert features[2] >> 31
    assert signature == (0x4000_0001).to_bytes(4, "little") + b"KVMKVMKVM\0\0\0"
    wanted = Feature.CLOCKSOURCE | Feature.CLOCKSOURCE2 | Feature.STEAL_TIME | Feature.PV_EOI
    assert offered & wanted == wanted


CLOCK = (
    MACROS
    + """
main:
    wrmsr64 {wall}, 0x9100
    wrmsr64 {system}, 0x9001
    rdtsc64 r12
    mov ecx, 1000
spin:
    loop spin
    rdtsc64 r13
    mov ecx, {system}
    rdmsr
    mov r14, rax
    mov ecx, {wall}
    rdmsr
    mov r15, rax
    done
"""
)


@pytest.mark.parametrize(("wall", "system"), [(0x11, 0x12), (0x4B564D00, 0x4B564D01)], ids=["old", "new"])
def test_guest_computes_time_from_kvmclock(chips: dict[str, object], wall: int, system: int) -> None:
    before = time.time()
    with ran(CLOCK.format(wall=wall, system=system), chips) as machine:
        info = decode_time_info(machine.memory.read(PAGE, 32))
        boot = decode_wall_clock(machine.memory.read(PAGE + 0x100, 12))
        first, second = machine.cpu["r12"], machine.cpu["r13"]
        assert (machine.cpu["r14"], machine.cpu["r15"]) == (PAGE | 1, PAGE + 0x100)
        soft, counts = machine.engine.name == "soft", not machine.real_time
    after = time.time()
    assert info["version"] % 2 == 0
    assert info["version"] > 0
    assert boot["version"] % 2 == 0
    assert info["tsc_to_system_mul"] >> 31 == 1
    times = [
        info["system_time"] + to_ns((tsc - info["tsc_timestamp"]) % U64, info["tsc_to_system_mul"], info["tsc_shift"])
        for tsc in (first, second)
    ]
    if info["tsc_timestamp"] <= first:  # KVM may have brought the structure up to date behind it
        assert times[0] < times[1] < times[0] + 10**9
    if soft:
        assert info["flags"] & 1
        assert times[1] - times[0] == second - first  # a nanosecond a tick
    if counts:
        assert second - first == 1005  # a tick an instruction
        assert boot["sec"] == DEFAULT_START
    else:
        assert before - 60 <= boot["sec"] <= after + 1


def test_clock_that_is_not_in_memory_is_taken_and_not_written(chips: dict[str, object]) -> None:
    text = (
        MACROS
        + """
main:
    wrmsr64 0x4B564D01, 0xFFFFF001, 0xFF
    wrmsr64 0x4B564D00, 0xFFFFF000, 0xFF
    wrmsr64 0x4B564D01, 0x9FF9              # it would cross a page
    wrmsr64 0x4B564D01, 0
    mov ecx, 0x4B564D01
    rdmsr
    mov r12, rax
    done
"""
    )
    with ran(text, chips) as machine:
        assert machine.cpu["r12"] == 0
        assert not any(machine.memory.read(PAGE + 0xFF0, 64))


REFUSED = (
    MACROS
    + """
main:
    gate 13, refused
    mov rsi, offset faulting
    mov esi, esi
    xor r12, r12
    mov ecx, {msr}
    mov eax, {low}
    mov edx, {high}
    wrmsr
faulting:
    done
refused:
    inc r12
    add rsp, 8
    mov [rsp], rsi
    iretq
"""
)


@pytest.mark.parametrize(
    ("msr", "low", "high"),
    [
        (0x4B564D03, 0x9003, 0),  # steal time: reserved bits
        (0x4B564D03, 0x9021, 0),
        (0x4B564D04, 0x9003, 0),  # PV EOI: not aligned
        (0x4B564D04, 0xFFFFF001, 0xFF),  # no memory
        (0x4B564D05, 2, 0),  # poll control: one bit
        (0x4B564D09, 0, 0),  # no such MSR
    ],
)
def test_bad_value_is_a_general_protection_fault(chips: dict[str, object], msr: int, low: int, high: int) -> None:
    with ran(REFUSED.format(msr=msr, low=low, high=high), chips) as machine:
        assert machine.cpu["r12"] == 1


PV_EOI = (
    MACROS
    + """
main:
    gate 0x40, handler
    wrmsr64 0x4B564D04, 0x9001
    xor r12, r12
    xor r13, r13
    mov r14d, 4
again:
    lapic 0x300, 0x44040        # self
    sti
    chance
    cli
    dec r14d
    jnz again
    done
handler:
    btr dword ptr [0x9000], 0
    jc skipped
    inc r13
    end_of_interrupt
    iretq
skipped:
    inc r12
    iretq
"""
)


def test_interrupts_end_by_a_bit_in_memory(chips: dict[str, object]) -> None:
    with ran(PV_EOI, chips) as machine:
        skipped, written = machine.cpu["r12"], machine.cpu["r13"]
        assert skipped + written == 4  # each came, so that the one before was finished
        if machine.engine.name == "soft":
            assert skipped == 4
        assert not machine.memory.read_u32(PAGE) & 1


PV_EOI_NESTED = (
    MACROS
    + """
main:
    gate 0x40, low
    gate 0x50, high
    wrmsr64 0x4B564D04, 0x9001
    lapic 0x300, 0x44040
    sti
    chance
    cli
    done
low:
    say 'l'
    lapic 0x300, 0x44041        # of the same class: waits until this one has ended
    lapic 0x300, 0x44050        # more urgent
    sti
    chance
    cli
    say 'm'
    btr dword ptr [0x9000], 0
    jc over
    end_of_interrupt
over:
    iretq
high:
    say 'h'
    btr dword ptr [0x9000], 0
    jc over
    end_of_interrupt
    iretq
"""
)


def test_pv_eoi_keeps_priorities() -> None:
    text = (
        PV_EOI_NESTED.replace("gate 0x40, low\n", "gate 0x40, low\n    gate 0x41, same\n")
        + """
same:
    say 's'
    btr dword ptr [0x9000], 0
    jc over
    end_of_interrupt
    iretq
"""
    )
    with ran(text, {"engine": "soft", "irqchip": "user", "mode": "long"}) as machine:
        assert machine.console == b"lhms"


TSC_ADJUST = (
    MACROS
    + """
main:
    mov ecx, 0x3B
    rdmsr
    mov r8, rax
    rdtsc64 r12
    wrmsr64 0x3B, 0x4876E800, 0x17          # 100,000,000,000
    rdtsc64 r13
    wrmsr64 0x3B, 0
    rdtsc64 r14
    wrmsr64 0x10, 0, 0x100                  # the counter itself
    rdtsc64 r15
    mov ecx, 0x3B
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov rdi, rax
    done
"""
)


def test_time_stamp_counter_and_its_adjustment_move_together(chips: dict[str, object]) -> None:
    with ran(TSC_ADJUST, chips) as machine:
        reg = machine.cpu
        assert reg["r8"] == 0
        if machine.engine.name == "kvm" and reg["r13"] - reg["r12"] < 10**9:
            pytest.skip("this host's KVM drops what moves a guest's time-stamp counter")
        assert reg["r13"] - reg["r12"] >= 100_000_000_000
        assert reg["r12"] < reg["r14"] < reg["r12"] + 100_000_000_000
        assert 0x100_0000_0000 <= reg["r15"] < 0x100_0000_0000 + 30 * 10**9  # a busy host may be away for a while
        assert 0 < reg["rdi"] < 0x100_0000_0000
        assert reg["r14"] < (reg["r15"] - reg["rdi"]) % U64  # the counter beneath never went back


STEAL = (
    MACROS
    + """
main:
    wrmsr64 0x4B564D03, 0x9001
    mov ecx, 1000
spin:
    loop spin
    mov ecx, 0x4B564D03
    rdmsr
    mov r12, rax
    done
"""
)


def test_steal_time_of_a_lonely_vcpu_is_a_valid_structure(chips: dict[str, object]) -> None:
    with ran(STEAL, chips) as machine:
        assert machine.cpu["r12"] == PAGE | 1
        steal, version, flags, preempted = unpack("<QIIB", machine.memory.read(PAGE, 17))
        assert version
        assert version % 2 == 0
        assert flags == 0
        if machine.engine.name == "soft":
            assert (steal, preempted) == (0, 0)


TWO = (
    MACROS
    + """
main:
    lapic 0x310, 0x01000000
    lapic 0x300, 0x4500         # INIT
    lapic 0x300, 0x4602         # start at 0x2000
    wrmsr64 0x4B564D03, 0x9001
    mov ecx, 100000
spin:
    loop spin
    done
"""
)

REAL_SPIN = bytes.fromhex("66b9a0860100 6667e2fd fa f4")  # mov ecx, 100000; loop; cli; hlt


def test_time_of_other_vcpus_is_stolen() -> None:
    with Machine(guest(TWO), engine="soft", irqchip="user", mode="long", cpus=2) as machine:
        machine.memory.write(0x2000, REAL_SPIN)
        assert machine.run(timeout=20).end is End.HALT
        steal, version = unpack("<QI", machine.memory.read(PAGE, 12))
        assert version % 2 == 0
        assert 50_000 < steal < 150_000


@pytest.mark.parametrize("khz", [2_500_000, 123_457])
def test_time_stamp_counter_has_the_frequency_that_was_asked_for(chips: dict[str, object], khz: int) -> None:
    text = CLOCK.replace("    done\n", "    cpuid_to 0x15, 0x9200\n    cpuid_to 0x16, 0x9210\n    done\n")
    try:
        machine = ran(text.format(wall=0x11, system=0x12), chips, tsc_khz=khz)
    except FeatureUnsupported as error:
        pytest.skip(error.message)
    with machine:
        info = decode_time_info(machine.memory.read(PAGE, 32))
        ticks = machine.cpu["r13"] - machine.cpu["r12"]
        assert abs(to_ns(10**9, info["tsc_to_system_mul"], info["tsc_shift"]) - 10**15 // khz) < 10
        if machine.engine.name == "soft":
            denominator, numerator, crystal_hz, _ = unpack("<4I", machine.memory.read(0x9200, 16))
            assert numerator * crystal_hz // denominator == khz * 1000
            assert machine.memory.read_u32(0x9210) == khz // 1000
            if not machine.real_time:
                assert abs(ticks - 1008 * khz / 1_000_000) < khz / 100_000


def test_tsc_deadline_follows_a_counter_that_was_moved_and_scaled() -> None:
    text = (
        MACROS
        + """
main:
    gate 0x40, tick
    lapic 0x320, 0x40040        # TSC deadline
    wrmsr64 0x10, 0x10000000
    mov ecx, 0x6E0
    mov eax, 0x10100000
    xor edx, edx
    wrmsr
    wrmsr64 0x10, 0x10080000    # half of it is over
    rdtsc64 r12
    sti
    hlt
    done
tick:
    rdtsc64 r13
    say 't'
    end_of_interrupt
    add rsp, 40
    done
"""
    )
    options = {"engine": "soft", "irqchip": "user", "mode": "long", "tsc_khz": 3_000_000}
    with ran(text, options) as machine:
        assert machine.console == b"t"
        assert 0x1010_0000 <= machine.cpu["r13"] < 0x1010_0000 + 1000


@pytest.mark.parametrize(
    ("name", "bit", "msr"),
    [
        ("kvm_clocksource", 0, 0x12),
        ("kvm_clocksource2", 3, 0x4B564D01),
        ("kvm_async_pf", 4, 0x4B564D02),
        ("kvm_steal_time", 5, 0x4B564D03),
        ("kvm_pv_eoi", 6, 0x4B564D04),
        ("kvm_poll_control", 12, 0x4B564D05),
        ("kvm_async_pf_int", 14, 0x4B564D06),
    ],
)
def test_feature_that_is_taken_away_is_gone(name: str, bit: int, msr: int) -> None:
    text = REFUSED.format(msr=msr, low=0, high=0).replace("main:\n", "main:\n    cpuid_to 0x40000001, 0x9000\n")
    for without, refusals in (((), 0), ((name,), 1)):
        with ran(text, {"engine": "soft", "irqchip": "user", "mode": "long", "without": without}) as machine:
            assert machine.memory.read_u32(PAGE) >> bit & 1 == 1 - refusals
            assert machine.cpu["r12"] == refusals


@pytest.mark.parametrize(
    ("name", "number"), [("kvm_pv_unhalt", 5), ("kvm_pv_send_ipi", 10), ("kvm_pv_sched_yield", 11)]
)
def test_hypercall_goes_with_its_feature(name: str, number: int) -> None:
    text = f"main:\n    mov eax, {number}\n    mov ecx, 99\n    xor esi, esi\n    vmcall\n    done\n"
    for without, answer in (((), 0), ((name,), U64 - 1000)):
        with ran(text, {"engine": "soft", "irqchip": "user", "mode": "long", "without": without}) as machine:
            assert machine.cpu.rax == answer


MONOTONIC = """
main:
    mov eax, 1
    cpuid
    shr ebx, 24
    shl ebx, 6
    lea r14, [rbx + 0x9000]             # each vCPU has a structure of its own
    mov eax, r14d
    or eax, 1
    xor edx, edx
    mov ecx, 0x4B564D01
    wrmsr
    mov r13d, {rounds}
again:
    lock bts dword ptr [0xA000], 0
    jc again
retry:
    mov r8d, [r14]
    test r8d, 1
    jnz retry
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, [r14 + 8]
    movsx ecx, byte ptr [r14 + 28]
    test ecx, ecx
    js right
    shl rax, cl
    jmp scaled
right:
    neg ecx
    shr rax, cl
scaled:
    mov r9d, [r14 + 24]
    mul r9
    shrd rax, rdx, 32
    add rax, [r14 + 16]
    cmp r8d, [r14]
    jne retry
    cmp rax, [0xA008]
    jae forward
    inc dword ptr [0xA010]              # it went back
forward:
    mov [0xA008], rax
    inc dword ptr [0xA014]
    mov dword ptr [0xA000], 0
    dec r13d
    jnz again
    done
"""


@pytest.mark.parametrize("khz", [None, 2_800_000])
@pytest.mark.parametrize("clock", [None, "host"])
def test_time_never_goes_back_from_one_vcpu_to_another(engine: Engine, clock: str | None, khz: int | None) -> None:
    rounds = 1000 if engine.name == "soft" else 300
    if engine.name == "kvm" and (khz is not None or clock is not None):
        pytest.skip("the kernel's clock is what it is")
    text = MONOTONIC.format(rounds=rounds)
    with Machine(guest(text), engine=engine, mode="long", cpus=3, clock=clock, tsc_khz=khz) as machine:
        assert machine.run(timeout=60).end is End.HALT
        assert machine.memory.read_u32(0xA014) == 3 * rounds
        assert machine.memory.read_u32(0xA010) == 0
