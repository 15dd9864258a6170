"""MSR accesses that KVM's filter hands over: seen, and carried out as KVM itself would have done it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from errno import EIO

import pytest

from belljar.engines import open_engine
from belljar.errors import CapabilityMissing, FeatureUnsupported, KvmCallFailed
from belljar.kvm.cpu_model import CpuModel
from belljar.kvm.engine import KvmEngine
from belljar.kvm.msr_traffic import ONLY_REFUSED, UNSEEN, may_move_apic, may_set_efer
from belljar.machine import End, Machine
from belljar.observe.trace_kinds import KindTrace
from belljar.x86.msr import Msr
from common import open_or_skip
from conformance.assembly import guest

RESULTS = 0x10_0000
CANONICAL_NOT = 0x8000_0000_0000

READ = None
"""In place of a value to write."""

ACCESSES: list[tuple[int, int | None]] = [
    (Msr.IA32_SYSENTER_CS, 0x1234), (Msr.IA32_SYSENTER_CS, READ),
    (Msr.IA32_SYSENTER_ESP, CANONICAL_NOT), (Msr.IA32_SYSENTER_ESP, READ),
    (Msr.IA32_PAT, 0x0606_0606_0606_0606), (Msr.IA32_PAT, 2), (Msr.IA32_PAT, READ),
    (Msr.IA32_MTRRCAP, READ), (Msr.IA32_MTRRCAP, 0),
    (Msr.IA32_MTRR_DEF_TYPE, 0xC06), (Msr.IA32_MTRR_DEF_TYPE, 2), (Msr.IA32_MTRR_DEF_TYPE, READ),
    (Msr.IA32_MTRR_PHYSBASE0, 6), (Msr.IA32_MTRR_PHYSMASK0, 0x800), (Msr.IA32_MTRR_PHYSMASK0, READ),
    (Msr.IA32_MTRR_FIX64K_00000, 3), (Msr.IA32_MTRR_FIX64K_00000, READ),
    (Msr.IA32_MCG_CAP, READ), (Msr.IA32_MCG_CAP, 1), (Msr.IA32_MCG_CTL, READ), (Msr.IA32_MCG_CTL, 5),
    (Msr.IA32_MCG_STATUS, 2), (Msr.IA32_MCG_STATUS, READ),
    (Msr.IA32_MC0_CTL, READ), (Msr.IA32_MC0_CTL, 0), (Msr.IA32_MC0_STATUS, READ), (Msr.IA32_MC0_STATUS, 1),
    (Msr.IA32_MC0_ADDR, READ), (Msr.IA32_MC0_CTL + 4 * 31, READ), (Msr.IA32_MC0_CTL2, READ),
    (Msr.IA32_MISC_ENABLE, READ), (Msr.IA32_MISC_ENABLE, 1 << 11), (Msr.IA32_MISC_ENABLE, READ),
    (Msr.IA32_BIOS_SIGN_ID, READ), (Msr.IA32_BIOS_SIGN_ID, 7), (Msr.IA32_BIOS_SIGN_ID, READ),
    (Msr.IA32_TSC_ADJUST, READ), (Msr.IA32_ARCH_CAPABILITIES, READ), (Msr.IA32_XSS, READ), (Msr.IA32_SPEC_CTRL, READ),
    (Msr.IA32_TSC_AUX, READ), (Msr.IA32_TSC_AUX, 9), (Msr.IA32_TSC_AUX, 1 << 32), (Msr.IA32_TSC_AUX, READ),
    (Msr.IA32_EFER, READ), (Msr.IA32_EFER, 0xD01), (Msr.IA32_EFER, READ),
    (Msr.IA32_EFER, 0xC00), (Msr.IA32_EFER, 0xD03), (Msr.IA32_EFER, 0x4D01), (Msr.IA32_EFER, 0x100D01),
    (Msr.IA32_EFER, READ),
    (Msr.IA32_LSTAR, CANONICAL_NOT), (Msr.IA32_LSTAR, 0xFFFF_8000_0000_0000), (Msr.IA32_LSTAR, READ),
    (Msr.IA32_STAR, 0x0023_0010_0000_0000), (Msr.IA32_STAR, READ), (Msr.IA32_FMASK, 0x47700), (Msr.IA32_FMASK, READ),
    (Msr.IA32_FS_BASE, 0x5000), (Msr.IA32_FS_BASE, CANONICAL_NOT), (Msr.IA32_FS_BASE, READ),
    (Msr.IA32_KERNEL_GS_BASE, 0x7000), (Msr.IA32_KERNEL_GS_BASE, READ),
    (Msr.KVM_SYSTEM_TIME_NEW, READ), (Msr.KVM_STEAL_TIME, 0x9002), (Msr.KVM_STEAL_TIME, READ),
    (Msr.KVM_PV_EOI_EN, READ), (Msr.KVM_ASYNC_PF_EN, READ), (Msr.KVM_POLL_CONTROL, 2), (Msr.KVM_POLL_CONTROL, READ),
    (Msr.IA32_APIC_BASE, READ), (Msr.IA32_APIC_BASE, 0xFEE0_0D00), (Msr.IA32_APIC_BASE, READ),
    (Msr.IA32_APIC_BASE, 0xFEE0_0900), (Msr.IA32_APIC_BASE, 0xFEE0_0500), (Msr.IA32_APIC_BASE, 0xFEE0_0901),
    (Msr.IA32_APIC_BASE, 0xFEE0_0100), (Msr.IA32_APIC_BASE, 0xFEE0_0D00), (Msr.IA32_APIC_BASE, READ),
    (Msr.IA32_APIC_BASE, 0xFEE0_0900), (Msr.IA32_APIC_BASE, READ),
    (0x12345, READ), (0x12345, 1),
]  # fmt: skip


def guest_of(accesses: list[tuple[int, int | None]]) -> bytes:
    """Makes them one after the other: what it read or wrote goes to `RESULTS`, and 0xAA there for a refusal."""
    lines = [f"main:\n gate 13, refused\n mov edi, {RESULTS:#x}\n"]
    for msr, value in accesses:
        if value is None:
            lines.append(f" mov ecx, {int(msr):#x}\n rdmsr\n")
        else:
            high, low = value >> 32, value & 0xFFFF_FFFF
            lines.append(f" mov ecx, {int(msr):#x}\n mov eax, {low:#x}\n mov edx, {high:#x}\n wrmsr\n")
        lines.append(" mov [rdi], eax\n mov [rdi + 4], edx\n add rdi, 8\n")
    lines.append(""" say 'e'
    done
