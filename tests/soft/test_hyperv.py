"""Hyper-V's interface on the soft engine: what the TLFS says of it, in guests of a few instructions."""

from __future__ import annotations

import time
from struct import pack, unpack

import pytest

from belljar.engine import Engine
from belljar.errors import FeatureUnsupported
from belljar.machine import End, Machine
from belljar.soft.hypervisor.charges import EXIT_NS
from belljar.soft.hypervisor.hyperv.cpuid import Privilege
from belljar.soft.hypervisor.hyperv.hypercalls import Status
from belljar.soft.hypervisor.hyperv.reference_time import decode_tsc_page
from belljar.soft.hypervisor.hyperv.stimer import TIMER_EXPIRED, decode_payload
from belljar.soft.hypervisor.hyperv.synic import Message, decode_message
from belljar.soft.hypervisor.vcpu import SoftVcpu
from conformance.assembly import guest
from conformance.test_paravirt import MACROS

OPTIONS = {"engine": "soft", "irqchip": "user", "mode": "long", "hyperv": True}
SLOTS, FLAGS, PAGE = 0xA000, 0xB000, 0x9000
OS_ID = 0x40000000

PRELUDE = (
    MACROS
    + """
.macro rdmsr64 number, into
    mov ecx, \\number
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov \\into, rax
.endm
.macro hypercall control, input
    mov rcx, \\control
    mov rdx, \\input
    xor r8, r8
    mov eax, 0xC000
    call rax
.endm
.macro with_hypercalls
    wrmsr64 0x40000000, 1
    wrmsr64 0x40000001, 0xC001
.endm
.macro spin                             # some units of time
    mov ecx, 500
77: loop 77b
.endm
.macro with_synic
    wrmsr64 0x40000083, 0xA001
    wrmsr64 0x40000082, 0xB001
    wrmsr64 0x40000080, 1
.endm
"""
)


def ran(text: str, **more: object) -> Machine:
    """A machine whose guest has run until all its vCPUs sleep for good; the caller closes it."""
    machine = Machine(guest(PRELUDE + text), **{**OPTIONS, **more})
    result = machine.run(timeout=20)
    assert (result.end, result.status) == (End.HALT, 0), (result.message, machine.console, hex(machine.cpu.rip))
    return machine


def vcpu_of(machine: Machine, index: int = 0) -> SoftVcpu:
    vcpu = machine.cpus[index].vcpu
    assert isinstance(vcpu, SoftVcpu)
    return vcpu


def test_leaves_name_the_interface_and_kvm_stands_behind() -> None:
    text = "main:\n" + "".join(
        f"    cpuid_to {leaf:#x}, {PAGE + 16 * number:#x}\n"
        for number, leaf in enumerate((*range(0x40000000, 0x40000007), 0x40000100, 0x40000101, 0x40000007))
    )
    with ran(text + "    done\n") as machine:
        leaves = [machine.memory.read(PAGE + 16 * number, 16) for number in range(10)]
    assert leaves[0] == (0x40000006).to_bytes(4, "little") + b"Microsoft Hv"
    assert leaves[1][:4] == b"Hv#1"
    privileges = Privilege(int.from_bytes(leaves[3][:8], "little"))
    assert Privilege.SYNTHETIC_TIMERS | Privilege.REFERENCE_TSC | Privilege.HYPERCALL in privileges
    assert unpack("<4I", leaves[3])[3] >> 19 & 1
    assert leaves[7] == (0x40000101).to_bytes(4, "little") + b"KVMKVMKVM\0\0\0"
    assert leaves[8][0] & 1
    assert leaves[9] == bytes(16)


def test_without_the_option_there_is_no_hyperv() -> None:
    text = "main:\n    gate 13, over\n    mov ecx, 0x40000000\n    rdmsr\nover:\n    done\n"
    with ran(text, hyperv=False) as machine:
        assert machine.cpu.rsp < 0x8000  # the frame of a fault
    with ran("main:\n    cpuid_to 0x40000000, 0x9000\n    done\n", hyperv=False) as machine:
        assert machine.memory.read(PAGE + 4, 9) == b"KVMKVMKVM"


def test_kvm_engine_says_clearly_that_a_host_has_none(kvm: Engine) -> None:
    try:
        Machine(b"\xf4", engine=kvm, irqchip="kernel", hyperv=True).close()
    except FeatureUnsupported:
        with pytest.raises(FeatureUnsupported, match="Hyper-V") as caught:
            Machine(b"\xf4", engine=kvm, irqchip="split", hyperv=True)
        assert "soft" in caught.value.hint


