"""64-bit code, five levels of page tables; it looks for itself before it says hello."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line("0f 20 e0", "mov rax, cr4"),
    Line("0f ba e0 0c", "bt eax, 0xc", "CR4.LA57: linear addresses have 57 bits"),
    Line("73 25", "jae short 0x102e"),
    Line(
        "4c 8d 05 20 00 00 00",
        "lea r8, [rel 0x1030]",
        "relative to RIP, as only 64-bit code can; and R8 is not there before",
    ),
    Line("41 8a 00", "mov al, [r8]", "its next character", label="next"),
    Line("84 c0", "test al, al", "zero ends it"),
    Line("74 07", "je short 0x101e"),
    Line("e6 e9", "out 0xe9, al", "the debug console prints it"),
    Line("49 ff c0", "inc r8"),
    Line("eb f2", "jmp short 0x1010"),
    Line("48 c7 c0 2a 00 00 00", "mov rax, 0x2a", "the answer, 42 ...", label="done"),
    Line("48 89 04 25 00 04 00 00", "mov [0x400], rax", "... and again in memory"),
    Line("f4", "hlt"),
    Line("0f 0b", "ud2", "not the mode that was promised: crash", label="wrong"),
    Line("48 65 6c 6c 6f 2c 20 77 6f 72 6c 64 21 0a 00", 'db "Hello, world!", 10, 0', label="text"),
)

SAMPLE = Sample("hello-la57", "64-bit mode with 5-level paging prints Hello, world!", "la57", LISTING)