refused:
    mov eax, 0xAAAAAAAA
    mov edx, 0xAAAAAAAA
    add qword ptr [rsp + 8], 2          # behind the RDMSR or WRMSR
    add rsp, 8
    iretq
""")
    return guest("".join(lines))


@pytest.fixture
def engine() -> Iterator[KvmEngine]:
    with open_or_skip("kvm") as opened:  # type: ignore[attr-defined]
        yield opened


def results(engine: KvmEngine, irqchip: str | None, *, traced: bool) -> tuple[list[int], list[str]]:
    """What the guest found, and the lines of a trace."""
    written: list[str] = []
    with Machine(guest_of(ACCESSES), engine=engine, irqchip=irqchip, mode="long") as machine:
        observe = KindTrace(machine, frozenset({"msr"}), written.append).observe if traced else None
        result = machine.run(timeout=20, observer=observe)
        assert (result.end, machine.console) == (End.HALT, b"e"), result.message
        found = machine.memory.view(RESULTS, 8 * len(ACCESSES)).cast("Q").tolist()
    return found, written


@pytest.mark.parametrize("irqchip", [None, "kernel", "split", "user"])
def test_a_guest_that_is_watched_finds_what_it_finds_unwatched(engine: KvmEngine, irqchip: str | None) -> None:
    unwatched, _ = results(engine, irqchip, traced=False)
    watched, lines = results(engine, irqchip, traced=True)
    names = [f"{Msr(msr).name if msr in set(Msr) else hex(msr)} {value}" for msr, value in ACCESSES]
    assert dict(zip(names, map(hex, watched), strict=True)) == dict(zip(names, map(hex, unwatched), strict=True))
    assert 0xAAAA_AAAA_AAAA_AAAA in watched, "some are refused"
    assert sum("refused" in line for line in lines) >= 10
    assert any("read IA32_EFER (0xc0000080) value=0xd0" in line for line in lines)
    assert any("write IA32_LSTAR (0xc0000082) value=0x800000000000 refused: #GP(0)" in line for line in lines)


def test_a_host_without_filters_shows_what_it_refuses(engine: KvmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise CapabilityMissing("KVM_CAP_X86_MSR_FILTER")

    monkeypatch.setattr("belljar.kvm.vm.Vm.set_msr_filter", missing)
    with Machine(guest_of(ACCESSES[:2] + ACCESSES[-2:]), engine=engine, mode="long") as machine:
        written: list[str] = []
        trace = KindTrace(machine, frozenset({"msr"}), written.append)
        assert trace.notes == [f"msr: {ONLY_REFUSED}"]
        machine.run(timeout=20, observer=trace.observe)
    assert [line.split("msr   ")[1] for line in written] == [
        "read unknown (0x12345) refused: #GP(0)\n",
        "write unknown (0x12345) value=0x1 refused: #GP(0)\n",
    ]


def test_a_host_without_exits_for_msrs_shows_none(engine: KvmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise CapabilityMissing("KVM_CAP_X86_USER_SPACE_MSR")

    with Machine(b"\xf4", engine=engine) as machine:
        monkeypatch.setattr("belljar.kvm.vm.Vm.exit_on_msr", missing)
        with pytest.raises(FeatureUnsupported, match="hands no MSR accesses over"):
            KindTrace(machine, frozenset({"msr"}), lambda line: None)


def test_a_host_whose_filter_misses_deadlines_says_so_and_has_no_such_timer(
    engine: KvmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KvmEngine, "lets_go_of_deadlines", False)
    code = guest(
        "main:\n mov eax, 1\n push rbx\n cpuid\n pop rbx\n bt ecx, 24\n jc there\n say '-'\n done\nthere: say '+'\n done\n"
    )
    with Machine(code, engine=engine, irqchip="user", mode="long") as machine:
        assert machine.vm is not None
        assert machine.vm.watch_msrs(object()).endswith("IA32_TSC_DEADLINE")  # type: ignore[arg-type]
        machine.run(timeout=20)
        assert machine.console == b"-"
        with pytest.raises(FeatureUnsupported):
            _ = machine.cpu.vcpu.tsc


def test_a_host_whose_own_counter_is_unstable_has_no_deadlines(
    engine: KvmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unstable(*arguments: object) -> int:
        raise KvmCallFailed("KVM_GET_TSC_KHZ", EIO)

    monkeypatch.setattr("belljar.kvm.vcpu.Vcpu.get_tsc_khz", unstable)
    code = guest("main:\n gate 13, refused\n mov ecx, 0x6E0\n rdmsr\n say '+'\n done\nrefused: say '-'\n done\n")
    with Machine(code, engine=engine, irqchip="user", mode="long") as machine:
        machine.run(timeout=20)
        assert machine.console == b"-"


def test_what_is_not_seen_is_said(engine: KvmEngine) -> None:
    with Machine(b"\xf4", engine=engine) as machine:
        notes = KindTrace(machine, frozenset({"msr"}), lambda line: None).notes
    assert notes[0].startswith(f"msr: {UNSEEN}")


@pytest.mark.parametrize("irqchip", ["kernel", "split", "user"])
def test_the_deadline_timer_can_be_taken_away(irqchip: str) -> None:
    open_or_skip("kvm").close()
    with open_engine("kvm", without=["tsc_deadline_timer"]) as engine:  # type: ignore[attr-defined]
        code = guest(
            "main:\n mov eax, 1\n push rbx\n cpuid\n pop rbx\n bt ecx, 24\n setc al\n add al, '0'\n out 0xE9, al\n done\n"
        )
        with Machine(code, engine=engine, irqchip=irqchip, mode="long") as machine:
            machine.run(timeout=20)
            assert machine.console == b"0"


OFF, XAPIC, X2APIC = 0, 1 << 11, 3 << 10


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (OFF, XAPIC, True), (OFF, X2APIC, False), (XAPIC, X2APIC, True), (XAPIC, OFF, True),
        (X2APIC, XAPIC, False), (X2APIC, OFF, True), (X2APIC, X2APIC, True),
    ],
)  # fmt: skip
def test_modes_of_a_local_apic_follow_one_another_as_the_manual_says(before: int, after: int, allowed: bool) -> None:
    assert may_move_apic(before, after) is allowed


def test_bits_of_efer_need_their_features(engine: KvmEngine) -> None:
    model = engine.cpu_model
    bare = CpuModel(b"\0" * 8)
    assert may_set_efer(model, 0x500, 0x501, paging=True)
    assert not may_set_efer(model, 0x500, 0x400, paging=True)
    assert may_set_efer(model, 0x500, 0x400, paging=False)
    assert may_set_efer(bare, 0, 1, paging=False)
    for bit in (8, 10, 11, 12, 14, 21):
        assert not may_set_efer(bare, 0, 1 << bit, paging=False)


ENDLESS = "main:\n mov ecx, 0x174\n1: rdmsr\n jmp 1b\n"


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("irqchip", [None, "kernel", "user"])
def test_a_watched_guest_that_does_nothing_else_ends_all_the_same(
    engine: KvmEngine, irqchip: str | None, cpus: int
) -> None:
    with Machine(guest(ENDLESS), engine=engine, irqchip=irqchip, cpus=cpus, mode="long") as machine:
        written: list[str] = []
        observe = KindTrace(machine, frozenset({"msr"}), written.append).observe
        assert machine.run(timeout=0.1, observer=observe).end is End.TIMEOUT
        timer = threading.Timer(0.05, machine.stop)
        timer.start()
        assert machine.run(timeout=20, observer=observe).end is End.STOPPED
        timer.join()
        counted = len(written)
        assert counted > 10
        with pytest.raises(KeyboardInterrupt):
            machine.run(timeout=20, observer=interrupt_after(20))
    assert len(written) > counted


def interrupt_after(exits: int) -> Callable[[object], None]:
    """An observer that has had enough after so many exits."""
    seen: list[object] = []

    def observe(exit: object) -> None:
        seen.append(exit)
        if len(seen) >= exits:
            raise KeyboardInterrupt

    return observe
