"""KVM's hypercalls on the soft engine (kernel Documentation/virt/kvm/x86/hypercalls.rst)."""

from __future__ import annotations

from struct import unpack

import pytest

from belljar.devices.rtc import DEFAULT_START
from belljar.exits import Hypercall
from belljar.machine import End, Machine
from belljar.soft.hypervisor.charges import EXIT_NS
from conformance.assembly import guest
from conformance.test_paravirt import MACROS

OPTIONS = {"engine": "soft", "irqchip": "user", "mode": "long"}
U64 = 1 << 64
EFAULT, EINVAL, EOPNOTSUPP, ENOSYS, EPERM = 14, 22, 95, 1000, 1

CALL = (
    MACROS
    + """
.macro kvm_call number, a0=0, a1=0, a2=0, a3=0
    mov eax, \\number
    mov rbx, \\a0
    mov rcx, \\a1
    mov rdx, \\a2
    mov rsi, \\a3
    vmcall
    mov ebx, LAPIC
.endm
"""
)


def called(call: str, **options: object) -> int:
    """What a hypercall gives the guest."""
    with Machine(guest(CALL + f"main:\n    kvm_call {call}\n    done\n"), **{**OPTIONS, **options}) as machine:
        assert machine.run(timeout=10).end is End.HALT
        return machine.cpu.rax


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("1", 0),  # VAPIC_POLL_IRQ
        ("2", -ENOSYS),  # MMU_OP, long gone
        ("5, 0, 77", 0),  # KICK_CPU: nobody has that id
        ("9, 0x9000, 1", -EOPNOTSUPP),  # CLOCK_PAIRING: another clock
        ("9, 0xFFFFFF000, 0", -EFAULT),
        ("10, 1, 0, 0, 0x4840", -EINVAL),  # SEND_IPI: logical destination
        ("10, 1, 0, 0, 0x44040", -EINVAL),  # shorthand
        ("10, 2, 0, 0, 0x4040", 0),  # no such CPU
        ("10, -1, -1, -1, 0x4040", 0),
        ("10, 1, 0, 0, 0x4040", 1),
        ("11, 0", 0),  # SCHED_YIELD
        ("12, 0, 1, 0", -ENOSYS),  # MAP_GPA_RANGE: the machine's, if it wants
        ("0xFFFFFFFF", -ENOSYS),
    ],
)
def test_hypercall_answers_as_the_kernel_does(call: str, answer: int) -> None:
    assert called(call) == answer % U64


def test_hypercall_by_amds_instruction_is_one() -> None:
    """As on KVM, which takes either maker's unless it is told not to."""
    with Machine(bytes.fromhex("0f01d9 f4"), registers={"rax": 2}, **OPTIONS) as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert machine.cpu.rax == -ENOSYS % U64


def test_handler_answers_only_what_the_hypervisor_does_not_know() -> None:
    asked: list[int] = []

    def handler(exit: Hypercall) -> int:
        asked.append(exit.number)
        return 55

    assert called("11, 0", hypercall_handler=handler) == 0
    assert called("12, 0", hypercall_handler=handler) == 55
    assert asked == [12]


def test_clock_pairing_tells_both_clocks_of_one_moment() -> None:
    with Machine(guest(CALL + "main:\n    rdtsc64 r12\n    kvm_call 9, 0x9000, 0\n    done\n"), **OPTIONS) as machine:
        assert machine.run(timeout=10).end is End.HALT
        seconds, ns, tsc, flags = unpack("<qqQI", machine.memory.read(0x9000, 28))
        assert (seconds, flags) == (DEFAULT_START, 0)
        assert ns == tsc  # both count nanoseconds from the machine's making
        assert machine.cpu["r12"] + EXIT_NS < tsc < machine.cpu["r12"] + EXIT_NS + 20


SEND = (
    CALL
    + """
main:
    gate 0x40, handler
    kvm_call 10, 0xF, 0, 0, 0x4040      # to all four, this one too
    mov r12, rax
    sti
    mov r13d, 100000
wait:
    cmp dword ptr [0x9000], 4
    je over
    dec r13d
    jnz wait
over:
    cli
    done
handler:
    lock inc dword ptr [0x9000]
    end_of_interrupt
    iretq
other:
"""
)


def test_send_ipi_reaches_every_cpu_of_the_bitmap() -> None:
    # The others start in long mode beside the first, as bare guests do: they let interrupts in and wait.
    text = SEND.replace(
        "main:\n",
        """main:
    mov eax, 1
    push rbx
    cpuid
    shr ebx, 24
    mov r15d, ebx
    pop rbx
    lapic 0xF0, 0x1FF
    test r15d, r15d
    jz first
    mov esp, 0x8000
    shl r15d, 8
    sub esp, r15d
    sti
    hlt
    cli
    done
first:
    mov ecx, 30000                      # the others are asleep by then
spin:
    loop spin
""",
    )
    with Machine(guest(text), engine="soft", mode="long", cpus=4) as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert machine.cpu["r12"] == 4
        assert machine.memory.read_u32(0x9000) == 4


KICK = """
main:
    mov eax, 1
    push rbx
    cpuid
    shr ebx, 24
    mov r15d, ebx
    pop rbx
    test r15d, r15d
    jz first
    cli
    hlt                                 # nothing but the other CPU wakes it
    mov dword ptr [0x9000], 1
    hlt                                 # kicked before: does not halt
    mov dword ptr [0x9004], 1
    done
first:
    {delay}
    kvm_call 5, 0, 1
    {more}
    done
"""
DELAY = "mov ecx, 30000\n77: loop 77b\n"


@pytest.mark.parametrize(
    ("delay", "more", "woken"),
    [(DELAY, "", (1, 0)), (DELAY, DELAY + "kvm_call 5, 0, 1", (1, 1)), ("", "", (1, 0))],
    ids=["once", "twice", "before it halts"],
)
def test_kick_wakes_a_halted_cpu(delay: str, more: str, woken: tuple[int, int]) -> None:
    text = CALL + KICK.format(delay=delay, more=more)
    with Machine(guest(text), engine="soft", mode="long", cpus=2) as machine:
        assert machine.run(timeout=10).end is End.HALT
        assert (machine.memory.read_u32(0x9000), machine.memory.read_u32(0x9004)) == woken