def test_kvm_engine_wants_local_apics_for_it(kvm: Engine) -> None:
    with pytest.raises(FeatureUnsupported, match="local APICs"):
        Machine(b"\xf4", engine=kvm, irqchip="user", hyperv=True)


def test_hypercall_page_calls_the_hypervisor() -> None:
    text = """
main:
    wrmsr64 0x40000001, 0xC001          # ignored: the guest has not said what it is
    rdmsr64 0x40000001, r12
    with_hypercalls
    rdmsr64 0x40000001, r13
    hypercall 0x1234, 0
    mov r14, rax
    hypercall 0x8, 0                    # NotifyLongSpinWait
    mov r15, rax
    wrmsr64 0x40000000, 0
    rdmsr64 0x40000001, rdi
    mov eax, 11                         # KVM's SCHED_YIELD again
    vmcall
    done
"""
    with ran(text) as machine:
        reg = machine.cpu
        assert machine.memory.read(0xC000, 4) == bytes.fromhex("0f01c1c3")
        assert (reg["r12"], reg["r13"]) == (0, 0xC001)
        assert (reg["r14"], reg["r15"]) == (Status.INVALID_HYPERCALL_CODE, Status.SUCCESS)
        assert (reg["rdi"], reg["rax"]) == (0xC000, 0)


@pytest.mark.parametrize(
    ("msr", "low", "high"),
    [
        (0x40000001, 0xFFFFF001, 0xFF),  # hypercall page: no memory
        (0x40000002, 1, 0),  # VP_INDEX cannot be written
        (0x40000020, 1, 0),
        (0x40000022, 1, 0),
        (0x40000073, 0xFFFFF001, 0xFF),
        (0x40000081, 1, 0),
        (0x40000082, 0xFFFFF001, 0xFF),
        (0x40000083, 0xFFFFF001, 0xFF),
        (0x40000090, 15, 0),  # a vector that is an exception's
        (0x40000110, 0, 0),  # no such MSR
    ],
)
def test_bad_value_is_a_general_protection_fault(msr: int, low: int, high: int) -> None:
    text = f"""
main:
    gate 13, refused
    wrmsr64 0x40000000, 1
    wrmsr64 {msr}, {low}, {high}
    say 'x'
refused:
    done
"""
    with ran(text) as machine:
        assert machine.console == b""


EXIT = EXIT_NS // 100
"""In the counter's units."""

REFERENCE = """
main:
    rdmsr64 0x40000020, r8
    wrmsr64 0x40000021, 0x9001
    rdtsc64 r12
    rdmsr64 0x40000020, r13
    mov ecx, 50000
spin:
    loop spin
    rdtsc64 r14
    rdmsr64 0x40000020, r15
    rdmsr64 0x40000022, rsi
    rdmsr64 0x40000023, rdi
    rdmsr64 0x40000002, r9
    wrmsr64 0x10, 0, 0x100
    rdtsc64 r10
    rdmsr64 0x40000020, r11
    done
"""


@pytest.mark.parametrize("khz", [1_000_000, 2_345_678])
def test_reference_time_from_page_and_msr_agree(khz: int) -> None:
    with ran(REFERENCE, tsc_khz=khz) as machine:
        reg = machine.cpu
        page = decode_tsc_page(machine.memory.read(PAGE, 24))
        assert (reg["rsi"], reg["rdi"], reg["r9"]) == (khz * 1000, 10**9, 0)
        assert page["sequence"] == 2  # written again when the counter was moved

        def at(tsc: int) -> int:
            return (tsc * page["scale"] >> 64) + page["offset"]

        assert 0 <= reg["r11"] - at(reg["r10"]) - EXIT <= 1
        assert reg["r8"] < 4 * EXIT + 10
        assert 500 <= reg["r15"] - reg["r13"] - EXIT <= 502
        assert 0 <= reg["r11"] - reg["r15"] - 5 * EXIT <= 3
        elapsed = (reg["r14"] - reg["r12"]) * 10_000 // khz
        assert abs(elapsed - (reg["r15"] - reg["r13"])) <= 1


