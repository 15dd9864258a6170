"""The rest of a PC as a guest finds it: clocks that interrupt, ways to reset, a PCI bus with nothing on it, a keyboard."""

from __future__ import annotations

import pytest

from belljar.errors import ConfigurationError
from belljar.machine import End, Machine
from conformance.assembly import guest
from conformance.chips import chips

__all__ = ["chips"]

RTC_PERIODIC = """
main:
    gate 0x38, tick
    redirect 8, 0x38            # IRQ 8: fixed, edge
    mov al, 0x0A                # register A: 1024 Hz
    out 0x70, al
    mov al, 0x26
    out 0x71, al
    mov al, 0x0B                # register B: periodic interrupt, 24 hours
    out 0x70, al
    mov al, 0x42
    out 0x71, al
    mov ecx, 3
wait:
    sti
    hlt
    cli
    test ecx, ecx
    jnz wait
    mov al, 0x0B                # no more
    out 0x70, al
    mov al, 0x02
    out 0x71, al
    say 'e'
    done
tick:
    say 't'
    dec ecx
    mov al, 0x0C                # reading register C lowers the line
    out 0x70, al
    in al, 0x71
    end_of_interrupt
    iretq
"""

HPET_ONE_SHOT = """
.set HPET, 0xFED00000
main:
    gate 0x48, tick
    redirect 20, 0x48
    mov edi, HPET
    mov eax, [rdi]
    say al                      # revision 1
    mov dword ptr [rdi + 0x100], 20 << 9 | 4     # comparator 0: enabled, edge, GSI 20
    mov dword ptr [rdi + 0x104], 0
    mov dword ptr [rdi + 0x108], 100000          # 1 ms
    mov dword ptr [rdi + 0x10C], 0
    mov dword ptr [rdi + 0x10], 1                # go
    sti
    hlt
    cli
    say 'e'
    done
tick:
    say 't'
    end_of_interrupt
    iretq
"""

HPET_REPLACES_THE_8254 = """
.set HPET, 0xFED00000
main:
    gate 0x30, tick
    redirect 2, 0x30            # GSI 0 is on pin 2
    mov al, 0x34                # 8254: counter 0, rate generator, 1 ms
    out 0x43, al
    mov al, 0xA9
    out 0x40, al
    mov al, 0x04
    out 0x40, al
    mov edi, HPET
    mov dword ptr [rdi + 0x100], 4
    mov dword ptr [rdi + 0x108], 2000000         # 20 ms
    mov dword ptr [rdi + 0x10C], 0
    mov dword ptr [rdi + 0x10], 3                # go, in the place of 8254 and RTC
    sti
    hlt
    cli
    mov rax, [rdi + 0xF0]
    cmp rax, 2000000            # the 8254 would have been earlier
    jb early
    say 'e'
early:
    mov dword ptr [rdi + 0x10], 0
    mov al, 0x30                # and the 8254 is quiet again
    out 0x43, al
    done
tick:
    say 't'
    end_of_interrupt
    iretq
"""

KEYBOARD = """
main:
    gate 0x31, key
    redirect 1, 0x31
    mov al, 0xD2                # what follows is as if a key had sent it
    out 0x64, al
    mov al, 'k'
    out 0x60, al
    sti
    chance
    chance
    cli
    say 'e'
    done
key:
    in al, 0x60
    out 0xE9, al
    end_of_interrupt
    iretq
"""

EMPTY_PCI_BUS = """
main:
    mov ebx, 0x80000800         # bus 0, device 1, function 0
    mov ecx, 8 * 31             # all other devices of bus 0
next:
    mov dx, 0xCF8
    mov eax, ebx
    out dx, eax
    mov dx, 0xCFC
    in eax, dx
    inc eax
    jnz taken
    add ebx, 0x100
    loop next
    say 'e'
taken:
    done
"""

ACPI_TIMER = """
main:
    mov dx, 0x608
    in eax, dx
    mov ecx, eax
    mov ebx, 1000000
again:
    in eax, dx                  # until it has counted on
    sub eax, ecx
    and eax, 0xFFFFFF
    cmp eax, 3
    ja counted
    dec ebx
    jnz again
    done
counted:
    say 'e'
    done
"""

