"""The trace of instructions: every one, with what it changed, the same in every run."""

from __future__ import annotations

from belljar.machine import End, Machine
from belljar.observe.instruction_trace import write_instructions
from conformance.assembly import guest


def trace(guest: object, **options: object) -> tuple[list[str], Machine]:
    lines: list[str] = []
    with Machine(guest, engine="soft", **options) as machine:
        write_instructions(machine, lines.append)
        assert machine.run(timeout=20).end is End.HALT
    return lines, machine


def test_each_line_tells_address_instruction_and_changed_registers() -> None:
    # mov ax, 7; inc ax; jmp over one byte; hlt
    lines, _ = trace(bytes.fromhex("b80700 40 eb01 90 f4"), mode="real")
    words = [line.split() for line in lines]
    assert [word[2:] for word in words] == [
        ["0x1000", "mov", "ax,", "7", "rax=0x7"],
        ["0x1003", "inc", "ax", "rax=0x8"],
        ["0x1004", "jmp", "short", "0x1007", "rip=0x1007"],
        ["0x1007", "hlt"],
    ]
    assert [int(word[0]) for word in words] == [1, 2, 3, 4]


def test_an_instruction_that_faults_is_marked_and_its_handler_follows() -> None:
    lines, _ = trace("fault")
    marked = [number for number, line in enumerate(lines) if "(exception)" in line]
    assert len(marked) == 1
    assert "mov byte [rax], 1" in lines[marked[0]]
    assert "pop rdx" in lines[marked[0] + 1]


def test_two_traces_are_identical() -> None:
    assert trace("ping-pong")[0] == trace("ping-pong")[0]


def test_the_trace_has_as_many_lines_as_instructions_and_changes_nothing() -> None:
    lines, traced = trace("hello-long")
    with Machine("hello-long", engine="soft") as plain:
        plain.run(timeout=20)
        assert len(lines) == plain.cpu.vcpu.instructions_retired()
        assert traced.console == plain.console


def test_code_that_is_mapped_to_another_page_is_shown_as_it_runs() -> None:
    text = """
main:
    mov word ptr [0x200000], 0xC390     # nop; ret
    mov word ptr [0x400000], 0xC3F8     # clc; ret
    call_it:
    mov eax, 0x200000
    call rax
    test r8d, r8d
    jnz end
    inc r8d
    mov rax, cr3                        # PML4, PDPT, page directory
    mov rax, [rax]
    and rax, -0x1000
    mov rax, [rax]
    and rax, -0x1000
    mov rcx, [rax + 16]                 # what maps 4 MiB shall map 2 MiB, too
    mov [rax + 8], rcx
    invlpg [0x200000]
    jmp call_it
end:
    done
"""
    lines, _ = trace(guest(text), mode="long", page_size=2 << 20)
    shown = [line.split()[3] for line in lines if line.split()[2] == "0x200000"]
    assert shown == ["nop", "clc"]