@pytest.mark.parametrize("khz", [1_000_000, 2_345_678])
def test_reference_time_follows_the_hosts_clock(khz: int) -> None:
    before_ns = time.monotonic_ns()
    with ran(REFERENCE, tsc_khz=khz, clock="host") as machine:
        reg = machine.cpu
        page = decode_tsc_page(machine.memory.read(PAGE, 24))
        passed = (time.monotonic_ns() - before_ns) // 100

        def at(tsc: int) -> int:
            return (tsc * page["scale"] >> 64) + page["offset"]

        assert page["sequence"] == 2
        assert reg["r8"] <= reg["r13"] < reg["r15"] <= reg["r11"] < passed
        assert at(reg["r10"]) <= reg["r11"] + 1  # the counter was read before


STIMER = """
main:
    gate 0x60, tick
    with_synic
    wrmsr64 0x40000092, 0x60            # source 2
    rdmsr64 0x40000020, r12
    {start}
    mov r13d, {ticks}
wait:
    sti
    hlt
    cli
    test r13d, r13d
    jnz wait
    {stop}
    rdmsr64 0x40000020, r15
    rdmsr64 0x400000B0, r9
    done
tick:
    say 't'
    mov eax, [0xA200]
    mov r10d, eax
    mov rax, [0xA210 + 8]
    mov [0x9000], rax
    mov rax, [0xA210 + 16]
    mov [0x9008], rax
    mov dword ptr [0xA200], 0
    dec r13d
    end_of_interrupt
    iretq
"""
ONE_SHOT = """
    mov rax, r12
    add rax, 1000
    xor edx, edx
    mov ecx, 0x400000B1
    wrmsr
"""


def test_one_shot_timer_sends_a_message() -> None:
    text = STIMER.format(start=ONE_SHOT + "wrmsr64 0x400000B0, 0x20001\n", ticks=1, stop="")
    with ran(text) as machine:
        assert machine.console == b"t"
        expiration, delivery = unpack("<2Q", machine.memory.read(PAGE, 16))
        assert machine.cpu["r10"] == TIMER_EXPIRED
        assert expiration == machine.cpu["r12"] + 1000
        assert expiration <= delivery <= expiration + 1
        assert machine.cpu["r9"] == 0x20000  # a one-shot timer switches itself off


def test_timers_keep_the_hosts_time() -> None:
    before_ns = time.monotonic_ns()
    start = "wrmsr64 0x400000B1, 20000\n    wrmsr64 0x400000B0, 0x20003\n"
    with ran(STIMER.format(start=start, ticks=5, stop="wrmsr64 0x400000B0, 0"), clock="host") as machine:
        assert machine.console == b"t" * 5
        assert time.monotonic_ns() - before_ns >= 5 * 2_000_000
        assert machine.cpu["r15"] - machine.cpu["r12"] >= 5 * 20_000 - 20_000  # late ticks do not put off the next


def test_auto_enabled_timer_is_switched_on_by_its_count() -> None:
    text = STIMER.format(start="wrmsr64 0x400000B0, 0x20008\n" + ONE_SHOT, ticks=1, stop="")
    with ran(text) as machine:
        assert machine.console == b"t"
        assert machine.cpu["r9"] == 0x20008


def test_periodic_timer_ticks_until_it_is_stopped() -> None:
    start = "wrmsr64 0x400000B1, 500\n    wrmsr64 0x400000B0, 0x20003\n"
    with ran(STIMER.format(start=start, ticks=10, stop="wrmsr64 0x400000B0, 0")) as machine:
        assert machine.console == b"t" * 10
        assert 5000 <= machine.cpu["r15"] - machine.cpu["r12"] < 5100


@pytest.mark.parametrize(
    ("config", "sleep"),
    [
        ("0x20003", "sti"),  # the slot is taken: ticks are lost
        ("0x30003", "sti"),  # that source is masked
        ("0x20003", "cli"),
        ("0x1603", "cli"),  # direct mode
        ("0x1083", "sti"),  # a vector that is an exception's
    ],
)
def test_machine_ends_when_no_timer_can_wake_it(config: str, sleep: str) -> None:
    text = f"""
main:
    gate 0x60, tick
    with_synic
    wrmsr64 0x40000092, 0x60
    mov dword ptr [0xA200], 0x80000010
    wrmsr64 0x400000B1, 500
    wrmsr64 0x400000B0, {config}
    {sleep}
    hlt
    say 'x'
    done
tick:
    iretq
"""
    with ran(text) as machine:
        assert machine.console == b""


