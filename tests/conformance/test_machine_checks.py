"""Machine checks that the host injects: banks, MSRs, #MC, shutdown and CMCI, alike on every engine (SDM 3B chapter 16)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from belljar.engine_data import MACHINE_CHECK_BANKS
from belljar.errors import ConfigurationError, FeatureUnsupported
from belljar.exits import PortIo
from belljar.machine import Cpu, End, Machine
from belljar.soft.engine import SoftEngine
from belljar.x86.machine_check import ALL_ONES, Consequence, McgCap, McgStatus, MciCtl2, MciStatus
from belljar.x86.msr import Msr
from common import open_or_skip
from conformance.assembly import guest

CHIPS = [("kvm", None), ("kvm", "kernel"), ("kvm", "user"), ("soft", None), ("soft", "user")]

VALID, UC, EN, PCC, S, AR, OVER = (
    MciStatus.VAL,
    MciStatus.UC,
    MciStatus.EN,
    MciStatus.PCC,
    MciStatus.S,
    MciStatus.AR,
    MciStatus.OVER,
)
CORRECTED = int(VALID | EN | 0x42)
FATAL = int(VALID | EN | UC | PCC | 0x43)
UCNA = int(VALID | EN | UC | 0x44)
SERVED = int(McgStatus.MCIP | McgStatus.EIPV)


@pytest.fixture(params=CHIPS, ids=lambda param: f"{param[0]}-{param[1] or 'none'}")
def options(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """The options for a machine with each kind of chips, where the engine has machine checks."""
    name, irqchip = request.param
    with open_or_skip(name) as engine:  # type: ignore[attr-defined]
        try:
            with Machine(b"\xf4", engine=engine, irqchip=irqchip) as machine:
                machine.cpu.inject_machine_check(0, CORRECTED)
        except FeatureUnsupported as error:
            pytest.skip(error.message)
        yield {"engine": engine, "irqchip": irqchip, "mode": "long"}


def at_mark(machine: Machine, act: Callable[[Cpu], None], end: End = End.HALT) -> bytes:
    """Run to the guest's end; when it prints 'x', call `act` while it stands behind that."""
    for exit in machine.exits(timeout=20):
        if isinstance(exit, PortIo) and exit.data == b"x":
            act(machine.cpu)
    assert machine.result is not None
    assert machine.result.end is end, machine.result.message
    return machine.console


def bank_of(cpu: Cpu, bank: int) -> tuple[int, ...]:
    """STATUS, ADDR and MISC of a bank."""
    first = Msr.IA32_MC0_STATUS + 4 * bank
    found = cpu.vcpu.get_msrs(range(first, first + 3))
    return tuple(found[first + register] for register in range(3))


def capabilities(machine: Machine) -> int:
    """IA32_MCG_CAP."""
    return machine.cpu.vcpu.get_msrs([Msr.IA32_MCG_CAP])[Msr.IA32_MCG_CAP]


GUEST = """
.macro enable
    mov rax, cr4
    or eax, 0x40                # MCE
    mov cr4, rax
.endm
main:
    gate 18, check
    gate 13, protection
    %s
    say 'x'
    say 'e'
    done
check:
    say 'm'
    mov ecx, 0x17A              # IA32_MCG_STATUS
    rdmsr
    add al, '0'
    out 0xE9, al
    xor eax, eax
    xor edx, edx
    wrmsr
    iretq
protection:
    say 'g'
    done
"""


def test_uncorrected_error_is_an_exception_and_stands_in_its_bank(options: dict[str, object]) -> None:
    seen = []

    def act(cpu: Cpu) -> None:
        seen.append(cpu.inject_machine_check(3, FATAL, SERVED, 0x1234_5000, 0x86))

    with Machine(guest(GUEST % "enable"), **options) as machine:
        assert at_mark(machine, act) == b"xm6e"
        assert bank_of(machine.cpu, 3) == (FATAL, 0x1234_5000, 0x86)
    assert seen == [Consequence.EXCEPTION]


def test_corrected_error_is_recorded_and_nothing_else(options: dict[str, object]) -> None:
    with Machine(guest(GUEST % "enable"), **options) as machine:
        assert at_mark(machine, lambda cpu: cpu.inject_machine_check(1, CORRECTED, 0, 0x1000)) == b"xe"
        assert bank_of(machine.cpu, 1)[:2] == (CORRECTED, 0x1000)


def test_corrected_error_does_not_take_an_uncorrected_ones_place(options: dict[str, object]) -> None:
    def act(cpu: Cpu) -> None:
        cpu.inject_machine_check(1, FATAL, SERVED, 0x2000)
        assert cpu.inject_machine_check(1, CORRECTED, 0, 0x1000) is Consequence.RECORDED
        assert bank_of(cpu, 1)[:2] == (FATAL | OVER, 0x2000)
        cpu.inject_machine_check(2, CORRECTED, 0, 0x1000)
        cpu.inject_machine_check(2, CORRECTED, 0, 0x3000)
        assert bank_of(cpu, 2)[:2] == (CORRECTED | OVER, 0x3000)

    with Machine(guest(GUEST % "enable"), **options) as machine:
        assert at_mark(machine, act) == b"xm6e"


def test_machine_check_without_cr4_mce_shuts_the_processor_down(options: dict[str, object]) -> None:
    seen = []
    with Machine(guest(GUEST % ""), **options) as machine:
        assert at_mark(machine, lambda cpu: seen.append(cpu.inject_machine_check(0, FATAL, SERVED)), End.CRASH) == b"x"
        assert bank_of(machine.cpu, 0)[0] == 0
    assert seen == [Consequence.SHUTDOWN]


