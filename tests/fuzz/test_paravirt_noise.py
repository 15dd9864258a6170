"""Guests that program the paravirtual interfaces with nonsense: nothing raises in Python, and every run ends."""

from __future__ import annotations

from struct import pack

from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.machine import End, Machine
from belljar.soft.hypervisor.vcpu import SoftVcpu
from conformance.assembly import guest

TABLE = 0x20000
ENTRY = "<QQQQ"
LIMIT = 30_000

INTERPRETER = """
main:
    mov rdi, IDT                        # every vector: end the interrupt and go on
    mov ecx, 256
fill:
    mov rax, offset interrupt
    mov [rdi], ax
    mov word ptr [rdi + 2], cs
    mov word ptr [rdi + 4], 0x8E00
    shr eax, 16
    mov [rdi + 6], ax
    mov qword ptr [rdi + 8], 0
    add rdi, 16
    dec ecx
    jnz fill
    gate 13, protection
    gate 6, undefined
    mov r12d, 0x20000
    sti
next:
    mov r13, [r12]
    cmp r13d, 1
    je write
    cmp r13d, 2
    je call
    cmp r13d, 3
    je pause
    cmp r13d, 0
    jne over
    mov ecx, [r12 + 8]
    rdmsr
    jmp done_one
write:
    mov ecx, [r12 + 8]
    mov eax, [r12 + 16]
    mov edx, [r12 + 20]
    wrmsr
    jmp done_one
call:
    mov rax, [r12 + 8]
    mov rcx, [r12 + 8]
    mov rdx, [r12 + 16]
    mov rsi, [r12 + 24]
    mov rbx, [r12 + 16]
    xor r8, r8
    vmcall
    mov ebx, LAPIC
    jmp done_one
pause:
    mov ecx, [r12 + 8]
    and ecx, 0xFF
    inc ecx
spin:
    loop spin
done_one:
    add r12, 32
    jmp next
over:
    done
protection:
    add rsp, 8
    add qword ptr [rsp], 2
    iretq
undefined:
    add qword ptr [rsp], 3
    iretq
interrupt:
    push rbx
    mov ebx, LAPIC
    end_of_interrupt
    pop rbx
    iretq
"""

MSRS = (
    0x10, 0x11, 0x12, 0x3B, 0x6E0, 0x808, 0x80B, 0x830, 0x83F, *range(0x4B564D00, 0x4B564D09), *range(0x40000000, 0x40000004),
    0x40000010, *range(0x40000020, 0x40000024), *range(0x40000070, 0x40000074), *range(0x40000080, 0x40000085),
    *range(0x40000090, 0x400000A0), *range(0x400000B0, 0x400000B8), 0x40000100,
)  # fmt: skip

pages = st.sampled_from([0x9000, 0xA000, 0xB000, 0xC000, 0xD000, 0xFF_F000, 0x100_0000, 0xFEE0_0000, (1 << 46) - 4096])
values = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 300),
    st.tuples(pages, st.integers(0, 63)).map(sum),
    st.integers(0, 0xFFFFF),
    st.sampled_from([(1 << 64) - 1, 1 << 63, 0x20060, 0x2_0060, 0x20003, 0x2000B, 0x1601, 0x30001]),
)
calls = st.one_of(
    st.integers(0, 12), st.sampled_from([0x8, 0x5C, 0x5D, 0x1005C, 0x1005D]), st.integers(0, (1 << 64) - 1)
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just(0), st.sampled_from(MSRS), st.just(0), st.just(0)),
        st.tuples(st.just(1), st.sampled_from(MSRS), values, st.just(0)),
        st.tuples(st.just(2), calls, values, values),
        st.tuples(st.just(3), st.integers(0, 255), st.just(0), st.just(0)),
    ),
    max_size=40,
)


def run(program: list[tuple[int, int, int, int]], cpus: int, khz: int) -> None:
    """Run a program of operations on every vCPU of a machine; look at everything afterwards."""
    table = b"".join(pack(ENTRY, *operation) for operation in program) + pack(ENTRY, 9, 0, 0, 0)
    with Machine(
        guest(INTERPRETER), engine="soft", mode="long", hyperv=True, cpus=cpus, tsc_khz=khz, count_instructions=True
    ) as machine:
        machine.memory.write(TABLE, table)
        result = machine.run(timeout=20, instructions=LIMIT)
        assert result.end in (End.HALT, End.INSTRUCTION_LIMIT, End.CRASH, End.RESET), result
        for cpu in machine.cpus:
            vcpu = cpu.vcpu
            assert isinstance(vcpu, SoftVcpu)
            interfaces = vcpu.interfaces
            interfaces.decode()
            saved = interfaces.state()
            interfaces.restore(saved)
            assert interfaces.state() == saved
            vcpu.get_msrs(MSRS)


@settings(deadline=None)
@given(program=operations, cpus=st.sampled_from([1, 1, 2]), khz=st.sampled_from([1_000_000, 2_400_000, 1_000]))
def test_nonsense_in_paravirtual_msrs_and_hypercalls_never_raises(
    program: list[tuple[int, int, int, int]], cpus: int, khz: int
) -> None:
    run(program, cpus, khz)