def test_auto_end_of_interrupt_and_direct_mode() -> None:
    text = """
main:
    gate 0x60, tick
    gate 0x70, direct
    with_synic
    spin
    wrmsr64 0x40000093, 0x20060         # source 3, ends by itself
    wrmsr64 0x400000B1, 1
    wrmsr64 0x400000B0, 0x30001         # long over: at once
    sti
    chance
    wrmsr64 0x400000B3, 1
    wrmsr64 0x400000B2, 0x1701          # timer 1, direct, vector 0x70
    chance
    cli
    mov r12d, [rbx + 0x130]             # in service, 0x60 to 0x7F
    done
tick:
    say 't'
    iretq
direct:
    say 'd'
    iretq
"""
    with ran(text) as machine:
        assert machine.console == b"td"
        assert machine.cpu["r12"] == 1 << 16  # only the one whose handler forgot to end it
        decoded = vcpu_of(machine).interfaces.decode()
        message = decoded["hyperv_synic"]["sints"][3]["message"]
        assert decode_payload(message["payload"])["timer_index"] == 0


def test_message_waits_for_its_slot_until_the_guest_says_that_it_is_free() -> None:
    text = """
main:
    gate 0x60, tick
    with_synic
    wrmsr64 0x40000092, 0x60
    mov dword ptr [0xA200], 0x80000010  # taken
    spin
    wrmsr64 0x400000B1, 1
    wrmsr64 0x400000B0, 0x20001
    sti
    chance
    say 'n'
    mov r12b, [0xA205]                  # flags: another waits
    mov dword ptr [0xA200], 0
    wrmsr64 0x40000084, 0               # end of message
    chance
    cli
    done
tick:
    say 't'
    end_of_interrupt
    iretq
"""
    with ran(text) as machine:
        assert machine.console == b"nt"
        assert machine.cpu["r12"] & 0xFF == 1
        slot = machine.memory.read(SLOTS + 0x200, 256)
        assert decode_message(slot)["type"] == TIMER_EXPIRED


def test_apic_registers_and_assist_page() -> None:
    text = """
main:
    gate 0x40, handler
    gate 0x50, by_page
    wrmsr64 0x40000072, 0x20            # TPR
    mov r12d, [rbx + 0x80]
    rdmsr64 0x40000072, r13
    wrmsr64 0x40000071, 0x44040         # ICR: self
    rdmsr64 0x40000071, r14
    sti
    chance
    cli
    wrmsr64 0x40000073, 0x9001
    wrmsr64 0x40000071, 0x44050
    sti
    chance
    cli
    mov r15d, [rbx + 0x120]
    done
handler:
    say 'h'
    wrmsr64 0x40000070, 0               # EOI
    iretq
by_page:
    say 'p'
    btr dword ptr [0x9000], 0
    jc over
    say 'x'
over:
    iretq
"""
    with ran(text) as machine:
        assert machine.console == b"hp"
        assert (machine.cpu["r12"], machine.cpu["r13"], machine.cpu["r14"]) == (0x20, 0x20, 0x44040)
        assert machine.cpu["r15"] == 0


def test_apic_registers_of_an_x2apic() -> None:
    text = """
main:
    gate 0x40, handler
    mov ecx, 0x1B                       # IA32_APIC_BASE: x2APIC mode
    rdmsr
    or eax, 0xC00
    wrmsr
    wrmsr64 0x40000071, 0x4040, 0       # to APIC id 0
    rdmsr64 0x40000071, r14
    sti
    chance
    cli
    done
handler:
    say 'h'
    wrmsr64 0x40000070, 0
    iretq
"""
    with ran(text) as machine:
        assert machine.console == b"h"
        assert machine.cpu["r14"] == 0x4040


def test_reset_ends_the_run() -> None:
    with Machine(guest(PRELUDE + "main:\n    wrmsr64 0x40000003, 1\nl:  jmp l\n"), **OPTIONS) as machine:
        assert machine.run(timeout=10).end is End.RESET


POST = """
main:
    gate 0x60, handler
    with_hypercalls
    with_synic
    wrmsr64 0x40000095, 0x60            # source 5
    hypercall {control}, {input}
    mov r12, rax
    sti
    chance
    cli
    done
handler:
    say 'm'
    end_of_interrupt
    iretq
"""