CMOS_MEMORY = """
main:
    mov al, 0x34                # 64 KiB units above 16 MiB
    out 0x70, al
    in al, 0x71
    out 0xE9, al
    mov al, 0x35
    out 0x70, al
    in al, 0x71
    out 0xE9, al
    mov al, 0x32                # the century
    out 0x70, al
    in al, 0x71
    out 0xE9, al
    done
"""


def console(text: str, options: dict[str, object], **more: object) -> bytes:
    with Machine(guest(text), **{**options, **more}) as machine:
        result = machine.run(timeout=20)
        assert (result.end, result.status) == (End.HALT, 0), (result.message, machine.console)
        return machine.console


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RTC_PERIODIC, b"ttte"),
        (HPET_ONE_SHOT, b"\x01te"),
        (HPET_REPLACES_THE_8254, b"te"),
        (KEYBOARD, b"ke"),
        (EMPTY_PCI_BUS, b"e"),
        (ACPI_TIMER, b"e"),
    ],
    ids=["rtc", "hpet", "hpet-legacy", "keyboard", "pci", "acpi-timer"],
)
def test_guest_finds_the_devices_of_a_pc(chips: dict[str, object], text: str, expected: bytes) -> None:
    assert console(text, chips) == expected


def test_cmos_tells_the_size_of_memory(chips: dict[str, object]) -> None:
    assert console(CMOS_MEMORY, chips, memory=80 << 20) == b"\x00\x04\x20"


@pytest.mark.parametrize(
    ("code", "source"),
    [
        ("mov al, 0xFE\n out 0x64, al\n", "the keyboard controller"),
        ("mov al, 3\n out 0x92, al\n", "port 0x92"),
        ("mov dx, 0xCF9\n mov al, 6\n out dx, al\n", "port 0xcf9"),
    ],
    ids=["8042", "port 92", "cf9"],
)
def test_a_reset_ends_the_run(chips: dict[str, object], code: str, source: str) -> None:
    with Machine(guest(f"main:\n{code} say 'x'\n jmp .\n"), **chips) as machine:
        result = machine.run(timeout=20)
        assert (result.end, result.status) == (End.RESET, 0)
        assert result.message == f"the guest asked {source} for a reset"
        assert machine.console == b""


def test_an_emulated_clock_tells_the_same_time_in_every_run() -> None:
    code = "main:\n xor al, al\n out 0x70, al\n in al, 0x71\n out 0xE9, al\n done\n"
    assert {console(code, {"engine": "soft", "mode": "long"}) for _ in range(3)} == {b"\x00"}


HPET_FLOOD = """
.set HPET, 0xFED00000
main:
    gate 0x48, tick
    gate 0x38, tick
    redirect 20, 0x48
    redirect 8, 0x38
    mov edi, HPET
    mov dword ptr [rdi + 0x100], 20 << 9 | 0x4C  # periodic, edge, GSI 20, the next write sets the comparator
    mov dword ptr [rdi + 0x104], 0
    mov dword ptr [rdi + 0x108], 1               # 10 ns
    mov dword ptr [rdi + 0x10C], 0
    mov dword ptr [rdi + 0x10], 1
    mov al, 0x0A                                 # the RTC at 8192 Hz
    out 0x70, al
    mov al, 0x23
    out 0x71, al
    mov al, 0x0B
    out 0x70, al
    mov al, 0x42
    out 0x71, al
    mov ecx, 200
    sti
again:
    say 'x'
    dec ecx
    jnz again
    cli
    mov dword ptr [rdi + 0x10], 0
    mov al, 0x02
    out 0x71, al
    done
tick:
    end_of_interrupt
    iretq
"""


FLOOD = """
main:
    gate 0x48, tick
{start}
    mov ecx, 200
    sti
again:
    say 'x'
    dec ecx
    jnz again
    cli
    lapic 0x380, 0
    mov al, 0x30                # counter 0 waits for a count
    out 0x43, al
    done
tick:
    end_of_interrupt
    iretq
"""

LAPIC_FLOOD = FLOOD.format(
    start="""
    lapic 0x3E0, 0xB            # divide by 1
    lapic 0x320, 0x20048        # periodic
    lapic 0x380, 1              # 1 ns
"""
)

PIT_FLOOD = FLOOD.format(
    start="""
    redirect 2, 0x48
    mov al, 0x34                # counter 0, rate generator
    out 0x43, al
    mov al, 2                   # 1.7 us
    out 0x40, al
    mov al, 0
    out 0x40, al
"""
)


