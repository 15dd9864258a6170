"""Events and tasks inside VMX: what exits on the way of a delivery is carried on to the right handler, frame and address."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from bare_guest import descriptor, gate, listing

from belljar.machine import End, Machine
from belljar.soft.engine import SoftEngine

CODE, IDT, GDT, TSS1, TSS2, TSS3 = 0x1000, 0x9000, 0xA000, 0xB000, 0x140000, 0x180000
FAR_STACK = 0x50000
"""Linear base of a stack in memory that nobody has touched: the first push of each delivery is an EPT violation."""


def run(engine, mode, code, pieces):
    """Run `code` at CODE, with (address, bytes) pieces in memory, to the halt: registers, and a copy of memory."""
    with Machine(code, engine=engine, mode=mode, load_gpa=CODE, memory=4 << 20) as machine:
        for gpa, data in pieces:
            machine.memory.write(gpa, data)
        result = machine.run(timeout=20, instructions=10_000)
        assert result.end is End.HALT, result
        return machine.cpu.as_dict(), machine.memory.read(0, 4 << 20)


@pytest.mark.parametrize(
    ("text", "vector", "returns"),
    [
        (
            """
        b80050  mov ax, 0x5000
        8ed0    mov ss, ax
        bc0080  mov sp, 0x8000
        cd21    int 0x21
        """,
            0x21,
            0x100A,
        ),
        (
            """
        b80050  mov ax, 0x5000
        8ed0    mov ss, ax
        bc0080  mov sp, 0x8000
        cc      int3
        """,
            3,
            0x1009,
        ),
        (
            """
        b80050  mov ax, 0x5000
        8ed0    mov ss, ax
        bc0080  mov sp, 0x8000
        f1      int1
        """,
            1,
            0x1009,
        ),
        (
            """
        b80050  mov ax, 0x5000
        8ed0    mov ss, ax
        bc0080  mov sp, 0x8000
        0f0b    ud2
        """,
            6,
            0x1008,
        ),
        (
            """
        b80050  mov ax, 0x5000
        8ed0    mov ss, ax
        bc0080  mov sp, 0x8000
        31c9    xor cx, cx
        f7f1    div cx
        """,
            0,
            0x100A,
        ),
    ],
)
def test_first_push_to_an_untouched_stack_loses_nothing(text, vector, returns, soft_engine):
    handler = struct.pack("<HH", 0x2000, 0)
    pieces = ((4 * vector, handler), (0x2000, b"\xf4"))
    registers, memory = run(soft_engine, "real", listing(16, CODE, text), pieces)
    assert registers["rip"] == 0x2001
    assert struct.unpack_from("<HH", memory, FAR_STACK + 0x8000 - 6) == (returns, 0)


def task(rip, stack):
    """A 32-bit TSS."""
    return bytes(0x20) + struct.pack(
        "<II8I6III", rip, 2, 0, 0, 0, 0, stack, 0x10, 0, 0, 0x10, 8, 0x10, 0x10, 0x10, 0x10, 0, 0x680000
    )


MAIN = """
        0f011500180000  lgdt [0x1800]
        0f011d08180000  lidt [0x1808]
        b818000000      mov eax, 0x18
        0f00d8          ltr ax
        bc00700000      mov esp, 0x7000
        9a000000002000  call 0x20:0
        b834120000      mov eax, 0x1234
        8ed8            mov ds, eax
        """
NESTED = """
        ba77000000  mov edx, 0x77
        cf          iret
        """
ON_FAULT = """
        58  pop eax
        f4  hlt
        """


def test_tasks_switch_and_faults_reach_their_task(soft_engine):
    flat = [descriptor(0, 0xFFFFF, 0xC09B), descriptor(0, 0xFFFFF, 0xC093)]
    tasks = [descriptor(base, 0x67, 0x89) for base in (TSS1, TSS2, TSS3)]
    tables = struct.pack("<HIxxHI", 0x2F, GDT, 0x7FF, IDT)
    code = listing(32, CODE, MAIN)
    pieces = (
        (0x1800, tables),
        (0x2000, listing(32, 0x2000, NESTED)),
        (0x3000, listing(32, 0x3000, ON_FAULT)),
        (IDT + 13 * 8, gate(0x28, 0, 5)),
        (GDT, bytes(8) + b"".join(flat + tasks)),
        (TSS2, task(0x2000, 0x150000)),
        (TSS3, task(0x3000, 0x160000)),
    )
    registers, memory = run(soft_engine, "protected", code, pieces)
    assert (registers["rip"], registers["rax"], registers["rsp"]) == (0x3002, 0x1234, 0x160000)
    assert struct.unpack_from("<I", memory, TSS2 + 0x30) == (0x77,)  # EDX of the nested task
    assert struct.unpack_from("<I", memory, TSS1 + 0x20) == (CODE + len(code) - 2,)
    assert struct.unpack_from("<H", memory, TSS3) == (0x18,)


@pytest.mark.parametrize(("without", "shown", "vector"), [((), 1 << 23, None), (("popcnt",), 0, 6)])
def test_a_machine_can_do_without_a_feature(without, shown, vector):
    code = listing(
        64,
        0x1000,
        """
        b801000000  mov eax, 1
        0fa2        cpuid
        89cb        mov ebx, ecx
        f3480fb8d4  popcnt rdx, rsp
        f4          hlt
        """,
    )
    with SoftEngine(without=without) as engine, Machine(code, engine=engine, mode="long", load_gpa=0x1000) as machine:
        result = machine.run(timeout=20, instructions=100)
        assert (result.end is End.HALT) == (vector is None)
        assert machine.cpu.as_dict()["rbx"] & 1 << 23 == shown


def test_software_interrupt_survives_several_exits_on_its_way(soft_engine):
    """The vector table's page, then the stack's: each exit is injected again with the instruction's length."""
    code = listing(
        16,
        CODE,
        """
        0f011e0018  lidt [0x1800]
        b80050      mov ax, 0x5000
        8ed0        mov ss, ax
        bc0080      mov sp, 0x8000
        cd21        int 0x21
        """,
    )
    pieces = ((0, b"\xf4"), (0x1800, struct.pack("<HI", 0x3FF, 0x60000)))
    registers, memory = run(soft_engine, "real", code, pieces)
    assert registers["rip"] == 1
    assert struct.unpack_from("<HH", memory, FAR_STACK + 0x8000 - 6) == (CODE + len(code), 0)


