"""Events and their delivery: shadows, NMI blocking, events that an exit interrupts, double faults, single steps over exits."""

from __future__ import annotations

import pytest

from belljar.exits import ExitReason
from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

SOFT = {"engine": "soft", "irqchip": "user", "mode": "long"}


def console(text: str, options: dict[str, object], end: End = End.HALT) -> bytes:
    """What a guest prints before it sleeps for good."""
    with Machine(guest(text), **options) as machine:
        result = machine.run(timeout=20)
        assert result.end is end, (result.message, machine.console)
        return machine.console


def executes(options: dict[str, object], text: str) -> bool:
    """Whether this engine executes an instruction at CPL0, which not every host's emulator does."""
    with Machine(guest(f"main:\n {text}\n done\n"), **options) as machine:
        return machine.run(timeout=20).end is not End.GAVE_UP


NMI_BLOCKS_NMI = """
main:
    gate 2, nmi
    mov ecx, 1
    call send
    chance
    chance
    say 'e'
    done
send:
    lapic 0x310, 0
    lapic 0x300, 0x4400
    ret
nmi:
    say '('
    dec ecx
    js 1f
    call send                   # one waits until IRET, the others are lost
    call send
    call send
    chance
1:  say ')'
    iretq
"""


def test_one_nmi_waits_for_the_iret_of_another(chips: dict[str, object]) -> None:
    assert console(NMI_BLOCKS_NMI, chips) == b"()()e"


NMI_BEFORE_INTERRUPT = """
main:
    gate 2, nmi
    gate 0x40, interrupt
    lapic 0x300, 0x44040
    sti
    lapic 0x310, 0              # still in the shadow
    chance
    cli
    say 'e'
    done
nmi:
    say 'n'
    iretq
interrupt:
    say 'i'
    lapic 0x300, 0x4400         # NMI: nothing holds it back
    chance
    say ')'
    end_of_interrupt
    iretq
"""


def test_nmi_interrupts_an_interrupt_handler(chips: dict[str, object]) -> None:
    assert console(NMI_BEFORE_INTERRUPT, chips) == b"in)e"


STACK = ".set FRESH, 0x300000            # nobody has touched this page yet: its first use is an EPT violation\n"

EVENT_ON_A_FRESH_STACK = (
    STACK
    + """
main:
    gate %(vector)d, handler
    mov esp, FRESH
    xor r8d, r8d
    %(cause)s
at:
    cli
    cmp r8d, 1
    jne 1f
    say 'e'
1:  done
handler:
    inc r8d
    %(check)s
    cmp r9, r10
    je 1f
    say '!'
1:  say 'h'
    %(leave)s
"""
)

FAULT_RETURNS_BEHIND = "mov qword ptr [rsp], offset at\n iretq"

EVENTS = {
    "interrupt": {
        "vector": 0x40,
        "cause": "lapic 0x300, 0x44040\n sti\n chance",
        "check": "mov r9, [rsp + 24]\n mov r10d, FRESH",
        "leave": "end_of_interrupt\n iretq",
    },
    "nmi": {
        "vector": 2,
        "cause": "lapic 0x310, 0\n lapic 0x300, 0x4400\n chance",
        "check": "mov r9, [rsp + 24]\n mov r10d, FRESH",
        "leave": "iretq",
    },
    "ud": {
        "vector": 6,
        "cause": "cause: ud2",
        "check": "mov r9, [rsp]\n mov r10, offset cause",
        "leave": FAULT_RETURNS_BEHIND,
    },
    "gp": {
        "vector": 13,
        "cause": "mov eax, 0x5678\n cause: mov ds, eax",
        "check": "pop r9\n mov r10d, 0x5678",
        "leave": FAULT_RETURNS_BEHIND,
    },
    "pf": {
        "vector": 14,
        "cause": "mov rax, 0x7fff00001234\n cause: mov [rax], al",
        "check": "pop r9\n mov r10d, 2\n mov rax, cr2\n sub rax, 0x1234\n shl rax, 1\n shr rax, 8\n add r10, rax\n"
        " mov rax, 0xfffe000000\n sub r10, rax",
        "leave": FAULT_RETURNS_BEHIND,
    },
    "bp": {
        "vector": 3,
        "cause": "int3",
        "check": "mov r9, [rsp]\n mov r10, offset at",
        "leave": "iretq",
    },
    "int": {
        "vector": 0x80,
        "cause": "int 0x80",
        "check": "mov r9, [rsp]\n mov r10, offset at",
        "leave": "iretq",
    },
    "prefixed-int": {
        "vector": 0x80,
        "cause": ".byte 0x2E, 0x48\n int 0x80",
        "check": "mov r9, [rsp]\n mov r10, offset at",
        "leave": "iretq",
    },
}


