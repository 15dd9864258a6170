"""Scenarios of one CPU: behind which instruction an interrupt that waits is taken, and what becomes of one without a gate.

What a handler prints is the offset of the instruction that was next, in the code that was interrupted.
"""

from __future__ import annotations

from .chip_scenarios import EOI, ICR, TPR, ipi, scenario
from .scripts import CODE, LAPIC, WHERE, WINDOW, Script

BEHIND_STORES = "it looks for interrupts between blocks of code, not behind a store to its local APIC"


def interrupted(name: str, expected: str, text: str, *, waiting: tuple[int, ...] = (0x40,), qemu: str = "") -> None:
    """A scenario: some code with interrupts that wait, or that it asks for."""

    def write(s: Script) -> None:
        at = s.place(text)
        handler = Script()
        handler.op(WHERE, at)
        handler.apic(EOI, 0)
        for vector in (0x40, 0x50, 2):
            s.handler(vector, handler)
        for vector in waiting:
            ipi(s, vector)
        s.op(CODE, at)

    write.__name__ = name
    scenario(expected, qemu=qemu, exact=True)(write)


STEPS = "inc eax; inc eax; cli; ret"  # two bytes each

interrupted("sti_holds_for_one_instruction", "=3 !0 40:5/40", f"xor eax, eax; sti; inc eax; {STEPS}")
interrupted("a_second_sti_does_not_hold", "=2 !0 40:4/40", f"xor eax, eax; sti; sti; {STEPS}")
interrupted("cli_behind_sti_lets_nothing_in", "=2", "xor eax, eax; sti; cli; inc eax; inc eax; ret")
interrupted("hlt_behind_sti_is_left", "=1 !0 40:4/40", "xor eax, eax; sti; hlt; inc eax; cli; ret")
interrupted(
    "mov_ss_holds_for_one_instruction",
    "=2 !0 40:a/40",
    f"mov ecx, ss; xor eax, eax; push 0x202; popfq; mov ss, ecx; {STEPS}",
)
interrupted("popf_does_not_hold", "=2 !0 40:8/40", f"xor eax, eax; push 0x202; popfq; {STEPS}")
interrupted(
    "iret_does_not_hold",
    "=2 !0 40:1b/40",
    f"""mov rcx, rsp; mov eax, ss; push rax; push rcx; push 0x202; mov eax, cs; push rax
    lea rax, [rip + 1f]; push rax; xor eax, eax; iretq; 1: {STEPS}""",
)
interrupted("the_higher_class_is_first", "=2 !0 50:5/50 40:5/40", f"xor eax, eax; sti; {STEPS}", waiting=(0x40, 0x50))
interrupted(
    "cr8_lets_in_what_it_held_at_once",
    "=2 !0 40:12/40",
    f"mov eax, 15; mov cr8, rax; sti; nop; nop; xor eax, eax; mov cr8, rax; {STEPS}",
)
interrupted(
    "tpr_does_too", "=2 !0 40:13/40",
    f"""mov edx, {LAPIC + TPR:#x}; mov dword ptr [rdx], 0xF0; sti; nop
    mov dword ptr [rdx], 0; xor eax, eax; {STEPS}""",
    qemu=BEHIND_STORES,
)  # fmt: skip
interrupted(
    "an_ipi_to_oneself_is_taken_behind_its_store", "=2 !0 40:d/40",
    f"mov edx, {LAPIC + ICR:#x}; sti; nop; mov dword ptr [rdx], 0x44040; xor eax, eax; {STEPS}",
    waiting=(), qemu=BEHIND_STORES,
)  # fmt: skip
interrupted(
    "an_nmi_needs_no_flag", "=2 !0 2:c/2",
    f"mov edx, {LAPIC + ICR:#x}; cli; mov dword ptr [rdx], 0x4400; xor eax, eax; {STEPS}",
    waiting=(), qemu=BEHIND_STORES,
)  # fmt: skip


def without_gate(vector: int, *also: int) -> None:
    """A scenario: what is raised for an interrupt whose gate is not present; the gates stand as before afterwards."""
    external = 1
    error = vector << 3 | 2 | external  # SDM 3A 6.13
    expected = "!0 8#0" if also else f"!0 b#{error:x}"

    def write(s: Script) -> None:
        for gate in (vector, *also):
            s.store(16 * gate + 4, 0x400E00)
        ipi(s, vector)
        s.op(WINDOW, 3)
        s.flush()
        for gate in (vector, *also):
            s.store(16 * gate + 4, 0x408E00)
        s.load(LAPIC + 0x120)
        s.apic(EOI, 0)

    write.__name__ = f"without_gates_{vector:x}" + "_".join(f"_{gate:x}" for gate in also)
    scenario(f"{expected} =1", exact=True, qemu="" if also else "it counts gates of 16 bytes in the error code")(write)


without_gate(0x40)
without_gate(0x40, 11)