def posted(control: int, address: int, data: bytes = b"") -> tuple[int, bytes, Machine]:
    """Status, console and the machine, whose connection 7 leads to source 5 of vCPU 0."""
    machine = Machine(guest(PRELUDE + POST.format(control=control, input=address)), **OPTIONS)
    synic = vcpu_of(machine).interfaces.parts["hyperv_synic"]
    partition = vcpu_of(machine).shared.partition
    assert partition is not None

    def take(message: Message) -> int:
        return Status.SUCCESS if synic.deliver(5, message) else Status.INSUFFICIENT_BUFFERS  # type: ignore[attr-defined]

    def signal() -> int:
        synic.set_flag(5, 9)  # type: ignore[attr-defined]
        return Status.SUCCESS

    partition.message_ports[7] = take
    partition.event_ports[7] = signal
    machine.memory.write(0xD000, data)
    assert machine.run(timeout=10).end is End.HALT
    return machine.cpu["r12"], machine.console, machine


def test_posted_message_reaches_its_port() -> None:
    data = pack("<IIII", 7, 0, 0x1234, 5) + b"hello"
    status, console, machine = posted(0x5C, 0xD000, data)
    with machine:
        assert (status, console) == (Status.SUCCESS, b"m")
        found = decode_message(machine.memory.read(SLOTS + 5 * 256, 256))
        assert (found["type"], found["payload"]) == (0x1234, b"hello")


@pytest.mark.parametrize(
    ("control", "address", "data", "status"),
    [
        (0x5C, 0xD001, b"", Status.INVALID_ALIGNMENT),
        (0x5C, 0xFFFF_FFFF_F000, b"", Status.INSUFFICIENT_MEMORY),
        (0x1005C, 0xD000, b"", Status.INVALID_HYPERCALL_CODE),
        (0x1_0000_005C, 0xD000, b"", Status.INVALID_HYPERCALL_INPUT),
        (0x5C, 0xD000, pack("<IIII", 8, 0, 1, 5), Status.INVALID_CONNECTION_ID),
        (0x5C, 0xD000, pack("<IIII", 7, 0, 1, 241), Status.INVALID_HYPERCALL_INPUT),
        (0x5C, 0xD000, pack("<IIII", 7, 0, 0x8000_0001, 1), Status.INVALID_HYPERCALL_INPUT),
        (0x1005D, 8, b"", Status.INVALID_CONNECTION_ID),
        (0x1005D, 1 << 24, b"", Status.INVALID_HYPERCALL_INPUT),
        (0x1005D, 1 << 32 | 7, b"", Status.INVALID_PORT_ID),
        (0x5D, 0xD004, b"", Status.INVALID_ALIGNMENT),
        (0x5D, 0xFFFF_FFFF_F000, b"", Status.INSUFFICIENT_MEMORY),
        (0x2005D, 0xD000, b"", Status.INVALID_HYPERCALL_INPUT),
        (0x5E, 0, b"", Status.INVALID_HYPERCALL_CODE),
    ],
)
def test_hypercall_that_cannot_be_carried_out_says_why(control: int, address: int, data: bytes, status: Status) -> None:
    got, console, machine = posted(control, address, data)
    with machine:
        assert (Status(got), console) == (status, b"")


@pytest.mark.parametrize(("control", "data"), [(0x1005D, 7), (0x5D, 0xD000)], ids=["fast", "from memory"])
def test_signalled_event_sets_its_flag_and_interrupts(control: int, data: int) -> None:
    status, console, machine = posted(control, data, pack("<Q", 7))
    with machine:
        assert (status, console) == (Status.SUCCESS, b"m")
        assert machine.memory.read(FLAGS + 5 * 256, 2) == b"\x00\x02"


@pytest.mark.parametrize(("os_id", "rax"), [(0, -1 % (1 << 64)), (OS_ID, 0x8F)], ids=["kvm", "hyperv"])
def test_hypercall_from_cpl3_is_refused_or_undefined(os_id: int, rax: int) -> None:
    with Machine(bytes.fromhex("0f01c1 f4"), cpl=3, registers={"rax": 0x8F}, **OPTIONS) as machine:
        partition = vcpu_of(machine).shared.partition
        assert partition is not None
        partition.guest_os_id = os_id
        assert machine.run(timeout=10).end is End.CRASH
        assert machine.cpu.rax == rax  # KVM_EPERM, or nothing changed by what #UD refused


def test_state_goes_out_and_comes_back() -> None:
    start = "wrmsr64 0x400000B1, 500\n    wrmsr64 0x400000B0, 0x20003\n"
    with ran(STIMER.format(start=start, ticks=2, stop="")) as machine:
        interfaces = vcpu_of(machine).interfaces
        saved = interfaces.state()
        assert saved["hyperv_stimers"]["timers"][0]["armed"]
        interfaces.restore(saved)
        assert interfaces.state() == saved