def test_hypercall_at_the_end_of_canonical_addresses_is_followed_by_a_fault_behind_it():
    """Whoever skips the VMCALL leaves RIP where no instruction can be: the processor says so, and VM entry does not."""
    top, handler, tables = (1 << 47) - 3, 0x4000, (0x200000, 0x201000, 0x202000, 0x203000)
    code = b"\x48\xb8" + struct.pack("<Q", top) + b"\xff\xe0"  # mov rax, top; jmp rax
    with Machine(code, engine="soft", mode="long", page_size=4096, load_gpa=CODE) as machine:
        special = machine.cpu.special
        machine.memory.write(special.cr3 + 255 * 8, struct.pack("<Q", tables[0] | 7))
        for table, below in pairwise(tables):
            machine.memory.write(table + 511 * 8, struct.pack("<Q", below | 7))
        machine.memory.write(tables[3] + 0xFFD, bytes.fromhex("0f01c1"))  # vmcall
        machine.memory.write(IDT + 16 * 13, gate(special.cs.selector, handler, 14) + bytes(8))
        machine.memory.write(handler, b"\xf4")
        special.idt.base_gva, special.idt.limit = IDT, 0xFFF
        machine.cpu.special = special
        assert machine.run(timeout=5).end is End.HALT
        registers = machine.cpu.registers
        assert registers.rip == handler + 1
        assert struct.unpack("<2Q", machine.memory.read(registers.rsp, 16)) == (0, 1 << 47)