@pytest.mark.parametrize("name", EVENTS)
def test_event_whose_delivery_is_interrupted_by_an_exit_comes_once_and_whole(
    chips: dict[str, object], name: str
) -> None:
    event = EVENTS[name]
    if name in ("bp", "int", "prefixed-int") and not executes(chips, "gate 0x80, 1f\n int 0x80\n1: nop"):
        pytest.skip("this host's KVM does not execute INT at CPL0")
    assert console(EVENT_ON_A_FRESH_STACK % event, chips) == b"he"


@pytest.mark.parametrize("name", EVENTS)
def test_event_whose_stack_is_a_device_is_delivered_into_the_device(name: str) -> None:
    """On KVM an MMIO access during delivery is an internal error; the soft engine does what a processor does."""
    pushed = bytearray(b"\xee" * 4096)

    class Ram:
        """A device that keeps what is written to it, above the machine's memory."""

        mmio = range(0xD000_0000, 0xD000_1000)

        def mmio_read(self, gpa: int, size: int) -> int:
            at = gpa - self.mmio.start
            return int.from_bytes(pushed[at : at + size], "little")

        def mmio_write(self, gpa: int, size: int, value: int) -> None:
            at = gpa - self.mmio.start
            pushed[at : at + size] = value.to_bytes(size, "little")

    text = (EVENT_ON_A_FRESH_STACK % EVENTS[name]).replace("FRESH, 0x300000", "FRESH, 0xD0001000")
    with Machine(guest(text), **SOFT) as machine:
        machine.bus.attach(Ram())
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"he"
        assert machine.cpu.vcpu.exit_counts()[ExitReason.MMIO] > 5


DOUBLE_FAULTS = """
main:
    gate 8, double
    gate 6, undefined
    %(prepare)s
    %(cause)s
    say '-'
    done
double:
    pop rax
    add al, 'D'                 # the error code is 0
    out 0xE9, al
    done
undefined:
    say 'u'
    done
"""

BAD = "mov byte ptr [IDT + 16 * %d + 5], 0x0E"
"""A gate that is not present: #NP where its vector is to be delivered, which is contributory (SDM 3A table 6-4)."""


@pytest.mark.parametrize(
    ("prepare", "cause", "expected"),
    [
        (BAD % 13 + "\n" + BAD % 11, "mov eax, 0x5678\n mov ds, eax", b"D"),
        (BAD % 14, "mov rax, 0x7fff00001234\n mov al, [rax]", b"D"),
        (
            "mov rax, 0x7fff00001000\n mov rsp, rax",
            "mov byte ptr [rax - 0x5000], 1",
            None,
        ),
        (BAD % 0x40 + "\n gate 11, undefined", "lapic 0x300, 0x44040\n sti\n chance", b"u"),
        (BAD % 6 + "\n gate 11, undefined\n gate 13, undefined", "ud2", b"u"),
    ],
    ids=["contributory", "page-fault", "page-fault-twice", "interrupt", "benign"],
)
def test_two_exceptions_make_a_double_fault_by_the_manuals_table(
    chips: dict[str, object], prepare: str, cause: str, expected: bytes | None
) -> None:
    text = DOUBLE_FAULTS % {"prepare": prepare, "cause": cause}
    if expected is None:  # the double fault finds no stack either: shutdown
        assert console(text, chips, End.CRASH) == b""
        return
    printed = console(text, chips)
    if cause == "ud2" and printed == b"D" and chips["engine"].name == "kvm":  # type: ignore[attr-defined]
        pytest.skip("this host's KVM makes a double fault of an undefined opcode and any other fault")
    assert printed == expected


