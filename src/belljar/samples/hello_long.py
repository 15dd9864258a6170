"""64-bit code, four levels of page tables."""

from belljar.samples.sample import Line, Sample

LISTING = (
    Line(
        "4c 8d 05 1e 00 00 00",
        "lea r8, [rel 0x1025]",
        "relative to RIP, as only 64-bit code can; and R8 is not there before",
    ),
    Line("41 8a 00", "mov al, [r8]", "its next character", label="next"),
    Line("84 c0", "test al, al", "zero ends it"),
    Line("74 07", "je short 0x1015"),
    Line("e6 e9", "out 0xe9, al", "the debug console prints it"),
    Line("49 ff c0", "inc r8"),
    Line("eb f2", "jmp short 0x1007"),
    Line("48 c7 c0 2a 00 00 00", "mov rax, 0x2a", "the answer, 42 ...", label="done"),
    Line("48 89 04 25 00 04 00 00", "mov [0x400], rax", "... and again in memory"),
    Line("f4", "hlt"),
    Line("48 65 6c 6c 6f 2c 20 77 6f 72 6c 64 21 0a 00", 'db "Hello, world!", 10, 0', label="text"),
)

SAMPLE = Sample("hello-long", "64-bit long mode prints Hello, world!", "long", LISTING)