@pytest.mark.parametrize("text", [HPET_FLOOD, LAPIC_FLOOD, PIT_FLOOD], ids=["hpet-and-rtc", "lapic", "pit"])
def test_a_flood_of_timer_interrupts_leaves_time_for_the_guest(chips: dict[str, object], text: str) -> None:
    assert console(text, chips) == b"x" * 200


class Mine:
    """A device of the user's, on ports and memory that a PC has something else on."""

    port_width = 1

    def __init__(self, port: int, gpa: int = 0x9000_0000) -> None:
        self.ports = range(port, port + 1)
        self.mmio = range(gpa, gpa + 0x100)
        self.written: list[int] = []

    def port_read(self, port: int, size: int) -> int:
        return 0x55

    def port_write(self, port: int, size: int, value: int) -> None:
        self.written.append(value)

    def mmio_read(self, gpa: int, size: int) -> int:
        return 0x66

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        self.written.append(value)


@pytest.mark.parametrize("port", [0x60, 0x64, 0x70, 0x92, 0xCF8, 0xCF9, 0x608])
def test_what_a_pc_has_gives_way_to_a_device_of_the_users(chips: dict[str, object], port: int) -> None:
    code = (
        f"main:\n mov edx, {port}\n in al, dx\n out dx, al\n mov edi, 0xFED00000\n mov al, [rdi]\n out dx, al\n done\n"
    )
    with Machine(guest(code), **chips) as machine:
        machine.bus.attach(mine := Mine(port, 0xFED0_0000))
        assert machine.run(timeout=20).end is End.HALT
        assert mine.written == [0x55, 0x66]


def test_chips_that_were_asked_for_do_not_give_way() -> None:
    with Machine(b"\xf4", engine="soft", irqchip="user") as machine, pytest.raises(ConfigurationError, match="0x40"):
        machine.bus.attach(Mine(0x40))


def test_chips_that_nobody_asked_for_give_way() -> None:
    with Machine(b"\xe4\x40\xe6\x40\xf4", engine="soft") as machine:  # in al, 0x40; out 0x40, al; hlt
        machine.bus.attach(mine := Mine(0x40))
        assert machine.run(timeout=20).end is End.HALT
        assert mine.written == [0x55]


BARE_TICK = """
main:
    gate 0x40, tick
    lapic 0x3E0, 0xB            # divide by 1
    lapic 0x320, 0x40           # one-shot
    lapic 0x380, 1000000
    sti
    hlt
    say 'e'
    hlt                         # with interrupts on, and nothing that could come
tick:
    say 't'
    end_of_interrupt
    iretq
"""


def test_soft_machines_have_chips_without_being_asked() -> None:
    assert console(BARE_TICK, {"engine": "soft", "mode": "long"}) == b"te"


def test_bare_vcpus_on_soft_start_together_and_end_together() -> None:
    with Machine(guest("main:\n say 'x'\n hlt\n"), engine="soft", mode="long", cpus=3) as machine:
        assert machine.run(timeout=20).end is End.HALT
        assert machine.console == b"xxx"
        assert all(cpu.halted for cpu in machine.cpus)


def test_stepping_a_halt_beside_a_running_vcpu_ends() -> None:
    with Machine(b"\xf4", engine="soft", cpus=2) as machine:
        assert machine.step().end is End.HALT


ALARM_BY_SCI = """
.macro cmos register, value
    mov al, \\register
    out 0x70, al
    mov al, \\value
    out 0x71, al
.endm
main:
    gate 0x39, sci
    redirect 9, 0x8039          # level-triggered
    mov dx, 0x602               # PM1: the alarm's event
    mov ax, 0x400
    out dx, ax
    cmos 1, 0xC0                # each second
    cmos 3, 0xC0
    cmos 5, 0xC0
    cmos 0xB, 0x62              # the alarm's interrupt and the periodic one, on a line that is masked
    sti
    hlt
    cli
    say 'e'
    done
sci:
    say 's'
    mov dx, 0x600
    mov ax, 0x400
    out dx, ax
    end_of_interrupt
    iretq
"""


def test_alarm_wakes_by_acpis_line_who_sleeps_though_the_clocks_own_is_masked() -> None:
    assert console(ALARM_BY_SCI, {"engine": "soft", "irqchip": "user", "mode": "long"}) == b"se"