SINGLE_STEP = """
main:
    gate 1, trap
    xor r8d, r8d
    pushfq
    or dword ptr [rsp], 0x100   # TF
    popfq
    nop                         # traps behind this
    %s                          # and behind this
    nop
    pushfq
    and dword ptr [rsp], -0x101
    popfq
    add r8b, '0'
    mov al, r8b
    out 0xE9, al
    done
trap:
    inc r8d
    and byte ptr [rsp + 17], 0xFF
    iretq
"""


@pytest.mark.parametrize("exiting", ["nop", "cpuid", "out 0x80, al", "in al, 0x80", "mov dr0, rax", "rdmsr"])
def test_single_step_trap_comes_behind_an_instruction_that_exits(exiting: str) -> None:
    text = (SINGLE_STEP % exiting).replace("nop   ", "mov ecx, 0x1B\n    nop   ", 1)
    assert console(text, SOFT) == b"7"


def test_single_step_trap_behind_hlt_ends_the_halt() -> None:
    assert console((SINGLE_STEP % "hlt"), SOFT) == b"6"


PORT_BREAKPOINT = """
main:
    gate 1, trap
    mov rax, cr4
    or eax, 8                   # DE: I/O breakpoints
    mov cr4, rax
    mov eax, 0x80
    mov dr0, rax
    mov eax, 0x20002            # G0, I/O, 1 byte
    mov dr7, rax
    out 0x81, al
    out 0x80, al
at:
    say 'e'
    done
trap:
    mov rcx, [rsp]
    mov rdx, offset at
    cmp rcx, rdx
    jne 1f
    say 't'
1:  iretq
"""


def test_port_breakpoint_traps_behind_an_access_that_exits() -> None:
    assert console(PORT_BREAKPOINT, SOFT) == b"te"


IRET_THAT_FAULTS = """
main:
    gate 2, nmi
    gate 13, protection
    lapic 0x310, 0
    lapic 0x300, 0x4400
    chance
    say 'x'
    done
nmi:
    say 'n'
    cmp r15d, 1
    je 2f
    mov r15d, 1
    lapic 0x300, 0x4400         # waits
    push 0
    push 0
    push 0
    push 0x5678                 # no such code segment
    push 0
    iretq
2:  iretq
protection:
    say 'g'
    nop
    say 'h'
    done
"""


def test_iret_unblocks_nmis_even_if_it_faults() -> None:
    assert console(IRET_THAT_FAULTS, SOFT) == b"nngh"


IRET_FROM_A_FRESH_STACK = """
main:
    gate 2, nmi
    lapic 0x310, 0
    lapic 0x300, 0x4400
    chance
    say 'x'
    done
nmi:
    say 'n'
    cmp r15d, 1
    je 1f
    mov r15d, 1
    lapic 0x300, 0x4400
    chance
    say 'w'                     # still blocked
    mov r14, rsp
    mov esp, 0x301000 - 16      # a page that nobody has touched: IRET exits, and is executed again
    iretq
1:  say 'e'
    done
"""


def test_iret_that_exits_unblocks_nmis_only_when_it_is_done() -> None:
    """The null frame that it finds makes it fault at last; that NMIs are open then shows that the blocking was kept exact."""
    text = IRET_FROM_A_FRESH_STACK.replace("gate 2, nmi\n", "gate 2, nmi\n    gate 13, protection\n") + (
        "protection:\n    say 'g'\n    done\n"
    )
    assert console(text, SOFT) == b"nwne"


SHADOWS = """
main:
    gate 0x40, handler
    mov ecx, ss
    lapic 0x300, 0x44040
    sti
    %s
    inc r12d
    inc r12d
    inc r12d
    cli
    mov al, r13b
    add al, '0'
    out 0xE9, al
    done
handler:
    mov r13d, r12d
    end_of_interrupt
    iretq
"""


@pytest.mark.parametrize(
    ("behind", "before_handler"),
    [("nop", b"0"), ("inc r12d", b"1"), ("mov ss, ecx", b"1"), ("pop rax\n push rax", b"0")],
    ids=["nop", "inc", "mov-ss", "pop"],
)
def test_shadow_of_sti_and_mov_ss_covers_one_instruction(behind: str, before_handler: bytes) -> None:
    assert console(SHADOWS % behind, SOFT) == before_handler