def test_machine_check_while_one_is_served_shuts_the_processor_down(options: dict[str, object]) -> None:
    def act(cpu: Cpu) -> None:
        cpu.vcpu.set_msrs({Msr.IA32_MCG_STATUS: McgStatus.MCIP})
        assert cpu.inject_machine_check(0, FATAL, SERVED) is Consequence.SHUTDOWN

    with Machine(guest(GUEST % "enable"), **options) as machine:
        assert at_mark(machine, act, End.CRASH) == b"x"


@pytest.mark.parametrize("register", ["bank", "all"])
def test_uncorrected_error_is_ignored_where_reporting_is_off(options: dict[str, object], register: str) -> None:
    def act(cpu: Cpu) -> None:
        cpu.vcpu.set_msrs({Msr.IA32_MC0_CTL + 8 if register == "bank" else Msr.IA32_MCG_CTL: 0})
        assert cpu.inject_machine_check(2, FATAL, SERVED) is Consequence.IGNORED

    with Machine(guest(GUEST % "enable"), **options) as machine:
        if register == "all" and not capabilities(machine) & McgCap.CTL_P:
            pytest.skip("this KVM has no IA32_MCG_CTL")
        assert at_mark(machine, act) == b"xe"
        assert bank_of(machine.cpu, 2)[0] == 0


def test_machine_check_wakes_a_halted_vcpu(options: dict[str, object]) -> None:
    with Machine(guest(GUEST % "enable\n done"), **options) as machine:
        assert machine.run(timeout=20).end is End.HALT
        machine.cpu.inject_machine_check(0, FATAL, SERVED)
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"m6xe"


WRITES = {
    "status-zero": (Msr.IA32_MC0_STATUS, 0, b"xe"),
    "status": (Msr.IA32_MC0_STATUS, 1, b"g"),
    "ctl-zero": (Msr.IA32_MC0_CTL, 0, b"xe"),
    "ctl-ones": (Msr.IA32_MC0_CTL, ALL_ONES, b"xe"),
    "ctl": (Msr.IA32_MC0_CTL, 0x10, b"g"),
    "cap": (Msr.IA32_MCG_CAP, 0, b"g"),
    "beyond-the-banks": (Msr.IA32_MC0_CTL + 4 * MACHINE_CHECK_BANKS, 0, b"g"),
    "mcg-status": (Msr.IA32_MCG_STATUS, 0, b"xe"),
}


@pytest.mark.parametrize("name", WRITES)
def test_guest_may_write_what_the_manual_allows(options: dict[str, object], name: str) -> None:
    msr, value, printed = WRITES[name]
    text = f"mov ecx, {int(msr)}\n mov eax, {value & 0xFFFFFFFF}\n mov edx, {value >> 32}\n wrmsr"
    with Machine(guest(GUEST % text), **options) as machine:
        assert at_mark(machine, lambda cpu: None) == printed


def test_cpuid_and_capabilities_tell_of_the_banks(options: dict[str, object]) -> None:
    text = "push rbx\n mov eax, 1\n cpuid\n mov r12d, edx\n mov ecx, 0x179\n rdmsr\n mov r13d, eax\n pop rbx"
    with Machine(guest(GUEST % text), **options) as machine:
        at_mark(machine, lambda cpu: None)
        assert machine.cpu.r12 >> 7 & machine.cpu.r12 >> 14 & 1  # MCE and MCA
        assert machine.cpu.r13 == capabilities(machine)
        assert machine.cpu.r13 & 0xFF == MACHINE_CHECK_BANKS


CMCI = """
    gate 0x50, corrected
    lapic 0x2F0, 0x50           # LVT CMCI: fixed, vector 0x50
    sti
    jmp 1f
corrected:
    say 'c'
    end_of_interrupt
    iretq
1:
"""


def test_error_that_needs_no_action_raises_cmci_if_its_bank_says_so(options: dict[str, object]) -> None:
    def act(cpu: Cpu) -> None:
        assert cpu.inject_machine_check(4, UCNA, 0, 0x5000) is Consequence.RECORDED
        cpu.vcpu.set_msrs({Msr.IA32_MC0_CTL2 + 4: int(MciCtl2.CMCI_EN)})
        assert cpu.inject_machine_check(4, UCNA, 0, 0x6000) is Consequence.INTERRUPT

    with Machine(guest(GUEST % CMCI), **options) as machine:
        if not capabilities(machine) & McgCap.CMCI_P:
            pytest.skip("this KVM has no CMCI")
        expected = b"xce" if machine.interrupts is not None else b"xe"
        assert at_mark(machine, act) == expected
        assert bank_of(machine.cpu, 4)[:2] == (UCNA, 0x6000)


@pytest.mark.parametrize(
    "arguments", [(MACHINE_CHECK_BANKS, CORRECTED), (-1, CORRECTED), (0, 0), (0, 1 << 64), (0, CORRECTED, -1)]
)
def test_what_is_no_machine_check_is_refused(options: dict[str, object], arguments: tuple[int, ...]) -> None:
    with Machine(b"\xf4", **{**options, "mode": "real"}) as machine, pytest.raises(ConfigurationError):
        machine.cpu.inject_machine_check(*arguments)


def test_processor_without_machine_checks_has_neither_msrs_nor_cr4_bit() -> None:
    with SoftEngine(without=["mce"]) as engine:
        for text in ("mov ecx, 0x179\n rdmsr", "enable"):
            with Machine(guest(GUEST % text), engine=engine, mode="long") as machine:
                assert at_mark(machine, lambda cpu: None) == b"g"
                with pytest.raises(FeatureUnsupported):
                    machine.cpu.inject_machine_check(0, CORRECTED)
